//! The description of a run: one struct with a field for each table of the TOML file.

use serde::{Deserialize, Serialize};

use super::layers::ModelSpec;
use super::loss::LossSpec;
use super::training::TrainSpec;
use crate::data::{AugmentSpec, DataSpec};
use crate::schedule::Schedule;
use crate::update::UpdateRule;

/// Everything that decides the numbers of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// A short name.
    pub name: String,
    /// One line on what it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where examples come from.
    pub data: DataSpec,
    /// The layers.
    pub model: ModelSpec,
    /// Each example's loss.
    pub loss: LossSpec,
    /// How a gradient moves the parameters; plain SGD unless said.
    #[serde(default)]
    pub optimizer: UpdateRule,
    /// Learning rates.
    pub schedule: Schedule,
    /// How long, in which batches.
    pub train: TrainSpec,
    /// Random changes of the inputs in training; none unless said.
    #[serde(default, skip_serializing_if = "AugmentSpec::is_none")]
    pub augment: AugmentSpec,
}
