//! Where the bytes of a step's tensors come from.

use hindcast_format::KeyState;

use crate::error::{AtStep, RecorderError};

/// The present values of the recorded tensors.
pub(crate) trait Values {
    /// Copies the parameters and the buffers in the layout's order. `what` is for errors.
    fn state(&self, what: &str, at: AtStep<'_>, out: &mut [u8]) -> Result<(), RecorderError>;

    /// Copies the optimizer's state. The error text says what is missing or has changed.
    fn optimizer(&self, key: &mut KeyState) -> Result<(), String>;
}
