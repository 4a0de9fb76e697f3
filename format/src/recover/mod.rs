//! Recovery: what can still be read of a damaged run becomes a new, intact run.

mod arrange;
mod census;
mod origin;
mod partial;
mod place;
mod report;
mod run;
mod salvage;
mod view;
mod write;

pub use report::{Loss, LossKind, RecoverReport};
pub use run::{recover, recover_storage, recover_within};
