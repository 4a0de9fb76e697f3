//! Losses averaged over stretches of steps, for plots.

use serde::Serialize;

use super::history::{History, Measured};
use super::summary::Point;
use crate::measures::mean;

/// Largest number of points of a training curve. The losses of a longer run are averaged over stretches of steps.
const STRETCHES: usize = 240;

/// The recorded losses, averaged over stretches of steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LossCurve {
    /// Oldest first.
    pub stretches: Vec<Stretch>,
    /// Epoch, its last step with a finite loss, mean of these losses. Epochs without such a loss are left out.
    pub epochs: Vec<(u64, u64, f64)>,
    /// Number of epochs, with those that have no finite loss.
    pub all_epochs: usize,
    /// Number of steps whose loss is known, and of those whose loss isn't finite.
    pub known: usize,
    /// Of these, the losses that are not finite.
    pub not_finite: usize,
    /// The finite held-out losses of the models after these steps.
    pub held_out: Vec<Point>,
}

/// Consecutive steps, averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// Mean step.
    pub step: f64,
    /// Mean loss.
    pub mean: f64,
    /// Smallest loss.
    pub least: f64,
    /// Largest loss.
    pub largest: f64,
}

/// Held-out losses along a run, with the examples that they are the means of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HeldOutCurve<'a> {
    /// The examples.
    #[serde(flatten)]
    pub measured: Measured,
    /// The finite losses, oldest first.
    pub losses: &'a [Point],
}

impl<'a> HeldOutCurve<'a> {
    /// `None` if none were measured.
    pub fn of(measured: Option<Measured>, curve: &'a LossCurve) -> Option<Self> {
        let losses = &curve.held_out;
        measured.map(|measured| HeldOutCurve { measured, losses })
    }
}

impl LossCurve {
    /// Averages the losses of a history.
    pub fn of(history: &History) -> LossCurve {
        let known = history.rows.iter().filter(|row| row.loss.is_some()).count();
        // Step, epoch, loss.
        let finite: Vec<(u64, u64, f64)> = history
            .rows
            .iter()
            .filter_map(|row| Some((row.step, row.epoch, row.loss?)))
            .filter(|(_, _, loss)| loss.is_finite())
            .collect();
        let length = finite.len().div_ceil(STRETCHES).max(1);
        let count = finite.len().div_ceil(length);
        let epochs = finite.chunk_by(|a, b| a.1 == b.1).map(|chunk| {
            let losses: Vec<f64> = chunk.iter().map(|l| l.2).collect();
            let (step, epoch, _) = chunk[chunk.len() - 1];
            (epoch, step, mean(&losses))
        });
        let held_out = history.rows.iter().filter_map(|row| {
            let loss = row.held_out_loss.filter(|loss| loss.is_finite())?;
            Some(Point {
                step: row.step,
                loss,
            })
        });
        LossCurve {
            stretches: evenly(&finite, count).map(stretch).collect(),
            epochs: epochs.collect(),
            all_epochs: history.epochs().count(),
            known,
            not_finite: known - finite.len(),
            held_out: held_out.collect(),
        }
    }
}

/// Cuts losses into `count` stretches, whose lengths differ by one step at most: the mean of a short one at the end would look
/// like a jump of the loss.
fn evenly<T>(all: &[T], count: usize) -> impl Iterator<Item = &[T]> {
    let cut = move |at: usize| at * all.len() / count;
    (0..count).map(move |at| &all[cut(at)..cut(at + 1)])
}

fn stretch(chunk: &[(u64, u64, f64)]) -> Stretch {
    let steps: Vec<f64> = chunk.iter().map(|l| l.0 as f64).collect();
    let losses: Vec<f64> = chunk.iter().map(|l| l.2).collect();
    Stretch {
        step: mean(&steps),
        mean: mean(&losses),
        least: losses.iter().copied().fold(f64::INFINITY, f64::min),
        largest: losses.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::history;
    use super::*;

    #[test]
    fn a_long_run_is_averaged_over_stretches_and_by_epoch() {
        let losses: Vec<_> = (0..1000)
            .map(|t| (t / 500, Some(if t < 500 { 2.0 } else { 1.0 })))
            .collect();
        let curve = LossCurve::of(&history(&losses));
        assert_eq!(curve.stretches.len(), 200);
        assert_eq!(curve.epochs, [(0, 499, 2.0), (1, 999, 1.0)]);
        let first = curve.stretches[0];
        assert_eq!(
            (first.step, first.mean, first.least, first.largest),
            (2.0, 2.0, 2.0, 2.0)
        );
    }

    #[test]
    fn stretches_are_even() {
        for (steps, count) in [(1, 1), (240, 240), (241, 240), (2000, 240), (15_640, 240)] {
            let losses: Vec<usize> = (0..steps).collect();
            let lengths: Vec<usize> = evenly(&losses, count).map(<[usize]>::len).collect();
            assert_eq!(lengths.iter().sum::<usize>(), steps);
            let ends = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            assert!(*ends.0 > 0 && ends.1 - ends.0 <= 1, "{steps}: {lengths:?}");
        }
        assert_eq!(evenly(&[0; 0], 0).count(), 0);
    }

    #[test]
    fn losses_that_are_not_finite_are_counted_and_not_drawn() {
        let mut history = history(&[
            (0, Some(1.0)),
            (0, Some(f64::NAN)),
            (0, Some(3.0)),
            (1, None),
        ]);
        history.rows[1].held_out_loss = Some(f64::NAN);
        history.rows[2].held_out_loss = Some(0.5);
        let curve = LossCurve::of(&history);
        assert_eq!((curve.known, curve.not_finite), (3, 1));
        assert_eq!((curve.epochs, curve.all_epochs), (vec![(0, 2, 2.0)], 2));
        assert_eq!(curve.held_out, [Point { step: 2, loss: 0.5 }]);
        assert_eq!(LossCurve::of(&History::default()), LossCurve::default());
    }
}
