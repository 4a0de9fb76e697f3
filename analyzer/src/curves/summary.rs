//! A history in a few numbers.

use std::ops::Range;

use serde::Serialize;

use super::history::{History, HistoryRow};
use crate::measures;

/// A history in a few numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// First step, and one more than the last.
    pub steps: Range<u64>,
    /// Number of steps in the history.
    pub rows: usize,
    /// The recorded batch losses.
    pub losses: LossSummary,
    /// The epochs, oldest first.
    pub epochs: Vec<EpochSummary>,
}

/// Recorded batch losses. First, last and smallest are among the finite ones, and `None` if there are none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossSummary {
    /// Number of steps whose loss was recorded.
    pub known: usize,
    /// Of these, the losses that are not finite.
    pub not_finite: usize,
    /// The first step with such a loss.
    pub first_not_finite: Option<u64>,
    /// The first one.
    pub first: Option<Point>,
    /// The last one.
    pub last: Option<Point>,
    /// The smallest one.
    pub smallest: Option<Point>,
}

/// A loss at a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The step.
    pub step: u64,
    /// The loss.
    pub loss: f64,
}

/// Consecutive steps of one epoch. Losses are the finite recorded ones, and `None` if there are none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EpochSummary {
    /// The epoch.
    pub epoch: u64,
    /// First step, and one more than the last.
    pub steps: Range<u64>,
    /// Mean over its steps, each with the same weight.
    pub mean_loss: Option<f64>,
    /// Smallest loss.
    pub smallest_loss: Option<f64>,
    /// Largest loss.
    pub largest_loss: Option<f64>,
    /// Learning rate of its last step, of the first parameter group.
    pub learning_rate: Option<f64>,
    /// Mean norm of the gradients. `None` if none is known or it isn't finite, as for the next two.
    pub gradient_norm: Option<f64>,
    /// ‖θ‖ before its last step.
    pub parameter_norm: Option<f64>,
    /// Mean norm of the updates.
    pub update_norm: Option<f64>,
    /// The newest held-out loss in it; `None` if none was measured or it isn't finite.
    pub held_out_loss: Option<f64>,
    /// The share of wrong predictions that goes with it; `None` unless the model is a classifier.
    pub held_out_error: Option<f64>,
}

impl Summary {
    /// Sums up a history.
    pub fn of(history: &History) -> Summary {
        Summary {
            steps: history.span(),
            rows: history.rows.len(),
            losses: losses(&history.rows),
            epochs: history.epochs().filter_map(epoch).collect(),
        }
    }
}

/// The finite losses of rows.
fn finite(rows: &[HistoryRow]) -> impl DoubleEndedIterator<Item = Point> {
    rows.iter().filter_map(|row| {
        let loss = row.loss.filter(|loss| loss.is_finite())?;
        Some(Point {
            step: row.step,
            loss,
        })
    })
}

fn losses(rows: &[HistoryRow]) -> LossSummary {
    let broken = |row: &&HistoryRow| row.loss.is_some_and(|loss| !loss.is_finite());
    LossSummary {
        known: rows.iter().filter(|row| row.loss.is_some()).count(),
        not_finite: rows.iter().filter(broken).count(),
        first_not_finite: rows.iter().find(broken).map(|row| row.step),
        first: finite(rows).next(),
        last: finite(rows).next_back(),
        smallest: finite(rows).min_by(|a, b| a.loss.total_cmp(&b.loss)),
    }
}

fn epoch(rows: &[HistoryRow]) -> Option<EpochSummary> {
    let (first, last) = (rows.first()?, rows.last()?);
    let losses: Vec<f64> = finite(rows).map(|point| point.loss).collect();
    let measured = rows.iter().rev().find(|row| row.held_out_loss.is_some());
    let some = |x: f64| Some(x).filter(|x| x.is_finite());
    let mean = |of: fn(&HistoryRow) -> Option<f64>| {
        let known: Vec<f64> = rows.iter().filter_map(of).collect();
        some(measures::mean(&known))
    };
    Some(EpochSummary {
        epoch: first.epoch,
        steps: first.step..last.step + 1,
        mean_loss: some(measures::mean(&losses)),
        smallest_loss: some(losses.iter().copied().fold(f64::INFINITY, f64::min)),
        largest_loss: some(losses.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        learning_rate: last.learning_rates.first().copied(),
        gradient_norm: mean(|row| row.gradient_norm),
        parameter_norm: last.parameter_norm.and_then(some),
        update_norm: mean(|row| row.update_norm),
        held_out_loss: measured.and_then(|row| row.held_out_loss).and_then(some),
        held_out_error: measured.and_then(|row| row.held_out_error),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Steps from 0 on with these epochs and losses.
    pub fn history(losses: &[(u64, Option<f64>)]) -> History {
        let rows = (0..).zip(losses).map(|(step, &(epoch, loss))| HistoryRow {
            step,
            epoch,
            learning_rates: vec![0.1],
            batch_size: 8,
            loss,
            scalars: Vec::new(),
            gradient_norm: None,
            parameter_norm: None,
            update_norm: None,
            held_out_loss: None,
            held_out_error: None,
        });
        History {
            rows: rows.collect(),
            ..History::default()
        }
    }

    #[test]
    fn losses_that_are_not_finite_are_counted_and_left_out() {
        let mut history = history(&[
            (0, Some(f64::NAN)),
            (0, Some(3.0)),
            (0, None),
            (1, Some(1.0)),
            (1, Some(f64::INFINITY)),
            (1, Some(2.0)),
            (2, None),
        ]);
        history.rows[4].held_out_loss = Some(0.75);
        history.rows[3].update_norm = Some(1.0);
        history.rows[4].update_norm = Some(4.0);
        let summary = Summary::of(&history);
        let losses = &summary.losses;
        assert_eq!((losses.known, losses.not_finite), (5, 2));
        assert_eq!(losses.first_not_finite, Some(0));
        let at = |point: Option<Point>| point.map(|p| (p.step, p.loss));
        assert_eq!(at(losses.first), Some((1, 3.0)));
        assert_eq!(at(losses.last), Some((5, 2.0)));
        assert_eq!(at(losses.smallest), Some((3, 1.0)));
        let epochs = &summary.epochs;
        let of = |e: &EpochSummary| (e.epoch, e.steps.clone(), e.mean_loss, e.held_out_loss);
        assert_eq!(of(&epochs[0]), (0, 0..3, Some(3.0), None));
        assert_eq!(of(&epochs[1]), (1, 3..6, Some(1.5), Some(0.75)));
        assert_eq!(of(&epochs[2]), (2, 6..7, None, None));
        assert_eq!(
            (epochs[1].update_norm, epochs[2].update_norm),
            (Some(2.5), None)
        );
        assert_eq!(Summary::of(&History::default()).steps, 0..0);
    }
}
