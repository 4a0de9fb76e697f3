//! What the analyzer promises, on runs small enough to retrain hundreds of times.

mod tiny;

mod cli;
mod counterfactuals_are_real;
#[cfg(feature = "record")]
mod counterfactuals_by_kernels;
mod engine_is_exact;
mod estimators;
#[cfg(feature = "record")]
mod exactness_matrix;
#[cfg(feature = "experiments")]
mod experiments;
#[cfg(all(feature = "record", unix))]
mod guide;
mod kernels;
#[cfg(feature = "record")]
mod own_loop;
#[cfg(feature = "record")]
mod own_models;
#[cfg(feature = "experiments")]
mod parity_with_pytorch;
#[cfg(feature = "record")]
mod report;
#[cfg(feature = "record")]
mod road;
#[cfg(feature = "record")]
mod states;
mod steps_are_replayed;
mod steps_follow;
mod sweep_matches_differences;
#[cfg(feature = "record")]
mod sweeps_go_on;
mod sweeps_read_ahead;
#[cfg(feature = "record")]
mod sweeps_scale;
mod tables_round_trip;
mod theory;
