//! θ_A, r_A and the optimizer's state before step A, in the run's own float type.

use std::ops::Range;

use candle_core::Device;
use hindcast_format::meta::StepMeta;
use hindcast_model::real::Real;
use hindcast_model::train::{ModelState, Stepper, WeightedBatch};

use crate::error::{Missing, Result};
use crate::run::anchor::known_state;
use crate::run::recorded::RecordedRun;
use crate::run::source::{RecordedKey, weights_of};
use crate::run::walk::{Order, WithBuffers};

/// Converts to the run's float type. Exact for recorded values, which have that type.
pub(super) fn narrow<T: Real>(x: &[f64]) -> Vec<T> {
    x.iter().map(|&x| T::of(x)).collect()
}

/// A recorded step with the state before it.
pub struct StateBefore<T> {
    /// The step's metadata.
    pub meta: StepMeta,
    /// θ_t, r_t and the optimizer's state before the step.
    pub state: ModelState<T>,
    /// r_{t+1}, as recorded after the step's forward pass.
    pub buffers_after: Vec<f64>,
    /// What a keyframe records in addition.
    pub key: Option<RecordedKey>,
}

/// Calls `see` with the steps of `range`, oldest first, and the state before each. `optimizer` is the optimizer's
/// state before the first step. The update rule itself starts from the initial state in a step that an optimizer counts
/// as its first, for the parameters of that step only: optimizers may take turns. `see` returns the optimizer's state
/// after its step, or `None` to stop.
pub fn each_state<T: Real>(
    run: &RecordedRun<'_>,
    range: Range<u64>,
    mut optimizer: Vec<T>,
    see: &mut dyn FnMut(StateBefore<T>) -> Result<Option<Vec<T>>>,
) -> Result<()> {
    for found in WithBuffers::new(run.source(), range, Order::OldestFirst)? {
        let (step, buffers) = found?;
        let state = ModelState {
            parameters: step.parameters.to_vec(),
            buffers: buffers.to_vec(),
            optimizer,
        };
        match see(StateBefore {
            meta: step.meta,
            state,
            buffers_after: step.buffers_after.to_vec(),
            key: step.key,
        })? {
            Some(after) => optimizer = after,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// The state before step `at`. The optimizer's state is rebuilt from the nearest keyframe with the arithmetic of the
/// run.
pub fn start_state<T: Real>(
    run: &RecordedRun<'_>,
    at: u64,
    device: &Device,
) -> Result<ModelState<T>> {
    let (known, optimizer) = known_state(run, at)?;
    let stepper = stepper(run);
    let mut found = None;
    each_state(run, known..at + 1, narrow(&optimizer), &mut |step| {
        let StateBefore {
            meta, mut state, ..
        } = step;
        if meta.step == at {
            found = Some(state);
            return Ok(None);
        }
        let parts = parts::<T>(run, &meta, device)?;
        let gradient = stepper.gradient(&state, &parts, run.draws(meta.step))?;
        stepper.update(&run.settings(&meta), gradient, &mut state)?;
        Ok(Some(state.optimizer))
    })?;
    Ok(found.ok_or(Missing::Start { step: at })?)
}

/// The arithmetic of the run's steps.
pub fn stepper<'a>(run: &'a RecordedRun<'_>) -> Stepper<'a> {
    Stepper::with_blocks(run.objective().as_ref(), run.rule(), run.blocks().clone())
}

/// A recorded step's micro-batches with their weights.
pub fn parts<T: Real>(
    run: &RecordedRun<'_>,
    meta: &StepMeta,
    device: &Device,
) -> Result<Vec<WeightedBatch>> {
    let mut weights = weights_of(meta)?.into_iter();
    Ok(run
        .batches(meta, T::DTYPE, device)?
        .into_iter()
        .map(|batch| WeightedBatch {
            weights: weights.by_ref().take(batch.indices.len()).collect(),
            batch,
        })
        .collect())
}
