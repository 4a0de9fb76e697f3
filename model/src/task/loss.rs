//! The `[loss]` table of a Task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `[loss]` table: the loss of an example, its penalty, and how the batch loss is made from the examples' losses.
///
/// ```toml
/// [loss]
/// kind = "cross-entropy"    # | "binary-cross-entropy" (on logits) | "mean-squared-error"
/// reduction = "mean"        # | "sum"
/// penalty = 0.001           # adds ½ · penalty · ‖θ‖² over all parameters
/// penalty_in = "examples"   # part of each example's loss, and removed with the example | "batch": added once
/// class_weights = [1.0, 2.0]
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LossSpec {
    /// The loss of an example.
    pub kind: LossKind,
    /// How the losses of a batch are combined.
    #[serde(default)]
    pub reduction: Reduction,
    /// α of the penalty ½α‖θ‖² over all parameters, including biases. It applies in training only.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(!skip_serializing_if)]
    pub penalty: f64,
    /// Which loss the penalty belongs to.
    #[serde(default)]
    pub penalty_in: PenaltyIn,
    /// One factor per class. An empty list means a factor of 1 for each class. With factors, a mean is divided by the sum
    /// of the batch's factors, as in PyTorch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_weights: Vec<f64>,
}

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

impl LossSpec {
    /// A mean without a penalty and without class weights.
    pub fn new(kind: LossKind) -> Self {
        Self {
            kind,
            reduction: Reduction::Mean,
            penalty: 0.0,
            penalty_in: PenaltyIn::Examples,
            class_weights: Vec::new(),
        }
    }
}

/// The loss of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LossKind {
    /// Negative log-softmax at the example's class. The model's output is `[classes]`.
    CrossEntropy,
    /// Binary cross-entropy of logits against targets in [0, 1], averaged over the outputs of an example. With two
    /// classes, the model's output is `[1]`.
    BinaryCrossEntropy,
    /// Squared error, averaged over the outputs of an example.
    MeanSquaredError,
}

impl LossKind {
    /// The name of the loss in a Task.
    pub fn name(self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross-entropy",
            Self::BinaryCrossEntropy => "binary-cross-entropy",
            Self::MeanSquaredError => "mean-squared-error",
        }
    }
}

/// How the losses of a batch are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// Their sum divided by the batch size, or by the sum of the batch's class weights.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// Which loss the penalty belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PenaltyIn {
    /// The loss of each example. Removing an example also removes its share of the penalty.
    #[default]
    Examples,
    /// The batch loss. The penalty is added once, independently of the examples' weights.
    Batch,
}
