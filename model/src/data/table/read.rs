//! Reads the rows of tables.

use super::columns::{Table, Use};
use crate::csv_rows::{CsvError, CsvRows};
use crate::data::numbers::same_number;
use crate::data::spec::{DataSpec, Target};
use crate::data::store::{Labels, Rows, SourceRows, Values};
use crate::data::texts::{MAX_DISTINCT, Sorted, Texts, listed};
use crate::data::{DataError, files};
use std::path::{Path, PathBuf};

/// Rows of one file. Categories and class labels are numbers of texts.
struct Raw {
    path: PathBuf,
    cells: Vec<f64>,
    labels: Vec<f64>,
}

/// Names of the classes, and the class of each label text.
#[derive(Default)]
struct Classes {
    names: Option<Vec<String>>,
    places: Option<Vec<u32>>,
    notes: Vec<String>,
}

/// Reads all files of a table. Categories and classes are those that occur in any file.
pub(in crate::data) fn read(
    spec: &DataSpec,
    train: &[PathBuf],
    validation: &[PathBuf],
    test: &[PathBuf],
) -> Result<SourceRows, DataError> {
    let label = spec.label.as_deref().unwrap_or_default();
    let mut table = Table {
        spec,
        label,
        columns: Vec::new(),
        uses: Vec::new(),
        merged: Vec::new(),
        categories: Vec::new(),
        labels: Texts::default(),
        first_labels: Vec::new(),
    };
    let mut files = |paths: &[PathBuf]| {
        let files = paths.iter().map(|path| table.file(path));
        files.collect::<Result<Vec<_>, _>>()
    };
    let raw = [files(train)?, files(validation)?, files(test)?];
    let sorted: Vec<Sorted> = table.categories.iter().map(Texts::sorted).collect();
    let mut features = Vec::new();
    let mut notes = Vec::new();
    for (name, usage) in table.columns.iter().zip(&table.uses) {
        match usage {
            Use::Category(c) => {
                let Some(sorted) = sorted.get(*c) else {
                    continue;
                };
                features.extend(sorted.names.iter().map(|text| format!("{name}={text}")));
                notes.extend(sorted.notes(name));
            }
            Use::Number => features.push(name.clone()),
            Use::Log1p => features.push(format!("log(1 + {name})")),
            Use::Label | Use::Ignored => {}
        }
    }
    let classes = table.classes()?;
    notes.extend(classes.notes);
    let (width, places) = (features.len(), classes.places);
    let parts = SourceRows::joined(raw, classes.names, features, |file| {
        table.part(file, &sorted, width, places.as_deref())
    })?;
    Ok(SourceRows { notes, ..parts })
}

