//! Recomputes a range of consecutive steps.

use std::ops::Range;

use candle_core::{DType, Device};
use hindcast_format::meta::StepMeta;
use hindcast_model::real::Real;
use hindcast_model::train::ModelState;
use hindcast_model::update::UpdateRule;

use super::cause::Cause;
use super::measure::{Compared, compare};
use super::report::RuleCheckStep;
use crate::counterfactual::{StateBefore, each_state, parts, stepper};
use crate::error::{AnalysisError, Missing, Result};
use crate::run::anchor::known_state;
use crate::run::recorded::RecordedRun;

/// A computed step that waits for the recorded next state.
struct Pending<T> {
    meta: StepMeta,
    before: ModelState<T>,
    after: ModelState<T>,
    buffers_after: Vec<f64>,
    loss: f64,
    /// Parameter elements whose update is decided by rounding; see [`undecided`].
    undecided: Vec<bool>,
}

/// Computes every step of `stretch`, whose first step's optimizer state must be known.
pub(super) fn walk<T: Real>(
    run: &RecordedRun<'_>,
    stretch: Range<u64>,
    device: &Device,
) -> Result<Vec<RuleCheckStep>> {
    let end = run.source().end()?;
    let (known, optimizer) = known_state(run, stretch.start)?;
    let optimizer = optimizer.into_iter().map(T::of).collect();
    // The last step's next state is another frame, or the end of training.
    let last = if stretch.end == end.step {
        stretch.end
    } else {
        stretch.end + 1
    };
    let mut pending: Option<Pending<T>> = None;
    let mut found = Vec::new();
    each_state(run, known..last, optimizer, &mut |step| {
        if let Some(pending) = pending.take() {
            found.push(finish(run, &pending, &wide(&step.state.parameters)));
        }
        if step.meta.step >= stretch.end {
            return Ok(None);
        }
        let computed = compute(run, step, device)?;
        let after = computed.after.optimizer.clone();
        pending = Some(computed);
        Ok(Some(after))
    })?;
    if let Some(pending) = pending {
        if pending.meta.step + 1 != end.step {
            let step = pending.meta.step + 1;
            return Err(AnalysisError::Missing(Missing::Step { step }));
        }
        found.push(finish(run, &pending, &end.parameters));
    }
    Ok(found)
}

fn compute<T: Real>(
    run: &RecordedRun<'_>,
    step: StateBefore<T>,
    device: &Device,
) -> Result<Pending<T>> {
    let StateBefore {
        meta,
        state: before,
        buffers_after,
    } = step;
    let stepper = stepper(run);
    let parts = parts::<T>(run, &meta, device)?;
    let gradient = stepper.gradient(&before, &parts, run.draws(meta.step))?;
    let loss = gradient.loss;
    let largest = gradient
        .gradient
        .iter()
        .fold(0.0_f64, |m, g| m.max(g.wide().abs()));
    let mut after = before.clone();
    stepper.update(&run.settings(&meta), gradient, &mut after)?;
    let undecided = undecided(run.rule(), &meta, &after.optimizer, largest, epsilon::<T>());
    Ok(Pending {
        meta,
        before,
        after,
        buffers_after,
        loss,
        undecided,
    })
}

/// Distance from 1 to the next number of the type.
fn epsilon<T: Real>() -> f64 {
    if T::DTYPE == DType::F64 {
        f64::EPSILON
    } else {
        f64::from(f32::EPSILON)
    }
}

/// Adam divides by the root of the second moment. If a gradient is zero up to rounding (an attention's key biases),
/// this turns rounding into a whole step of either sign, which no replay can reproduce. Such elements are not compared.
fn undecided<T: Real>(
    rule: &UpdateRule,
    meta: &StepMeta,
    optimizer: &[T],
    largest: f64,
    epsilon: f64,
) -> Vec<bool> {
    /// Largest rounding error of a sum over a batch, in units of the largest gradient's last place.
    const PLACES: f64 = 1e3;
    let beta2 = match *rule {
        UpdateRule::Adam { beta2, .. } | UpdateRule::AdamW { beta2, .. } => beta2,
        _ => return Vec::new(),
    };
    let (_, second) = optimizer.split_at(optimizer.len() / 2);
    let updates = i32::try_from(meta.optimizer_step.saturating_add(1)).unwrap_or(i32::MAX);
    let correction = 1.0 - beta2.powi(updates);
    let noise = PLACES * epsilon * largest;
    second
        .iter()
        .map(|v| v.wide() / correction <= noise * noise)
        .collect()
}

fn wide<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.wide()).collect()
}

fn finish<T: Real>(run: &RecordedRun<'_>, pending: &Pending<T>, recorded: &[f64]) -> RuleCheckStep {
    let (before, got) = (&pending.before, &pending.after);
    let (theta, computed) = (wide(&before.parameters), wide(&got.parameters));
    let source = run.source();
    let parameters = Compared {
        before: &theta,
        got: &computed,
        want: recorded,
        undecided: &pending.undecided,
        specs: source.parameters(),
    };
    let (buffers, buffers_got) = (wide(&before.buffers), wide(&got.buffers));
    let buffers = Compared {
        before: &buffers,
        got: &buffers_got,
        want: &pending.buffers_after,
        undecided: &[],
        specs: source.buffers(),
    };
    let of_parameters = compare(&parameters);
    let worse = of_parameters.clone().worse(compare(&buffers));
    let cause = if of_parameters.error > 0.0 {
        Cause::of(&parameters, &run.settings(&pending.meta), run.blocks())
    } else {
        None
    };
    RuleCheckStep {
        step: pending.meta.step,
        bit_identical: worse.bit_identical,
        error: worse.error,
        tensor: worse.tensor,
        loss: pending.meta.loss.map(|recorded| (pending.loss, recorded)),
        cause,
    }
}
