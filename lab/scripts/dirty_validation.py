#!/usr/bin/env python3
"""Labels flipped in the training and the validation split: the share of the training flips in the lowest tenth, by method.

Usage: dirty_validation.py ROWS.csv WORKDIR DATA HINDCAST table|embeddings...

Needs numpy. DATA has the folders mnist and adult. Rows that ROWS.csv already has are kept, so the same command continues
after an interruption.
"""

import csv, gzip, json, math, os, shutil, struct, subprocess, sys, tomllib
import numpy as np
OUT, WORK, DATA, BIN = sys.argv[1:5]
os.makedirs(WORK, exist_ok=True)
N, V, FOLDS = (10000, 5000, 5)
METHODS = [('sgd', 'mean'), ('sgd', 'final'), ('hessian-free', 'mean'), ('tracin', 'mean'), ('koh-liang-sgd', 'mean'), ('koh-liang-cg', 'mean'), ('margin', 'mean'), ('mean-loss', 'mean'), ('forgetting', 'mean'), ('self-influence', 'mean')]

def run(*args):
    p = subprocess.run([BIN, *map(str, args)], capture_output=True, text=True)
    if p.returncode:
        raise SystemExit('%s\n%s' % (' '.join(map(str, args)), p.stderr))
    return p.stdout

def tensors(path):
    with open(path, 'rb') as f:
        n = struct.unpack('<Q', f.read(8))[0]
        head = json.loads(f.read(n))
        body = f.read()
    kinds = {'F32': np.float32, 'F64': np.float64}
    return {k: np.frombuffer(body[v['data_offsets'][0]:v['data_offsets'][1]], kinds[v['dtype']]).reshape(v['shape']) for k, v in head.items() if k != '__metadata__' and v['dtype'] in kinds}

def idx(name):
    with gzip.open(os.path.join(DATA, 'mnist', name + '.gz')) as f:
        raw = f.read()
    dims = struct.unpack('>%dI' % raw[3], raw[4:4 + 4 * raw[3]])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(dims)

def conv(x, w, b):
    p = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(2, 3))
    return np.einsum('nchwij,ocij->nohw', p, w, optimize=True) + b[None, :, None, None]

def pool(x):
    return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))

def embeddings():
    """The last hidden layer (320 numbers) of an MNIST CNN that was trained on other images with right labels."""
    path = os.path.join(WORK, 'embedder')
    if not os.path.exists(path + '.npz'):
        shutil.rmtree(path, ignore_errors=True)
        run('record', 'mnist-cnn', '--data', os.path.join(DATA, 'mnist'), '--out', path, '--set', 'data.pick=first', '--set', 'data.train=10000', '--set', 'data.validation=1000', '--set', 'data.test=0', '--set', 'train.epochs=1')
        if os.path.exists(path + '.safetensors'):
            os.remove(path + '.safetensors')
        run('checkpoint', path, '--step', 'final', '--out', path + '.safetensors')
        t = tensors(path + '.safetensors')
        names = sorted((k for k in t if 'conv' in k))
        images, labels = (idx('train-images-idx3-ubyte')[20000:20000 + N + V], idx('train-labels-idx1-ubyte')[20000:20000 + N + V])
        out = []
        for i in range(0, len(images), 500):
            x = (images[i:i + 500, None] / 255.0 - 0.5) / 0.5
            for layer in ('0', '3'):
                w, b = (next((t[k] for k in names if k.startswith(layer + '.') and k.endswith(e))) for e in ('weight', 'bias'))
                x = pool(np.maximum(conv(x, w, b), 0))
            out.append(x.reshape(len(x), -1))
        np.savez(path + '.npz', x=np.concatenate(out).astype(np.float32), y=labels.astype(np.int64))
    z = np.load(path + '.npz')
    return (z['x'], z['y'], 10)

