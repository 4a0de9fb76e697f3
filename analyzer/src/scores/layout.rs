//! Which columns a table has, and what they are called.

use super::columns::{Cell, Column, Optional, cell, columns};
use super::{ScoreMetadata, ScoreRow, ScoreTable};

/// The columns of a table.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    metadata: &'a ScoreMetadata,
    has: Optional,
}

/// A column by which a table is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey(Column);

impl ScoreTable {
    /// The table's columns.
    pub fn layout(&self) -> Layout<'_> {
        let mut has = Optional::of(&self.metadata);
        for row in &self.rows {
            has.observe(row);
        }
        Layout::new(&self.metadata, has)
    }
}

impl<'a> Layout<'a> {
    pub(super) fn new(metadata: &'a ScoreMetadata, has: Optional) -> Self {
        Layout { metadata, has }
    }

    /// Where the table's numbers come from.
    pub fn metadata(&self) -> &'a ScoreMetadata {
        self.metadata
    }

    /// The same optional columns with other metadata.
    pub(super) fn with_metadata(self, metadata: &ScoreMetadata) -> Layout<'_> {
        Layout::new(metadata, self.has)
    }

    /// Names and contents of the columns, in the order in which they are written.
    pub(super) fn columns(&self) -> Vec<(String, Column)> {
        columns(self.metadata, self.has)
    }

    /// Names of the columns, as they are written.
    pub fn names(&self) -> Vec<String> {
        self.columns().into_iter().map(|(name, _)| name).collect()
    }

    /// Whether examples have names, and so the table a column `name`.
    pub fn is_named(&self) -> bool {
        self.has.names
    }

    /// Whether the scores are means over several runs. If so, the table has the columns `runs`, `influence_sd` and
    /// `influence_t`.
    pub fn is_joined(&self) -> bool {
        self.has.spread
    }

    /// Whether the table has the columns `predicted`, `probability`, `label_probability` and `loss`.
    pub fn has_predictions(&self) -> bool {
        self.has.predictions
    }

    /// A column to sort by.
    ///
    /// # Errors
    /// There is no such column. The text names those that there are.
    pub fn sort_key(&self, name: &str) -> Result<SortKey, String> {
        self.columns()
            .into_iter()
            .find(|(n, _)| n == name.trim())
            .map(|(_, column)| SortKey(column))
            .ok_or_else(|| self.no_column(name))
    }

    /// The name of a column, as it is written.
    pub fn name_of(&self, SortKey(wanted): SortKey) -> String {
        let found = self.columns().into_iter().find(|(_, c)| *c == wanted);
        found.map(|(name, _)| name).unwrap_or_default()
    }

    pub(super) fn no_column(&self, name: &str) -> String {
        format!(
            "there is no column `{name}`; there are: {}",
            self.names().join(", ")
        )
    }
}

impl SortKey {
    pub(super) fn of(column: Column) -> Self {
        SortKey(column)
    }

    pub(super) fn column(self) -> Column {
        self.0
    }

    /// The influence on the first query.
    pub fn influence() -> Self {
        SortKey(Column::Influence(0))
    }

    /// A row's value in the column as it is printed: scores with five digits, probabilities and losses with four decimals,
    /// others in full.
    pub fn shown(self, row: &ScoreRow) -> String {
        match cell(row, self.0) {
            Cell::Number(Some(x)) if self.0.is_prediction() => format!("{x:.4}"),
            Cell::Number(Some(x)) => format!("{x:+.4e}"),
            other => other.to_string(),
        }
    }

    /// The position of the query that the column belongs to; `None` for a column of the example.
    pub fn query(self) -> Option<usize> {
        match self.0 {
            Column::Influence(q)
            | Column::Deviation(q)
            | Column::Student(q)
            | Column::Renormalised(q)
            | Column::Refined(q, _)
            | Column::Epoch(q, _) => Some(q),
            _ => None,
        }
    }

    /// Whether the column contains a query's influence or its spread over runs.
    pub fn is_influence(self) -> bool {
        matches!(
            self.0,
            Column::Influence(_) | Column::Deviation(_) | Column::Student(_)
        )
    }
}
