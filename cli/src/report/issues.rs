//! The most suspicious labels of a table of label issues.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use hindcast_analyzer::estimators::cleaning::{IssueRow, IssuesMetadata, check_issues};
use hindcast_format::RunInfo;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use super::examples::{Content, Example};
use crate::contents::training_examples;

/// A table of label issues, as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IssuesTable {
    /// Its file.
    pub file: String,
    pub rows: Vec<IssueRow>,
    /// What it was made with, if that is known.
    pub made: Option<IssuesMetadata>,
}

/// The label issues that a page shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LabelIssues {
    /// The table's file.
    pub file: String,
    /// How many labels were judged.
    pub judged: usize,
    /// How many of them are issues.
    pub issues: usize,
    /// The most suspicious issues, the first the most.
    pub most: Vec<Issue>,
    /// What the table was made with, if that is known.
    pub made: Option<IssuesMetadata>,
    /// The suggested label of each issue, by its index.
    suggested: BTreeMap<u64, String>,
}

/// One label issue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Issue {
    pub row: IssueRow,
    /// Empty without data.
    pub content: Content,
    /// The true label, if the data knows it.
    pub really: Option<String>,
}

impl LabelIssues {
    /// The `k` most suspicious issues of a table. Without `data`, the examples themselves aren't shown.
    ///
    /// # Errors
    /// If the table isn't about the run's data, or an example can't be read or drawn.
    pub fn of(
        table: &IssuesTable,
        k: usize,
        data: Option<&dyn DataSet>,
        info: &RunInfo,
    ) -> anyhow::Result<Self> {
        let (file, rows) = (&table.file, &table.rows);
        match data {
            Some(data) => {
                check_issues(rows, data).map_err(|problem| anyhow::anyhow!("{file}: {problem}"))?
            }
            None => {
                let most = rows.iter().map(|row| row.index).max();
                if let (Some(most), Some(examples)) = (most, training_examples(info))
                    && most >= examples
                {
                    bail!(
                        "{file}: the table has example {most}, but the run has {examples} training examples: is it the table of another run?"
                    );
                }
            }
        }
        let mut issues: Vec<&IssueRow> = rows.iter().filter(|row| row.is_label_issue).collect();
        let order = |row: &IssueRow| row.rank_score.unwrap_or(f64::INFINITY);
        issues.sort_by(|a, b| order(a).total_cmp(&order(b)).then(a.index.cmp(&b.index)));
        let shown = issues.iter().take(k).map(|row| {
            let index = row.index;
            Ok(Issue {
                row: (*row).clone(),
                content: match data {
                    Some(data) => Content::of(data, Split::Train, index)
                        .with_context(|| format!("example {index} of {file}"))?,
                    None => Content::default(),
                },
                really: data.and_then(|data| data.true_label(Split::Train, index)),
            })
        });
        Ok(LabelIssues {
            file: file.clone(),
            made: table.made.clone(),
            judged: rows.len(),
            issues: issues.len(),
            most: shown.collect::<anyhow::Result<_>>()?,
            suggested: issues
                .iter()
                .map(|row| (row.index, row.predicted_label.clone()))
                .collect(),
        })
    }

    /// Marks those of the examples that are label issues.
    pub fn mark<'a>(&self, examples: impl IntoIterator<Item = &'a mut Example>) {
        for example in examples {
            example.suggested = self.suggested.get(&example.index).cloned();
        }
    }
}
