//! A step's metadata: what its frame holds besides the tensors.

use crate::FormatError;
use crate::layout::Layout;

/// Hyperparameters of one parameter group in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupHyper {
    /// Learning rate η, in float64 as the loop gave it.
    pub learning_rate: f64,
    /// The optimizer's own weight decay λ, coupled or decoupled as the update rule says; 0 if there is none.
    pub weight_decay: f64,
}

/// The weights w of the examples in the batch loss `Σ_j w_j ℓ_j`.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchWeights {
    /// `1/|S|` each, |S| being the number of indices in the step.
    Mean,
    /// 1 for each example.
    Sum,
    /// One weight per index, in the order of the indices, for a weighted mean. If an example is left out, the other weights may be scaled
    /// up to the same total.
    Each(Vec<f64>),
    /// One weight per index, in the order of the indices, for a weighted sum, which has no denominator.
    SumOfEach(Vec<f64>),
}

/// An extension record. Readers skip unknown ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The kind of record.
    pub id: u32,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The metadata of step t.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMeta {
    /// Number t of the step, counted from 0 over the whole run.
    pub step: u64,
    /// Epoch of the step.
    pub epoch: u64,
    /// One entry per parameter group.
    pub groups: Vec<GroupHyper>,
    /// The batch: indices of training examples, in order. An index may occur twice.
    pub indices: Vec<u64>,
    /// The examples' weights in the batch loss.
    pub weights: BatchWeights,
    /// Lengths of the micro-batches into which `indices` is split; empty for a single batch.
    pub micro_batches: Vec<u32>,
    /// The batch loss, if the loop gave it.
    pub loss: Option<f64>,
    /// Threshold C of the step's global-norm clipping, if there is one.
    pub clip_norm: Option<f64>,
    /// Number of updates before this step by the optimizer's own counter, which may differ from the run's.
    pub optimizer_step: u64,
    /// One flag per parameter of the layout: whether it had a gradient in this step.
    pub trained: Vec<bool>,
    /// Other values that the user wants to keep.
    pub scalars: Vec<(String, f64)>,
    /// Other records: those for later versions, and while a step is written, its [rows](crate::ROWS). Readers of steps leave the rows
    /// out; [`Trace::rows`](crate::Trace::rows) reads them.
    pub extensions: Vec<Extension>,
}

impl StepMeta {
    /// Whether the metadata agrees with the run's tensors and with itself. A valid checksum doesn't prove that.
    pub(crate) fn fits(&self, layout: &Layout) -> bool {
        self.check(layout).is_ok()
    }

    /// Checks the length of every list.
    ///
    /// # Errors
    /// The first list whose length contradicts the run's tensors or the batch.
    pub(crate) fn check(&self, layout: &Layout) -> Result<(), FormatError> {
        let same = FormatError::unless_equal;
        let batch = self.indices.len();
        same(
            "parameter groups of a step",
            layout.groups(),
            self.groups.len(),
        )?;
        let parameters = layout.parameters().len();
        same("trained flags of a step", parameters, self.trained.len())?;
        if let BatchWeights::Each(w) | BatchWeights::SumOfEach(w) = &self.weights {
            same("weights of a step", batch, w.len())?;
        }
        if !self.micro_batches.is_empty() {
            let examples = self.micro_batches.iter().map(|&n| n as usize).sum();
            same("examples in the micro-batches of a step", batch, examples)?;
        }
        Ok(())
    }
}

/// The error for metadata that doesn't fit the run.
pub(crate) fn misfit() -> FormatError {
    FormatError::corrupt(
        "metadata",
        "groups, flags, weights and micro-batches that fit the run's tensors and the batch",
        "ones that do not fit",
    )
}
