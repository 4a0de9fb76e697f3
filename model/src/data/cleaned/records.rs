//! Edits files of records that hold a label and its input.

use std::ops::Range;
use std::path::Path;

use super::arrays;
use super::edit::{RowEdit, RowEdits};
use crate::data::{DataError, files};

/// The file's content after the edits. A record has `record` bytes, of which the range `label` is its label.
pub(super) fn edited(
    path: &Path,
    record: usize,
    label: Range<usize>,
    edits: &RowEdits,
    number: &dyn Fn(usize) -> Result<Vec<u8>, DataError>,
) -> Result<Vec<u8>, DataError> {
    let mut bytes = files::read(path)?;
    arrays::left(path, bytes.len() / record.max(1), edits)?;
    for (&row, edit) in edits {
        let start = usize::try_from(row)
            .unwrap_or(usize::MAX)
            .saturating_mul(record);
        if let RowEdit::Relabel(class) = edit
            && let Some(old) = bytes
                .get_mut(start..)
                .and_then(|rest| rest.get_mut(label.clone()))
        {
            old.copy_from_slice(&number(*class)?);
        }
    }
    arrays::rows(path, &bytes, record, &dropped(edits), None)
}

fn dropped(edits: &RowEdits) -> RowEdits {
    let drop = edits.iter().filter(|(_, edit)| **edit == RowEdit::Drop);
    drop.map(|(row, edit)| (*row, *edit)).collect()
}
