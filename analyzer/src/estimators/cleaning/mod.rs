//! Wrong labels: which training examples probably have one, what to do with each, and what that gains.
//!
//! [`LabelEvidence`] sums up what the recorded steps' own forward passes say about each label. [`find_issues`] picks the
//! examples whose label is probably wrong. [`Decisions`] say what to do with each: keep it, relabel it, or drop it. A person
//! may edit them in a file. The rule and its source are in docs/math.md.

mod decisions;
mod decisions_file;
mod evidence;
mod files;
mod issues;
mod issues_table;

pub use decisions::{Action, Decided, Decisions};
pub use decisions_file::{read_decisions, write_decisions, write_labels};
pub use evidence::LabelEvidence;
pub use files::{cleaned_files, free, free_file, write_cleaned_file, write_cleaned_folder};
pub use issues::{Issues, LabelIssue, find_issues};
pub use issues_table::write_issues;
