//! Sources of recorded steps.

use std::ops::Range;

use hindcast_format::layout::TensorSpec;
use hindcast_format::meta::{BatchWeights, StepMeta};

use super::floats::FloatVec;
use crate::error::{AnalysisError, Damaged, PrunedFrom, Result};

/// One step as a source stores it.
///
/// Every step has the buffers after its forward pass. Only a keyframe also has the buffers before it.
///
/// Vectors are flat: tensors back to back in the layout's order (by name), row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedStep {
    /// The step's metadata.
    pub meta: StepMeta,
    /// θ_t, before the update.
    pub parameters: FloatVec,
    /// r_{t+1}, after the step's forward pass.
    pub buffers_after: FloatVec,
    /// What a keyframe contains in addition; `None` if the step isn't a keyframe.
    pub key: Option<RecordedKey>,
}

/// What a keyframe contains in addition to the tensors of other steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordedKey {
    /// r_t, before the step's forward pass.
    pub buffers_before: FloatVec,
    /// The optimizer's state before the step, in the layout's order; empty if it isn't known.
    pub optimizer: Vec<f64>,
}

/// The state at the end of training.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEnd {
    /// T, the number of the step that would have come next.
    pub step: u64,
    /// θ_T.
    pub parameters: Vec<f64>,
    /// r_T.
    pub buffers: Vec<f64>,
    /// Optimizer state after the last step, if it was recorded.
    pub optimizer: Option<Vec<f64>>,
}

/// Yields recorded steps in order. After an error it yields no more steps.
pub type StepWalk<'a> = Box<dyn Iterator<Item = Result<RecordedStep>> + 'a>;

/// A source of recorded steps: a trace on disk, or a run in memory.
pub trait StepSource: Send + Sync {
    /// Parameters in the layout's order.
    fn parameters(&self) -> &[TensorSpec];
    /// Buffers in the layout's order.
    fn buffers(&self) -> &[TensorSpec];
    /// Optimizer state in the layout's order.
    fn optimizer_state(&self) -> &[TensorSpec];
    /// The longest ranges of steps that are recorded without a gap, ascending.
    ///
    /// # Errors
    /// If the trace's index can't be read.
    fn ranges(&self) -> Result<Vec<Range<u64>>>;
    /// Each epoch with its recorded steps, ascending.
    ///
    /// # Errors
    /// If the metadata can't be read.
    fn epochs(&self) -> Result<Vec<(u64, Range<u64>)>>;
    /// The steps of `range`, oldest first.
    ///
    /// # Errors
    /// If a step isn't recorded or can't be read. The walk may return this error later, when it reaches that step.
    fn forward(&self, range: Range<u64>) -> Result<StepWalk<'_>>;
    /// The steps of `range`, newest first.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn reverse(&self, range: Range<u64>) -> Result<StepWalk<'_>>;
    /// The step of the newest keyframe at or before `step`.
    ///
    /// # Errors
    /// If `step` isn't recorded.
    fn keyframe(&self, step: u64) -> Result<u64>;
    /// The metadata of `range`, oldest first, read without decoding tensors.
    ///
    /// # Errors
    /// If a step isn't recorded or can't be read.
    fn metas(&self, range: Range<u64>) -> Result<Vec<StepMeta>>;
    /// Calls `see` with the metadata of each step in `range`, oldest first.
    ///
    /// # Errors
    /// As [`metas`](Self::metas), and any error of `see`.
    fn each_meta(
        &self,
        range: Range<u64>,
        see: &mut dyn FnMut(&StepMeta) -> Result<()>,
    ) -> Result<()> {
        self.metas(range)?.iter().try_for_each(see)
    }
    /// The run from which steps were pruned, so that they are missing on purpose. `None` if none were.
    fn pruned_from(&self) -> Option<PrunedFrom> {
        None
    }
    /// The state at the end of training.
    ///
    /// # Errors
    /// If no step is recorded, or the state can't be read.
    fn end(&self) -> Result<RecordedEnd>;
}

/// The weight w_j of each example in a step's batch loss, in the order of the step's indices.
///
/// # Errors
/// If the number of recorded weights differs from the number of indices.
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

/// The number of examples in each micro-batch of a step; a single entry if the step accumulated no gradients.
///
/// # Errors
/// If the recorded lengths don't add up to the number of indices.
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
