//! Checks before an analysis: of a model's derivatives, of a run's steps, and of its data.

pub mod derivatives;
pub mod replay;
pub mod rule;

pub use derivatives::{
    CheckOptions, CheckPoint, CheckReport, CheckRow, Fault, KnownOperation, check_objective,
    check_run,
};
pub use replay::{
    DataDifference, ReplayCheckOptions, ReplayCheckReport, StepCheck, check_data, replay_check,
};
pub use rule::{Cause, RuleCheckOptions, RuleCheckReport, RuleCheckStep, rule_check};
