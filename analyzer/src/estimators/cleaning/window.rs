//! Which forward passes of a training are evidence about its labels.

use std::fmt;
use std::ops::Range;

use super::evidence::LabelEvidence;
use super::issues::confident;
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::estimators::estimate::occurrences;
use crate::run::recorded::RecordedRun;
use crate::run::window::Window;
use crate::sweep::{Observer, Part, Stage};

/// Number of epochs over which changes of predictions are averaged.
const SMOOTHED: usize = 4;

/// The steps whose forward passes say most about the labels: late enough that the model has learned, and early enough that
/// it hasn't memorised wrong labels. The rule and its sources are in docs/math.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceWindow {
    /// Steps [A, B).
    pub steps: Range<u64>,
    /// The first and the last of its epochs, by their recorded numbers, which begin with 0.
    pub epochs: (u64, u64),
    /// The epoch, numbered likewise, up to which the model learned: the last one if it never began to memorise.
    pub turn: u64,
    /// Number of epochs that the run holds.
    pub held: usize,
    /// Why these.
    pub reason: WindowReason,
    /// Estimate of the number of wrong labels: the median over the epochs up to [`turn`](Self::turn). `None` if the run
    /// doesn't hold the beginning of its training.
    pub wrong: Option<usize>,
}

/// Why the evidence ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowReason {
    /// From [`EvidenceWindow::turn`] on, more predictions changed again.
    Memorising,
    /// Ever fewer predictions changed, to the end of the run.
    Learning,
    /// There are too few epochs to see whether more predictions changed again.
    FewEpochs,
    /// The run doesn't hold the beginning of its training.
    OnlyLate,
}

impl WindowReason {
    /// The word for scripts.
    pub fn word(self) -> &'static str {
        match self {
            WindowReason::Memorising => "memorising",
            WindowReason::Learning => "learning",
            WindowReason::FewEpochs => "few-epochs",
            WindowReason::OnlyLate => "only-late",
        }
    }
}

/// A sentence for the user.
impl fmt::Display for EvidenceWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = &self.steps;
        if self.reason == WindowReason::OnlyLate {
            return write!(
                f,
                "evidence from late training only (steps {start} to {end}), because the run doesn't hold its beginning: wrong labels that were memorised by then look right and aren't found; a run that keeps all steps finds them"
            );
        }
        match self.epochs {
            (first, last) if first == last => write!(f, "evidence from epoch {last}")?,
            (first, last) => write!(f, "evidence from epochs {first} to {last}")?,
        }
        write!(f, " of {} (steps {start} to {end}): ", self.held)?;
        match self.reason {
            WindowReason::Memorising => write!(
                f,
                "from epoch {} on, more of the model's predictions changed again, as when it begins to memorise labels",
                self.turn
            ),
            WindowReason::Learning => f.write_str(
                "ever fewer of the model's predictions changed, so there is no sign that it memorised labels",
            ),
            WindowReason::FewEpochs | WindowReason::OnlyLate => f.write_str(
                "the run is too short to see whether the model began to memorise labels",
            ),
        }
    }
}

impl EvidenceWindow {
    /// Finds the steps. Replays the forward passes until a few epochs after [`turn`](Self::turn).
    ///
    /// # Errors
    /// As [`LabelEvidence::of`]. Steps are missing within the run.
    pub fn of(
        run: &RecordedRun<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let steps = Window::All.resolve_alone(run.source())?;
        let (numbers, epochs): (Vec<u64>, Vec<Range<u64>>) = run
            .source()
            .epochs()?
            .into_iter()
            .map(|(number, range)| {
                let range = range.start.max(steps.start)..range.end.min(steps.end);
                (number, range)
            })
            .filter(|(_, range)| !range.is_empty())
            .unzip();
        let held = epochs.len();
        // The number of the n-th epoch, counted from 1 as in the rule.
        let number = |n: usize| numbers.get(n.saturating_sub(1)).copied().unwrap_or(0);
        if steps.start > 0 || held == 0 {
            return Ok(EvidenceWindow {
                steps,
                epochs: (number(1), number(held)),
                turn: number(held),
                held,
                reason: WindowReason::OnlyLate,
                wrong: None,
            });
        }
        let watched = Watched::of(run, engine, &epochs, observer)?;
        let (turn, reason) = match rises(&watched.changes) {
            Some(turn) => (turn, WindowReason::Memorising),
            None if watched.changes.len() <= SMOOTHED => (held, WindowReason::FewEpochs),
            None => (held, WindowReason::Learning),
        };
        let last = held.min(2 * turn);
        let first = first_epoch(run, &epochs[..last], turn)?;
        Ok(EvidenceWindow {
            steps: epochs[first - 1].start..epochs[last - 1].end,
            epochs: (number(first), number(last)),
            turn: number(turn),
            held,
            reason,
            wrong: median(&watched.wrong[..turn]),
        })
    }
}

