//! Recomputes a range of consecutive steps.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{DType, Device};
use hindcast_format::meta::StepMeta;
use hindcast_model::real::{Real, bf16, f16};
use hindcast_model::train::ModelState;
use hindcast_model::update::{Rounding, StepPoint};

use super::cause::Cause;
use super::measure::{Compared, compare, explained};
use super::pass::{Pass, pass};
use super::report::RuleCheckStep;
use crate::counterfactual::{StateBefore, each_state, stepper};
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
    weights_agree: bool,
    trained_differs: Vec<String>,
    /// Largest distance of each parameter that rounding explains; see [`Rounding`].
    bounds: Vec<f64>,
}

/// A step as computed and as recorded.
pub(crate) struct Recomputed<'a> {
    pub meta: &'a StepMeta,
    /// θ.
    pub parameters: Compared<'a>,
    /// Running statistics.
    pub buffers: Compared<'a>,
    /// Computed and recorded batch loss, where one was recorded.
    pub loss: Option<(f64, f64)>,
    /// Whether the examples have the weights that the run's task gives them. `true` for a run without a task.
    pub weights_agree: bool,
    /// Tensors whose recorded flag "had a gradient" differs from the computed one.
    pub trained_differs: &'a [String],
    /// Number of elements that are left out because rounding explains their difference.
    pub by_rounding: u64,
    /// What the trace records about the state before the next step, apart from the parameters.
    pub next: Next<'a>,
}

/// A recorded keyframe's or final state's part, beside what the step before it leads to.
pub(crate) struct Next<'a> {
    /// The optimizer's state, as computed and as recorded; `None` if it isn't recorded there.
    pub optimizer: Option<(Vec<f64>, &'a [f64])>,
    /// Whether the buffers are those that were recorded after the step. `true` if they aren't recorded there.
    pub buffers_agree: bool,
}

impl Recomputed<'_> {
    /// Compares the updates.
    pub fn check(&self, run: &RecordedRun<'_>) -> RuleCheckStep {
        let of_parameters = compare(&self.parameters);
        let worse = of_parameters.clone().worse(compare(&self.buffers));
        let cause = if of_parameters.error > 0.0 {
            Cause::of(&self.parameters, &run.settings(self.meta), run.blocks())
        } else {
            None
        };
        RuleCheckStep {
            step: self.meta.step,
            bit_identical: worse.bit_identical,
            error: worse.error,
            tensor: worse.tensor,
            by_rounding: self.by_rounding,
            loss: self.loss,
            cause,
        }
    }
}

