//! Why a step can't be taken.

use crate::data::DataError;
use crate::update::UpdateError;

/// Why a step can't be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A vector has another length than the model's tensors.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// Which vector.
        what: String,
        /// Values expected.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The data set doesn't go with the task.
    #[error("{0}")]
    Data(String),
    /// A batch can't be had.
    #[error(transparent)]
    Batch(Box<DataError>),
    /// The model or the device fails.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The update can't be computed.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

impl From<DataError> for TrainError {
    fn from(error: DataError) -> Self {
        Self::Batch(Box::new(error))
    }
}

pub(super) fn check_length(what: &str, expected: usize, got: usize) -> Result<(), TrainError> {
    if expected == got {
        return Ok(());
    }
    Err(TrainError::Length {
        what: what.to_string(),
        expected,
        got,
    })
}
