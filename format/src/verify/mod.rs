//! Checks every byte of a run. The result is a report; nothing is repaired.

mod check;
mod files;
mod frames;
mod identity;
mod report;
mod run;

pub(crate) use check::hash;
pub use report::{Finding, FindingKind, Severity, VerifyReport};
pub use run::{verify, verify_steps, verify_storage, verify_storage_with, verify_with};
