//! Errors of Tasks.

use super::suggest;
use crate::data::DataError;
use crate::files::FileError;
use crate::update::UpdateError;

/// The reason why a text isn't a Task, or why a Task can't be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The text isn't TOML, or a key or value isn't one that a Task has.
    #[error("{0}")]
    Text(String),
    /// A layer doesn't fit its input shape.
    #[error(
        "{place}: layer {number} ({kind}) expects {expected}, got input shape {got:?}; {advice}"
    )]
    Layer {
        /// The path of the layer in the Task, such as `model.layers[3]`.
        place: String,
        /// The position in its list of layers, from 0.
        number: usize,
        /// The kind of layer.
        kind: &'static str,
        /// What the layer needs.
        expected: String,
        /// Input shape of one example.
        got: Vec<usize>,
        /// What to change.
        advice: &'static str,
    },
    /// The value of a key is out of range or contradicts another key.
    #[error("{key} = {got}: expected {expected}")]
    Value {
        /// The key with its path.
        key: String,
        /// The value.
        got: String,
        /// The allowed values.
        expected: String,
    },
    /// A `path=value` that can't be set.
    #[error("can't set {}: {problem}", if .path.is_empty() { "a key without a name" } else { .path.as_str() })]
    Set {
        /// The path.
        path: String,
        /// The reason.
        problem: String,
    },
    /// No built-in Task has this name.
    #[error("no built-in task {name:?}{}; there are {}", suggest::near(.name, .known), .known.join(", "))]
    Unknown {
        /// The requested name.
        name: String,
        /// The names of the built-in Tasks.
        known: Vec<String>,
    },
    /// A Task file can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// An error in the `[data]` or `[augment]` table.
    #[error(transparent)]
    Data(Box<DataError>),
    /// An error in the `[optimizer]` table.
    #[error("optimizer.{0}")]
    Update(#[from] UpdateError),
}

impl From<DataError> for TaskError {
    fn from(error: DataError) -> Self {
        Self::Data(Box::new(error))
    }
}

impl TaskError {
    pub(crate) fn value(
        key: impl Into<String>,
        got: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value {
            key: key.into(),
            got: got.to_string(),
            expected: expected.into(),
        }
    }
}
