//! Recovery: what can still be read of a damaged run becomes a new, intact run.

mod arrange;
mod census;
mod origin;
mod partial;
mod report;
mod run;
mod salvage;
mod view;
mod write;

pub(crate) use salvage::{End, Kept};
pub(crate) use write::Target;

pub use report::{Loss, LossKind, RecoverReport};
pub use run::{recover, recover_storage, recover_within};
