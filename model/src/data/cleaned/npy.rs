//! Edits NumPy's `.npy` arrays.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use npyz::{DType, Endianness, Order, TypeChar, TypeStr, WriterBuilder as _};

use super::arrays;
use super::edit::{Classes, RowEdit, RowEdits, Spelling};
use crate::data::DataError;
use crate::data::array::{LabelArray, volume};
use crate::data::npy::{self, Opened};

/// The file's content after the edits. `classes` says what is written for a class; it is `None` for inputs. The header keeps its
/// length, element type and order of axes; only the number of rows changes. The elements of texts get a wider type if a new label
/// needs it.
pub(super) fn edited(
    path: &Path,
    edits: &RowEdits,
    classes: Option<&Classes<'_>>,
) -> Result<Vec<u8>, DataError> {
    let file = Opened::read(path)?;
    let Some(classes) = classes else {
        return rewritten(path, &file, edits, None);
    };
    if file.holds_texts() {
        return relabelled(path, &file, edits, classes);
    }
    let label = |class: usize| {
        let number = classes.number(class)?;
        element_of(&file.kind, number)
            .ok_or_else(|| arrays::too_large(path, number, &file.kind.to_string()))
    };
    rewritten(path, &file, edits, Some(&label))
}

/// What is written for a class.
type Label<'a> = dyn Fn(usize) -> Result<Vec<u8>, DataError> + 'a;

/// The file with the labels that `label` writes.
fn rewritten(
    path: &Path,
    file: &Opened,
    edits: &RowEdits,
    label: Option<&Label<'_>>,
) -> Result<Vec<u8>, DataError> {
    let (rows, element) = (file.rows(), file.element);
    let values = volume(file.shape.get(1..).unwrap_or_default()).unwrap_or(0);
    // What follows the array isn't part of it.
    let body = file.body();
    let (body, rest) = body.split_at((rows * values * element).min(body.len()));
    let left = arrays::left(path, rows, edits)?;
    let mut out = file.bytes.get(..file.start).unwrap_or_default().to_vec();
    let drops = edits.values().any(|edit| *edit == RowEdit::Drop);
    if drops {
        let broken = || DataError::malformed(path, "its header has no shape");
        set_rows(&mut out, left).ok_or_else(broken)?;
    }
    if file.order == Order::Fortran {
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

/// A file whose labels are texts.
fn relabelled(
    path: &Path,
    file: &Opened,
    edits: &RowEdits,
    classes: &Classes<'_>,
) -> Result<Vec<u8>, DataError> {
    let LabelArray::Texts(texts) = npy::read_labels(path)? else {
        return Err(DataError::malformed(path, "holds no texts"));
    };
    let spelling = Spelling::new(classes, spellings(&texts));
    let mut edits = edits.clone();
    let mut new: BTreeMap<usize, String> = BTreeMap::new();
    for (row, old) in (0u64..).zip(&texts) {
        if let Some(RowEdit::Relabel(class)) = edits.get(&row) {
            let text = spelling.of(*class, old)?;
            if text == *old {
                edits.remove(&row);
            } else {
                new.insert(*class, text);
            }
        }
    }
    let edits = &edits;
    let units = |text: &String| match file.kind.type_char() {
        TypeChar::UnicodeStr => text.chars().count(),
        _ => text.len(),
    };
    let longest = new.values().map(units).max().unwrap_or(0) as u64;
    if longest > file.kind.size_field() {
        return widened(path, file, &texts, edits, (&new, longest));
    }
    let label = |class: usize| {
        let text = new.get(&class).map_or("", String::as_str);
        Ok(text_element(&file.kind, file.element, text))
    };
    rewritten(path, file, edits, Some(&label))
}

/// The different labels, the most frequent first.
fn spellings(texts: &[String]) -> Vec<(&str, &str)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    let mut sorted: Vec<(&str, usize)> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sorted.into_iter().map(|(text, _)| (text, text)).collect()
}

/// A text as an element, with zeros behind it.
fn text_element(kind: &TypeStr, bytes: usize, text: &str) -> Vec<u8> {
    let mut out: Vec<u8> = match (kind.type_char(), kind.endianness()) {
        (TypeChar::UnicodeStr, Endianness::Big) => text
            .chars()
            .flat_map(|c| u32::from(c).to_be_bytes())
            .collect(),
        (TypeChar::UnicodeStr, _) => text
            .chars()
            .flat_map(|c| u32::from(c).to_le_bytes())
            .collect(),
        _ => text.as_bytes().to_vec(),
    };
    out.resize(bytes, 0);
    out
}

/// The array with elements of `longest` characters or bytes, and the new label of each class.
fn widened(
    path: &Path,
    file: &Opened,
    texts: &[String],
    edits: &RowEdits,
    (new, longest): (&BTreeMap<usize, String>, u64),
) -> Result<Vec<u8>, DataError> {
    let broken = |e: String| DataError::malformed(path, format!("can't be written: {e}"));
    let left = arrays::left(path, texts.len(), edits)?;
    let mut shape: Vec<u64> = file.shape.iter().map(|d| *d as u64).collect();
    if let Some(rows) = shape.first_mut() {
        *rows = left as u64;
    }
    // Such as "<U" of "<U4".
    let kind = file.kind.to_string();
    let kind = format!(
        "{}{longest}",
        kind.trim_end_matches(|c: char| c.is_ascii_digit())
    );
    let kind: TypeStr = kind.parse().map_err(|e| broken(format!("{kind}: {e}")))?;
    let mut out = Vec::new();
    let writer = npyz::WriteOptions::<str>::new()
        .dtype(DType::Plain(kind))
        .shape(&shape)
        .writer(&mut out)
        .begin_nd();
    let mut writer = writer.map_err(|e| broken(e.to_string()))?;
    for (row, text) in (0u64..).zip(texts) {
        let text = match edits.get(&row) {
            Some(RowEdit::Drop) => continue,
            Some(RowEdit::Relabel(class)) => new.get(class).unwrap_or(text),
            None => text,
        };
        writer.push(text).map_err(|e| broken(e.to_string()))?;
    }
    writer.finish().map_err(|e| broken(e.to_string()))?;
    let end = texts.len() * file.element;
    out.extend_from_slice(file.body().get(end..).unwrap_or_default());
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
