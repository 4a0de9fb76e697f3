//! Checks that recorded steps follow from the recorded update rule, batches and data.
//!
//! A sweep differentiates the training that the trace describes. If the loop did something else (an optimizer that
//! holds only some of the variables, another loss, other batches), the derivative is exact and answers the wrong
//! question. So a few steps, chosen at random, are recomputed before the first score: θ_{t+1} from θ_t, the batch and
//! the rule, with the code that training uses. The *updates* θ_{t+1} − θ_t are compared, because an error of the size
//! of a whole update is tiny relative to the parameters.
//!
//! Docs: docs/math.md, section "Check of the recorded steps".

mod cause;
mod measure;
mod options;
mod pass;
mod report;
mod sample;
mod walk;

use candle_core::DType;

pub use cause::Cause;
pub(crate) use measure::{Compared, compare};
pub use options::RuleCheckOptions;
pub(crate) use pass::pass;
pub use report::{RuleCheckReport, RuleCheckStep};
pub(crate) use report::{median, other_loss};
pub(crate) use walk::{Recomputed, walk};

use crate::error::Result;
use crate::run::recorded::RecordedRun;

/// Recomputes steps of the window and compares their updates with the recorded ones.
///
/// # Errors
/// A step can't be read, has no examples or examples that the data doesn't have, or the model fails. A step with a
/// different result is a finding, not an error.
pub fn rule_check(run: &RecordedRun<'_>, options: &RuleCheckOptions) -> Result<RuleCheckReport> {
    let sample::Sample {
        stretches,
        unknown,
        limit,
    } = sample::choose(run, options)?;
    let mut steps = Vec::new();
    for stretch in stretches {
        let mut see = |step: &Recomputed<'_>| {
            steps.push(step.check(run));
            Ok(())
        };
        walk(run, stretch, &options.device, &mut see)?;
    }
    steps.sort_by_key(|s| s.step);
    steps.dedup_by_key(|s| s.step);
    let allowed = tolerances(run);
    Ok(RuleCheckReport {
        seed: options.seed,
        steps,
        unknown,
        limit,
        tolerance: allowed.single,
        median_tolerance: allowed.median,
    })
}

/// Largest errors of updates, relative to their size, that pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpdateTolerances {
    /// Of a single step.
    pub single: f64,
    /// Of all steps but a tenth.
    pub most: f64,
    /// Of the median step.
    pub median: f64,
}

/// The tolerances by the type that the run was trained in.
///
/// A float32 gradient of a deep net differs by 1e-6 to 1e-5 of its norm between two processors. The gradients of a bf16
/// or f16 run are rounded to 8 or 11 bits at each operation, so that two processors may differ by much more.
///
/// Docs: docs/math.md, section "Check of the recorded steps".
pub(crate) fn tolerances(run: &RecordedRun<'_>) -> UpdateTolerances {
    let (single, most, median) = match run.trained_dtype() {
        DType::F64 => (1e-3, 1e-5, 1e-7),
        DType::F16 => (0.2, 5e-2, 2e-2),
        DType::BF16 => (0.5, 0.2, 0.1),
        _ => (5e-2, 5e-3, 2e-4),
    };
    UpdateTolerances {
        single,
        most,
        median,
    }
}
