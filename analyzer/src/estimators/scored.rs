//! The scores of an answer, of which the table's rows are made one at a time.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::estimate::Estimate;
use crate::run::recorded::RecordedRun;
use crate::scores::{RowPrediction, ScoreMetadata, ScoreRow, ScoreTable};

/// The scores of all training examples, as one list per query. A row of the table takes some hundred bytes more than its
/// scores, so rows are made when they are needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Where the numbers come from.
    pub metadata: ScoreMetadata,
    estimate: Estimate,
    /// One entry per training example; empty without predictions.
    predictions: Vec<RowPrediction>,
}

impl Scored {
    pub(super) fn new(
        metadata: ScoreMetadata,
        estimate: Estimate,
        predictions: Vec<RowPrediction>,
    ) -> Self {
        Scored {
            metadata,
            estimate,
            predictions,
        }
    }

    /// Number of training examples.
    pub fn examples(&self) -> usize {
        self.estimate.occurrences.len()
    }

    /// Number of training examples that are in no scored batch.
    pub fn never_seen(&self) -> usize {
        let occurrences = self.estimate.occurrences.iter();
        occurrences.filter(|n| **n == 0).count()
    }

    /// One row per training example of the run, in the order of their indices.
    pub fn rows<'a>(&'a self, run: &'a RecordedRun<'_>) -> impl Iterator<Item = ScoreRow> + 'a {
        (0..self.examples()).map(|i| self.row(run, i))
    }

    fn row(&self, run: &RecordedRun<'_>, i: usize) -> ScoreRow {
        ScoreRow {
            prediction: self.predictions.get(i).cloned(),
            ..self.estimate.row(run, i, &self.metadata.epochs)
        }
    }

    /// The whole table.
    pub fn table(self, run: &RecordedRun<'_>) -> ScoreTable {
        ScoreTable {
            rows: self.rows(run).collect(),
            metadata: self.metadata,
        }
    }

    /// The rows of the `k` smallest and the `k` largest scores of each query. [`ScoreTable::worst`] and [`ScoreTable::best`]
    /// return from them what they return from the whole table, for at most `k` examples.
    pub fn extremes(&self, run: &RecordedRun<'_>, k: usize) -> ScoreTable {
        let mut wanted = BTreeSet::new();
        for query in 0..self.estimate.queries.len() {
            let scores = || (0..).zip(self.estimate.scores(query));
            let ascending =
                |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            wanted.extend(first(k, scores(), ascending));
            wanted.extend(first(k, scores(), |a, b| ascending(b, a)));
        }
        ScoreTable {
            rows: wanted.into_iter().map(|i| self.row(run, i)).collect(),
            metadata: self.metadata.clone(),
        }
    }
}

/// The first `k` examples in an order of their scores. Examples without a score, and NaN, have no place in the order.
fn first(
    k: usize,
    scores: impl Iterator<Item = (usize, Option<f64>)>,
    order: impl Fn(&(f64, usize), &(f64, usize)) -> Ordering,
) -> Vec<usize> {
    /// Examples beyond `k` that are collected before they are dropped.
    const SLACK: usize = 1 << 10;
    let mut kept: Vec<(f64, usize)> = Vec::new();
    let cut = |kept: &mut Vec<(f64, usize)>| {
        kept.sort_unstable_by(&order);
        kept.truncate(k);
    };
    for (i, score) in scores {
        let Some(score) = score.filter(|score| !score.is_nan()) else {
            continue;
        };
        kept.push((score, i));
        if kept.len() >= k.saturating_mul(2).saturating_add(SLACK) {
            cut(&mut kept);
        }
    }
    cut(&mut kept);
    kept.into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_many_scores_are_those_of_the_sorted_list() {
        // Repeated values, and examples without a score.
        let score = |i: usize| match i % 11 {
            3 => None,
            4 => Some(f64::NAN),
            _ => Some(((i * i) % 1013) as f64 - 500.0),
        };
        let scores: Vec<(usize, Option<f64>)> = (0..5000).map(|i| (i, score(i))).collect();
        let ascending =
            |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let mut sorted: Vec<(f64, usize)> = scores
            .iter()
            .filter_map(|(i, score)| Some((score.filter(|x| !x.is_nan())?, *i)))
            .collect();
        sorted.sort_by(ascending);
        for k in [0, 1, 40, 3000, 10_000] {
            let all = || scores.iter().copied();
            let expected = |sorted: &[(f64, usize)]| -> Vec<usize> {
                sorted.iter().take(k).map(|(_, i)| *i).collect()
            };
            assert_eq!(first(k, all(), ascending), expected(&sorted));
            let mut turned = sorted.clone();
            turned.reverse();
            assert_eq!(first(k, all(), |a, b| ascending(b, a)), expected(&turned));
        }
    }
}
