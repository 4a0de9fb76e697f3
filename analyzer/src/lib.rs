//! Replays a recorded training run backwards and says which examples made the model what it is.
//!
//! The road: a [`StepSource`] (a trace on disk), the [`Objective`](hindcast_model::objective::Objective) and the data
//! that made it form a [`RecordedRun`]; a [`ReplayEngine`] gives products and Hessian-vector products at each step; a
//! [`Query`]'s gradient at the end of training is swept backwards by [`sweep()`] into a [`SweepState`], whose
//! [`table`](SweepState::table) is written as CSV, JSON lines or Parquet.

#[cfg(feature = "record")]
pub mod bench;
pub mod cli;
pub mod commands;
#[cfg(feature = "experiments")]
pub mod experiment;
pub mod picture;
#[cfg(feature = "record")]
mod recording;
mod report;
#[cfg(feature = "record")]
mod resuming;
mod subject;

mod agreement;
mod anchor;
mod atomic;
mod batch_sizes;
mod bounds;
mod check;
mod clean;
mod compare;
mod counterfactual;
mod engine;
mod error;
pub mod estimators;
#[cfg(feature = "record")]
pub mod exactness;
pub mod measures;
mod memory;
mod places;
mod queries;
mod query;
mod refine;
mod replay_check;
mod rows;
mod rule_check;
mod run;
mod scores;
mod source;
mod sweep;
mod trace;
mod window;
mod workers;

/// The guide's Rust programs, compiled; its commands are run by `tests/it/guide.rs`.
#[cfg(all(doctest, feature = "record"))]
mod guide {
    #[doc = include_str!("../../docs/guide/record.md")]
    mod record {}
    #[doc = include_str!("../../docs/guide/keep.md")]
    mod keep {}
    #[doc = include_str!("../../docs/guide/own-model.md")]
    mod own_model {}
}

pub use agreement::{jaccard_of_extremes, kendall_tau};
pub use bounds::{BoundsOptions, BoundsReport, BoundsRow, Constants, Given, Kept, bounds};
pub use check::{
    CheckOptions, CheckPoint, CheckReport, CheckRow, Fault, KnownOperation, check_objective,
    check_run,
};
pub use compare::Comparison;
pub use counterfactual::{
    Arithmetic, CounterfactualOptions, CounterfactualReport, Denominators, Outcome, Removal,
    RemovalResult, RemovalResults, RemovedPlace, ReplayProgress, SplitLoss, counterfactuals,
};
pub use engine::{
    AutodiffEngine, EngineKind, Forward, Gradient, KernelEngine, Products, ReplayEngine, StepInput,
};
pub use error::{AnalysisError, Result};
#[cfg(feature = "record")]
pub use hindcast_recorder::{LoadInto, Loaded};
pub use memory::MemoryRun;
pub use queries::Queries;
pub use query::{Query, QueryGradient};
#[cfg(feature = "record")]
pub use recording::record_task;
pub use refine::{Ladder, refine};
pub use replay_check::{
    DataDifference, ReplayCheckOptions, ReplayCheckReport, StepCheck, check_data, replay_check,
};
pub use rows::row_digests;
pub use rule_check::{Cause, RuleCheckOptions, RuleCheckReport, RuleCheckStep, rule_check};
pub use run::RecordedRun;
pub use scores::{
    AdjointGrowth, NameKey, Names, QueryMetadata, Refined, Rung, ScoreMetadata, ScoreRow,
    ScoreTable, sidecar_path,
};
pub use source::{
    RecordedEnd, RecordedKey, RecordedStep, StepSource, StepWalk, micro_batches_of, weights_of,
};
pub use subject::Subject;
pub use sweep::{
    QuerySweep, SweepCheckpoint, SweepCost, SweepIdentity, SweepOptions, SweepState, SweepTimes,
    TableOrigin, begin, resume, resume_timed, sweep,
};
pub use window::Window;
