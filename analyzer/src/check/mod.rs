//! Checks before an analysis: of a model's derivatives, of a run's steps, and of its data.

pub(crate) mod derivatives;
mod draw;
pub(crate) mod replay;
pub(crate) mod rule;

pub use derivatives::{
    CheckOptions, CheckPlan, CheckPoint, CheckReport, CheckRow, Fault, KnownOperation,
    check_objective, check_run, signature,
};
pub use replay::{
    Contradiction, DataDifference, PassCheck, ReplayCheckOptions, ReplayCheckReport, StepCheck,
    check_data, replay_check,
};
pub use rule::{Cause, RuleCheckOptions, RuleCheckReport, RuleCheckStep, rule_check};
