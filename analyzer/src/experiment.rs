//! Experiments: many runs, against the truth.

mod agreement;
mod penalty;
mod recording;

pub use agreement::{Agreement, agreement};
pub use penalty::cross_validated;
pub use recording::{RecordingCost, recording_cost};
