//! Recomputes the forward and backward pass of a recorded step.

use candle_core::Device;
use hindcast_format::meta::StepMeta;
use hindcast_model::batches::LossWeights;
use hindcast_model::objective::Batch;
use hindcast_model::real::Real;
use hindcast_model::train::{Gradient, ModelState, TrainError, WeightedBatch};

use crate::counterfactual::{parts, stepper};
use crate::error::Result;
use crate::run::recorded::RecordedRun;

/// A step's pass, from the state before it.
pub(crate) struct Pass<T> {
    pub gradient: Gradient<T>,
    /// Whether the examples have the weights that the run's task gives them. `true` for a run without a task.
    pub weights_agree: bool,
    /// Tensors whose recorded flag "had a gradient" differs from the computed one.
    pub trained_differs: Vec<String>,
}

/// Computes the pass of the step that `meta` describes. The optimizer's state in `before` isn't used.
pub(crate) fn pass<T: Real>(
    run: &RecordedRun<'_>,
    meta: &StepMeta,
    before: &ModelState<T>,
    device: &Device,
) -> Result<Pass<T>> {
    let parts = parts::<T>(run, meta, device)?;
    let weights_agree = weights_agree(run, &parts)?;
    let gradient = stepper(run).gradient(before, &parts, run.draws(meta.step))?;
    let flags = gradient.trained.iter().zip(&meta.trained);
    let named = run.source().parameters().iter().zip(flags);
    let trained_differs = named
        .filter(|(_, (got, recorded))| got != recorded)
        .map(|(spec, _)| spec.name.clone())
        .collect();
    Ok(Pass {
        gradient,
        weights_agree,
        trained_differs,
    })
}

/// Whether the recorded weights are those that the task gives to these examples.
fn weights_agree(run: &RecordedRun<'_>, parts: &[WeightedBatch]) -> Result<bool> {
    let Some(task) = run.task() else {
        return Ok(true);
    };
    let batches: Vec<Batch> = parts.iter().map(|part| part.batch.clone()).collect();
    let recorded: Vec<f64> = parts.iter().flat_map(|part| part.weights.clone()).collect();
    let expected = LossWeights::of_parts(&task.loss, &batches)
        .map_err(TrainError::from)?
        .values(recorded.len());
    let mut pairs = expected.iter().zip(&recorded);
    Ok(pairs.all(|(a, b)| a.to_bits() == b.to_bits()))
}
