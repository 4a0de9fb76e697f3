//! The contents of a page, before they become HTML.

use super::super::examples::Extremes;
use super::super::facts::Facts;
use super::super::issues::LabelIssues;
use super::super::predicted::{Explained, Predicted};
use super::super::view::View;
use crate::verdict::{Subject, Verdict};
use hindcast_analyzer::counterfactual::RemovalResults;
use hindcast_analyzer::curves::{LossCurve, Measured};

/// Everything that a page shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Page {
    pub facts: Facts,
    pub curve: LossCurve,
    /// Whose held-out losses the curve has; `None` if it has none.
    pub held_out: Option<Measured>,
    pub shown: Vec<Shown>,
    /// The most suspicious labels of a table of label issues.
    pub issues: Option<LabelIssues>,
    /// The queries that are the loss of one example, explained.
    pub explained: Vec<Explained>,
    /// Predictions for a held-out split; `None` without data, and if they aren't wanted.
    pub predicted: Option<Predicted>,
    /// Files of retrainings, with their names.
    pub removals: Vec<(String, RemovalResults)>,
    /// Damage found in the parts of the trace that were read. The notes also mention it.
    pub damaged: Vec<String>,
    /// Notes at the top of the page.
    pub notes: Vec<String>,
    /// Commands that check the scores by retraining, if no retraining has: the position of the view that they are about, purpose,
    /// command.
    pub checks: Vec<(usize, String, String)>,
    /// Commands that compute the scores of one query alone, where a table has several: the position of its view, purpose, command.
    pub alone: Vec<(usize, String, String)>,
    /// Commands that produce the page again: purpose, command.
    pub commands: Vec<(String, String)>,
    /// Program and version that wrote the page.
    pub writer: String,
}

/// One query of a table, with its examples and its verdict.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub view: View,
    pub extremes: Extremes,
    pub subject: Subject,
    pub verdict: Verdict,
}
