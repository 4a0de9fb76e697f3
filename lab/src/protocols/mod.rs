//! Experiments over many runs, which compare scores with retraining.

pub mod agreement;
mod cleansing;
mod kept;
mod penalty;
mod quality;
mod ranking;
mod recording;
mod rows;
mod seed;

pub use cleansing::{CleansingPlan, CleansingRow, REMOVED, Retrain, cleansing};
pub use kept::{Kept, Watcher};
pub use penalty::cross_validated;
pub use quality::{Measure, NOISE_FLOOR, QualityPlan, QualityRow, quality};
pub use ranking::{NONE, Ranking};
pub use recording::{RecordingCost, recording_cost};
pub use rows::{
    Digests, append_row, check_data, check_settings, data_digest, read_rows, settings_digest,
};
pub use seed::Seed;
