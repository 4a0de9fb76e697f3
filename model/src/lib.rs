//! What was trained.
pub mod data;
pub mod objective;
pub mod ops;
pub mod random;
pub mod real;
pub mod update;
