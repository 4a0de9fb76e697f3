//! The analyzer's guarantees, on runs small enough to retrain hundreds of times.

mod numbers;
mod tiny;

mod counterfactuals_are_real;
mod engine_is_exact;
mod estimators;
mod kernels;
mod predictions;
mod states_are_rewound;
mod steps_are_replayed;
mod steps_follow;
mod sweep_matches_differences;
mod sweeps_read_ahead;
mod tables_round_trip;
mod theory;
