//! Where the bytes of a step's tensors come from.

use hindcast_format::KeyState;

use crate::error::{AtStep, RecorderError};
use crate::late_state::Arrival;

/// The present values of the recorded tensors.
pub(crate) trait Values {
    /// Copies the parameters and the buffers in the layout's order. Returns what brings the values that are copied from a
    /// device later: as they are now, whatever happens to them until then. `what` is for errors.
    fn state(
        &self,
        what: &str,
        at: AtStep<'_>,
        out: &mut [u8],
    ) -> Result<Option<Box<dyn Arrival>>, RecorderError>;

    /// Copies the optimizer's state. The error text says what is missing or has changed.
    fn optimizer(&self, key: &mut KeyState) -> Result<(), String>;
}
