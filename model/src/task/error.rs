//! Why a text is no Task.

use super::suggest;
use crate::data::DataError;
use crate::files::Problem;
use crate::update::UpdateError;

/// Why a text is no Task, or a Task can't be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The text isn't TOML, or a key or value isn't one that a Task has.
    #[error("{0}")]
    Text(String),
    /// A layer doesn't fit what comes in.
    #[error(
        "{place}: layer {number} ({kind}) expects {expected}, got input shape {got:?}; {advice}"
    )]
    Layer {
        /// Where it stands, such as `model.layers[3]`.
        place: String,
        /// Its number among the layers around it, from 0.
        number: usize,
        /// Its kind.
        kind: &'static str,
        /// What it needs.
        expected: String,
        /// Shape of one example that comes in.
        got: Vec<usize>,
        /// What would help.
        advice: &'static str,
    },
    /// A key's value is out of range, or doesn't go with another key.
    #[error("{key} = {got}: expected {expected}")]
    Value {
        /// The key with its path.
        key: String,
        /// Its value.
        got: String,
        /// What it may be.
        expected: String,
    },
    /// A `path=value` that can't be set.
    #[error("can't set {path}: {problem}")]
    Set {
        /// The path.
        path: String,
        /// Why.
        problem: String,
    },
    /// No Task of this name is built in.
    #[error("no built-in task {name:?}{}; there are {}", suggest::near(.name, .known), .known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A file can't be read.
    #[error("can't read the task file {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: Problem,
    },
    /// The `[data]` or `[augment]` table.
    #[error(transparent)]
    Data(Box<DataError>),
    /// The `[optimizer]` table.
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