/// Computes every step of `stretch` in the type of the training. The optimizer state of the first step must be known.
pub(crate) fn walk(
    run: &RecordedRun<'_>,
    stretch: Range<u64>,
    device: &Device,
    see: &mut dyn FnMut(&Recomputed<'_>) -> Result<()>,
) -> Result<()> {
    match run.trained_dtype() {
        DType::F64 => typed::<f64>(run, stretch, device, see),
        DType::F16 => typed::<f16>(run, stretch, device, see),
        DType::BF16 => typed::<bf16>(run, stretch, device, see),
        _ => typed::<f32>(run, stretch, device, see),
    }
}

fn typed<T: Real>(
    run: &RecordedRun<'_>,
    stretch: Range<u64>,
    device: &Device,
    see: &mut dyn FnMut(&Recomputed<'_>) -> Result<()>,
) -> Result<()> {
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
    let mut rounding = Rounding::new(run.blocks());
    each_state(run, known..last, optimizer, &mut |step| {
        if let Some(pending) = pending.take() {
            let key = step.key.as_ref();
            let recorded = Recorded {
                parameters: &wide(&step.state.parameters),
                buffers: key.map(|key| key.buffers_before.as_slice().to_f64()),
                // A step with the counter 0 begins with a new state, whatever came before.
                optimizer: key
                    .filter(|_| step.meta.optimizer_step > 0)
                    .map_or(&[], |key| &key.optimizer),
            };
            finish(run, &pending, &recorded, see)?;
        }
        if step.meta.step >= stretch.end {
            return Ok(None);
        }
        let computed = compute(run, step, device, &mut rounding)?;
        let after = computed.after.optimizer.clone();
        pending = Some(computed);
        Ok(Some(after))
    })?;
    if let Some(pending) = pending {
        if pending.meta.step + 1 != end.step {
            let step = pending.meta.step + 1;
            return Err(AnalysisError::Missing(Missing::Step { step }));
        }
        let recorded = Recorded {
            parameters: &end.parameters,
            buffers: Some(Cow::Borrowed(&end.buffers)),
            optimizer: end.optimizer.as_deref().unwrap_or_default(),
        };
        finish(run, &pending, &recorded, see)?;
    }
    Ok(())
}

fn compute<T: Real>(
    run: &RecordedRun<'_>,
    step: StateBefore<T>,
    device: &Device,
    rounding: &mut Rounding,
) -> Result<Pending<T>> {
    let StateBefore {
        meta,
        state: before,
        buffers_after,
        key: _,
    } = step;
    let Pass {
        gradient,
        weights_agree,
        trained_differs,
    } = pass(run, &meta, &before, device)?;
    let (stepper, loss) = (stepper(run), gradient.loss);
    let batch_gradient = gradient.gradient.clone();
    let settings = run.settings(&meta);
    let mut after = before.clone();
    stepper.update(&settings, gradient, &mut after)?;
    let bounds = rounding
        .step(
            run.rule(),
            run.blocks(),
            &settings,
            StepPoint {
                parameters: &before.parameters,
                gradient: &batch_gradient,
                state: &before.optimizer,
            },
            &after.optimizer,
        )
        .map_err(|source| AnalysisError::Update {
            step: meta.step,
            source,
        })?;
    Ok(Pending {
        meta,
        before,
        after,
        buffers_after,
        loss,
        weights_agree,
        trained_differs,
        bounds,
    })
}

fn wide<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.wide()).collect()
}

/// The state after a step, as the trace records it.
struct Recorded<'a> {
    parameters: &'a [f64],
    /// `None` where only the step itself records them.
    buffers: Option<Cow<'a, [f64]>>,
    /// Empty where it isn't recorded.
    optimizer: &'a [f64],
}

fn finish<T: Real>(
    run: &RecordedRun<'_>,
    pending: &Pending<T>,
    next: &Recorded<'_>,
    see: &mut dyn FnMut(&Recomputed<'_>) -> Result<()>,
) -> Result<()> {
    let (before, got) = (&pending.before, &pending.after);
    let recorded = next.parameters;
    let same = |a: &f64, b: &f64| a.to_bits() == b.to_bits();
    let buffers_agree = next.buffers.as_ref().is_none_or(|buffers| {
        let after = &pending.buffers_after;
        buffers.len() == after.len() && buffers.iter().zip(after).all(|(a, b)| same(a, b))
    });
    let known = next.optimizer.len() == got.optimizer.len() && !got.optimizer.is_empty();
    let (theta, computed) = (wide(&before.parameters), wide(&got.parameters));
    let source = run.source();
    let (left_out, by_rounding) = explained(&computed, recorded, &pending.bounds);
    let (buffers, buffers_got) = (wide(&before.buffers), wide(&got.buffers));
    see(&Recomputed {
        meta: &pending.meta,
        parameters: Compared {
            before: &theta,
            got: &computed,
            want: recorded,
            left_out: &left_out,
            specs: source.parameters(),
        },
        buffers: Compared {
            before: &buffers,
            got: &buffers_got,
            want: &pending.buffers_after,
            left_out: &[],
            specs: source.buffers(),
        },
        loss: pending.meta.loss.map(|recorded| (pending.loss, recorded)),
        weights_agree: pending.weights_agree,
        trained_differs: &pending.trained_differs,
        by_rounding,
        next: Next {
            optimizer: known.then(|| (wide(&got.optimizer), next.optimizer)),
            buffers_agree,
        },
    })
}
