//! What an analysis has to know of a model: per-example losses as a function of parameters and buffers.

use candle_core::{Result, Tensor};

/// Name and shape of a parameter or buffer. A trace records the same tensor with its role, element type and parameter group: the format's
/// `TensorSpec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorDef {
    /// Unique among the objective's parameters, or among its buffers.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
}

/// Values of all these tensors together: the length of their flat vector.
pub fn values(defs: &[TensorDef]) -> usize {
    defs.iter()
        .map(|def| def.shape.iter().product::<usize>())
        .sum()
}

/// The part of the data that an index points into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Examples that are trained on; batch indices point here.
    Train,
    /// Examples that queries are about.
    Validation,
    /// Examples that nothing but a final figure uses.
    Test,
}

impl Split {
    /// All splits, in the order of a fingerprint.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// `train`, `validation` or `test`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// The split of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.name() == name)
    }
}

/// Examples on the device, decoded and preprocessed.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Position of each row in its split.
    pub indices: Vec<u64>,
    /// (B, ...) in the run's float type.
    pub inputs: Tensor,
    /// (B,) u32 classes, or (B, k) floats for regression and binary targets.
    pub targets: Tensor,
}

/// How the model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As trained: batch statistics, dropout, augmentation, penalty.
    Train,
    /// Running statistics, no dropout, no augmentation, no penalty.
    Evaluate,
}

/// Key of a step's random draws. A row's draws depend on (seed, step, example, occurrence within the batch) alone,
/// never on the other rows, so that leaving an example out changes nobody else's mask or crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draws {
    /// The run's seed.
    pub seed: u64,
    /// The step t.
    pub step: u64,
}

/// One forward pass.
pub struct Pass<'a> {
    /// In the order of [`Objective::parameters`].
    pub parameters: &'a [Tensor],
    /// In the order of [`Objective::buffers`], as they are before the pass.
    pub buffers: &'a [Tensor],
    /// The examples.
    pub batch: &'a Batch,
    /// Train or evaluate.
    pub mode: Mode,
    /// Key of the random draws (used in [`Mode::Train`] only).
    pub draws: Draws,
}

/// What a forward pass gives.
pub struct Losses {
    /// (B,) loss of each example, with its share of a penalty that sits inside the loss.
    pub per_example: Tensor,
    /// Scalar added once to the batch loss, whatever the weights: a penalty outside the examples' losses.
    pub shared: Option<Tensor>,
    /// Buffers after the pass, in the order of [`Objective::buffers`]; differentiable in parameters and buffers.
    pub buffers: Vec<Tensor>,
    /// (B, ...) the model's output, for error rates.
    pub outputs: Tensor,
}

/// A model with its loss, twice differentiable in its parameters.
pub trait Objective: Send + Sync {
    /// Parameters in the order of the trace's layout (by name).
    fn parameters(&self) -> &[TensorDef];
    /// Buffers in the order of the trace's layout (by name).
    fn buffers(&self) -> &[TensorDef];
    /// Runs the model.
    fn losses(&self, pass: &Pass<'_>) -> Result<Losses>;
    /// [`Losses::shared`] of a training pass alone, for a batch that removal has left without a row. None unless the
    /// model says otherwise.
    fn shared_penalty(&self, parameters: &[Tensor]) -> Result<Option<Tensor>> {
        let _ = parameters;
        Ok(None)
    }
}
