//! Where recorded steps come from.

use std::ops::Range;

use hindcast_format::layout::TensorSpec;
use hindcast_format::meta::{BatchWeights, StepMeta};

use crate::error::{AnalysisError, Damaged, Result};

/// One recorded step in float64; vectors are flat, tensors back to back in the layout's order (by name), row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedStep {
    /// What the frame says beside its tensors.
    pub meta: StepMeta,
    /// θ_t, before the update.
    pub parameters: Vec<f64>,
    /// r_{t+1}, after the step's forward pass.
    pub buffers_after: Vec<f64>,
    /// Where the step opens a segment: what only keyframes hold.
    pub key: Option<RecordedKey>,
}

/// What a keyframe holds beyond a frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordedKey {
    /// r_t, before the step's forward pass.
    pub buffers_before: Vec<f64>,
    /// Momentum and the like before the step, in the layout's order.
    pub optimizer: Vec<f64>,
}

/// Where training ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEnd {
    /// T: number of the step that would have come next.
    pub step: u64,
    /// θ_T.
    pub parameters: Vec<f64>,
    /// r_T.
    pub buffers: Vec<f64>,
    /// Optimizer state after the last step, if it was recorded.
    pub optimizer: Option<Vec<f64>>,
}

/// A lending walk over recorded steps.
pub trait StepWalk {
    /// The next step, or `None` after the last one.
    ///
    /// # Errors
    /// Where a step can't be read; the walk is over then.
    fn next(&mut self) -> Result<Option<RecordedStep>>;
}

/// Recorded steps: a trace on disk, or a run kept in memory.
pub trait StepSource: Send + Sync {
    /// Parameters in the layout's order.
    fn parameters(&self) -> &[TensorSpec];
    /// Buffers in the layout's order.
    fn buffers(&self) -> &[TensorSpec];
    /// Optimizer state in the layout's order.
    fn optimizer_state(&self) -> &[TensorSpec];
    /// Maximal runs of steps that are recorded without a gap, ascending.
    ///
    /// # Errors
    /// Where the trace's index can't be read.
    fn ranges(&self) -> Result<Vec<Range<u64>>>;
    /// Recorded steps of each epoch, ascending.
    ///
    /// # Errors
    /// Where the metadata can't be read.
    fn epochs(&self) -> Result<Vec<(u64, Range<u64>)>>;
    /// Walks `range` oldest first.
    ///
    /// # Errors
    /// Where a step isn't recorded or can't be read.
    fn forward<'a>(&'a self, range: Range<u64>) -> Result<Box<dyn StepWalk + 'a>>;
    /// Walks `range` newest first.
    ///
    /// # Errors
    /// Where a step isn't recorded or can't be read.
    fn reverse<'a>(&'a self, range: Range<u64>) -> Result<Box<dyn StepWalk + 'a>>;
    /// The newest keyframe's step at or before `step`.
    ///
    /// # Errors
    /// Where `step` isn't recorded.
    fn keyframe(&self, step: u64) -> Result<u64>;
    /// Metadata of `range`, oldest first, without decoding tensors.
    ///
    /// # Errors
    /// Where a step isn't recorded or can't be read.
    fn metas(&self, range: Range<u64>) -> Result<Vec<StepMeta>>;
    /// Calls `see` with the metadata of each step in `range`, oldest first.
    ///
    /// # Errors
    /// As [`metas`](Self::metas), and the errors of `see`.
    fn each_meta(
        &self,
        range: Range<u64>,
        see: &mut dyn FnMut(&StepMeta) -> Result<()>,
    ) -> Result<()> {
        self.metas(range)?.iter().try_for_each(see)
    }
    /// θ_T and r_T.
    ///
    /// # Errors
    /// Where nothing is recorded.
    fn end(&self) -> Result<RecordedEnd>;
}

/// w of each example of a step, in the order of its indices.
pub fn weights_of(meta: &StepMeta) -> Result<Vec<f64>> {
    let n = meta.indices.len();
    match &meta.weights {
        BatchWeights::Mean => Ok(vec![1.0 / n as f64; n]),
        BatchWeights::Sum => Ok(vec![1.0; n]),
        BatchWeights::Each(w) | BatchWeights::SumOfEach(w) if w.len() == n => Ok(w.clone()),
        BatchWeights::Each(w) | BatchWeights::SumOfEach(w) => {
            Err(AnalysisError::Damaged(Damaged::Lengths {
                what: "weights",
                step: meta.step,
                expected: n,
                got: w.len(),
            }))
        }
    }
}

/// Lengths of the micro-batches of a step; one entry where there was no accumulation.
pub fn micro_batches_of(meta: &StepMeta) -> Result<Vec<usize>> {
    if meta.micro_batches.is_empty() {
        return Ok(vec![meta.indices.len()]);
    }
    let lengths: Vec<usize> = meta.micro_batches.iter().map(|&n| n as usize).collect();
    let sum: usize = lengths.iter().sum();
    if sum == meta.indices.len() {
        return Ok(lengths);
    }
    Err(AnalysisError::Damaged(Damaged::Lengths {
        what: "examples in micro-batches",
        step: meta.step,
        expected: meta.indices.len(),
        got: sum,
    }))
}
