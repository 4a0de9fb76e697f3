//! What was trained.
pub mod objective;
pub mod random;
