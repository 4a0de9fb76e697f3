//! What was trained.
pub mod objective;
pub mod random;
pub mod real;
pub mod update;
