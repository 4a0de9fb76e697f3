//! What a step of several optimizers asks each of them.

use std::collections::HashSet;

use candle_core::TensorId;
use candle_core::backprop::GradStore;
use hindcast_format::meta::GroupHyper;

use crate::error::RecorderError;

/// A wrapped optimizer's part in a step. The module is private, so only [`Recorded`](crate::Recorded) implements it.
pub trait Part {
    /// Whether it was wrapped by the run with this identity.
    fn is_of(&self, run: usize) -> bool;

    /// What it says about its next step.
    fn facts(&mut self) -> Result<Facts, RecorderError>;

    /// Becomes part of the run before a step that fits, if it isn't yet.
    fn take_part(&mut self) -> Result<(), RecorderError>;

    /// Takes the step, which has been recorded.
    fn update(&mut self, gradients: &GradStore) -> candle_core::Result<()>;
}

/// What a wrapped optimizer says about its next step.
pub struct Facts {
    /// Its type, for messages.
    pub(crate) name: &'static str,
    /// Learning rate and decay in each parameter group.
    pub(crate) groups: Vec<GroupHyper>,
    /// Its counter.
    pub(crate) updates: u64,
    /// The variables that it updates, if they are known.
    pub(crate) held: Option<HashSet<TensorId>>,
}