/// The first epoch of the evidence that ends with the last of `epochs`, counted from 1: half of the epoch `turn`, or an earlier
/// one if the later ones don't use all examples that `epochs` use.
fn first_epoch(run: &RecordedRun<'_>, epochs: &[Range<u64>], turn: usize) -> Result<usize> {
    let mut first = turn / 2;
    let mut uses = occurrences(run, &epochs[first..])?;
    let before = occurrences(run, &epochs[..first])?;
    let is_missing = |(&here, &earlier): (&u64, &u64)| here == 0 && earlier > 0;
    while first > 0 && uses.iter().zip(&before).any(is_missing) {
        first -= 1;
        for (sum, more) in uses
            .iter_mut()
            .zip(occurrences(run, &epochs[first..=first])?)
        {
            *sum += more;
        }
    }
    Ok(first + 1)
}

/// What a walk saw in each epoch.
#[derive(Default)]
struct Watched {
    /// `changes[e]` is the share of predictions that differ between the epochs e + 1 and e + 2, counted from 1.
    changes: Vec<f64>,
    /// The estimate of the number of wrong labels by each epoch's forward passes.
    wrong: Vec<usize>,
}

impl Watched {
    /// Walks the epochs until it is known at which the model begins to memorise.
    fn of(
        run: &RecordedRun<'_>,
        engine: &mut dyn ReplayEngine,
        epochs: &[Range<u64>],
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let mut watched = Watched::default();
        let mut predictions = vec![None; run.examples()];
        let whole = Stage {
            doing: "walking",
            unit: "steps",
            done: 0,
            total: epochs.iter().map(|epoch| epoch.end - epoch.start).sum(),
        };
        let mut part = Part::first(observer, whole);
        for (at, epoch) in epochs.iter().enumerate() {
            let evidence = LabelEvidence::of(run, engine, epoch, &mut part)?;
            part.end(epoch.end - epoch.start)?;
            watched.wrong.push(confident(&evidence));
            let change = changed(&mut predictions, &evidence);
            if at > 0 {
                watched.changes.push(change);
            }
            if rises(&watched.changes).is_some() {
                break;
            }
        }
        Ok(watched)
    }
}

/// Replaces the predicted classes by those of an epoch. Returns the share of them that change, of the examples that have been
/// used before. If there are none, it is not a number, which is never larger than another one.
fn changed(predictions: &mut [Option<usize>], evidence: &LabelEvidence) -> f64 {
    let (mut compared, mut changed) = (0u64, 0u64);
    for (example, prediction) in predictions.iter_mut().enumerate() {
        let Some(class) = evidence.predicted(example) else {
            continue;
        };
        if let Some(before) = prediction.replace(class) {
            compared += 1;
            changed += u64::from(before != class);
        }
    }
    changed as f64 / compared as f64
}

/// The epoch, counted from 1, at which the moving average of the changes has its first minimum. The average over [`SMOOTHED`]
/// changes is larger from one epoch to the next if and only if the change that enters is larger than the one that leaves.
fn rises(changes: &[f64]) -> Option<usize> {
    let entering = changes.iter().skip(SMOOTHED);
    let first = changes
        .iter()
        .zip(entering)
        .position(|(leaves, enters)| enters > leaves)?;
    // The first of the averaged changes leads to this epoch.
    Some(first + 2)
}

/// The median; of an even number, the lower of the two in the middle.
fn median(numbers: &[usize]) -> Option<usize> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::mean;

    /// The first minimum of the moving average, computed as it is defined.
    fn first_minimum(changes: &[f64]) -> Option<usize> {
        let means: Vec<f64> = changes.windows(SMOOTHED).map(mean).collect();
        let rise = means.windows(2).position(|pair| pair[1] > pair[0])?;
        Some(rise + 2)
    }

    #[test]
    fn the_rule_is_the_first_minimum_of_the_moving_average() {
        let cases: [&[f64]; 6] = [
            &[],
            &[0.5, 0.25, 0.125, 0.0625],
            &[0.5, 0.25, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125],
            &[0.5, 0.25, 0.125, 0.0625, 0.25, 0.25, 0.5],
            &[0.25, 0.5, 0.125, 0.0, 0.5],
            &[0.25, 0.125, 0.25, 0.125, 0.25, 0.125, 0.25, 0.125],
        ];
        for changes in cases {
            assert_eq!(rises(changes), first_minimum(changes), "{changes:?}");
        }
        assert_eq!(rises(cases[3]), Some(4));
        assert_eq!(rises(&[f64::NAN, 0.5, 0.5, 0.5, f64::NAN, 0.5]), None);
    }

    #[test]
    fn predictions_are_compared_with_the_last_ones() {
        let mut predictions = vec![None; 3];
        let first = LabelEvidence::made(&[(0, &[0.9, 0.1]), (0, &[0.9, 0.1]), (1, &[0.4, 0.6])]);
        assert!(changed(&mut predictions, &first).is_nan());
        let second = LabelEvidence::made(&[(0, &[0.8, 0.2]), (0, &[0.1, 0.9])]);
        assert_eq!(changed(&mut predictions, &second), 0.5);
        // The third example wasn't used in between.
        let third = LabelEvidence::made(&[(0, &[0.8, 0.2]), (0, &[0.1, 0.9]), (1, &[0.6, 0.4])]);
        assert_eq!(changed(&mut predictions, &third), 1.0 / 3.0);
    }

    #[test]
    fn the_median_of_an_even_number_is_the_lower_one() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7]), Some(7));
        assert_eq!(median(&[30, 4]), Some(4));
        assert_eq!(median(&[9, 1, 5]), Some(5));
        assert_eq!(median(&[9, 1, 5, 7]), Some(5));
    }
}
