//! New runs made from an intact one: with fewer steps, in fewer bytes, or without what identifies people and places.
//!
//! The original is opened for reading only. As for a recovery, the new run is written next to its final place, verified, read back and
//! compared with the original, and appears under its name only after that.

mod check;
mod compact;
mod copy;
mod descent;
mod redact;
mod rows;
mod run;
mod selection;
mod sequence;

pub use compact::Compaction;
pub use descent::{Descent, descent};
pub use redact::Redaction;
pub use run::{Derive, DeriveReport, Signer, derive, derive_storage};
pub use selection::Selection;
