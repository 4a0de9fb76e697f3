#!/usr/bin/env python3
"""Predicted against real changes for groups of examples: the worst, random ones, and random ones of one class.

Usage: groups.py ROWS.csv WORKDIR DATA HINDCAST NAME...

Each NAME is a key of RUNS. Rows that ROWS.csv already has are kept, so the same command continues after an interruption.
"""

import csv, json, os, random, shutil, subprocess, sys
OUT, WORK, DATA, BIN = sys.argv[1:5]
os.makedirs(WORK, exist_ok=True)
RELU = ['data.flipped=0.1', 'model.layers.1.kind=relu', 'model.layers.3.kind=relu', 'schedule.kind=constant']
ADULT = ['data.train=10000', 'data.validation=5000', 'data.test=200']
DIGITS = [10, 30, 50, 100, 250, 300, 1000, 3000]
TABLE = [10, 30, 100, 300, 500, 1000, 3000]
RUNS = {'digits': ('digits', None, 5, [], DIGITS), 'digits-relu': ('digits', None, 5, RELU, DIGITS), 'adult': ('adult-dnn', 'adult', 10, ADULT, TABLE), 'adult-tanh': ('adult-dnn', 'adult', 10, ADULT + ['model.layers.1.kind=tanh', 'model.layers.3.kind=tanh'], TABLE), 'digits-tanh': ('digits', None, 5, ['data.flipped=0.1', 'schedule.kind=constant'], DIGITS)}
DRAWS = 2

def hindcast(*args):
    p = subprocess.run([BIN, *args], capture_output=True, text=True)
    if p.returncode:
        raise SystemExit('%s\n%s' % (' '.join(args), p.stderr))
    return json.loads(p.stdout)
FIELDS = ['run', 'seed', 'window', 'kind', 'draw', 'examples', 'predicted', 'real', 'value', 'drift']
done = set()
if os.path.exists(OUT):
    done = {tuple((r[k] for k in FIELDS[:5])) for r in csv.DictReader(open(OUT))}
else:
    csv.writer(open(OUT, 'w')).writerow(FIELDS)

for name in sys.argv[5:]:
    task, folder, epochs, sets, sizes = RUNS[name]
    for seed in range(3):
        cells = [(w, kind, draw) for w, kind, draws in [('averaged', 'worst', 1), ('averaged', 'random', DRAWS), ('averaged', 'class', DRAWS), ('all', 'worst', 1)] for draw in range(draws)]
        cells = [c for c in cells if (seed < 2 or c[1] == 'worst') and (name, str(seed), c[0], c[1], str(c[2])) not in done]
        if not cells:
            continue
        run = os.path.join(WORK, 'run')
        shutil.rmtree(run, ignore_errors=True)
        data = ['--data', os.path.join(DATA, folder)] if folder else []
        steps = hindcast('record', task, *data, '--out', run, *[a for s in sets + ['train.seed=%d' % seed] for a in ('--set', s)], '--json')['steps']
        averaged = steps * -(-epochs // 4) // epochs
        tables = {}
        for w, kind, draw in cells:
            window = '%d..%d' % (steps - averaged, steps) if w == 'averaged' else 'all'
            table = os.path.join(WORK, w + '.csv')
            if w not in tables:
                value = hindcast('influence', run, *data, '--window', window, '--out', table, '--json')['queries'][0]['value']
                tables[w] = (list(csv.DictReader(open(table))), value)
            rows, value = tables[w]
            limit = len(rows)
            path = table
            if kind != 'worst':
                rng = random.Random(1000 * seed + draw)
                order = list(rows)
                rng.shuffle(order)
                if kind == 'class':
                    labels = sorted({r['label'] for r in rows})
                    c = labels[(draw + seed) % len(labels)]
                    order.sort(key=lambda r: r['label'] != c)
                    limit = sum((r['label'] == c for r in rows))
                path = os.path.join(WORK, 'order.csv')
                with open(path, 'w') as f:
                    out = csv.DictWriter(f, rows[0].keys())
                    out.writeheader()
                    for i, r in enumerate(order):
                        out.writerow({**r, 'influence': i - len(order), 'influence_renormalised': i - len(order)})
            j = hindcast('counterfactual', run, *data, '--at', 'mean', '--window', window, '--scan', ','.join((str(k) for k in sizes if k <= limit)), path, '--json')
            with open(OUT, 'a') as f:
                for s in j['scan']:
                    csv.writer(f).writerow([name, seed, w, kind, draw, s['examples'], s['predicted_change'], s['real_change'], value, j['value_with_everyone'] - value])
            print(name, seed, w, kind, draw, [(s['examples'], round(s['ratio'], 3)) for s in j['scan']], flush=True)
