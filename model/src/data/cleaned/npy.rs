//! Edits NumPy's `.npy` arrays.

use std::path::Path;

use half::f16;
use npyz::{DType, Endianness, NpyFile, Order, TypeChar, TypeStr};

use super::arrays;
use super::edit::{RowEdit, RowEdits};
use crate::data::array::volume;
use crate::data::{DataError, files, npy};

/// The file's content after the edits. `number` is the class number that is written as a label; it is `None` for inputs. The
/// header keeps its length, element type and order of axes; only the number of rows changes.
pub(super) fn edited(
    path: &Path,
    edits: &RowEdits,
    number: Option<&dyn Fn(usize) -> Result<u32, DataError>>,
) -> Result<Vec<u8>, DataError> {
    // Reading it checks the header and the length.
    let array = npy::read(path)?;
    let bytes = files::read(path)?;
    let broken = |what: String| DataError::malformed(path, what);
    let file = NpyFile::new(bytes.as_slice()).map_err(|e| broken(e.to_string()))?;
    let DType::Plain(kind) = file.dtype() else {
        return Err(broken("holds records; expected plain numbers".to_owned()));
    };
    let fortran = file.order() == Order::Fortran;
    let body = file.into_inner();
    let (head, rows) = (bytes.len() - body.len(), array.rows());
    let element = usize::try_from(kind.size_field()).unwrap_or(1);
    let values = volume(array.shape.get(1..).unwrap_or_default()).unwrap_or(0);
    // What follows the array isn't part of it.
    let (body, rest) = body.split_at((rows * values * element).min(body.len()));
    let label = number.map(|number| {
        let kind = &kind;
        move |class: usize| {
            let number = number(class)?;
            element_of(kind, number)
                .ok_or_else(|| arrays::too_large(path, number, &kind.to_string()))
        }
    });
    let label = label
        .as_ref()
        .map(|f| f as &dyn Fn(usize) -> Result<Vec<u8>, DataError>);
    let left = arrays::left(path, rows, edits)?;
    let mut out = bytes.get(..head).unwrap_or_default().to_vec();
    let drops = edits.values().any(|edit| *edit == RowEdit::Drop);
    if drops {
        set_rows(&mut out, left).ok_or_else(|| broken("its header has no shape".to_owned()))?;
    }
    if fortran {
        // The first axis changes fastest: each value of a row is in a block of its own.
        for block in body.chunks_exact((rows * element).max(1)) {
            out.extend(arrays::rows(path, block, element, edits, label)?);
        }
    } else {
        out.extend(arrays::rows(path, body, values * element, edits, label)?);
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// Writes another number of rows into a header. A shorter number leaves more spaces at the header's end.
fn set_rows(head: &mut Vec<u8>, rows: usize) -> Option<()> {
    let find = |text: &[u8], from: usize| {
        let rest = head.get(from..)?;
        let at = rest.windows(text.len()).position(|bytes| bytes == text)?;
        Some(from + at + text.len())
    };
    let key = find(b"'shape'", 0).or_else(|| find(b"\"shape\"", 0))?;
    let open = find(b"(", key)?;
    let digits = |from: usize| {
        head.get(from..)
            .map(|rest| rest.iter().take_while(|b| b.is_ascii_digit()).count())
    };
    let start = open + head.get(open..)?.iter().take_while(|b| **b == b' ').count();
    let end = start + digits(start).filter(|n| *n > 0)?;
    let new = rows.to_string().into_bytes();
    let spaces = (end - start).checked_sub(new.len())?;
    head.splice(start..end, new);
    let last = head.len() - usize::from(head.last() == Some(&b'\n'));
    head.splice(last..last, std::iter::repeat_n(b' ', spaces));
    Some(())
}

/// A number as an element.
fn element_of(kind: &TypeStr, number: u32) -> Option<Vec<u8>> {
    let mut little = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Bool, 1) => vec![u8::from(number == 1)],
        (TypeChar::Uint, 1) => vec![u8::try_from(number).ok()?],
        (TypeChar::Uint, 2) => u16::try_from(number).ok()?.to_le_bytes().to_vec(),
        (TypeChar::Uint, 4) => number.to_le_bytes().to_vec(),
        (TypeChar::Uint, 8) => u64::from(number).to_le_bytes().to_vec(),
        (TypeChar::Int, 1) => i8::try_from(number).ok()?.to_le_bytes().to_vec(),
        (TypeChar::Int, 2) => i16::try_from(number).ok()?.to_le_bytes().to_vec(),
        (TypeChar::Int, 4) => i32::try_from(number).ok()?.to_le_bytes().to_vec(),
        (TypeChar::Int, 8) => i64::from(number).to_le_bytes().to_vec(),
        (TypeChar::Float, 2) => f16::from_f32(number as f32).to_le_bytes().to_vec(),
        (TypeChar::Float, 4) => (number as f32).to_le_bytes().to_vec(),
        (TypeChar::Float, 8) => f64::from(number).to_le_bytes().to_vec(),
        _ => return None,
    };
    if kind.endianness() == Endianness::Big {
        little.reverse();
    }
    Some(little)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_keeps_its_length() {
        let mut head = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<i8', 'fortran_order': False, 'shape': (1000, 2), }   \n".to_vec();
        let before = head.len();
        set_rows(&mut head, 998).unwrap();
        assert_eq!(head.len(), before);
        let text = String::from_utf8_lossy(&head).into_owned();
        assert!(text.contains("'shape': (998, 2), }    \n"), "{text}");
        assert_eq!(set_rows(&mut b"{'descr': '<i8'}\n".to_vec(), 3), None);
    }
}
