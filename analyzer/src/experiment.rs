//! Experiments: many runs, against the truth.

mod agreement;
mod penalty;

pub use agreement::{Agreement, agreement};
pub use penalty::cross_validated;
