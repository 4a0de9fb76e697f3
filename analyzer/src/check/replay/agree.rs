//! Judges whether a recomputed step agrees with the recorded one.

use std::collections::BTreeMap;

use candle_core::DType;
use serde::Serialize;

use crate::check::rule::{Cause, Compared, Recomputed};
use crate::measures::compare::Comparison;
use crate::run::recorded::RecordedRun;

/// One recomputed step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCheck {
    /// t.
    pub step: u64,
    /// Recomputed θ_{t+1} and r_{t+1}, compared with the recorded ones.
    pub comparison: Comparison,
    /// Difference of the computed and the recorded update, relative to the update: [`error`](crate::check::rule::RuleCheckStep::error).
    pub update_error: f64,
    /// The tensor with that difference; `None` where the bits agree.
    pub update_tensor: Option<String>,
    /// Number of elements that differ from the recorded ones and are not part of the errors: [`by_rounding`](crate::check::rule::RuleCheckStep::by_rounding).
    pub by_rounding: u64,
    /// Computed and recorded batch loss, if it was recorded.
    pub loss: Option<(f64, f64)>,
    /// Tensors whose recorded flag "had a gradient" differs from the recomputed one. It is a failure only for a task: a loop of
    /// the user's may have left a tensor out on purpose, and the comparison uses the recorded flags.
    pub trained_differs: Vec<String>,
    /// A simple explanation of the difference, if there is one.
    pub cause: Option<Cause>,
    /// Largest difference of the optimizer's state after the step from the recorded one, relative to the largest element of
    /// its tensors of the same kind. `None` where the trace doesn't record it.
    pub state_error: Option<f64>,
    /// Whether a keyframe after the step repeats the step's running statistics. `true` where there is none.
    pub statistics_agree: bool,
    /// Whether the examples have the weights that the run's task gives them. `true` for a run without a task.
    pub weights_agree: bool,
    /// Whether the recorded loss of a task's step is the computed one, up to rounding where the bits aren't known. `true` for other runs, whose loops may
    /// record another quantity.
    pub loss_agrees: bool,
    /// Whether it has the same bits or is within the tolerances for one step, and loss, weights, optimizer's state and running
    /// statistics agree; for a task, also the trained tensors.
    pub passed: bool,
}

/// How far a recomputed step may be from the recorded one.
pub(super) struct Tolerances {
    /// Largest relative error of the parameters and the running statistics. `None` if the steps were computed elsewhere: rounding
    /// there may move an input of a ReLU to the other side of its kink, and no part of the parameters' size limits what that does.
    pub parameters: Option<f64>,
    /// Largest error of an update, relative to it.
    pub update: f64,
    /// Whether the bits must be the same, whatever the errors are.
    pub same_bits: bool,
}

impl Tolerances {
    /// Whether tensors with these differences follow: relative to their size, and to their update.
    pub fn allow(&self, found: &Comparison, update_error: f64) -> bool {
        let near = |most| found.max_relative_error <= most;
        let close = self.parameters.is_none_or(near) && update_error <= self.update;
        found.bit_identical || (close && !self.same_bits)
    }
}

/// Compares a recomputed step with the recorded one.
pub(super) fn judge(
    run: &RecordedRun<'_>,
    step: &Recomputed<'_>,
    tolerances: &Tolerances,
) -> StepCheck {
    let of =
        |part: &Compared<'_>| Comparison::without(part.got, part.want, part.specs, part.left_out);
    let comparison = of(&step.parameters).worse(of(&step.buffers));
    let update = step.check(run);
    let follows = tolerances.allow(&comparison, update.error);
    let state = step.next.optimizer.as_ref();
    let state_error = state.map(|(got, want)| state_error(run, got, want));
    let state_agrees = state_error.is_none_or(|error| error <= state_tolerance(run));
    let trained_agrees = run.task().is_none() || step.trained_differs.is_empty();
    let loss_agrees = run.task().is_none()
        || update
            .loss
            .is_none_or(|pair| same_loss(run, pair, tolerances.same_bits));
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
        weights_agree: step.weights_agree,
        loss_agrees,
        passed: follows
            && state_agrees
            && step.next.buffers_agree
            && step.weights_agree
            && trained_agrees
            && loss_agrees,
    }
}

/// Largest error of the optimizer's state that passes. On another processor gradients differ by rounding, and the state is
/// rebuilt over the steps since the keyframe before it, so differences add up.
fn state_tolerance(run: &RecordedRun<'_>) -> f64 {
    match run.trained_dtype() {
        DType::F64 => 1e-6,
        DType::F16 | DType::BF16 => 0.2,
        _ => 1e-2,
    }
}

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

/// `moment1` of `moment1.fc.weight`.
fn kind(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Whether a computed and a recorded batch loss have the same bits or, if the bits aren't known, differ by no more than rounding
/// in sums of another order explains.
pub(super) fn same_loss(
    run: &RecordedRun<'_>,
    (computed, recorded): (f64, f64),
    same_bits: bool,
) -> bool {
    let relative = match run.trained_dtype() {
        DType::F64 => 1e-9,
        _ => 1e-4,
    };
    // A loss near 0 is a difference of larger numbers, which were rounded.
    let size = computed.abs().max(recorded.abs()).max(0.1);
    let close = (computed - recorded).abs() <= relative * size;
    let same = computed.to_bits() == recorded.to_bits();
    same || (close && !same_bits) || (computed.is_nan() && recorded.is_nan())
}
