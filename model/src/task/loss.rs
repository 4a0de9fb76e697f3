//! The `[loss]` table of a Task.

use serde::{Deserialize, Serialize};

/// The `[loss]` table: each example's loss, its penalty, and how losses add up to the batch loss.
///
/// ```toml
/// [loss]
/// kind = "cross-entropy"    # | "binary-cross-entropy" (on logits) | "mean-squared-error"
/// reduction = "mean"        # | "sum"
/// penalty = 0.001           # ½ penalty ‖θ‖² over all parameters
/// penalty_in = "examples"   # in each example's loss, so that leaving it out removes its share | "batch": added once
/// class_weights = [1.0, 2.0]
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossSpec {
    /// Each example's loss.
    pub kind: LossKind,
    /// How they add up.
    #[serde(default)]
    pub reduction: Reduction,
    /// α of the penalty ½α‖θ‖² over all parameters, biases included. It acts in training only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub penalty: f64,
    /// Where the penalty sits.
    #[serde(default)]
    pub penalty_in: PenaltyIn,
    /// A factor for each class; all 1 when empty. A mean is then divided by the sum of the batch's factors, as PyTorch
    /// does it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_weights: Vec<f64>,
}

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

impl LossSpec {
    /// A mean without penalty and class weights.
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

/// Each example's loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LossKind {
    /// Negative log-softmax at the class: outputs `[classes]`.
    CrossEntropy,
    /// Of logits against targets in [0, 1], mean over an example's outputs: `[1]` for two classes.
    BinaryCrossEntropy,
    /// Mean over an example's outputs.
    MeanSquaredError,
}

impl LossKind {
    /// The name in a Task.
    pub fn name(self) -> &'static str {
        match self {
            Self::CrossEntropy => "cross-entropy",
            Self::BinaryCrossEntropy => "binary-cross-entropy",
            Self::MeanSquaredError => "mean-squared-error",
        }
    }
}

/// How examples' losses add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// Divided by the batch size, or by the sum of the batch's class weights.
    #[default]
    Mean,
    /// Added.
    Sum,
}

/// Where the penalty sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PenaltyIn {
    /// In each example's loss: leaving the example out takes its share of the penalty away.
    #[default]
    Examples,
    /// Added to the batch loss once, whatever the examples' weights.
    Batch,
}
