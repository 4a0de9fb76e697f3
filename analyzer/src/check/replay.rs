//! Checks that recomputed steps lead to the next recorded state.
//!
//! θ_{t+1} is recomputed from θ_t, the batch, the learning rate and the random draws, with the code that training
//! uses, and compared with the recorded one. A trace that passes was produced by this rule on this data, and not
//! written by hand.
//!
//! Each step starts from the recorded θ_t. A rule with a state also needs the state before the step. It is rebuilt
//! forward, from a keyframe that contains it or from the optimizer's first step, with the gradients at the recorded
//! parameters. So an error in one step doesn't spread to the parameters of the next.

mod sample;
mod stated;

use candle_core::{DType, Device};
use hindcast_format::DataIdentity;
use hindcast_model::data::{DataSet, SplitFingerprint, differences};
use hindcast_model::real::{Real as _, bf16, f16};
use serde::Serialize;

pub use stated::Contradiction;

use super::rule::{Cause, Compared, Recomputed, median, tolerances, walk};
use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{AnalysisError, Result};
use crate::measures::compare::Comparison;
use crate::run::recorded::RecordedRun;

/// Options of a replay check.
#[derive(Debug, Clone)]
pub struct ReplayCheckOptions {
    /// Number of steps to draw at random and recompute; 0 for all of them. A rule with a state adds the steps between the last
    /// recorded state and each of them.
    pub samples: usize,
    /// Seed of the random choice.
    pub seed: u64,
    /// Largest relative error (max-norm, per tensor) that passes if the bits differ, as they do on another machine or
    /// if the loop used another implementation of the rule.
    pub tolerance: f64,
    /// Device that recomputes the steps.
    pub device: Device,
}

impl ReplayCheckOptions {
    /// 16 steps by the seed 0, and the tolerance of the run's own float type: 1e-4 in f32, 1e-10 in f64, and sixteen units in the last place of
    /// a tensor's largest element in f16 (2⁻⁶) and bf16 (2⁻³), whose gradients round so much that a small bias may differ by as
    /// much.
    pub fn new(run: &RecordedRun<'_>) -> Self {
        ReplayCheckOptions {
            samples: 16,
            seed: 0,
            tolerance: match run.trained_dtype() {
                DType::F64 => 1e-10,
                DType::F16 => 16.0 * f16::SPACING,
                DType::BF16 => 16.0 * bf16::SPACING,
                _ => 1e-4,
            },
            device: Device::Cpu,
        }
    }
}

/// One recomputed step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCheck {
    /// t.
    pub step: u64,
    /// Recomputed θ_{t+1} and r_{t+1}, compared with the recorded ones.
    pub comparison: Comparison,
    /// Difference of the computed and the recorded update, relative to the update: [`error`](super::rule::RuleCheckStep::error).
    pub update_error: f64,
    /// The tensor with that difference; `None` where the bits agree.
    pub update_tensor: Option<String>,
    /// Number of elements that differ from the recorded ones and are not part of the errors: [`by_rounding`](super::rule::RuleCheckStep::by_rounding).
    pub by_rounding: u64,
    /// Computed and recorded batch loss, if it was recorded.
    pub loss: Option<(f64, f64)>,
    /// Tensors whose recorded flag "had a gradient" differs from the recomputed one. That isn't a failure: the loop
    /// may have left a tensor out on purpose, and the comparison uses the recorded flags.
    pub trained_differs: Vec<String>,
    /// A simple explanation of the difference, if there is one.
    pub cause: Option<Cause>,
    /// Largest difference of the optimizer's state after the step from the recorded one, relative to the largest element of
    /// its tensors of the same kind. `None` where the trace doesn't record it.
    pub state_error: Option<f64>,
    /// Whether a keyframe after the step repeats the step's running statistics. `true` where there is none.
    pub statistics_agree: bool,
    /// Whether the recorded loss of a task's step is the computed one, up to rounding. `true` for other runs, whose loops may
    /// record another quantity.
    pub loss_agrees: bool,
    /// Whether it has the same bits or is within the tolerances for one step, and loss, optimizer's state and running
    /// statistics agree.
    pub passed: bool,
}

/// Result of a replay check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayCheckReport {
    /// Largest error relative to the parameters that passes.
    pub tolerance: f64,
    /// Largest error of a single step relative to its update that passes.
    pub update_tolerance: f64,
    /// Largest median of those errors that passes.
    pub median_tolerance: f64,
    /// Seed of the random choice.
    pub seed: u64,
    /// The number of steps whose next state is recorded, which are those that can be recomputed.
    pub replayable: u64,
    /// The number of steps from the first recorded one to the end of the run, with those that have no tensors.
    pub span: u64,
    /// The number of steps that were drawn at random; `None` if all steps or the first ones were chosen.
    pub drawn: Option<u64>,
    /// Ranges of recorded steps without a gap, ascending. Nothing shows that a range follows from the one before it.
    pub pieces: Vec<Range<u64>>,
    /// What the run's task says and the recorded steps contradict.
    pub contradictions: Vec<Contradiction>,
    /// The recomputed steps, ascending.
    pub steps: Vec<StepCheck>,
    /// How the check deviated from the options, and why; empty if it didn't.
    pub note: String,
}

