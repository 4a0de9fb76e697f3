//! A recorded step, completed for a replay.

use candle_core::{DType, Device};
use hindcast_format::meta::StepMeta;
use hindcast_model::objective::{Batch, Draws, Mode};

use crate::engine::StepInput;
use crate::error::Result;
use crate::run::floats::FloatVec;
use crate::run::recorded::RecordedRun;
use crate::run::source::{RecordedStep, weights_of};

/// A recorded step together with its batches and its buffers. The reading thread loads it and sends it to the replay.
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
}

impl ReplayStep {
    /// Loads the batches of a step. `buffers` are r_t, which a recorded step doesn't contain.
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
        })
    }

    /// The step as an engine's input, in training mode.
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
