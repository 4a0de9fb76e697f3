//! θ_A, r_A and the optimizer's state before step A, in the run's own float type.

use candle_core::Device;
use hindcast_format::meta::StepMeta;
use hindcast_model::real::Real;
use hindcast_model::train::{ModelState, Part, Stepper};

use crate::anchor::{known_state, no_buffers, with_buffers_before};
use crate::error::{AnalysisError, Result};
use crate::run::RecordedRun;
use crate::source::{RecordedStep, weights_of};

/// To the run's float type; recorded numbers came from it, so nothing is lost.
pub(super) fn narrow<T: Real>(x: &[f64]) -> Vec<T> {
    x.iter().map(|&x| T::of(x)).collect()
}

/// The state before step `at`. The optimizer's state is rebuilt from the nearest keyframe by the arithmetic that made it.
pub(crate) fn start_state<T: Real>(
    run: &RecordedRun<'_>,
    at: u64,
    device: &Device,
) -> Result<ModelState<T>> {
    let source = run.source();
    let (known, state) = known_state(run, at)?;
    let mut optimizer: Vec<T> = narrow(&state);
    let mut buffers: Option<Vec<f64>> = None;
    let mut walk = source.forward(with_buffers_before(run, known..at + 1)?)?;
    let stepper = stepper(run);
    while let Some(step) = walk.next()? {
        let RecordedStep {
            meta,
            parameters,
            buffers_after,
            key,
        } = step;
        let before = match key {
            Some(key) => Some(key.buffers_before),
            None => buffers.take(),
        };
        buffers = Some(buffers_after);
        if meta.step < known {
            continue;
        }
        let before = match source.buffers().is_empty() {
            true => Vec::new(),
            false => before.ok_or_else(|| no_buffers(meta.step))?,
        };
        let mut state = ModelState {
            parameters: narrow(&parameters),
            buffers: narrow(&before),
            optimizer: std::mem::take(&mut optimizer),
        };
        if meta.step == at {
            return Ok(state);
        }
        let parts = parts::<T>(run, &meta, device)?;
        let gradient = stepper.gradient(&state, &parts, run.draws(meta.step))?;
        stepper.update(&run.settings(&meta), gradient, &mut state)?;
        optimizer = state.optimizer;
    }
    Err(AnalysisError::Window(format!(
        "step {at} is not in the trace: a replay has to start from a recorded step"
    )))
}

/// The arithmetic of the run's steps.
pub(crate) fn stepper<'a>(run: &'a RecordedRun<'_>) -> Stepper<'a> {
    Stepper::with_blocks(run.objective().as_ref(), run.rule(), run.blocks().clone())
}

/// A recorded step's micro-batches with their weights.
pub(crate) fn parts<T: Real>(
    run: &RecordedRun<'_>,
    meta: &StepMeta,
    device: &Device,
) -> Result<Vec<Part>> {
    let mut weights = weights_of(meta)?.into_iter();
    Ok(run
        .batches(meta, T::DTYPE, device)?
        .into_iter()
        .map(|batch| Part {
            weights: weights.by_ref().take(batch.indices.len()).collect(),
            batch,
        })
        .collect())
}
