//! What the engine of a rank does in addition to computing.

use std::ops::Range;

use hindcast_model::objective::Mode;

use crate::engine::{ReplayEngine, StepInput};
use crate::error::Result;

/// An engine that computes one rank's rows and exchanges results with the other ranks, which call the same methods.
pub(super) trait Divided: ReplayEngine {
    /// The rows that a rank reads of a batch of `examples`.
    fn rows_of(&self, rank: usize, mode: Mode, examples: usize) -> Range<usize>;

    /// Whether [`ReplayEngine::products_after`] is one call, and not one for the gradient and one for the products.
    fn differentiates_gradients(&self) -> bool {
        false
    }

    /// The leader's engine for a step that can't be divided; `None` for other steps.
    fn whole(&mut self, input: &StepInput<'_>) -> Option<&mut dyn ReplayEngine> {
        let _ = input;
        None
    }

    /// Checks on the leader, before a call, that the step may be divided.
    ///
    /// # Errors
    /// If it may not, a pass fails, or a rank is gone.
    fn check(&mut self, input: &StepInput<'_>) -> Result<()> {
        let _ = input;
        Ok(())
    }
}
