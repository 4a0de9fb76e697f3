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

use candle_core::{DType, Device};
use hindcast_format::DataIdentity;
use hindcast_model::data::{DataSet, SplitFingerprint, differences};
use hindcast_model::real::{Real as _, bf16, f16};
use serde::Serialize;

use super::rule::{Cause, Compared, Recomputed, median, tolerances, walk};
use crate::error::{AnalysisError, Result};
use crate::measures::compare::Comparison;
use crate::run::recorded::RecordedRun;

/// Options of a replay check.
#[derive(Debug, Clone)]
pub struct ReplayCheckOptions {
    /// Largest number of steps to recompute, spread evenly over the recorded ones; 0 for all of them.
    pub samples: usize,
    /// Largest relative error (max-norm, per tensor) that passes if the bits differ, as they do on another machine or
    /// if the loop used another implementation of the rule.
    pub tolerance: f64,
    /// Device that recomputes the steps.
    pub device: Device,
}

impl ReplayCheckOptions {
    /// 16 steps, and the tolerance of the run's own float type: 1e-4 in f32, 1e-10 in f64, and sixteen units in the last place of
    /// a tensor's largest element in f16 (2⁻⁶) and bf16 (2⁻³), whose gradients round so much that a small bias may differ by as
    /// much.
    pub fn new(run: &RecordedRun<'_>) -> Self {
        ReplayCheckOptions {
            samples: 16,
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
    /// Whether it has the same bits or is within the tolerances for one step.
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
    /// The recomputed steps, ascending.
    pub steps: Vec<StepCheck>,
    /// How the check deviated from the options, and why; empty if it didn't.
    pub note: String,
}

impl ReplayCheckReport {
    /// Whether at least one step was checked, all passed, and the updates agree on the median.
    pub fn passed(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|s| s.passed) && self.updates_agree()
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

/// Recomputes sampled steps.
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
        mut note,
    } = sample::choose(run, options.samples)?;
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
                "{} of the sampled steps can't be recomputed, because they follow a hole in the trace, which doesn't contain the buffers or optimizer state before them: {unknown:?}",
                unknown.len()
            ));
        }
        None => {}
    }
    Ok(ReplayCheckReport {
        tolerance: options.tolerance,
        update_tolerance,
        median_tolerance,
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
    let passed = comparison.bit_identical
        || (comparison.max_relative_error <= tolerance && update.error <= update_tolerance);
    StepCheck {
        step: update.step,
        comparison,
        update_error: update.error,
        update_tensor: update.tensor,
        by_rounding: update.by_rounding,
        loss: update.loss,
        trained_differs: step.trained_differs.to_vec(),
        cause: update.cause,
        passed,
    }
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
