//! Everything that a page shows.

use super::super::examples::Extremes;
use super::super::facts::{Curve, Facts};
use super::super::verdict::Verdict;
use super::super::view::View;
use hindcast_analyzer::counterfactual::RemovalResults;

/// Everything that a page shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Page {
    pub facts: Facts,
    pub curve: Curve,
    pub shown: Vec<Shown>,
    /// Files of retrainings, with their names.
    pub removals: Vec<(String, RemovalResults)>,
    /// What of the trace is damaged, as far as it was read; the notes say it, too.
    pub damaged: Vec<String>,
    /// What the reader should know before all else.
    pub notes: Vec<String>,
    /// Steps to do it again: what for, and the command.
    pub commands: Vec<(String, String)>,
    /// Program and version that made the page.
    pub writer: String,
}

/// A query of a table, with what is drawn of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub view: View,
    pub extremes: Extremes,
    pub verdict: Verdict,
}
