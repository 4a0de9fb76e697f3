//! Replays a recorded training run backwards and scores each training example by its influence on a query.
//!
//! A [`RecordedRun`] consists of a [`StepSource`] (a trace on disk), the
//! [`Objective`](hindcast_model::objective::Objective) and the data that produced it. A [`ReplayEngine`] computes
//! gradients and Hessian-vector products at each step. A [`Session`] carries the gradient of a [`Query`] backwards from
//! the end of training. [`answer`] takes a question, runs the session or another method, and returns a
//! [`ScoreTable`], which is written as CSV, JSON lines or Parquet.
//!
//! The crate's root re-exports the names that most analyses need. Everything else is in the modules.

pub mod bounds;
pub mod check;
pub mod comparison;
pub mod counterfactual;
pub mod curves;
pub mod engine;
pub mod error;
pub mod estimators;
pub mod measures;
mod open;
pub mod output;
pub mod predictions;
pub mod query;
pub mod ranks;
pub mod run;
pub mod scores;
pub mod shards;
pub mod sweep;
mod workers;

pub use check::{ReplayCheckOptions, RuleCheckOptions, check_run, replay_check, rule_check};
pub use counterfactual::{
    CounterfactualOptions, CounterfactualReport, Denominators, Removal, counterfactuals,
};
pub use engine::{AutodiffEngine, EngineKind, KernelEngine, ReplayEngine, StepInput};
pub use error::{AnalysisError, Result};
pub use estimators::answer;
pub use open::{OwnModelParts, load_data};
pub use query::{Queries, Query, QueryGradient, QueryPoint, StateWeights};
pub use run::{MemoryRun, RecordedRun, StepSource, Window};
pub use scores::{Names, ScoreMetadata, ScoreRow, ScoreTable};
pub use sweep::{Session, SessionOptions, SweepOptions, SweepState, sweep};
pub use workers::start as start_threads;
