#!/usr/bin/env python3
"""The verdict against retraining: one CSV row per run, query point and window.

Usage: trust.py ROWS.csv WORKDIR DATA HINDCAST

A row has the verdicts, the retrained sets as JSON lists, and signs that need no retraining (norm of the query's
gradient, growth of the adjoint, losses of the last and the averaged model). DATA has the folders mnist, adult and
20news. Rows that ROWS.csv already has are kept, so the same command continues after an interruption.
"""

import csv, json, os, shutil, subprocess, sys
OUT, WORK, DATA, BIN = sys.argv[1:5]
os.makedirs(WORK, exist_ok=True)
SMOOTH = ['model.layers.1.kind=tanh', 'model.layers.2.kind=avg_pool2d', 'model.layers.4.kind=tanh', 'model.layers.5.kind=avg_pool2d']

def sched(kind, lr):
    return ['schedule={kind="%s",learning_rate=%s}' % (kind, lr)]

def digits(act, kind, lr):
    return ['data.flipped=0.1'] + ([f'model.layers.{i}.kind=relu' for i in (1, 3)] if act == 'relu' else []) + sched(kind, lr)

def small(act, kind, lr, n):
    return (['data.train=%d' % n, 'data.validation=2000', 'data.test=200'] if n > 200 else []) + ([f'model.layers.{i}.kind=tanh' for i in (1, 3)] if act == 'tanh' else []) + sched(kind, lr)

def cnn(act, kind, lr, epochs):
    return ['data.train=10000', 'data.validation=2000', 'data.test=200', 'train.epochs=%d' % epochs] + (SMOOTH if act == 'smooth' else []) + sched(kind, lr)
RUNS = []

def add_digits(act, kind, lr, seeds, more=[]):
    RUNS.append(('digits', None, 5000, 5, act, kind, lr, digits(act, kind, lr), seeds, more))

def add_cnn(act, kind, lr, epochs, seeds):
    RUNS.append(('mnist-cnn', 'mnist', 10000, epochs, act, kind, lr, cnn(act, kind, lr, epochs), seeds, []))
add_digits('relu', 'constant', 0.05, 3, ['all'])
add_digits('tanh', 'linear', 0.05, 2, ['all'])

for task, folder in [('mnist-dnn', 'mnist'), ('adult-dnn', 'adult'), ('news-dnn', '20news')]:
    RUNS.append((task, folder, 200, 10, 'relu', 'constant', 0.1, small('relu', 'constant', 0.1, 200), 2, ['all']))

for act, kind, seeds in [('relu', 'constant', 3), ('tanh', 'constant', 1), ('relu', 'linear', 1)]:
    RUNS.append(('adult-dnn', 'adult', 5000, 10, act, kind, 0.1, small(act, kind, 0.1, 5000), seeds, ['all']))
add_cnn('relu', 'constant', 0.05, 1, 3)
add_digits('relu', 'constant', 0.2, 2)
add_digits('tanh', 'constant', 0.05, 1)

for act, kind, rate in [('relu', 'constant', 0.02), ('relu', 'constant', 0.3), ('tanh', 'constant', 0.3)]:
    RUNS.append(('adult-dnn', 'adult', 5000, 10, act, kind, rate, small(act, kind, rate, 5000), 1, []))
add_cnn('relu', 'linear', 0.05, 1, 1)
add_digits('relu', 'linear', 0.05, 1)

for act, rate in [('relu', 0.1), ('tanh', 0.1), ('relu', 0.02)]:
    RUNS.append(('mnist-dnn', 'mnist', 3000, 10, act, 'constant', rate, small(act, 'constant', rate, 3000) + ['data.skip=0'], 1, []))
FIELDS = ['task', 'n', 'epochs', 'activation', 'schedule', 'rate', 'seed', 'at', 'window', 'averaged_steps', 'loss_at', 'loss_final', 'u', 'growth', 'growth_max', 'predicted_share', 'unchecked_one', 'unchecked_together', 'check_one', 'check_together', 'scan_together', 'other_one', 'other_together', 'check', 'other', 'scan']

