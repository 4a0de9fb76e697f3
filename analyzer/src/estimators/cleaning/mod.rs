//! Wrong labels: which training examples probably have one, what to do with each, and what that gains.
//!
//! [`EvidenceWindow`] finds the recorded steps that say most about the labels, and estimates how many are wrong.
//! [`LabelEvidence`] sums up what the forward passes of steps say about each label. [`find_issues`] picks the examples whose
//! label is probably wrong. [`SuggestionTrust`] says whether the suggested labels are better. [`Decisions`] say what to do with each: keep it, relabel it, or drop it. A person may edit them in
//! a file. The rules and their sources are in docs/math.md.

mod decisions;
mod decisions_file;
mod evidence;
mod files;
mod issues;
mod issues_file;
mod issues_metadata;
mod issues_table;
mod suggestions;
mod window;

pub use decisions::{Action, Decided, Decisions};
pub use decisions_file::{ShownExample, read_decisions, write_decisions, write_labels};
pub use evidence::LabelEvidence;
pub use files::{
    cleaned_files, fits_format, free, free_file, write_cleaned_file, write_cleaned_folder,
};
pub use issues::{Issues, LabelIssue, confident, find_issues};
pub use issues_file::{check_issues, read_issues};
pub use issues_metadata::{IssuesMetadata, read_issues_metadata};
pub use issues_table::{IssueRow, write_issues};
pub use suggestions::{Advice, SuggestionTrust};
pub use window::{EvidenceWindow, WindowReason};