impl ReplayCheckReport {
    /// Whether at least one step was checked, all passed, the updates agree on the median, and the steps don't contradict the
    /// task.
    pub fn passed(&self) -> bool {
        let steps = !self.steps.is_empty() && self.steps.iter().all(|s| s.passed);
        steps && self.updates_agree() && self.contradictions.is_empty()
    }

    /// Whether every step that can be recomputed was recomputed.
    pub fn is_complete(&self) -> bool {
        self.steps.len() as u64 == self.replayable
    }

    /// The least probability with which this choice of steps would have caught a run in which the share `wrong` (0 to 1) of the
    /// steps that can be recomputed is no training step: 1 − (1 − wrong)^n for n steps, each drawn from another part of the
    /// run. 1 if all steps were recomputed. `None` if the steps weren't drawn at random.
    pub fn caught(&self, wrong: f64) -> Option<f64> {
        if self.is_complete() {
            return Some(1.0);
        }
        let drawn = self.drawn?;
        Some(1.0 - (1.0 - wrong).powf(drawn as f64))
    }

    /// Whether the median error relative to the updates is within its tolerance. A wrong weight decay may change the
    /// parameters by less than [`tolerance`](Self::tolerance) in each step, and adds up over a run.
    pub fn updates_agree(&self) -> bool {
        self.median_update_error() <= self.median_tolerance
    }

    /// Median of the steps' errors relative to their updates.
    pub fn median_update_error(&self) -> f64 {
        median(self.steps.iter().map(|s| s.update_error))
    }

    /// Whether all steps have the recorded bits.
    pub fn bit_identical(&self) -> bool {
        self.steps.iter().all(|s| s.comparison.bit_identical)
    }

    /// Number of elements, over all steps, whose difference rounding explains.
    pub fn by_rounding(&self) -> u64 {
        self.steps.iter().map(|s| s.by_rounding).sum()
    }

    /// Step, computed and recorded loss, if most recorded losses differ from the computed ones by more than 1 %.
    pub fn other_loss(&self) -> Option<(u64, f64, f64)> {
        crate::check::rule::other_loss(self.steps.iter().map(|s| (s.step, s.loss)))
    }

    /// The step with the largest error.
    pub fn worst(&self) -> Option<&StepCheck> {
        self.steps.iter().max_by(|a, b| {
            a.comparison
                .max_relative_error
                .total_cmp(&b.comparison.max_relative_error)
        })
    }

    /// The step with the largest error relative to its update.
    pub fn worst_update(&self) -> Option<&StepCheck> {
        let errors = self.steps.iter();
        errors.max_by(|a, b| a.update_error.total_cmp(&b.update_error))
    }
}

