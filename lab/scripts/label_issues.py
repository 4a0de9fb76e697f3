#!/usr/bin/env python3
"""Which labels `hindcast clean` calls wrong, and what relabelling or dropping them does to a test split with right labels.

Usage: label_issues.py ROWS.csv WORKDIR DATA HINDCAST table|embeddings...

A share of the training labels (0, 0.1 and 0.2) is flipped; the data are those of dirty_validation.py. Needs numpy.
"""

import csv, json, os, shutil, sys
import numpy as np
from dirty_validation import DATA, N, OUT, WORK, area, embeddings, found, run, table, task

FIELDS = ['data', 'flipped', 'seed', 'wrong', 'issues', 'precision', 'recall', 'suggested right', 'found', 'area', 'decision', 'K', 'test loss', 'test error']


def folder(kind, x, y, clean, seed):
    """A data folder with training labels y, and the other examples with right labels as the test split."""
    path = os.path.join(WORK, 'issues')
    shutil.rmtree(path, ignore_errors=True)
    toml = task(kind, x.shape[1], path, seed)
    text = open(toml).read().replace('validation_files', 'test_files').replace('test = 0\n', '')
    open(toml, 'w').write(text)
    for name, array in (('x', x[:N]), ('y', y[:N].astype(np.int64)), ('vx', x[N:]), ('vy', clean[N:].astype(np.int64))):
        np.save(os.path.join(path, name + '.npy'), array)
    out = os.path.join(path, 'run')
    run('record', toml, '--data', path, '--out', out)
    return path, out


def main():
    with open(OUT, 'w') as file:
        rows = csv.writer(file)
        rows.writerow(FIELDS)
        for kind in sys.argv[5:]:
            x, clean, classes = embeddings() if kind == 'embeddings' else table()
            for share in (0.0, 0.1, 0.2):
                for seed in range(3):
                    rng = np.random.default_rng(seed + 1)
                    y, flips = clean.copy(), np.zeros(len(clean), bool)
                    flips[rng.permutation(N)[: int(share * N)]] = True
                    y[flips] = (y[flips] + rng.integers(1, classes, flips.sum())) % classes
                    path, out = folder(kind, x, y, clean, seed)
                    for decision in ('relabel', 'drop'):
                        issues, decisions = (os.path.join(path, name + '.csv') for name in ('issues', decision))
                        said = json.loads(run('clean', out, '--data', path, '--issues', issues, '--write-decisions', decisions, '--decide', decision, '--retrain', '--json'))
                        table_ = list(csv.DictReader(open(issues)))
                        assert [int(r['row']) for r in table_] == list(range(N))
                        marked = np.array([r['is_label_issue'] == 'true' for r in table_])
                        suggested = np.array([int(r['predicted_label']) for r in table_])
                        scores = np.array([float(r['rank_score']) for r in table_])
                        wrong = flips[:N]
                        right = (marked & wrong).sum()
                        judged = [
                            right / max(marked.sum(), 1),
                            right / wrong.sum() if wrong.any() else '',
                            (suggested == clean[:N])[marked].mean() if marked.any() else '',
                            *([found(scores, wrong), area(scores, wrong)] if wrong.any() else ['', '']),
                        ]
                        for row in said['retrained']:
                            test = next(loss for loss in row['losses'] if loss['split'] == 'test')
                            line = [kind, share, seed, wrong.sum(), marked.sum(), *judged, decision, row['decisions'], test['loss'], test['error_rate']]
                            rows.writerow(line)
                            file.flush()
                            print(*line, flush=True)


if __name__ == '__main__':
    main()