def table():
    """Adult, encoded as the task adult-dnn encodes it."""
    task = tomllib.loads(run('task', 'show', 'adult-dnn'))['data']
    rows = []
    for name in ('adult-training.csv', 'adult-test.csv'):
        with gzip.open(os.path.join(DATA, 'adult', name + '.gz'), 'rt') as f:
            rows += [[c.strip() for c in l.split(',')] for l in f if l.strip() and (not l.startswith('|'))]
    merged = {col: {old: new for new, olds in m.items() for old in olds} for col, m in task['merge'].items()}
    rng = np.random.default_rng(0)
    rows = [rows[i] for i in rng.permutation(len(rows))[:N + V]]
    cols = []
    for i, col in enumerate(task['columns']):
        values = [merged.get(col, {}).get(r[i], r[i]) for r in rows]
        if col == 'income':
            y = np.array([task['class_names'].index(v) for v in values])
        elif col in task['categorical']:
            cols += [np.array([v == c for v in values], np.float32) for c in sorted(set(values))]
        else:
            cols.append(np.log1p(np.array(values, float)) if col in task['log1p'] else np.array(values, float))
    return (np.stack(cols, 1).astype(np.float32), y, 2)

def task(kind, width, folder, seed):
    data = 'source = "npy"\ntrain_files = { inputs = "x.npy", labels = "y.npy" }\nvalidation_files = { inputs = "vx.npy", labels = "vy.npy" }\ntest = 0\nstandardise = true\npick = "first"\n'
    if kind == 'embeddings':
        model = f'[model]\ninput = [{width}]\nlayers = [{{ kind = "linear", out = 10 }}]\n[loss]\nkind = "cross-entropy"\n[optimizer]\nkind = "sgd"\n[schedule]\nkind = "constant"\nlearning_rate = 0.01\n[train]\nepochs = 8\nbatch = 32\nseed = {seed}\n'
    else:
        model = f'[model]\ninput = [{width}]\nlayers = [{{ kind = "linear", out = 8 }}, {{ kind = "relu" }}, {{ kind = "linear", out = 8 }}, {{ kind = "relu" }}, {{ kind = "linear", out = 1 }}]\n[loss]\nkind = "binary-cross-entropy"\n[optimizer]\nkind = "sgd"\n[schedule]\nkind = "constant"\nlearning_rate = 0.1\n[train]\nepochs = 8\nbatch = 20\nseed = {seed}\n'
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, 'task.toml')
    open(path, 'w').write(f'name = "dirty-{kind}"\ndescription = "Flipped labels in both splits"\n[data]\n{data}{model}')
    return path

def record(kind, folder, x, y, vx, vy, seed):
    shutil.rmtree(folder, ignore_errors=True)
    toml = task(kind, x.shape[1], folder, seed)
    for name, a in (('x', x), ('vx', vx)):
        np.save(os.path.join(folder, name + '.npy'), a)
    for name, a in (('y', y), ('vy', vy)):
        np.save(os.path.join(folder, name + '.npy'), a.astype(np.int64))
    out = os.path.join(folder, 'run')
    return (out, json.loads(run('record', toml, '--data', folder, '--out', out, '--json'))['steps'])

def confidence(kind, model, x, y, vx, vy):
    """Probability of the given label of each row of vx, by the model in a safetensors file."""
    m, s = (x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64))
    s[s == 0] = 1
    t = tensors(model)
    z = (vx - m) / s
    layers = sorted({k.rsplit('.', 1)[0] for k in t}, key=lambda k: int(k.split('.')[0]))
    for i, l in enumerate(layers):
        z = z @ t[l + '.weight'].T + t[l + '.bias']
        z = np.maximum(z, 0) if i + 1 < len(layers) else z
    if kind == 'table':
        p = 1 / (1 + np.exp(-z[:, 0]))
        return np.where(vy == 1, p, 1 - p)
    z = z - z.max(1, keepdims=True)
    p = np.exp(z)
    p /= p.sum(1, keepdims=True)
    return p[np.arange(len(vy)), vy]