/// Recomputes the chosen steps, and compares the run with its task.
///
/// # Errors
/// A step can't be read, the data doesn't have an example, or the model fails. A step with another result is a
/// finding, not an error.
pub fn replay_check(
    run: &RecordedRun<'_>,
    options: &ReplayCheckOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ReplayCheckReport> {
    let sample::Sample {
        stretches,
        mut unknown,
        mut why_unknown,
        replayable,
        drawn,
        all: _,
        mut note,
    } = sample::choose(run, options.samples, options.seed)?;
    let total = stretches.iter().map(|s| s.chosen.len()).sum();
    let (update_tolerance, median_tolerance) = tolerances(run);
    let mut steps = Vec::with_capacity(total);
    for mut stretch in stretches {
        // A step whose buffers are missing is left out, and the walk continues after it.
        while let Some(&first) = stretch.chosen.front() {
            let range = stretch.range.clone();
            let mut see = |step: &Recomputed<'_>| {
                if stretch.chosen.front() == Some(&step.meta.step) {
                    stretch.chosen.pop_front();
                    steps.push(judge(run, step, options.tolerance, update_tolerance));
                    progress(steps.len(), total);
                }
                Ok(())
            };
            match walk(run, range, &options.device, &mut see) {
                Ok(()) => break,
                Err(error @ AnalysisError::Missing(_)) => {
                    why_unknown.get_or_insert(error);
                    if run.rule().state_values(1) > 0 {
                        unknown.extend(stretch.chosen.drain(..));
                    } else {
                        let left_out = stretch.chosen.pop_front().unwrap_or(first);
                        unknown.push(left_out);
                        stretch.range.start = left_out + 1;
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }
    unknown.sort_unstable();
    match why_unknown {
        Some(first) if steps.is_empty() => return Err(first),
        Some(_) => {
            if !note.is_empty() {
                note.push_str("; ");
            }
            note.push_str(&format!(
                "{} of the chosen steps can't be recomputed, because they follow a hole in the trace, which doesn't contain the buffers or optimizer state before them: {unknown:?}",
                unknown.len()
            ));
        }
        None => {}
    }
    Ok(ReplayCheckReport {
        tolerance: options.tolerance,
        update_tolerance,
        median_tolerance,
        seed: options.seed,
        replayable,
        drawn,
        span: {
            let first = run.source().ranges()?.first().map_or(0, |r| r.start);
            run.source().end()?.step.saturating_sub(first)
        },
        pieces: run.source().ranges()?,
        contradictions: stated::contradictions(run)?,
        steps,
        note,
    })
}

/// Compares a recomputed step with the recorded one.
fn judge(
    run: &RecordedRun<'_>,
    step: &Recomputed<'_>,
    tolerance: f64,
    update_tolerance: f64,
) -> StepCheck {
    let of =
        |part: &Compared<'_>| Comparison::without(part.got, part.want, part.specs, part.left_out);
    let comparison = of(&step.parameters).worse(of(&step.buffers));
    let update = step.check(run);
    let follows = comparison.bit_identical
        || (comparison.max_relative_error <= tolerance && update.error <= update_tolerance);
    let state = step.next.optimizer.as_ref();
    let state_error = state.map(|(got, want)| state_error(run, got, want));
    let state_tolerance = if comparison.bit_identical {
        0.0
    } else {
        STATE_TOLERANCE
    };
    let state_agrees = state_error.is_none_or(|error| error <= state_tolerance);
    let loss_agrees = run.task().is_none() || update.loss.is_none_or(|pair| same_loss(run, pair));
    StepCheck {
        step: update.step,
        comparison,
        update_error: update.error,
        update_tensor: update.tensor,
        by_rounding: update.by_rounding,
        loss: update.loss,
        trained_differs: step.trained_differs.to_vec(),
        cause: update.cause,
        state_error,
        statistics_agree: step.next.buffers_agree,
        loss_agrees,
        passed: follows && state_agrees && step.next.buffers_agree && loss_agrees,
    }
}

/// Largest error of the optimizer's state that passes on another processor, whose gradients differ by rounding. The state is
/// rebuilt over the steps since the keyframe before it, so differences add up.
const STATE_TOLERANCE: f64 = 1e-2;

/// Largest difference of two optimizer states, relative to the largest element of the tensors of its kind. A tensor whose
/// gradients are rounding errors has such moments, too, so its own size is no measure.
fn state_error(run: &RecordedRun<'_>, got: &[f64], want: &[f64]) -> f64 {
    let mut kinds: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let mut start = 0;
    for spec in run.source().optimizer_state() {
        let range = start..start + spec.elements();
        start = range.end;
        let (gap, size) = kinds.entry(kind(&spec.name)).or_default();
        let pairs = got.get(range.clone()).into_iter().flatten();
        for (got, want) in pairs.zip(want.get(range).into_iter().flatten()) {
            if got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()) {
                *size = size.max(want.abs());
            } else if got.is_finite() && want.is_finite() {
                (*gap, *size) = (gap.max((got - want).abs()), size.max(want.abs()));
            } else {
                *gap = f64::INFINITY;
            }
        }
    }
    let errors = kinds.values().map(|&(gap, size)| match (gap, size) {
        (0.0, _) => 0.0,
        (gap, size) => gap / size,
    });
    errors.fold(0.0, f64::max)
}

/// `exp_avg` of `exp_avg.fc.weight`.
fn kind(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Whether a computed and a recorded batch loss differ by no more than rounding in sums of another order explains.
fn same_loss(run: &RecordedRun<'_>, (computed, recorded): (f64, f64)) -> bool {
    let relative = if run.trained_dtype() == DType::F64 {
        1e-9
    } else {
        1e-4
    };
    // A loss near 0 is a difference of larger numbers, which were rounded.
    let size = computed.abs().max(recorded.abs()).max(1e-2);
    let close = (computed - recorded).abs() <= relative * size;
    close || computed.to_bits() == recorded.to_bits() || (computed.is_nan() && recorded.is_nan())
}

/// A split of the data that differs from the recorded one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataDifference {
    /// `train`, `validation` or `test`.
    pub split: String,
    /// How it differs.
    pub problem: String,
}

/// Compares the fingerprints of all splits, computed over every decoded example, with the recorded ones. `None` where
/// the run recorded no fingerprint or the data set has none to compare.
pub fn check_data(recorded: &DataIdentity, data: &dyn DataSet) -> Option<Vec<DataDifference>> {
    let DataIdentity::Fingerprint { splits } = recorded else {
        return None;
    };
    let here = data.fingerprint();
    if here.is_empty() {
        return None;
    }
    let recorded: Vec<SplitFingerprint> = splits
        .iter()
        .map(|split| SplitFingerprint {
            name: split.name.clone(),
            examples: split.examples,
            root: split.root,
        })
        .collect();
    let found = differences(&recorded, &here).into_iter();
    Some(
        found
            .map(|difference| DataDifference {
                split: difference.split,
                problem: difference.kind.to_string(),
            })
            .collect(),
    )
}
