//! Reads the rows of tables.

use super::columns::{Table, Use};
use super::entry::Entry;
use super::fit::Slot;
use super::raw::Raw;
use super::separator::separated_otherwise;
use super::spec::Fill;
use crate::csv_rows::{CsvError, CsvRows};
use crate::data::report::Report;
use crate::data::spec::{DataSpec, Target};
use crate::data::store::SourceRows;
use crate::data::texts::{Sorted, is_missing, listed};
use crate::data::{DataError, encoding, files};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Reads all files of a table. Categories and classes are those that occur in any file.
pub(in crate::data) fn read(
    spec: &DataSpec,
    train: &[PathBuf],
    validation: &[PathBuf],
    test: &[PathBuf],
    report: &Report,
) -> Result<SourceRows, DataError> {
    let mut table = Table::new(spec, report);
    let mut files = |paths: &[PathBuf]| {
        let files = paths.iter().map(|path| table.file(path));
        files.collect::<Result<Vec<_>, _>>()
    };
    let mut raw = [files(train)?, files(validation)?, files(test)?];
    let sorted: Vec<Sorted> = table.categories.iter().map(|t| t.sorted()).collect();
    let classes = table.classes()?;
    let mut notes = classes.notes;
    notes.extend(raw.iter().flatten().filter_map(Raw::note));
    for (name, usage) in table.columns.iter().zip(&table.uses) {
        if let Use::Category(c) = usage
            && let Some(sorted) = sorted.get(*c)
        {
            notes.extend(sorted.notes(&format!("column {name:?}")));
        }
    }
    let slots = table.slots(&sorted);
    let features: Vec<String> = slots.iter().flat_map(Slot::names).collect();
    let finish = table.finish(slots, &mut raw);
    let (width, places) = (features.len(), classes.places);
    let of_classes = spec.target != Some(Target::Value);
    let names = of_classes.then_some(classes.names);
    let parts = SourceRows::joined(raw, names, features, |file| {
        table.part(
            file,
            &sorted,
            width,
            of_classes.then_some(places.as_slice()),
        )
    })?;
    Ok(SourceRows {
        notes,
        finish,
        ..parts
    })
}

/// Opens a file of a table.
pub(super) fn open(
    path: &Path,
    spec: &DataSpec,
) -> Result<CsvRows<Box<dyn Read + Send>>, DataError> {
    let encoding = encoding::named(spec.encoding.as_deref())?;
    Ok(CsvRows::separated(
        files::open_text(path, encoding)?,
        spec.delimiter.map_or(b',', |c| c as u8),
        spec.comment.map(|c| c as u8),
    ))
}

/// Says in which file a row couldn't be read.
pub(super) fn broken(path: &Path, error: CsvError) -> DataError {
    match error {
        CsvError::Io(e) => files::unpacking(path, e),
        e @ CsvError::Text { .. } => {
            DataError::malformed(path, format!("{e}, {}", encoding::ADVICE))
        }
        e => DataError::malformed(path, e.to_string()),
    }
}

/// The names of the columns: those that the Task lists, or those of the first row, which is read.
pub(super) fn header<R: Read>(
    rows: &mut CsvRows<R>,
    path: &Path,
    spec: &DataSpec,
) -> Result<Vec<String>, DataError> {
    if !spec.columns.is_empty() {
        return Ok(spec.columns.clone());
    }
    let row = rows.read().map_err(|e| broken(path, e))?;
    let cells = row.map(|row| row.cells()).transpose();
    let cells = cells.map_err(|e| broken(path, e))?;
    Ok(cells.into_iter().flatten().map(String::from).collect())
}

