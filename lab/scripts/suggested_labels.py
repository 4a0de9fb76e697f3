#!/usr/bin/env python3
"""Whether `hindcast clean` is right about its suggested labels: how many issues have a right label, what it advises,
and how many labels its decisions mend and break.

Usage: suggested_labels.py ROWS.csv WORKDIR DATA HINDCAST [SEED SHARE,SHARE,...]

Weak and good models on data whose labels are known, with 0, 10 and 20 % of the training labels flipped (or other shares). The validation labels are
right, or flipped as often. Needs numpy. DATA has the folders mnist, adult and cifar10.
"""

import csv, json, lzma, os, shutil, sys
import numpy as np
from dirty_validation import DATA, OUT, WORK, idx, run, table

N, V = 2000, 600
SEED = int(sys.argv[5]) if sys.argv[5:] else 0
SHARES = [float(share) for share in sys.argv[6].split(',')] if sys.argv[6:] else [0.0, 0.1, 0.2]
MODELS = [('weak', 2, 0.01, 0), ('linear', 10, 0.02, 0), ('64 ReLU', 15, 0.05, 64)]
FIELDS = ['data', 'model', 'flipped', 'validation', 'wrong', 'issues', 'given right', 'suggested right', 'agreement', 'called wrong', 'estimated right', 'right from', 'right to', 'advice', 'mended', 'broken']


def gaussians(scale):
    """24 numbers around the centres of six classes, which overlap the more the smaller the scale is."""
    rng = np.random.default_rng(SEED)
    centres = scale * rng.normal(size=(6, 24))
    y = rng.integers(0, 6, N + V)
    return (centres[y] + rng.normal(size=(N + V, 24))).astype(np.float32), y, 6


def mnist():
    chosen = np.random.default_rng(SEED).permutation(60000)[: N + V]
    images, labels = idx('train-images-idx3-ubyte'), idx('train-labels-idx1-ubyte')
    return (images[chosen].reshape(N + V, -1) / 255).astype(np.float32), labels[chosen].astype(int), 10


def cifar10():
    with lzma.open(os.path.join(DATA, 'cifar10', 'data_batch_1.bin.xz')) as file:
        rows = np.frombuffer(file.read(), np.uint8).reshape(-1, 3073)
    rows = rows[np.random.default_rng(SEED).permutation(len(rows))[: N + V]]
    small = rows[:, 1:].reshape(-1, 3, 16, 2, 16, 2).mean((3, 5))
    return (small.reshape(N + V, -1) / 255).astype(np.float32), rows[:, 0].astype(int), 10


def adult():
    x, y, classes = table()
    chosen = np.random.default_rng(SEED).permutation(len(x))[: N + V]
    return x[chosen], y[chosen], classes


KINDS = {
    'separate classes': lambda: gaussians(1.0),
    'overlapping classes': lambda: gaussians(0.55),
    'nearly equal classes': lambda: gaussians(0.3),
    'MNIST': mnist,
    'CIFAR-10': cifar10,
    'Adult': adult,
}


def recorded(x, y, classes, epochs, rate, hidden):
    """Records a run on the first N rows, with the others as the validation split."""
    path = os.path.join(WORK, 'suggested')
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    for name, rows in (('', slice(0, N)), ('v', slice(N, None))):
        np.save(os.path.join(path, name + 'x.npy'), x[rows])
        np.save(os.path.join(path, name + 'y.npy'), y[rows].astype(np.int64))
    inner = f'{{ kind = "linear", out = {hidden} }}, {{ kind = "relu" }}, ' if hidden else ''
    text = f'''name = "suggested"
[data]
source = "npy"
train_files = {{ inputs = "x.npy", labels = "y.npy" }}
validation_files = {{ inputs = "vx.npy", labels = "vy.npy" }}
test = 0
standardise = true
pick = "first"
[model]
input = [{x.shape[1]}]
layers = [{inner}{{ kind = "linear", out = {classes} }}]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = {rate}
[train]
epochs = {epochs}
batch = 32
seed = {SEED}
'''
    open(os.path.join(path, 'task.toml'), 'w').write(text)
    run('record', os.path.join(path, 'task.toml'), '--data', path, '--out', os.path.join(path, 'run'))
    return path


def main():
    with open(OUT, 'w') as file:
        rows = csv.writer(file)
        rows.writerow(FIELDS)
        for kind, make in KINDS.items():
            x, truth, classes = make()
            for share in SHARES:
                rng = np.random.default_rng(SEED + 1)
                flips = rng.random(N + V) < share
                flipped = truth.copy()
                flipped[flips] = (flipped[flips] + rng.integers(1, classes, flips.sum())) % classes
                for validation in ('right', 'flipped') if share else ('right',):
                    y = flipped.copy()
                    if validation == 'right':
                        y[N:] = truth[N:]
                    for model, epochs, rate, hidden in MODELS:
                        path = recorded(x, y, classes, epochs, rate, hidden)
                        issues = os.path.join(path, 'issues.csv')
                        words = ['--issues', issues, '--write-decisions', os.path.join(path, 'decisions.csv'), '--json']
                        said = json.loads(run('clean', os.path.join(path, 'run'), '--data', path, *words))
                        marked = [r for r in csv.DictReader(open(issues)) if r['is_label_issue'] == 'true']
                        is_truth = lambda column: sum(int(r[column]) == truth[int(r['row'])] for r in marked)
                        trust = said['suggestions'] or {}
                        line = [kind, model, share, validation, flips[:N].sum(), len(marked), is_truth('given_label'), is_truth('predicted_label')]
                        line += [trust.get(key, '') for key in ('agreement', 'called_wrong', 'right')]
                        line += [*trust.get('right_interval', ('', '')), trust.get('advice', '')]
                        # What the decisions do by default.
                        changed = [r for r in csv.DictReader(open(os.path.join(path, 'decisions.csv'))) if r['decision'] == 'relabel']
                        becomes = lambda column: sum(int(r[column]) == truth[int(r['row'])] for r in changed)
                        line += [becomes('suggested'), becomes('given')]
                        rows.writerow(line)
                        file.flush()
                        print(*line, flush=True)


if __name__ == '__main__':
    main()
