//! The table of label issues, with the columns of cleanlab's Datalab.

use std::path::Path;

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use serde::Serialize;

use super::issues::Issues;
use super::issues_metadata::{self, IssuesMetadata};
use crate::error::{AnalysisError, Result};
use crate::output::{Kind, replace};
use crate::scores::spreadsheet::quoted;

/// A row of a table of label issues. The names are the column names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IssueRow {
    /// Index in the training split.
    pub index: u64,
    /// Row in the original data.
    pub row: u64,
    /// The file that the row comes from.
    pub file: String,
    /// Whether the label is probably wrong.
    pub is_label_issue: bool,
    /// Mean probability of the given label, from 0 (it is certainly wrong) to 1.
    pub label_score: f64,
    /// The label.
    pub given_label: String,
    /// The class with the largest mean probability.
    pub predicted_label: String,
    /// Mean probability of the given label.
    pub given_probability: f64,
    /// Mean probability of the predicted class.
    pub predicted_probability: f64,
    /// The number by which examples are ranked, the most suspicious first. `None` if the ranking doesn't have the example.
    pub rank_score: Option<f64>,
}

/// Writes one row per judged example, in the order of the training split: CSV. `is_label_issue`, `label_score` (the mean
/// probability of the given label, from 0 to 1), `given_label` and `predicted_label` are named and mean as in cleanlab's
/// Datalab. The file appears whole or not at all. Its metadata is written next to it, as `issues.csv.meta.json` next to
/// `issues.csv`.
///
/// # Errors
/// A file can't be written, or exists and isn't such a table or such metadata.
pub fn write_issues(
    issues: &Issues,
    data: &dyn DataSet,
    metadata: &IssuesMetadata,
    path: &Path,
) -> Result<()> {
    let write = |to: &Path| -> std::result::Result<(), String> {
        let mut csv = csv::Writer::from_path(to).map_err(|e| e.to_string())?;
        for issue in &issues.examples {
            let index = issue.example as u64;
            let row = IssueRow {
                index,
                row: data.origin(Split::Train, index),
                file: quoted(&data.file(Split::Train, index)).into_owned(),
                is_label_issue: issue.is_issue,
                label_score: issue.given_probability,
                given_label: quoted(&class_name(data, issue.given)).into_owned(),
                predicted_label: quoted(&class_name(data, issue.suggested)).into_owned(),
                given_probability: issue.given_probability,
                predicted_probability: issue.suggested_probability,
                rank_score: issue.score,
            };
            csv.serialize(row).map_err(|e| e.to_string())?;
        }
        csv.flush().map_err(|e| e.to_string())
    };
    replace(path, Kind::Issues, |to| {
        write(to).map_err(std::io::Error::other)
    })
    .map_err(|e| AnalysisError::File {
        path: path.to_owned(),
        problem: e.to_string(),
    })?;
    issues_metadata::write(metadata, path)
}

/// The name of a class; its number if it has none.
pub(super) fn class_name(data: &dyn DataSet, class: usize) -> String {
    let name = data.class_names().get(class);
    name.cloned().unwrap_or_else(|| class.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::ISSUES;

    /// A table is recognised by the columns that are written.
    #[test]
    fn the_columns_are_those_by_which_a_table_is_recognised() {
        let mut csv = csv::Writer::from_writer(Vec::new());
        let row = IssueRow {
            index: 0,
            row: 0,
            file: "a.csv".to_owned(),
            is_label_issue: true,
            label_score: 0.25,
            given_label: String::new(),
            predicted_label: String::new(),
            given_probability: 0.25,
            predicted_probability: 0.5,
            rank_score: None,
        };
        csv.serialize(row).unwrap();
        let text = String::from_utf8(csv.into_inner().unwrap()).unwrap();
        assert_eq!(text, format!("{ISSUES}\n0,0,a.csv,true,0.25,,,0.25,0.5,\n"));
    }
}
