//! Edits IDX files.

use std::path::Path;

use super::arrays;
use super::edit::{Classes, RowEdits};
use crate::data::array::volume;
use crate::data::{DataError, files, idx};

/// The file's content after the edits. `classes` have the numbers that are written as labels; it is `None` for inputs.
pub(super) fn edited(
    path: &Path,
    edits: &RowEdits,
    classes: Option<&Classes<'_>>,
) -> Result<Vec<u8>, DataError> {
    // Reading it checks the header and the length.
    let array = idx::read(path)?;
    let bytes = files::read(path)?;
    let (kind, rank) = match bytes.as_slice() {
        [_, _, kind, rank, ..] => (*kind, usize::from(*rank)),
        _ => return Err(DataError::malformed(path, "has no header")),
    };
    let (head, body) = bytes.split_at(4 + 4 * rank);
    let element = idx::width(kind).unwrap_or(1);
    let row = volume(array.shape.get(1..).unwrap_or_default()).unwrap_or(0) * element;
    let label = classes.map(|classes| {
        move |class: usize| {
            let number = classes.number(class)?;
            element_of(kind, number)
                .ok_or_else(|| arrays::too_large(path, number, &format!("{kind:02x}")))
        }
    });
    let label = label
        .as_ref()
        .map(|f| f as &dyn Fn(usize) -> Result<Vec<u8>, DataError>);
    let left = arrays::left(path, array.rows(), edits)?;
    let mut out = head.to_vec();
    if let Some(count) = out.get_mut(4..8) {
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        count.copy_from_slice(&left.to_be_bytes());
    }
    out.extend(arrays::rows(path, body, row, edits, label)?);
    Ok(out)
}

/// A number as an element, big-endian.
fn element_of(kind: u8, number: u32) -> Option<Vec<u8>> {
    Some(match kind {
        0x08 => vec![u8::try_from(number).ok()?],
        0x09 => i8::try_from(number).ok()?.to_be_bytes().to_vec(),
        0x0b => i16::try_from(number).ok()?.to_be_bytes().to_vec(),
        0x0c => i32::try_from(number).ok()?.to_be_bytes().to_vec(),
        0x0d => (number as f32).to_be_bytes().to_vec(),
        0x0e => f64::from(number).to_be_bytes().to_vec(),
        _ => return None,
    })
}