impl Table<'_> {
    /// Reads one file.
    fn file(&mut self, path: &Path) -> Result<Raw, DataError> {
        let spec = self.spec;
        let mut rows = open(path, spec)?;
        let broken = |e: CsvError| broken(path, e);
        let mut header = header(&mut rows, path, spec)?;
        let may_lack = self.report.may_lack_labels(path);
        let mut lacking = None;
        if may_lack && spec.columns.is_empty() && !header.contains(&self.label) {
            lacking = self.columns.iter().position(|name| *name == self.label);
            header.insert(lacking.unwrap_or(0).min(header.len()), self.label.clone());
        }
        self.header(path, &header, lacking.is_some())?;
        let texts = self.uses.iter().filter(|u| matches!(u, Use::Text(_)));
        let mut raw = Raw {
            path: path.to_path_buf(),
            cells: Vec::new(),
            labels: Vec::new(),
            texts: vec![Vec::new(); texts.count()],
            left_out: Vec::new(),
        };
        // The first label of the training rows, or a number.
        let first = self.labels.numbers.iter().find(|(_, n)| **n == 0);
        let placeholder = first.map_or("0".to_owned(), |(text, _)| text.clone());
        let mut row = 0;
        while let Some(found) = rows.read().map_err(broken)? {
            let (line, mut cells) = (found.line(), found.cells().map_err(broken)?);
            // Without a header, the number of cells tells whether there is a label.
            if may_lack && row == 0 && cells.len() + 1 == self.columns.len() {
                lacking = self.columns.iter().position(|name| *name == self.label);
            }
            if let Some(at) = lacking.filter(|at| *at <= cells.len()) {
                self.report.lacks_label();
                cells.insert(at, &placeholder);
            }
            if cells.len() != self.columns.len() {
                let inserted = lacking.filter(|at| *at < cells.len());
                let what = self.other_length(path, &cells, line, inserted);
                self.report.take(DataError::malformed(path, what))?;
                row += 1;
                continue;
            }
            self.record(&cells, row, line, &mut raw)?;
            row += 1;
        }
        if row == 0 {
            return Err(DataError::malformed(path, "holds no row of data"));
        }
        Ok(raw)
    }

    /// The problem of a row that has another number of cells than the header. `inserted` is the cell of a label that the file
    /// doesn't have.
    fn other_length(
        &self,
        path: &Path,
        cells: &[&str],
        line: u64,
        inserted: Option<usize>,
    ) -> String {
        let cells: Vec<&str> = (0..)
            .zip(cells)
            .filter(|(at, _)| Some(*at) != inserted)
            .map(|(_, cell)| *cell)
            .collect();
        let columns: Vec<String> = (0..)
            .zip(&self.columns)
            .filter(|(at, _)| Some(*at) != inserted)
            .map(|(_, name)| name.clone())
            .collect();
        let cells = cells.as_slice();
        let count = |n: usize| {
            if n == 1 {
                "1 cell".to_owned()
            } else {
                format!("{n} cells")
            }
        };
        let what = format!(
            "line {line} has {}, expected {} ({})",
            count(cells.len()),
            columns.len(),
            listed(&columns)
        );
        if let [cell] = cells
            && let Some(hint) = separated_otherwise(cell, self.spec)
        {
            return format!("{what}. {hint}");
        }
        if self.report.may_lack_labels(path) {
            return format!("{what}. A cell that contains the separator has quotes around it");
        }
        let sign = cells.first().and_then(|cell| cell.chars().next());
        let sign =
            sign.filter(|c| c.is_ascii_punctuation() && !matches!(c, '"' | '\'' | '-' | '.'));
        match (sign, cells) {
            (Some(sign), [_]) => format!(
                "{what}. If it is a comment, remove it, or write comment = {:?} in [data]: lines that begin with this character are skipped",
                sign.to_string()
            ),
            (None, [_]) => {
                format!("{what}. Remove titles and notes: a table has a header line and rows")
            }
            _ => format!("{what}. A cell that contains the separator has quotes around it"),
        }
    }

    fn record(
        &mut self,
        cells: &[&str],
        row: u64,
        line: u64,
        raw: &mut Raw,
    ) -> Result<(), DataError> {
        let mut drop = false;
        for (at, &cell) in cells.iter().enumerate() {
            let Some(&usage) = self.uses.get(at) else {
                continue;
            };
            let merged = self.merged.get(at).and_then(|texts| texts.get(cell));
            let mut text = merged.copied().unwrap_or(cell);
            let fill = self.fills.get(at).and_then(Option::as_ref);
            let fill = fill
                .filter(|_| self.counts_as_missing(text, usage))
                .cloned();
            match (&fill, usage) {
                (None, _) | (_, Use::Ignored) => {}
                (Some(Fill::Drop), _) => {
                    drop = true;
                    raw.absent(usage);
                    continue;
                }
                (Some(Fill::Constant(constant)), Use::Category(_) | Use::Text(_)) => {
                    let constant = constant.to_string();
                    self.cell_or_report(&constant, at, usage, (row, line), raw)?;
                    continue;
                }
                (Some(_), Use::Text(_)) => text = "",
                (Some(_), _) => {
                    raw.absent(usage);
                    continue;
                }
            }
            self.cell_or_report(text, at, usage, (row, line), raw)?;
        }
        if drop {
            raw.left_out.push(row as usize);
        }
        Ok(())
    }

    /// Whether a text stands for a missing value.
    fn counts_as_missing(&self, text: &str, usage: Use) -> bool {
        match &self.spec.missing {
            Some(missing) if !missing.texts.is_empty() => missing.texts.iter().any(|t| t == text),
            // `none` can be a category, a label or a word.
            _ if matches!(usage, Use::Number | Use::Log1p) => is_missing(text),
            _ if usage == Use::Label && self.spec.target == Some(Target::Value) => is_missing(text),
            _ => text.is_empty(),
        }
    }

    /// Adds a cell that isn't missing. If it is bad and reading goes on, 0 takes its place.
    fn cell_or_report(
        &mut self,
        text: &str,
        at: usize,
        usage: Use,
        place: (u64, u64),
        raw: &mut Raw,
    ) -> Result<(), DataError> {
        if let Err(problem) = self.cell(text, at, usage, place, raw) {
            self.report.take(problem)?;
            match usage {
                Use::Label => raw.labels.push(0.0),
                _ => raw.cells.push(0.0),
            }
        }
        Ok(())
    }

    /// Adds a cell that isn't missing. Its place is a row and a line.
    fn cell(
        &mut self,
        text: &str,
        at: usize,
        usage: Use,
        (row, line): (u64, u64),
        raw: &mut Raw,
    ) -> Result<(), DataError> {
        let numerals = self.spec.numerals();
        let entry = Entry {
            path: &raw.path,
            row,
            line,
            column: self.columns.get(at).map_or("", String::as_str),
            text,
            number: || numerals.number(text),
            new: self.report.may_lack_labels(&raw.path),
        };
        match usage {
            Use::Ignored => {}
            Use::Number => {
                let value = entry.number(numerals, self.spec.missing.as_ref())?;
                raw.cells.push(value);
            }
            Use::Log1p => {
                let value = entry.above_minus_one()?;
                raw.cells.push(value.ln_1p());
            }
            Use::Category(c) => {
                let n = entry.category(self.categories.get_mut(c))?;
                raw.cells.push(n.into());
            }
            Use::Text(t) => {
                raw.cells.push(0.0);
                if let Some(texts) = raw.texts.get_mut(t) {
                    texts.push(text.to_owned());
                }
            }
            Use::Label if self.spec.target == Some(Target::Value) => {
                let value = entry.label_value()?;
                raw.labels.push(value);
            }
            Use::Label => {
                let n = entry.class(&mut self.labels, &self.spec.class_names)?;
                if n as usize == self.first_labels.len() {
                    self.first_labels.push((raw.path.clone(), row, line));
                }
                raw.labels.push(n.into());
            }
        }
        Ok(())
    }
}
