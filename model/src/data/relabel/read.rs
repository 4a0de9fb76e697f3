//! Reads files of labels, line by line.

use std::path::Path;

use super::line::{Line, Purpose};
use crate::csv_rows::{CsvError, CsvRows};
use crate::data::array::{Elements, LabelArray};
use crate::data::texts::listed;
use crate::data::{DataError, files, npy};

/// Reads the lines of a file by its extension. `own` is the data's own name for labels, such as the label's column.
pub(super) fn read(
    path: &Path,
    purpose: Purpose,
    own: Option<&str>,
) -> Result<Vec<Line>, DataError> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let lines = match extension.to_ascii_lowercase().as_str() {
        "csv" => csv(path, b',', purpose, own)?,
        "tsv" | "tab" => csv(path, b'\t', purpose, own)?,
        "npy" => numpy(path)?,
        // Read as text, the lines of a table would become labels.
        table @ ("json" | "jsonl" | "ndjson" | "parquet" | "xls" | "xlsx" | "ods") => {
            return Err(DataError::malformed(
                path,
                format!(
                    "labels aren't read from .{table}: write them as .csv with a column `label` and a column `row` or `file`, as .npy, \
                     or one per line as .txt"
                ),
            ));
        }
        _ => text(path)?,
    };
    if lines.is_empty() {
        return Err(DataError::malformed(path, "holds no labels"));
    }
    Ok(lines)
}

/// One label per line.
fn text(path: &Path) -> Result<Vec<Line>, DataError> {
    let content = files::read_text(path, None)?;
    let labels = content.lines().map(|label| label.trim().to_owned());
    Ok(numbered(labels.collect()))
}

/// An array with one number or text per row.
fn numpy(path: &Path) -> Result<Vec<Line>, DataError> {
    let array = match npy::read_labels(path)? {
        LabelArray::Numbers(array) => array,
        LabelArray::Texts(texts) => return Ok(numbered(texts)),
    };
    if let Some(width) = array
        .shape
        .get(1..)
        .filter(|rest| rest.iter().any(|d| *d != 1))
    {
        return Err(DataError::malformed(
            path,
            format!("expected one label per row, but a row has shape {width:?}"),
        ));
    }
    let labels: Vec<String> = match array.elements {
        Elements::Bool(v) | Elements::U8(v) => v.iter().map(u8::to_string).collect(),
        Elements::I64(v) => v.iter().map(i64::to_string).collect(),
        Elements::F32(v) => v.iter().map(f32::to_string).collect(),
        Elements::F64(v) => v.iter().map(f64::to_string).collect(),
    };
    Ok(numbered(labels))
}

/// Labels in the order of the rows.
fn numbered(labels: Vec<String>) -> Vec<Line> {
    let line = |(line, label)| Line {
        line,
        file: None,
        row: None,
        label,
    };
    (1..).zip(labels).map(line).collect()
}

/// A table with a header. Its columns `row` and `file` identify the row.
fn csv(
    path: &Path,
    delimiter: u8,
    purpose: Purpose,
    own: Option<&str>,
) -> Result<Vec<Line>, DataError> {
    let mut rows = CsvRows::separated(files::open_text(path, None)?, delimiter, None);
    let broken = |e: CsvError| match e {
        CsvError::Io(e) => files::unpacking(path, e),
        e => DataError::malformed(path, e.to_string()),
    };
    let header = rows.header().and_then(|row| row.cells()).map_err(broken)?;
    let header: Vec<String> = header.into_iter().map(str::to_owned).collect();
    let find = |name: &str| {
        header
            .iter()
            .position(|column| column.eq_ignore_ascii_case(name))
    };
    let (row_at, file_at) = (find("row"), find("file"));
    let known: &[&str] = match purpose {
        Purpose::Labels => &["label"],
        Purpose::Truth => &["truth", "true_label", "label"],
    };
    let others: Vec<usize> = (0..header.len())
        .filter(|at| Some(*at) != row_at && Some(*at) != file_at)
        .collect();
    let named = known.iter().copied().chain(own).find_map(find);
    let label_at = match (named, others.as_slice()) {
        (Some(at), _) => at,
        (None, [only]) => *only,
        (None, _) => {
            return Err(DataError::malformed(
                path,
                format!(
                    "expected a column `{}` with the labels{}; the columns are {}",
                    known.join("` or `"),
                    own.map_or_else(String::new, |own| format!(", or {own:?}")),
                    listed(&header)
                ),
            ));
        }
    };
    if find("index").is_some() && row_at.is_none() && file_at.is_none() {
        return Err(DataError::malformed(
            path,
            "identifies examples by `index`, which depends on how the splits are drawn: add the column `row`, as tables of scores have it",
        ));
    }
    let mut lines = Vec::new();
    while let Some(found) = rows.read().map_err(broken)? {
        found.check_length(header.len()).map_err(broken)?;
        let (line, cells) = (found.line(), found.cells().map_err(broken)?);
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let row = row_at.map(|at| {
            cell(at).parse().map_err(|_| {
                DataError::malformed(
                    path,
                    format!(
                        "line {line}, column \"row\": expected the number of a row, counted from 0, got {:?}",
                        cell(at)
                    ),
                )
            })
        });
        lines.push(Line {
            line,
            file: file_at.map(|at| cell(at).to_owned()),
            row: row.transpose()?,
            label: cell(label_at).to_owned(),
        });
    }
    Ok(lines)
}
