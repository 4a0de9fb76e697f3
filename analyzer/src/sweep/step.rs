//! A recorded step, completed for a replay.

use candle_core::{DType, Device};
use hindcast_format::meta::StepMeta;
use hindcast_model::objective::{Batch, Draws, Mode};

use crate::engine::StepInput;
use crate::error::Result;
use crate::run::floats::FloatVec;
use crate::run::recorded::RecordedRun;
use crate::run::source::{RecordedStep, weights_of};

/// A recorded step together with all that its replay reads from elsewhere: the data, the step before it, and for some update
/// rules what was computed on the way to it. The reader's thread makes it, and it is moved from there to the replay.
#[derive(Debug)]
pub(crate) struct ReplayStep {
    pub meta: StepMeta,
    /// θ_t.
    pub parameters: FloatVec,
    /// r_t, before the forward pass.
    pub buffers: FloatVec,
    /// The step's micro-batches.
    pub batches: Vec<Batch>,
    /// w, one weight per example over all micro-batches.
    pub weights: Vec<f64>,
    /// Key of the step's random draws.
    pub draws: Draws,
    /// G_t if the update rule's reverse needs it, else empty.
    pub gradient: Vec<f64>,
    /// The optimizer's state before the step if the update rule's reverse needs it, else empty.
    pub state: Vec<f64>,
}

impl ReplayStep {
    /// Loads the batches of a step that began with the buffers `buffers`.
    ///
    /// # Errors
    /// If the step's metadata is inconsistent, or the data lacks one of its examples.
    pub fn load(
        run: &RecordedRun<'_>,
        (step, buffers): (RecordedStep, FloatVec),
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Ok(ReplayStep {
            batches: run.batches(&step.meta, dtype, device)?,
            weights: weights_of(&step.meta)?,
            draws: run.draws(step.meta.step),
            meta: step.meta,
            parameters: step.parameters,
            buffers,
            gradient: Vec::new(),
            state: Vec::new(),
        })
    }

    /// The step as engines take it, as it was trained.
    pub fn input(&self) -> StepInput<'_> {
        StepInput {
            parameters: self.parameters.as_slice(),
            buffers: self.buffers.as_slice(),
            micro_batches: &self.batches,
            weights: &self.weights,
            mode: Mode::Train,
            draws: self.draws,
        }
    }
}
