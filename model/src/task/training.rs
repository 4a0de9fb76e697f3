//! The `[train]` table of a Task.

use serde::{Deserialize, Serialize};

/// The `[train]` table: how long, in which batches, in which numbers.
///
/// ```toml
/// [train]
/// epochs = 20
/// batch = 64
/// seed = 0                  # of everything random in the run
/// dtype = "f32"             # | "f64"
/// order = "shuffle"         # a fresh permutation each epoch | "sequential"
/// batches = "fixed"         # batches of this size, the last one short | "even": ⌈N/batch⌉ nearly equal parts
/// drop_last = false         # leaves a short last batch out
/// micro_batch = 16          # each batch in parts of at most this size, their gradients added up
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Passes over the training examples.
    pub epochs: u64,
    /// Examples a batch.
    pub batch: usize,
    /// Seed of everything random in the run.
    #[serde(default)]
    pub seed: u64,
    /// Float type of parameters and arithmetic.
    #[serde(default)]
    pub dtype: Precision,
    /// Order of the examples.
    #[serde(default)]
    pub order: Order,
    /// How an epoch is cut.
    #[serde(default)]
    pub batches: Cut,
    /// Whether a short last batch is left out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drop_last: bool,
    /// Largest part of a batch that is run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Float type of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl Precision {
    /// candle's name for it.
    pub fn dtype(self) -> candle_core::DType {
        match self {
            Self::F32 => candle_core::DType::F32,
            Self::F64 => candle_core::DType::F64,
        }
    }
}

/// Order of the examples in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A fresh permutation each epoch, by seed and epoch.
    #[default]
    Shuffle,
    /// As they stand in the split.
    Sequential,
}

/// How an epoch is cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Batches of the given size; the last one is what is left.
    #[default]
    Fixed,
    /// ⌈N/batch⌉ parts whose sizes differ by at most one, the longer ones first.
    Even,
}