def hindcast(*args):
    p = subprocess.run([BIN, *args], capture_output=True, text=True)
    if p.returncode:
        raise SystemExit('%s\n%s' % (' '.join(args), p.stderr))
    return json.loads(p.stdout)

def verdict(trust):
    return (trust['one_at_a_time']['verdict'], trust['together']['verdict'])
done = set()
if os.path.exists(OUT):
    done = {tuple((r[k] for k in FIELDS[:9])) for r in csv.DictReader(open(OUT))}
else:
    csv.writer(open(OUT, 'w')).writerow(FIELDS)

for task, folder, n, epochs, act, kind, lr, sets, seeds, more in RUNS:
    for seed in range(seeds):
        key = [task, n, epochs, act, kind, lr, seed]
        cells = [(at, w) for at in ('mean', 'final') for w in ['averaged'] + (more if at == 'mean' and seed == 0 else [])]
        cells = [c for c in cells if tuple(map(str, key + list(c))) not in done]
        if not cells:
            continue
        run = os.path.join(WORK, 'run')
        shutil.rmtree(run, ignore_errors=True)
        data = ['--data', os.path.join(DATA, folder)] if folder else []
        rec = hindcast('record', task, *data, '--out', run, *[a for s in sets + ['train.seed=%d' % seed] for a in ('--set', s)], '--json')
        steps = rec['steps']
        for at, w in cells:
            table = os.path.join(WORK, 'scores.csv')
            probe = hindcast('influence', run, *data, '--at', 'mean', '--window', '%d..%d' % (steps - 1, steps), '--out', os.path.join(WORK, 'probe.csv'), '--json')['at']
            count = int(probe.split(':')[1].split('-')[0])
            averaged = count if probe.endswith('steps') else steps * count // epochs
            window = '%d..%d' % (steps - averaged, steps) if w == 'averaged' else 'all'
            base = ['influence', run, *data, '--at', at, '--window', window, '--json']
            plain = hindcast(*base, '--out', table)
            meta = json.load(open(table + '.meta.json'))['queries'][0]['growth']['norms']
            check, other = [hindcast(*base, '--out', os.path.join(WORK, 'checked%d.csv' % s), '--retrain-check', n, '--retrain-seed', str(s)) for s, n in ((0, '10'), (1, '10'))]
            ks = [n // 500, n // 166, n // 50, n // 16] if n > 200 else [1 + n // 100, 3 * n // 100, 6 * n // 100, 12 * n // 100]
            ks = [max(2, k) for k in ks]
            scan = hindcast('counterfactual', run, *data, '--at', at, '--window', window, '--scan', ','.join(map(str, ks)), table, '--json')
            q = plain['queries'][0]
            groups = lambda j: [(s['chosen_as'], len(s['without']), s['predicted_change'], s['real_change']) for s in j['retrain_check']['sets']]
            worst = [g for g in groups(check) if g[0].startswith('worst')][0]
            everyone = scan['retraining']['everyone']
            final = everyone.get('at_end') or everyone
            row = key + [at, w, averaged if at == 'mean' else 1, q['value'], final['queries'][0], q['growth']['first'], q['growth']['factor'], max((v for _, v in meta)) / q['growth']['first'], abs(worst[2]) / q['value'], *verdict(q['trust']), *verdict(check['queries'][0]['trust']), verdict(scan['trust'])[1], *verdict(other['queries'][0]['trust']), json.dumps(groups(check)), json.dumps(groups(other)), json.dumps([(s['examples'], s['predicted_change'], s['real_change']) for s in scan['scan']])]
            with open(OUT, 'a') as f:
                csv.writer(f).writerow(row)
            print(*row[:23], flush=True)
