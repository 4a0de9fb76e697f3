//! Edits a table: a label is replaced within its cell, a row is cut out.

use std::collections::BTreeMap;
use std::path::Path;

use encoding_rs::Encoding;

use super::edit::{Classes, RowEdit, RowEdits, Spelling};
use crate::csv_rows::CsvError;
use crate::csv_rows::spans::{RowSpan, each_row};
use crate::data::spec::DataSpec;
use crate::data::table::label_column;
use crate::data::{DataError, encoding, files};
use crate::files::MARK;

/// The file's content after the edits.
pub(super) fn edited(
    path: &Path,
    spec: &DataSpec,
    edits: &RowEdits,
    classes: &Classes<'_>,
) -> Result<Vec<u8>, DataError> {
    let text = files::read(path)?;
    let mark = if text.starts_with(MARK) {
        MARK.len()
    } else {
        0
    };
    let (mark, text) = text.split_at(mark);
    let (delimiter, comment) = (
        spec.delimiter.map_or(b',', |c| c as u8),
        spec.comment.map(|c| c as u8),
    );
    let encoding = editable(path, spec, delimiter)?;
    let (label, name) = column_of_labels(path, spec, text, (delimiter, comment), encoding)?;
    let layout = Layout {
        path,
        label,
        encoding,
        delimiter,
        headers: usize::from(spec.columns.is_empty()),
    };
    let spellings = layout.spellings(text, comment)?;
    let groups = spec.merge.get(&name);
    let meaning = |text: &'_ str| {
        let mut groups = groups.into_iter().flatten();
        groups.find(|(_, from)| from.iter().any(|known| known == text))
    };
    let spellings: Vec<(&str, &str)> = spellings
        .iter()
        .map(|text| {
            (
                text.as_str(),
                meaning(text).map_or(text.as_str(), |(to, _)| to),
            )
        })
        .collect();
    let spelling = Spelling::new(classes, spellings);
    let mut out = mark.to_vec();
    let (mut copied, mut at, mut left) = (0, 0, 0u64);
    let mut visit = |row: &RowSpan| -> Result<(), Failed> {
        at += 1;
        if at <= layout.headers {
            return Ok(());
        }
        left += 1;
        let copy = |out: &mut Vec<u8>, to: usize| out.extend_from_slice(&text[copied..to]);
        match edits.get(&((at - layout.headers - 1) as u64)) {
            None => {}
            Some(RowEdit::Drop) => {
                left -= 1;
                copy(&mut out, row.bytes.start);
                copied = row.bytes.end;
            }
            Some(RowEdit::Relabel(class)) => {
                let cell = layout.cell(row)?;
                let old = content(&text[cell.clone()], encoding);
                let name = spelling.of(*class, &old)?;
                if name == old {
                    return Ok(());
                }
                copy(&mut out, cell.start);
                let name = layout.encoded(&name)?;
                out.extend(replaced(&text[cell.clone()], &name, delimiter));
                copied = cell.end;
            }
        }
        Ok(())
    };
    each_row(text, delimiter, comment, &mut visit).map_err(|e| e.of(path))?;
    out.extend_from_slice(&text[copied..]);
    if left == 0 {
        return Err(DataError::malformed(path, "no row would be left"));
    }
    Ok(out)
}

struct Layout<'a> {
    path: &'a Path,
    /// Number of the label's column.
    label: usize,
    encoding: &'static Encoding,
    delimiter: u8,
    /// Number of rows before the rows of data.
    headers: usize,
}

impl Layout<'_> {
    fn cell(&self, row: &RowSpan) -> Result<std::ops::Range<usize>, DataError> {
        let cell = row.cells.get(self.label).cloned();
        cell.ok_or_else(|| DataError::malformed(self.path, "a row has no cell for its label"))
    }

    /// A text in the file's encoding.
    fn encoded(&self, text: &str) -> Result<Vec<u8>, DataError> {
        let (bytes, _, unmappable) = self.encoding.encode(text);
        if unmappable {
            let encoding = self.encoding.name();
            let what = format!("the class {text:?} can't be written in its encoding {encoding:?}");
            return Err(DataError::malformed(self.path, what));
        }
        Ok(bytes.into_owned())
    }

    /// The texts of the label column, the most frequent first.
    fn spellings(&self, text: &[u8], comment: Option<u8>) -> Result<Vec<String>, DataError> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut at = 0;
        let mut visit = |row: &RowSpan| -> Result<(), Failed> {
            at += 1;
            if at > self.headers {
                let cell = content(&text[self.cell(row)?], self.encoding);
                *counts.entry(cell).or_default() += 1;
            }
            Ok(())
        };
        each_row(text, self.delimiter, comment, &mut visit).map_err(|e| e.of(self.path))?;
        let mut spellings: Vec<(String, u64)> = counts.into_iter().collect();
        spellings.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok(spellings.into_iter().map(|(text, _)| text).collect())
    }
}