def found(scores, flips):
    return float(flips[np.argsort(scores, kind='stable')[:N // 10]].sum() / flips.sum())

def area(scores, flips):
    order = np.argsort(scores, kind='stable')
    ranks = np.empty(N)
    ranks[order] = np.arange(1, N + 1)
    k = flips.sum()
    return float(1 - (ranks[flips].sum() - k * (k + 1) / 2) / (k * (N - k)))

def main():
    FIELDS = ['data', 'seed', 'validation', 'method', 'at', 'found', 'area']
    done = set()
    if os.path.exists(OUT):
        done = {tuple((r[k] for k in FIELDS[:5])) for r in csv.DictReader(open(OUT))}
    else:
        csv.writer(open(OUT, 'w')).writerow(FIELDS)

    def emit(*row):
        with open(OUT, 'a') as f:
            csv.writer(f).writerow(row)
        print(*row, flush=True)

    for kind in sys.argv[5:]:
        x, clean, classes = embeddings() if kind == 'embeddings' else table()
        for seed in range(3):
            rng = np.random.default_rng(seed + 1)
            y = clean.copy()
            flips = np.zeros(len(y), bool)
            for a, b in ((0, N), (N, N + V)):
                flips[a + rng.permutation(b - a)[:(b - a) // 10]] = True
            y[flips] = (y[flips] + rng.integers(1, classes, flips.sum())) % classes
            for validation in ('dirty', 'clean'):
                todo = [(m, at) for m, at in METHODS if (kind, str(seed), validation, m, at) not in done and (validation == 'dirty' or (m in ('sgd', 'hessian-free', 'tracin', 'koh-liang-sgd') and at == 'mean'))]
                if not todo:
                    continue
                folder = os.path.join(WORK, 'main')
                vy = (y if validation == 'dirty' else clean)[N:]
                out, steps = record(kind, folder, x[:N], y[:N], x[N:], vy, seed)
                window = '%d..%d' % (steps * 6 // 8, steps)
                for m, at in todo:
                    table_ = os.path.join(WORK, 'scores.csv')
                    w = window if m in ('sgd', 'hessian-free') else 'all'
                    j = json.loads(run('influence', out, '--data', folder, '--method', m, '--at', at, '--window', w, '--out', table_, '--json'))
                    scores = np.full(N, np.inf)
                    for r in csv.DictReader(open(table_)):
                        assert int(r['row']) == int(r['index'])
                        if r['influence']:
                            scores[int(r['index'])] = float(r['influence'])
                    if m == 'sgd' and validation == 'dirty':
                        ck = os.path.join(WORK, 'ck.safetensors')
                        if os.path.exists(ck):
                            os.remove(ck)
                        run('checkpoint', out, *(['--at', 'mean'] if at == 'mean' else ['--step', 'final']), '--out', ck)
                        p = confidence(kind, ck, x[:N], y[:N], x[N:], vy)
                        print('check: validation loss', j['queries'][0]['value'], -np.log(p).mean(), flush=True)
                        if at == 'mean':
                            emit(kind, seed, validation, 'confidence of the recorded model', at, found(confidence(kind, ck, x[:N], y[:N], x[:N], y[:N]), flips[:N]), area(confidence(kind, ck, x[:N], y[:N], x[:N], y[:N]), flips[:N]))
                    emit(kind, seed, validation, m, at, found(scores, flips[:N]), area(scores, flips[:N]))
            if (kind, str(seed), '', 'cross-validated self-confidence', 'mean') not in done:
                p = np.empty(N)
                folds = rng.permutation(N) % FOLDS
                for k in range(FOLDS):
                    i, o = (np.where(folds != k)[0], np.where(folds == k)[0])
                    folder = os.path.join(WORK, 'fold')
                    out, _ = record(kind, folder, x[i], y[i], x[o], y[o], seed)
                    ck = os.path.join(folder, 'ck.safetensors')
                    run('checkpoint', out, '--at', 'mean', '--out', ck)
                    p[o] = confidence(kind, ck, x[i], y[i], x[o], y[o])
                emit(kind, seed, '', 'cross-validated self-confidence', 'mean', found(p, flips[:N]), area(p, flips[:N]))

if __name__ == '__main__':
    main()
