//! The contents of a task file, with one field per table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layers::ModelSpec;
use super::loss::LossSpec;
use super::training::TrainSpec;
use crate::data::{AugmentSpec, DataSpec};
use crate::schedule::Schedule;
use crate::update::UpdateRule;

/// Everything that determines the numbers of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// A short name.
    pub name: String,
    /// One line that describes the Task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The source of the examples.
    pub data: DataSpec,
    /// The layers.
    pub model: ModelSpec,
    /// Each example's loss.
    pub loss: LossSpec,
    /// How a gradient changes the parameters. The default is plain SGD.
    #[serde(default)]
    pub optimizer: UpdateRule,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// Number of epochs, batches, seed and float type.
    pub train: TrainSpec,
    /// Random changes of the inputs in training. The default is none.
    #[serde(default, skip_serializing_if = "AugmentSpec::is_none")]
    pub augment: AugmentSpec,
}