impl Table<'_> {
    /// Reads one file.
    fn file(&mut self, path: &Path) -> Result<Raw, DataError> {
        let spec = self.spec;
        let mut rows = CsvRows::separated(
            files::open_text(path)?,
            spec.delimiter.map_or(b',', |c| c as u8),
            spec.comment.map(|c| c as u8),
        );
        let broken = |e: CsvError| match e {
            CsvError::Io(e) => files::unpacking(path, e),
            e => DataError::malformed(path, e.to_string()),
        };
        let header: Vec<String> = if spec.columns.is_empty() {
            let row = rows.read().map_err(broken)?;
            let cells = row.map(|row| row.cells()).transpose().map_err(broken)?;
            cells.into_iter().flatten().map(String::from).collect()
        } else {
            spec.columns.clone()
        };
        self.header(path, &header)?;
        let mut raw = Raw {
            path: path.to_path_buf(),
            cells: Vec::new(),
            labels: Vec::new(),
        };
        let mut row = 0;
        while let Some(found) = rows.read().map_err(broken)? {
            let (line, cells) = (found.line(), found.cells().map_err(broken)?);
            if cells.len() != self.columns.len() {
                let what = format!(
                    "line {line} has {} cells, expected {} ({})",
                    cells.len(),
                    self.columns.len(),
                    listed(&self.columns)
                );
                return Err(DataError::malformed(path, what));
            }
            self.record(&cells, row, line, &mut raw)?;
            row += 1;
        }
        if row == 0 {
            return Err(DataError::malformed(path, "holds no row of data"));
        }
        Ok(raw)
    }

    fn record(
        &mut self,
        cells: &[&str],
        row: u64,
        line: u64,
        raw: &mut Raw,
    ) -> Result<(), DataError> {
        let columns = self.uses.iter().zip(&self.columns).zip(&self.merged);
        for (&cell, ((usage, column), merged)) in cells.iter().zip(columns) {
            let path = &raw.path;
            let text = merged.get(cell).copied().unwrap_or(cell);
            let wrong = |expected: String, hint: String| DataError::Cell {
                path: path.clone(),
                row,
                line,
                column: column.as_str().into(),
                expected: expected.into(),
                got: shortened(cell).into(),
                hint: hint.into(),
            };
            let number = || cell.parse::<f64>().ok().filter(|x| x.is_finite());
            match usage {
                Use::Ignored => {}
                Use::Number => {
                    let value = number().ok_or_else(|| {
                        let hint = format!(
                            "If the column holds text, write categorical = [{column:?}]; \
                             to leave it out, write ignore = [{column:?}]"
                        );
                        wrong("a finite number".into(), hint)
                    })?;
                    raw.cells.push(value);
                }
                Use::Log1p => {
                    let value = number().filter(|x| *x > -1.0).ok_or_else(|| {
                        let hint = format!("data.log1p takes log(1 + x) of column {column:?}");
                        wrong("a finite number above -1".into(), hint)
                    })?;
                    raw.cells.push(value.ln_1p());
                }
                Use::Category(c) => {
                    let n = self.categories.get_mut(*c).and_then(|t| t.number(text));
                    let n = n.ok_or_else(|| {
                        let hint = format!("To leave the column out, write ignore = [{column:?}]");
                        wrong(format!("one of at most {MAX_DISTINCT} categories"), hint)
                    })?;
                    raw.cells.push(n.into());
                }
                Use::Label if self.spec.target == Some(Target::Value) => {
                    let value = number().ok_or_else(|| {
                        let hint = "With target = \"value\", labels are numbers";
                        wrong("a finite number".into(), hint.into())
                    })?;
                    raw.labels.push(value);
                }
                Use::Label if text.is_empty() => {
                    let hint = format!(
                        "Give the row its label or leave the row out; to train on it as a class of its own, \
                         write merge = {{ {column:?} = {{ unknown = [\"\"] }} }}"
                    );
                    return Err(wrong("a label".into(), hint));
                }
                Use::Label => {
                    let n = self.labels.number(text).ok_or_else(|| {
                        let hint = "If labels are numbers to predict, write target = \"value\"";
                        wrong(
                            format!("one of at most {MAX_DISTINCT} classes"),
                            hint.into(),
                        )
                    })?;
                    if n as usize == self.first_labels.len() {
                        self.first_labels.push((path.clone(), row, line));
                    }
                    raw.labels.push(n.into());
                }
            }
        }
        Ok(())
    }

    /// The names of the classes and the class of each label text. Both are `None` for labels that are values.
    fn classes(&self) -> Result<Classes, DataError> {
        if self.spec.target == Some(Target::Value) {
            return Ok(Classes::default());
        }
        let given = &self.spec.class_names;
        if given.is_empty() {
            self.none_missing()?;
            let sorted = self.labels.sorted();
            return Ok(Classes {
                notes: sorted.notes(self.label),
                names: Some(sorted.names),
                places: Some(sorted.places),
            });
        }
        // The order in the Task determines the class numbers.
        let mut by_task = vec![0; self.labels.numbers.len()];
        for (text, n) in &self.labels.numbers {
            let exactly = given.iter().position(|name| name == text);
            let at = exactly
                .or_else(|| given.iter().position(|name| same_number(name, text)))
                .ok_or_else(|| {
                    DataError::spec(
                        "class_names",
                        format!(
                            "the files have the label {:?}, which is not in class_names: {}",
                            shortened(text),
                            listed(given)
                        ),
                    )
                })?;
            if let Some(slot) = by_task.get_mut(*n as usize) {
                *slot = at as u32;
            }
        }
        Ok(Classes {
            names: Some(given.clone()),
            places: Some(by_task),
            notes: Vec::new(),
        })
    }

    /// Checks that no label among numbers is a text that programs write for a missing value.
    fn none_missing(&self) -> Result<(), DataError> {
        let Some((text, n)) = self.labels.missing_among_numbers() else {
            return Ok(());
        };
        let (path, row, line) = self
            .first_labels
            .get(n as usize)
            .cloned()
            .unwrap_or_default();
        let column = self.label;
        Err(DataError::Cell {
            path,
            row,
            line,
            column: column.into(),
            expected: "a number, as all other labels are".into(),
            got: text.into(),
            hint: format!(
                "Give the row its label or leave the row out; to train on it as a class of its own, \
                 write merge = {{ {column:?} = {{ unknown = [{text:?}] }} }}"
            )
            .into(),
        })
    }

    /// The rows of one file, with categories encoded one-hot.
    fn part(
        &self,
        raw: Raw,
        sorted: &[Sorted],
        features: usize,
        place: Option<&[u32]>,
    ) -> Result<Rows, DataError> {
        let rows = raw.labels.len();
        let inputs: Vec<Use> = self
            .uses
            .iter()
            .copied()
            .filter(|u| matches!(u, Use::Number | Use::Log1p | Use::Category(_)))
            .collect();
        let mut values = Vec::with_capacity(rows * features);
        for cells in raw.cells.chunks_exact(inputs.len().max(1)) {
            for (cell, usage) in cells.iter().zip(&inputs) {
                let Use::Category(c) = usage else {
                    values.push(*cell);
                    continue;
                };
                let Some(sorted) = sorted.get(*c) else {
                    continue;
                };
                let hot = sorted
                    .places
                    .get(*cell as usize)
                    .map_or(usize::MAX, |p| *p as usize);
                values.extend((0..sorted.names.len()).map(|i| if i == hot { 1.0 } else { 0.0 }));
            }
        }
        let labels = match place {
            Some(place) => Labels::Classes(
                raw.labels
                    .iter()
                    .map(|n| place.get(*n as usize).copied().unwrap_or(0))
                    .collect(),
            ),
            None => Labels::Values {
                width: 1,
                data: raw.labels,
            },
        };
        Rows::new(
            &raw.path,
            &raw.path,
            vec![features],
            rows,
            Values::F64(values),
            labels,
        )
    }
}

/// The beginning of a cell, for a message.
fn shortened(cell: &str) -> String {
    const SHOWN: usize = 80;
    match cell.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", cell.get(..end).unwrap_or_default()),
        None => cell.to_string(),
    }
}
