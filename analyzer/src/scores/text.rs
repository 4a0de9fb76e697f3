//! Tables as CSV and as JSON lines.

use std::fmt::Write as _;
use std::io::{BufRead, BufWriter, Read, Write};
use std::rc::Rc;

use hindcast_model::csv_rows::CsvRows;
use serde_json::{Map, Value};

use super::columns::{Cell, Column, Header, ReadRows, cell, fill};
use super::{ScoreMetadata, ScoreRow, ScoreTable, spreadsheet};

impl ScoreTable {
    /// Writes a CSV table: a header, then one line per example. Floats are the shortest decimals that read back as
    /// the same float64. Missing scores are empty cells. A text that a spreadsheet would treat as a formula gets a
    /// leading apostrophe, which is removed when the table is read.
    ///
    /// # Errors
    /// The writer's errors.
    pub fn write_csv(&self, to: impl Write) -> std::io::Result<()> {
        self.write_to(&mut CsvSink::new(to, self.layout().columns())?)
    }

    /// Writes one JSON object per line with the names of the CSV's columns. Missing scores are `null`. Numbers that JSON
    /// doesn't have are the texts of the CSV: `"inf"`, `"-inf"` and `"NaN"`.
    ///
    /// # Errors
    /// The writer's errors.
    pub fn write_json_lines(&self, to: impl Write) -> std::io::Result<()> {
        self.write_to(&mut JsonSink::new(to, self.layout().columns()))
    }

    fn write_to(&self, sink: &mut dyn RowSink) -> std::io::Result<()> {
        self.rows.iter().try_for_each(|row| sink.push(row))?;
        sink.finish()
    }
}

/// A file that takes the rows of a table, one after the other.
pub(super) trait RowSink {
    /// Writes a row.
    fn push(&mut self, row: &ScoreRow) -> std::io::Result<()>;
    /// Writes what is left after the last row.
    fn finish(&mut self) -> std::io::Result<()>;
}

/// A CSV table.
pub(super) struct CsvSink<W: Write> {
    csv: csv::Writer<W>,
    columns: Vec<(String, Column)>,
    /// Text of a number.
    number: String,
}

impl<W: Write> CsvSink<W> {
    /// Writes the header.
    pub fn new(to: W, columns: Vec<(String, Column)>) -> std::io::Result<Self> {
        let mut csv = csv::Writer::from_writer(to);
        csv.write_record(columns.iter().map(|(name, _)| name))
            .map_err(csv_error)?;
        Ok(CsvSink {
            csv,
            columns,
            number: String::new(),
        })
    }
}

impl<W: Write> RowSink for CsvSink<W> {
    fn push(&mut self, row: &ScoreRow) -> std::io::Result<()> {
        for (_, column) in &self.columns {
            match cell(row, *column) {
                Cell::Text(text) => self.csv.write_field(spreadsheet::quoted(&text).as_bytes()),
                number => {
                    self.number.clear();
                    // Writing to a text can't fail.
                    let _ = write!(self.number, "{number}");
                    self.csv.write_field(&self.number)
                }
            }
            .map_err(csv_error)?;
        }
        self.csv.write_record(None::<&[u8]>).map_err(csv_error)
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.csv.flush()
    }
}

/// A table of JSON lines.
pub(super) struct JsonSink<W: Write> {
    to: BufWriter<W>,
    columns: Vec<(String, Column)>,
}

impl<W: Write> JsonSink<W> {
    pub fn new(to: W, columns: Vec<(String, Column)>) -> Self {
        JsonSink {
            to: BufWriter::new(to),
            columns,
        }
    }
}

impl<W: Write> RowSink for JsonSink<W> {
    fn push(&mut self, row: &ScoreRow) -> std::io::Result<()> {
        write_json(&mut self.to, row, &self.columns)?;
        self.to.write_all(b"\n")
    }

