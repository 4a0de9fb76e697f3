//! Checks before an analysis: of a model's derivatives, of a run's steps, and of its data.

pub mod derivatives;
pub mod replay;
pub mod rule;
