//! The `[train]` table of a Task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `[train]` table: the number of epochs, the batches, the seed and the float type.
///
/// ```toml
/// [train]
/// epochs = 20
/// batch = 64
/// seed = 0                  # seed of all random numbers of the run
/// dtype = "f32"             # | "f64"
/// order = "shuffle"         # a new permutation in each epoch | "sequential"
/// batches = "fixed"         # batches of this size; the last may be short | "even": ⌈N/batch⌉ nearly equal batches
/// drop_last = false         # whether a short last batch is left out
/// micro_batch = 16          # largest part of a batch that is run at once; gradients of the parts are added
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Number of passes over the training examples.
    pub epochs: u64,
    /// Number of examples per batch.
    pub batch: usize,
    /// Seed of all random numbers of the run.
    #[serde(default)]
    pub seed: u64,
    /// Float type of the parameters and of the arithmetic.
    #[serde(default)]
    pub dtype: Precision,
    /// Order of the examples in an epoch.
    #[serde(default)]
    pub order: Order,
    /// How an epoch is cut into batches.
    #[serde(default)]
    pub batches: Cut,
    /// Whether a short last batch is left out.
    #[serde(default, skip_serializing_if = "is_false")]
    #[schemars(!skip_serializing_if)]
    pub drop_last: bool,
    /// Largest number of examples that are run at once. A larger batch is run in parts, whose gradients are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Float type of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl Precision {
    /// The candle type.
    pub fn dtype(self) -> candle_core::DType {
        match self {
            Self::F32 => candle_core::DType::F32,
            Self::F64 => candle_core::DType::F64,
        }
    }
}

/// Order of the examples in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A new permutation in each epoch, determined by seed and epoch.
    #[default]
    Shuffle,
    /// The order of the split.
    Sequential,
}

/// How an epoch is cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Batches of the given size. The last batch holds the remaining examples.
    #[default]
    Fixed,
    /// ⌈N/batch⌉ batches whose sizes differ by at most one, the larger ones first.
    Even,
}