    fn finish(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// One row as a JSON object, without serde_json's map, which would lose the order of the columns.
pub(super) fn write_json(
    to: &mut impl Write,
    row: &ScoreRow,
    columns: &[(String, Column)],
) -> std::io::Result<()> {
    for (i, (name, column)) in columns.iter().enumerate() {
        to.write_all(if i == 0 { b"{" } else { b"," })?;
        serde_json::to_writer(&mut *to, name)?;
        to.write_all(b":")?;
        match cell(row, *column) {
            // serde_json would write null, as for a missing score.
            Cell::Number(Some(x)) if !x.is_finite() => {
                serde_json::to_writer(&mut *to, &Cell::Number(Some(x)).to_string())?;
            }
            Cell::Integer(i) => serde_json::to_writer(&mut *to, &i)?,
            Cell::Text(text) => serde_json::to_writer(&mut *to, &text)?,
            Cell::Number(x) => serde_json::to_writer(&mut *to, &x)?,
        }
    }
    to.write_all(b"}")
}

/// Reads the header of a CSV table. Columns may be in any order; columns with other names are ignored.
pub(super) fn read_csv(
    from: impl Read + 'static,
    metadata: Option<&ScoreMetadata>,
) -> Result<ReadRows, String> {
    let mut csv = CsvRows::new(from);
    let names = csv.header().and_then(|row| row.texts());
    let names = names.map_err(|e| e.to_string())?;
    let header = Rc::new(Header::read(names, metadata)?);
    let of = header.clone();
    let rows = std::iter::from_fn(move || csv_row(&mut csv, &of).transpose());
    Ok((header, Box::new(rows)))
}

/// The next row; `None` at the end.
fn csv_row<R: Read>(csv: &mut CsvRows<R>, header: &Header) -> Result<Option<ScoreRow>, String> {
    let Some(record) = csv.read().map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    record
        .check_length(header.columns.len())
        .map_err(|e| e.to_string())?;
    let texts = record.texts().map_err(|e| e.to_string())?;
    let mut row = header.blank();
    for (text, column) in texts.into_iter().zip(&header.columns) {
        let Some(column) = *column else { continue };
        parse(text, column)
            .and_then(|cell| fill(&mut row, column, cell))
            .map_err(|e| format!("line {}: {e}", record.line()))?;
    }
    Ok(Some(row))
}

fn parse(text: &str, column: Column) -> Result<Cell, String> {
    match column {
        column if column.is_text() => Ok(Cell::Text(spreadsheet::unquoted(text).to_owned())),
        column if column.is_whole() => text
            .trim()
            .parse()
            .map(Cell::Integer)
            .map_err(|_| format!("`{text}` is not a whole number")),
        _ if text.trim().is_empty() => Ok(Cell::Number(None)),
        _ => text
            .trim()
            .parse()
            .map(|x| Cell::Number(Some(x)))
            .map_err(|_| format!("`{text}` is not a number")),
    }
}

/// Reads the first of the JSON lines. Every line must have the keys of the first; others are ignored.
pub(super) fn read_json_lines(
    from: impl BufRead + 'static,
    metadata: Option<&ScoreMetadata>,
) -> Result<ReadRows, String> {
    let mut lines = from.lines().enumerate();
    let mut next = move || json_line(&mut lines).transpose();
    let Some(first) = next() else {
        return Err("the file has no rows".to_owned());
    };
    let first = first?;
    let names: Vec<String> = first.1.keys().cloned().collect();
    let header = Rc::new(Header::read(names.iter().map(String::as_str), metadata)?);
    let of = header.clone();
    let rows = std::iter::once(Ok(first))
        .chain(std::iter::from_fn(next))
        .map(move |line| {
            let (at, object) = line?;
            json_row(at, &object, &names, &of)
        });
    Ok((header, Box::new(rows)))
}

/// A line's number from 0, and the object in it.
type JsonLine = (usize, Map<String, Value>);

/// The next line that isn't blank; `None` at the end.
fn json_line(
    lines: &mut impl Iterator<Item = (usize, std::io::Result<String>)>,
) -> Result<Option<JsonLine>, String> {
    for (at, line) in lines {
        let line = line.map_err(|e| e.to_string())?;
        if !line.trim().is_empty() {
            let object =
                serde_json::from_str(&line).map_err(|e| format!("line {}: {e}", at + 1))?;
            return Ok(Some((at, object)));
        }
    }
    Ok(None)
}

/// The row in a line. `names` are the keys of the first line.
fn json_row(
    at: usize,
    object: &Map<String, Value>,
    names: &[String],
    header: &Header,
) -> Result<ScoreRow, String> {
    let mut row = header.blank();
    for (name, column) in names.iter().zip(&header.columns) {
        let Some(column) = *column else { continue };
        let value = object
            .get(name)
            .ok_or_else(|| format!("line {}: `{name}` is missing", at + 1))?;
        let cell = match (column, value) {
            (column, Value::String(text)) if column.is_text() => Cell::Text(text.clone()),
            (column, v) if column.is_whole() && v.is_u64() => {
                Cell::Integer(v.as_u64().unwrap_or_default())
            }
            (_, Value::Null) => Cell::Number(None),
            (_, Value::String(text)) => Cell::Number(Some(
                infinite(text).ok_or_else(|| unexpected(at, name, column, value))?,
            )),
            (_, v) => Cell::Number(Some(
                v.as_f64().ok_or_else(|| unexpected(at, name, column, v))?,
            )),
        };
        fill(&mut row, column, cell).map_err(|_| unexpected(at, name, column, value))?;
    }
    Ok(row)
}

/// The number that JSON doesn't have and that was written as this text.
fn infinite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|x: &f64| !x.is_finite())
}

/// The message about a JSON value of the wrong type. `at` counts lines from 0.
fn unexpected(at: usize, name: &str, column: Column, value: &Value) -> String {
    format!(
        "line {}: `{name}` must be {}, got {value}",
        at + 1,
        column.expects()
    )
}

/// Metadata of a table without a sidecar, from its columns.
pub(super) fn metadata_of(header: &Header) -> ScoreMetadata {
    ScoreMetadata {
        version: 0,
        writer: String::new(),
        run_digest: String::new(),
        window: 0..0,
        run_steps: 0,
        at: String::new(),
        method: String::new(),
        settings: Default::default(),
        notes: Vec::new(),
        engine: String::new(),
        rule: String::new(),
        queries: header
            .queries
            .iter()
            .map(|name| super::QueryMetadata {
                name: name.clone(),
                value: f64::NAN,
                digest: None,
                growth: None,
            })
            .collect(),
        epochs: header.epochs.clone(),
        refined: header.refined.clone(),
        files: Vec::new(),
        ..ScoreMetadata::default()
    }
}

fn csv_error(e: csv::Error) -> std::io::Error {
    match e.into_kind() {
        csv::ErrorKind::Io(e) => e,
        other => std::io::Error::other(format!("{other:?}")),
    }
}
