//! What was trained.
pub mod objective;
