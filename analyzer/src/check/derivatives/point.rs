//! The point at which an objective is checked.

use candle_core::{DType, Device};
use hindcast_model::objective::{Batch, Draws};

use super::report::CheckOptions;
use crate::error::Result;
use crate::run::recorded::RecordedRun;

/// The point at which an objective is checked.
#[derive(Debug, Clone, Copy)]
pub struct CheckPoint<'a> {
    /// θ, flat, in the objective's order.
    pub parameters: &'a [f64],
    /// r, flat, in the objective's order.
    pub buffers: &'a [f64],
    /// Examples in float64 on the CPU; at least two if the model has batch norm.
    pub batch: &'a Batch,
    /// Key of the random draws.
    pub draws: Draws,
}

/// The end of a recorded run, with examples of its last recorded batch.
pub(super) struct End {
    parameters: Vec<f64>,
    buffers: Vec<f64>,
    batch: Batch,
    draws: Draws,
}

impl End {
    /// The end of `run`, with as many examples as `options` allow for its model, in this float type on the CPU.
    pub(super) fn of(run: &RecordedRun<'_>, options: &CheckOptions, dtype: DType) -> Result<Self> {
        let end = run.source().end()?;
        let (last, indices) = run.last_batch()?;
        let examples = options.examples_for(end.parameters.len());
        let indices = &indices[..indices.len().min(examples)];
        Ok(End {
            batch: run.train_batch(indices, last, dtype, &Device::Cpu)?,
            parameters: end.parameters,
            buffers: end.buffers,
            draws: run.draws(last),
        })
    }

    pub(super) fn point(&self) -> CheckPoint<'_> {
        CheckPoint {
            parameters: &self.parameters,
            buffers: &self.buffers,
            batch: &self.batch,
            draws: self.draws,
        }
    }
}
