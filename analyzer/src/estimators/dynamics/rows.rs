//! What a format of the long table does.

use super::walk::StepDynamics;

/// A file that takes the rows of one step after another.
pub(super) trait Rows {
    fn step(&mut self, step: &StepDynamics<'_>) -> Result<(), String>;
    fn finish(self: Box<Self>) -> Result<(), String>;
}
