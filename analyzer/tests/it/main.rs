//! What the analyzer promises, on runs small enough to retrain hundreds of times.

mod tiny;

mod cli;
mod engine_is_exact;
mod sweep_matches_differences;
