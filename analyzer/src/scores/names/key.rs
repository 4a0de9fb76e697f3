//! Meaning of a name's number.

/// Meaning of a name's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKey {
    /// The example's row in the original data: a table's column `row`.
    Row,
    /// Its position in the training split: a table's column `index`.
    Index,
}

impl NameKey {
    pub(super) fn column(self) -> &'static str {
        match self {
            NameKey::Row => "row",
            NameKey::Index => "index",
        }
    }
}
