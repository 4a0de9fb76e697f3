//! What a frame says about its step beside the tensors.

use crate::FormatError;
use crate::layout::Layout;

/// Hyperparameters of one parameter group in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupHyper {
    /// η, in float64 as the loop gave it.
    pub learning_rate: f64,
    /// λ of the optimizer's own decay (coupled or decoupled, as the update rule says); 0 where there is none.
    pub weight_decay: f64,
}

/// The weights w of the examples in the batch loss `Σ_j w_j ℓ_j`.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchWeights {
    /// `1/|S|` each, |S| being the number of indices in the step.
    Mean,
    /// 1 each.
    Sum,
    /// One weight per index, in the order of the indices, for a weighted mean. If an example is left out, the other
    /// weights may be scaled up to the same total.
    Each(Vec<f64>),
    /// One weight per index, in the order of the indices, for a weighted sum, which has no denominator.
    SumOfEach(Vec<f64>),
}

/// An extension record: readers skip the ids that they do not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Who wrote it.
    pub id: u32,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Everything a frame says about step t beside its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMeta {
    /// t, counted from 0 over the whole run.
    pub step: u64,
    /// Epoch the step belongs to.
    pub epoch: u64,
    /// One entry a parameter group.
    pub groups: Vec<GroupHyper>,
    /// The batch: training examples in order; an index may occur twice.
    pub indices: Vec<u64>,
    /// Their weights in the batch loss.
    pub weights: BatchWeights,
    /// Lengths of the micro-batches that `indices` splits into; empty for one batch.
    pub micro_batches: Vec<u32>,
    /// The batch loss, if the loop told it.
    pub loss: Option<f64>,
    /// Threshold C of global-norm clipping in force in this step.
    pub clip_norm: Option<f64>,
    /// How many updates the optimizer itself had done before this step (its own counter, not the run's).
    pub optimizer_step: u64,
    /// One flag a parameter of the layout: had it a gradient in this step?
    pub trained: Vec<bool>,
    /// Anything else the user wants to keep.
    pub scalars: Vec<(String, f64)>,
    /// Room for later versions.
    pub extensions: Vec<Extension>,
}

impl StepMeta {
    /// Checks metadata whose checksum is valid: it may still contradict the run's tensors or itself.
    pub(crate) fn fits(&self, layout: &Layout) -> bool {
        let weights = match &self.weights {
            BatchWeights::Each(w) | BatchWeights::SumOfEach(w) => w.len() == self.indices.len(),
            BatchWeights::Mean | BatchWeights::Sum => true,
        };
        let micro: u64 = self.micro_batches.iter().map(|&n| u64::from(n)).sum();
        weights
            && self.groups.len() == layout.groups()
            && self.trained.len() == layout.parameters().len()
            && (self.micro_batches.is_empty() || micro == self.indices.len() as u64)
    }
}

/// The error for metadata that doesn't fit the run.
pub(crate) fn misfit() -> FormatError {
    FormatError::corrupt(
        "metadata",
        "groups, flags, weights and micro-batches that fit the run's tensors and the batch",
        "others",
    )
}
