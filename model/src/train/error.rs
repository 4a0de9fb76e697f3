//! Errors of training.

use crate::data::DataError;
use crate::update::UpdateError;

/// The reason why a step can't be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The length of a vector differs from the number of values of the model's tensors.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// Name of the vector.
        what: String,
        /// Expected number of values.
        expected: usize,
        /// Number of values of the vector.
        got: usize,
    },
    /// The data set doesn't fit the Task.
    #[error("{0}")]
    Data(String),
    /// A batch can't be loaded.
    #[error(transparent)]
    Batch(Box<DataError>),
    /// An error of the model or the device.
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

/// The error for a data set that doesn't fit the Task.
pub(crate) fn unfit<T>(what: String) -> Result<T, TrainError> {
    Err(TrainError::Data(what))
}
