//! What was trained.
pub mod batches;
pub mod data;
pub mod net;
pub mod objective;
pub mod ops;
pub mod random;
pub mod real;
pub mod schedule;
pub mod task;
pub mod train;
pub mod update;