/// An error of a walk over the rows.
enum Failed {
    Csv(CsvError),
    Data(DataError),
}

impl Failed {
    fn of(self, path: &Path) -> DataError {
        match self {
            Failed::Csv(e) => DataError::malformed(path, e.to_string()),
            Failed::Data(e) => e,
        }
    }
}

impl From<CsvError> for Failed {
    fn from(e: CsvError) -> Self {
        Failed::Csv(e)
    }
}

impl From<DataError> for Failed {
    fn from(e: DataError) -> Self {
        Failed::Data(e)
    }
}

/// The encoding of a table whose cells can be replaced one by one: its separators, quotes and line ends are single bytes.
fn editable(path: &Path, spec: &DataSpec, delimiter: u8) -> Result<&'static Encoding, DataError> {
    /// In encodings of several bytes per character, such as Shift_JIS, later bytes of a character may be in this range.
    const LATER_BYTES: u8 = 0x40;
    let found = encoding::named(spec.encoding.as_deref())?.unwrap_or(encoding_rs::UTF_8);
    let single = found.is_single_byte() || found == encoding_rs::UTF_8 || delimiter < LATER_BYTES;
    if found.is_ascii_compatible() && single {
        return Ok(found);
    }
    Err(DataError::malformed(
        path,
        format!(
            "single rows of a table in the encoding {:?} can't be changed: convert it to UTF-8 first",
            found.name()
        ),
    ))
}

/// The number and the name of the label's column.
fn column_of_labels(
    path: &Path,
    spec: &DataSpec,
    text: &[u8],
    (delimiter, comment): (u8, Option<u8>),
    encoding: &'static Encoding,
) -> Result<(usize, String), DataError> {
    let mut header = spec.columns.clone();
    if header.is_empty() {
        let mut first = true;
        let mut visit = |row: &RowSpan| -> Result<(), Failed> {
            if std::mem::take(&mut first) {
                header = row
                    .cells
                    .iter()
                    .map(|cell| content(&text[cell.clone()], encoding))
                    .collect();
            }
            Ok(())
        };
        each_row(text, delimiter, comment, &mut visit).map_err(|e| e.of(path))?;
    }
    let label = spec.label.as_ref();
    let label = label.map(|label| label_column(label, path, &header));
    let label = label.transpose()?.unwrap_or_default();
    let at = header.iter().position(|name| *name == label);
    let missing = || DataError::malformed(path, format!("has no column {label:?} of labels"));
    Ok((at.ok_or_else(missing)?, label))
}

/// The text of a cell, without quotes and the spaces around it.
fn content(cell: &[u8], encoding: &'static Encoding) -> String {
    let cell = cell.trim_ascii();
    let text = encoding.decode_without_bom_handling(cell).0;
    let inner = text
        .strip_prefix('"')
        .map(|rest| rest.strip_suffix('"').unwrap_or(rest));
    match inner {
        None => text.trim().to_owned(),
        Some(inner) => inner.replace("\"\"", "\"").trim().to_owned(),
    }
}

/// A cell with another text, with the old quotes and the spaces around it.
fn replaced(cell: &[u8], text: &[u8], delimiter: u8) -> Vec<u8> {
    let space = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let before = cell.iter().take_while(space).count();
    let after = cell[before..].iter().rev().take_while(space).count();
    let quoted = cell[before..].starts_with(b"\"");
    let special = |byte: u8| byte == delimiter || matches!(byte, b'"' | b'\r' | b'\n');
    let mut out = cell[..before].to_vec();
    if quoted || text.iter().copied().any(special) || text.trim_ascii() != text {
        out.push(b'"');
        for &byte in text {
            out.extend(std::iter::repeat_n(byte, 1 + usize::from(byte == b'"')));
        }
        out.push(b'"');
    } else {
        out.extend_from_slice(text);
    }
    out.extend_from_slice(&cell[cell.len() - after..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_keeps_its_quotes_and_spaces() {
        for (cell, text, expected) in [
            ("no", "yes", "yes"),
            (" no ", "yes", " yes "),
            ("\"no\"", "yes", "\"yes\""),
            (" \"a, b\"", "say \"c\"", " \"say \"\"c\"\"\""),
            ("no", "a, b", "\"a, b\""),
            ("", "yes", "yes"),
            ("   ", "yes", "   yes"),
        ] {
            let got = replaced(cell.as_bytes(), text.as_bytes(), b',');
            assert_eq!(String::from_utf8(got).unwrap(), expected, "{cell:?}");
        }
        assert_eq!(
            content(b" \"say \"\"c\"\" \" ", encoding_rs::UTF_8),
            "say \"c\""
        );
    }
}
