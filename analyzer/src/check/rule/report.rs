//! Result of a rule check.

use std::fmt;

use serde::Serialize;

use super::cause::Cause;

/// One recomputed step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleCheckStep {
    /// t.
    pub step: u64,
    /// Whether every number of θ_{t+1} and of the buffers has the recorded bits.
    pub bit_identical: bool,
    /// Largest error over the tensors: ‖computed − recorded‖ / ‖update‖ in the Euclidean norm, minus the part that
    /// rounding the parameters to their recorded type explains. 0 if the bits agree.
    pub error: f64,
    /// The tensor with that error; `None` where the bits agree.
    pub tensor: Option<String>,
    /// Number of elements that differ from the recorded ones and are not part of the error, because rounding of the
    /// gradients explains the difference: where a gradient is zero up to rounding, Adam turns rounding into a step.
    pub by_rounding: u64,
    /// Computed and recorded batch loss, where one was recorded.
    pub loss: Option<(f64, f64)>,
    /// A simple explanation of the difference, if there is one.
    pub cause: Option<Cause>,
}

/// Result of a rule check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleCheckReport {
    /// Seed of the random choice.
    pub seed: u64,
    /// The recomputed steps, ascending.
    pub steps: Vec<RuleCheckStep>,
    /// Chosen steps whose optimizer state or buffers the trace doesn't contain.
    pub unknown: Vec<u64>,
    /// The last step that could be chosen, if the trace doesn't contain the optimizer's state and later steps are too far
    /// from its beginning to rebuild it for a sample. A check of all steps reaches them.
    pub limit: Option<u64>,
    /// Largest error of a single step that passes.
    pub tolerance: f64,
    /// Largest median error of all steps that passes.
    pub median_tolerance: f64,
}

impl RuleCheckReport {
    /// Whether the steps follow: no step's error exceeds [`tolerance`](Self::tolerance), and the median error doesn't
    /// exceed [`median_tolerance`](Self::median_tolerance). True if no step could be computed; see
    /// [`is_empty`](Self::is_empty).
    ///
    /// There are two tolerances because on another processor, rounding may move a unit to the other side of a ReLU's
    /// kink. That changes a few steps, not most of them, by about a thousandth of their update.
    pub fn passed(&self) -> bool {
        self.steps.iter().all(|s| s.error <= self.tolerance)
            && self.median_error() <= self.median_tolerance
    }

    /// Whether no step could be recomputed.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether every step has the recorded bits.
    pub fn bit_identical(&self) -> bool {
        self.steps.iter().all(|s| s.bit_identical)
    }

    /// Median of the steps' errors, the lower one for an even number of steps; 0 if there is no step.
    pub fn median_error(&self) -> f64 {
        median(self.steps.iter().map(|s| s.error))
    }

    /// The step with the largest error.
    pub fn worst(&self) -> Option<&RuleCheckStep> {
        self.steps.iter().max_by(|a, b| a.error.total_cmp(&b.error))
    }

    /// Step, computed and recorded loss, if most recorded losses differ from the computed ones by more than 1 %.
    pub fn other_loss(&self) -> Option<(u64, f64, f64)> {
        other_loss(self.steps.iter().map(|s| (s.step, s.loss)))
    }
}

/// The median, the lower one for an even number; 0 if there is none.
pub(crate) fn median(errors: impl Iterator<Item = f64>) -> f64 {
    let mut errors: Vec<f64> = errors.collect();
    errors.sort_by(f64::total_cmp);
    match errors.get(errors.len().saturating_sub(1) / 2) {
        Some(&median) => median,
        None => 0.0,
    }
}

/// Step, computed and recorded loss of the first step whose losses differ by more than 1 %. `None` unless they differ
/// in most of the steps with a recorded loss.
pub(crate) fn other_loss(
    steps: impl Iterator<Item = (u64, Option<(f64, f64)>)>,
) -> Option<(u64, f64, f64)> {
    let with: Vec<_> = steps
        .filter_map(|(step, loss)| loss.map(|(got, want)| (step, got, want)))
        .collect();
    let differs =
        |&&(_, got, want): &&(u64, f64, f64)| (got - want).abs() > 0.01 * got.abs().max(want.abs());
    let differing: Vec<_> = with.iter().filter(differs).collect();
    if 2 * differing.len() > with.len() {
        differing.first().map(|&&found| found)
    } else {
        None
    }
}

impl fmt::Display for RuleCheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, seed) = (self.steps.len(), self.seed);
        let steps = if count == 1 { "step" } else { "steps" };
        if self.is_empty() {
            return f.write_str("no recorded step could be recomputed");
        }
        if self.passed() {
            write!(
                f,
                "{count} {steps} chosen at random (seed {seed}) give the next recorded state"
            )?;
            if self.bit_identical() {
                f.write_str(", bit for bit")?;
            } else {
                let worst = self.worst().map_or(0.0, |s| s.error);
                write!(f, " within {worst:.1e} of the update's size")?;
            }
            return match self.limit {
                None => Ok(()),
                Some(limit) => write!(
                    f,
                    ". No step after {limit} was chosen, because the trace doesn't contain the optimizer's state"
                ),
            };
        }
        let off = |s: &&RuleCheckStep| s.error > self.median_tolerance;
        write!(
            f,
            "the recorded steps don't follow from the recorded update rule, batches and data: of {count} {steps} chosen at random (seed {seed}), {} lead to a state that differs from the recorded one",
            self.steps.iter().filter(off).count()
        )?;
        if let Some(worst) = self.worst() {
            write!(f, ". In step {}, the update", worst.step)?;
            if let Some(tensor) = &worst.tensor {
                write!(f, " of `{tensor}`")?;
            }
            write!(f, " differs by {} of its size", percent(worst.error))?;
            if let Some((got, want)) = worst.loss {
                write!(
                    f,
                    "; the batch loss is {got:.6} computed and {want:.6} recorded"
                )?;
            }
            match &worst.cause {
                Some(cause) => write!(f, ". {cause}")?,
                None => f.write_str(
                    ". Likely causes: the batch indices, the data, the loss or the update rule are not those of the training loop",
                )?,
            }
        }
        Ok(())
    }
}

fn percent(share: f64) -> String {
    if share >= 0.001 && share.is_finite() {
        format!("{:.1} %", 100.0 * share)
    } else if share.is_finite() {
        format!("{share:.1e}")
    } else {
        "more than any multiple".to_owned()
    }
}
