//! Replays a recorded training run backwards and scores each training example by its influence on a query.
//!
//! A [`RecordedRun`] consists of a [`StepSource`] (a trace on disk), the
//! [`Objective`](hindcast_model::objective::Objective) and the data that produced it. A [`ReplayEngine`] computes
//! gradients and Hessian-vector products at each step. The gradient of a [`Query`] at the end of training is swept
//! backwards by a [`Session`]. [`answer`] takes a question, runs the session or another method, and returns a
//! [`ScoreTable`], which is written as CSV, JSON lines or Parquet.
//!
//! The root has the names that an analysis needs. Everything else is in the modules.

pub mod bounds;
pub mod check;
pub mod counterfactual;
pub mod engine;
pub mod error;
pub mod estimators;
pub mod measures;
mod open;
pub mod output;
pub mod query;
pub mod run;
pub mod scores;
pub mod sweep;
mod workers;

pub use bounds::{BoundCheck, BoundsOptions, BoundsReport, BoundsRow, Constants, Given, bounds};
pub use check::derivatives::{
    CheckOptions, CheckPoint, CheckReport, CheckRow, Fault, KnownOperation, check_objective,
    check_run,
};
pub use check::replay::{
    DataDifference, ReplayCheckOptions, ReplayCheckReport, StepCheck, check_data, replay_check,
};
pub use check::rule::{Cause, RuleCheckOptions, RuleCheckReport, RuleCheckStep, rule_check};
pub use counterfactual::{
    Arithmetic, CounterfactualOptions, CounterfactualReport, Denominators, Outcome, Removal,
    RemovalResult, RemovalResults, RemovedPlace, ReplayProgress, SplitLoss, counterfactuals,
};
pub use engine::{
    AutodiffEngine, EngineKind, ForwardPass, Gradient, KernelEngine, Products, ReplayEngine,
    StepInput,
};
pub use error::{AnalysisError, Result};
pub use estimators::refine::{Refinement, refine};
pub use estimators::{TableOrigin, answer};
pub use measures::agreement::{jaccard_of_extremes, kendall_tau};
pub use measures::compare::Comparison;
pub use open::{OwnModelParts, Subject, load_data};
pub use output::sidecar_path;
pub use query::many::Queries;
pub use query::one::{Query, QueryGradient};
pub use run::in_memory::MemoryRun;
pub use run::recorded::RecordedRun;
pub use run::rows::row_digests;
pub use run::source::{
    RecordedEnd, RecordedKey, RecordedStep, StepSource, StepWalk, micro_batches_of, weights_of,
};
pub use run::window::Window;
pub use scores::{
    AdjointGrowth, NameKey, Names, QueryMetadata, Refined, RefinedBy, ScoreMetadata, ScoreRow,
    ScoreTable,
};
pub use sweep::{
    QuerySweep, Session, SessionOptions, SweepCheckpoint, SweepCost, SweepIdentity, SweepOptions,
    SweepState, SweepTimes, begin, resume, resume_timed, sweep,
};
pub use workers::start as start_threads;
