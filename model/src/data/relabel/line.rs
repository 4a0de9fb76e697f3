//! One label of a file.

/// What a file of labels is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::data) enum Purpose {
    /// Labels that replace those of the data.
    Labels,
    /// Known true labels.
    Truth,
}

/// A label with what identifies its row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Line in the file, from 1.
    pub(super) line: u64,
    /// The name of the row's file, if the file of labels names it.
    pub(super) file: Option<String>,
    /// The number of the row. `None` if labels are counted, or the file alone identifies the row.
    pub(super) row: Option<u64>,
    pub(super) label: String,
}
