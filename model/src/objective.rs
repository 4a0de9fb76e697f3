//! The view that an analysis has of a model: per-example losses as a function of parameters and buffers.

use candle_core::{Result, Tensor, Var};

/// Name and shape of a parameter or buffer. The format's `TensorSpec` also has its role, element type and parameter
/// group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorDef {
    /// The name, unique among the objective's parameters or among its buffers.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
}

/// Number of values of all these tensors, which is the length of their flat vector.
pub fn values(defs: &[TensorDef]) -> usize {
    defs.iter()
        .map(|def| def.shape.iter().product::<usize>())
        .sum()
}

/// The part of the data that an example's index refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Training examples. The indices of batches refer to them.
    Train,
    /// Validation examples, which queries usually evaluate.
    Validation,
    /// Test examples, reserved for final results.
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
    /// (B,) u32 classes, or (B, k) floats for regression and for binary targets.
    pub targets: Tensor,
}

/// The mode in which a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As in training: batch statistics, dropout, augmentation, penalty.
    Train,
    /// Running statistics, no dropout, no augmentation, no penalty.
    Evaluate,
}

/// Key of the random numbers of a step. The numbers of a row depend on (seed, step, example, occurrence within the batch)
/// only. Removing an example therefore changes no mask or crop of the other rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draws {
    /// The run's seed.
    pub seed: u64,
    /// The step t.
    pub step: u64,
}

/// One forward pass.
pub struct Pass<'a> {
    /// Parameters, in the order of [`Objective::parameters`].
    pub parameters: &'a [Tensor],
    /// Buffers before the pass, in the order of [`Objective::buffers`].
    pub buffers: &'a [Tensor],
    /// The examples.
    pub batch: &'a Batch,
    /// Train or evaluate.
    pub mode: Mode,
    /// Key of the random numbers. Only [`Mode::Train`] uses it.
    pub draws: Draws,
}

/// Result of a forward pass.
pub struct Losses {
    /// (B,) loss of each example, including a penalty that is part of each example's loss.
    pub per_example: Tensor,
    /// (B, P) terms whose sum over P is `per_example`, such as one term per token of a sequence. `None` if the losses have no
    /// terms that are of interest.
    pub terms: Option<Tensor>,
    /// Scalar that is added once to the batch loss, independently of the examples' weights: a penalty outside the
    /// examples' losses.
    pub shared: Option<Tensor>,
    /// Buffers after the pass, in the order of [`Objective::buffers`]. They are differentiable in the parameters and in
    /// the buffers before the pass.
    pub buffers: Vec<Tensor>,
    /// (B, ...) outputs of the model, from which error rates are computed.
    pub outputs: Tensor,
    /// The constants of the gradient, in the order in which the pass made them: a later one may depend on an earlier one.
    pub stopped: Vec<Stopped>,
}

/// A tensor that the gradient of a training pass treats as a constant.
pub struct Stopped {
    /// The constant, which the losses depend on.
    pub constant: Var,
    /// The tensor whose values it has, with its graph.
    pub of: Tensor,
}

/// A model with its loss. It is twice differentiable in its parameters.
pub trait Objective: Send + Sync {
    /// Parameters in the order of the trace's layout, which is by name.
    fn parameters(&self) -> &[TensorDef];
    /// Buffers in the order of the trace's layout, which is by name.
    fn buffers(&self) -> &[TensorDef];
    /// Tensors of the model that are not trained, by name. An analysis compares them with the digests of the run's frozen
    /// tensors.
    fn frozen(&self) -> &[(String, Tensor)] {
        &[]
    }
    /// Runs the model on a batch.
    ///
    /// # Errors
    /// If the pass doesn't fit the model, or an operation fails.
    fn losses(&self, pass: &Pass<'_>) -> Result<Losses>;
    /// [`Losses::shared`] of a training pass without examples. It is needed when all examples of a batch are removed. The
    /// default is `None`.
    ///
    /// # Errors
    /// If an operation fails.
    fn shared_penalty(&self, parameters: &[Tensor]) -> Result<Option<Tensor>> {
        let _ = parameters;
        Ok(None)
    }
}
