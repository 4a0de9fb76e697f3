//! What the edits of arrays share: rows are ranges of bytes of equal length.

use std::path::Path;

use super::edit::{RowEdit, RowEdits};
use crate::data::DataError;

/// The rows of a body, each of `width` bytes, after the edits. `number` writes the label of a class; it is `None` for inputs,
/// of which rows are only dropped.
pub(super) fn rows(
    path: &Path,
    body: &[u8],
    width: usize,
    edits: &RowEdits,
    label: Option<&dyn Fn(usize) -> Result<Vec<u8>, DataError>>,
) -> Result<Vec<u8>, DataError> {
    let mut out = Vec::with_capacity(body.len());
    for (at, row) in (0u64..).zip(body.chunks_exact(width.max(1))) {
        match (edits.get(&at), label) {
            (Some(RowEdit::Drop), _) => {}
            (Some(RowEdit::Relabel(class)), Some(label)) => {
                let bytes = label(*class)?;
                if bytes.len() != row.len() {
                    return Err(DataError::malformed(
                        path,
                        "labels aren't one number per row",
                    ));
                }
                out.extend(bytes);
            }
            _ => out.extend_from_slice(row),
        }
    }
    Ok(out)
}

/// The number of rows that are left of `rows`.
///
/// # Errors
/// If none is left.
pub(super) fn left(path: &Path, rows: usize, edits: &RowEdits) -> Result<usize, DataError> {
    let dropped = edits.values().filter(|edit| **edit == RowEdit::Drop);
    match rows.saturating_sub(dropped.count()) {
        0 => Err(DataError::malformed(path, "no row would be left")),
        left => Ok(left),
    }
}

/// A class number that doesn't fit into the elements of a file of labels.
pub(super) fn too_large(path: &Path, number: u32, kind: &str) -> DataError {
    DataError::malformed(
        path,
        format!("its elements are of type {kind}, which can't hold the class number {number}"),
    )
}
