//! What was trained and how, as a TOML file: data, model, loss, optimizer, schedule, training, augmentation.
//!
//! A Task says everything that decides the numbers of a run, so a run that stores its Task can be analysed, replayed and
//! retrained by anyone who has the data.
//!
//! ```
//! use hindcast_model::task::Task;
//!
//! let mut task = Task::builtin("mnist-cnn")?;
//! task.set("train.epochs", "1")?;
//! assert_eq!(task.train.epochs, 1);
//! let error = task.set("train.epocs", "1").unwrap_err();
//! assert!(error.to_string().contains("did you mean \"epochs\"?"));
//! # Ok::<(), hindcast_model::task::TaskError>(())
//! ```

mod builtin;
mod edit;
mod error;
mod fit;
mod layers;
mod loss;
pub(crate) mod shape;
mod suggest;
mod targets;
mod training;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use builtin::Builtin;
pub use error::TaskError;
pub use layers::{Layer, ModelSpec, Size};
pub use loss::{LossKind, LossSpec, PenaltyIn, Reduction};
pub use training::{Cut, Order, Precision, TrainSpec};

use crate::data::{self, AugmentSpec, DataError, DataSet, DataSpec, Target};
use crate::files;
use crate::net::Net;
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

impl Task {
    /// Reads and checks a Task.
    ///
    /// # Errors
    /// [`TaskError::Text`] with line and column, and the key that was probably meant, where the text isn't a Task;
    /// otherwise as [`Task::validate`].
    pub fn from_toml(text: &str) -> Result<Self, TaskError> {
        let task: Self =
            toml::from_str(text).map_err(|e| TaskError::Text(suggest::explain(&e.to_string())))?;
        task.validate()?;
        Ok(task)
    }

    /// Reads and checks a Task file.
    ///
    /// # Errors
    /// [`TaskError::File`], or as [`Task::from_toml`].
    pub fn from_file(path: &Path) -> Result<Self, TaskError> {
        let text = files::read_text(path, files::TASK).map_err(|e| TaskError::File {
            path: path.display().to_string(),
            source: e.problem,
        })?;
        Self::from_toml(&text)
    }

    /// The Task as text, which [`Task::from_toml`] reads back.
    ///
    /// # Errors
    /// [`TaskError::Text`] where a value has no TOML form.
    pub fn to_toml(&self) -> Result<String, TaskError> {
        toml::to_string(self).map_err(|e| TaskError::Text(e.to_string()))
    }

    /// Reads (or draws) the examples. `dir` is the data folder; digits need none.
    ///
    /// # Errors
    /// [`DataError`] where a file is missing or broken, or has fewer examples than the task wants.
    pub fn load_data(&self, dir: Option<&Path>) -> Result<Box<dyn DataSet>, DataError> {
        data::load(&self.data, Some(&self.augment), dir, self.train.seed)
    }

    pub(crate) fn deserialize_value(table: toml::Table) -> Result<Self, String> {
        Self::deserialize(table).map_err(|e| e.to_string())
    }

    /// Looks whether the Task can be trained: every layer's shape, every number's range, what goes with what.
    ///
    /// # Errors
    /// [`TaskError::Layer`] for the first layer that doesn't fit, with its place, what it expects and the shape that
    /// reaches it; [`TaskError::Value`] for a number out of range; [`TaskError::Data`] and [`TaskError::Update`] for
    /// those tables.
    pub fn validate(&self) -> Result<(), TaskError> {
        if self.name.is_empty() {
            return Err(TaskError::value("name", "\"\"", "a name"));
        }
        self.data.validate()?;
        self.augment.validate(&self.model.input)?;
        self.optimizer.validate()?;
        if let Some((key, value, expected)) = self.schedule.out_of_range() {
            return Err(TaskError::value(key, value, expected));
        }
        self.validate_training()?;
        let net = Net::new(self)?;
        self.validate_loss(net.output_shape())
    }

    fn validate_training(&self) -> Result<(), TaskError> {
        let train = &self.train;
        let positive = "1 or more";
        if train.epochs == 0 {
            return Err(TaskError::value("train.epochs", 0, positive));
        }
        if train.batch == 0 {
            return Err(TaskError::value("train.batch", 0, positive));
        }
        if train.micro_batch == Some(0) {
            return Err(TaskError::value("train.micro_batch", 0, positive));
        }
        if train.epochs > u64::from(u32::MAX) {
            let most = format!("at most {}", u32::MAX);
            return Err(TaskError::value("train.epochs", train.epochs, most));
        }
        if i64::try_from(train.seed).is_err() {
            let most = format!("at most {}, the largest integer of TOML", i64::MAX);
            return Err(TaskError::value("train.seed", train.seed, most));
        }
        if train.drop_last && train.batches == Cut::Even {
            return Err(TaskError::value(
                "train.drop_last",
                "true",
                "false with batches = \"even\", whose last batch isn't short",
            ));
        }
        Ok(())
    }

    fn validate_loss(&self, output: &[usize]) -> Result<(), TaskError> {
        let loss = &self.loss;
        if !(loss.penalty.is_finite() && loss.penalty >= 0.0) {
            return Err(TaskError::value(
                "loss.penalty",
                loss.penalty,
                "0 or a number above",
            ));
        }
        let classes = match (loss.kind, output) {
            (LossKind::CrossEntropy, [k]) if *k >= 2 => Some(*k),
            (LossKind::CrossEntropy, _) => {
                return Err(TaskError::value(
                    "loss.kind",
                    "\"cross-entropy\"",
                    format!(
                        "a model whose output is [classes] with at least 2 classes, got {output:?}"
                    ),
                ));
            }
            (LossKind::BinaryCrossEntropy, [1]) => Some(2),
            (LossKind::BinaryCrossEntropy | LossKind::MeanSquaredError, _) => None,
        };
        if let (LossKind::CrossEntropy, Some(target @ (Target::Value | Target::Input))) =
            (loss.kind, self.data.target)
        {
            return Err(TaskError::value(
                "data.target",
                format!("{target:?}").to_lowercase(),
                "\"class\" with the cross-entropy loss",
            ));
        }
        if let (Some(k), true) = (classes, !self.data.classes.is_empty()) {
            let kept = self.data.classes.len();
            if kept > k {
                return Err(TaskError::value(
                    "data.classes",
                    format!("{kept} classes"),
                    format!(
                        "at most the {k} that the model's output shape {output:?} can tell apart"
                    ),
                ));
            }
        }
        if loss.class_weights.is_empty() {
            return Ok(());
        }
        let Some(classes) = classes else {
            return Err(TaskError::value(
                "loss.class_weights",
                format!("{:?}", loss.class_weights),
                "none: this loss and output have no classes",
            ));
        };
        if loss.class_weights.len() != classes {
            return Err(TaskError::value(
                "loss.class_weights",
                format!("{:?}", loss.class_weights),
                format!("{classes} numbers, one a class"),
            ));
        }
        match loss
            .class_weights
            .iter()
            .find(|w| !(w.is_finite() && **w > 0.0))
        {
            Some(w) => Err(TaskError::value("loss.class_weights", w, "numbers above 0")),
            None => Ok(()),
        }
    }
}
