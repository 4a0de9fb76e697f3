#!/usr/bin/env python3
"""Wrong labels that `hindcast clean` finds after short and long trainings, by its own choice of steps and by all steps.

Usage: evidence_window.py ROWS.csv WORKDIR DATA HINDCAST [SEEDS]

Seeds are A..B (default 0..3). 2,000 examples of three kinds of data, two models each, 5 to 100 epochs at a constant learning
rate, a tenth of the labels flipped at random. Needs numpy. DATA has the folders mnist and adult.
"""

import csv, json, os, shutil, sys
import numpy as np
from dirty_validation import OUT, WORK, idx, run, table

N, TEST, EPOCHS, FLIPPED = 2000, 1000, (5, 10, 20, 50, 100), 0.1
FIELDS = ['data', 'model', 'epochs', 'seed', 'window', 'first epoch', 'last epoch', 'reason', 'found', 'issues', 'precision', 'recall', 'test error', 'test error cleaned']


def dense(width, kind):
    return f'[{{ kind = "linear", out = {width} }}, {{ kind = "{kind}" }}, OUT]'


CONV = '[{ kind = "conv2d", out = 16, kernel = 5, stride = 2, padding = 2 }, { kind = "tanh" }, { kind = "conv2d", out = 32, kernel = 5, stride = 2, padding = 2 }, { kind = "tanh" }, { kind = "flatten" }, OUT]'
FLAT = '[{ kind = "flatten" }, { kind = "linear", out = 128 }, { kind = "relu" }, OUT]'
MODELS = {
    'gaussians': [('linear', '[OUT]', 'sgd', 0.05), ('64 ReLU, SGD', dense(64, 'relu'), 'sgd', 0.1)],
    'table': [('32 tanh, SGD', dense(32, 'tanh'), 'sgd', 0.1), ('64 ReLU, AdamW', dense(64, 'relu'), 'adamw', 0.003)],
    'images': [('CNN, SGD', CONV, 'sgd', 0.05), ('128 ReLU, AdamW', FLAT, 'adamw', 0.001)],
}


def data(kind, rng):
    if kind == 'gaussians':
        centres = 0.55 * rng.normal(size=(6, 24))
        y = rng.integers(0, 6, N + TEST)
        return centres[y] + rng.normal(size=(N + TEST, 24)), y, 6
    if kind == 'table':
        x, y, classes = table()
        i = rng.permutation(len(x))[:N + TEST]
        return (x[i] - x[i].mean(0)) / np.maximum(x[i].std(0), 1e-6), y[i], classes
    i = rng.permutation(60000)[:N + TEST]
    return ((idx('train-images-idx3-ubyte')[i] / 255 - 0.5) / 0.5)[:, None], idx('train-labels-idx1-ubyte')[i].astype(int), 10


def cleaned(folder, window, wrong):
    """What `clean` finds, and the test error before and after."""
    files = {name: os.path.join(folder, name + '.csv') for name in ('issues', 'decisions')}
    for file in files.values():
        if os.path.exists(file):
            os.remove(file)
    said = json.loads(run('clean', os.path.join(folder, 'run'), '--data', folder, '--issues', files['issues'], '--write-decisions', files['decisions'], '--window', window, '--retrain', '--unverified', '--json'))
    rows = list(csv.DictReader(open(files['issues'])))
    assert [int(r['row']) for r in rows] == list(range(N))
    marked = np.array([r['is_label_issue'] == 'true' for r in rows])
    scores = np.array([float(r['rank_score']) for r in rows])
    right, evidence = (marked & wrong).sum(), said['evidence']
    found = wrong[np.argsort(scores, kind='stable')[:wrong.sum()]].mean()
    errors = [next(loss for loss in row['losses'] if loss['split'] == 'test')['error_rate'] for row in said['retrained']]
    # The tables count epochs from 1.
    return [evidence['first_epoch'] + 1, evidence['last_epoch'] + 1, evidence['reason'], found, marked.sum(), right / max(marked.sum(), 1), right / wrong.sum(), errors[0], errors[-1]]


def main():
    first, last = map(int, (sys.argv[5] if len(sys.argv) > 5 else '0..3').split('..'))
    folder = os.path.join(WORK, 'evidence')
    with open(OUT, 'w') as file:
        rows = csv.writer(file)
        rows.writerow(FIELDS)
        for kind, models in MODELS.items():
            for seed in range(first, last):
                rng = np.random.default_rng(seed)
                x, y, classes = data(kind, rng)
                given, wrong = y.copy(), np.zeros(N, bool)
                wrong[rng.permutation(N)[:int(FLIPPED * N)]] = True
                given[:N][wrong] = (y[:N][wrong] + rng.integers(1, classes, wrong.sum())) % classes
                for name, layers, optimizer, rate in models:
                    for epochs in EPOCHS:
                        shutil.rmtree(folder, ignore_errors=True)
                        os.makedirs(folder)
                        for file_name, array in (('x', x[:N].astype(np.float32)), ('y', given[:N].astype(np.int64)), ('tx', x[N:].astype(np.float32)), ('ty', y[N:].astype(np.int64))):
                            np.save(os.path.join(folder, file_name + '.npy'), array)
                        layers_ = layers.replace('OUT', f'{{ kind = "linear", out = {classes} }}')
                        task = os.path.join(folder, 'task.toml')
                        with open(task, 'w') as t:
                            t.write(f'name = "{kind}"\ndescription = "Flipped labels"\n[data]\nsource = "npy"\ntrain_files = {{ inputs = "x.npy", labels = "y.npy" }}\ntest_files = {{ inputs = "tx.npy", labels = "ty.npy" }}\n[model]\ninput = {list(x.shape[1:])}\nlayers = {layers_}\n[loss]\nkind = "cross-entropy"\n[optimizer]\nkind = "{optimizer}"\n[schedule]\nkind = "constant"\nlearning_rate = {rate}\n[train]\nepochs = {epochs}\nbatch = 32\nseed = {seed}\n')
                        run('record', task, '--data', folder, '--out', os.path.join(folder, 'run'))
                        for window in ('all', 'auto'):
                            line = [kind, name, epochs, seed, window, *cleaned(folder, window, wrong)]
                            rows.writerow(line)
                            file.flush()
                            print(*line, flush=True)


if __name__ == '__main__':
    main()
