//! Tables: CSV files with a header line, a label column, and numbers or categories in the others.

use super::csv_text::{CsvProblem, CsvText, Row};
use super::spec::{DataSpec, Target};
use super::store::{Labels, Part, Parts, Values};
use super::texts::{MAX_DISTINCT, Sorted, Texts, listed, same_number};
use super::{DataError, files};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What a column is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Number,
    /// A number of which log(1 + x) is the input.
    Log1p,
    /// Position in [`Table::categories`].
    Category(usize),
    Label,
    Ignored,
}

/// A table's columns, and what was seen in all of its files so far.
struct Table<'a> {
    spec: &'a DataSpec,
    label: &'a str,
    /// Names of the inputs' columns, in the order of the first file.
    columns: Vec<String>,
    uses: Vec<Use>,
    /// By column, the texts that count as another.
    merged: Vec<HashMap<&'a str, &'a str>>,
    categories: Vec<Texts>,
    labels: Texts,
    /// For each of the labels' texts, the file, row and line that it first stood in.
    first_labels: Vec<(PathBuf, u64, u64)>,
}

/// Rows of one file: inputs with categories as numbers of texts, and the label likewise.
struct Raw {
    path: PathBuf,
    cells: Vec<f64>,
    labels: Vec<f64>,
}

/// Names of the classes, and each label text's place among them.
#[derive(Default)]
struct Classes {
    names: Option<Vec<String>>,
    places: Option<Vec<u32>>,
    notes: Vec<String>,
}

/// Reads the tables of all parts; categories and classes are those that occur in any of them.
pub(super) fn read(
    spec: &DataSpec,
    train: &[PathBuf],
    validation: &[PathBuf],
    test: &[PathBuf],
) -> Result<Parts, DataError> {
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
    let parts = Parts::joined(raw, classes.names, features, |file| {
        table.part(file, &sorted, width, places.as_deref())
    })?;
    Ok(Parts { notes, ..parts })
}

impl Table<'_> {
    /// Reads one file.
    fn file(&mut self, path: &Path) -> Result<Raw, DataError> {
        let spec = self.spec;
        let (delimiter, comment) = (
            spec.delimiter.map_or(b',', |c| c as u8),
            spec.comment.map(|c| c as u8),
        );
        let text = CsvText::new(files::open_text(path)?, delimiter, comment);
        // The header is read as a row, and rows of another length are refused here, where their line is known.
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .comment(comment)
            .from_reader(text);
        let mut record = Row {
            record: csv::ByteRecord::new(),
            line: 0,
        };
        let mut next = |record: &mut Row| record.next(&mut reader).map_err(|e| broken(path, e));
        let header = if spec.columns.is_empty() {
            next(&mut record)?;
            record.cells(path)?.into_iter().map(String::from).collect()
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
        while next(&mut record)? {
            let (line, cells) = (record.line, record.cells(path)?);
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

    /// Settles the columns by the first file; the others must have the same.
    fn header(&mut self, path: &Path, header: &[String]) -> Result<(), DataError> {
        if !self.columns.is_empty() {
            if self.columns != header {
                let what = format!(
                    "has columns {}, but the files before have {}",
                    listed(header),
                    listed(&self.columns)
                );
                return Err(DataError::malformed(path, what));
            }
            return Ok(());
        }
        let mut names = HashSet::with_capacity(header.len());
        if let Some(twice) = header.iter().find(|name| !names.insert(name.as_str())) {
            return Err(DataError::malformed(
                path,
                format!("has two columns {twice:?}: rename one, or name them all by data.columns"),
            ));
        }
        let label = std::slice::from_ref(&self.spec.label).iter().flatten();
        let named = label
            .map(|n| ("label", n))
            .chain(self.spec.categorical.iter().map(|n| ("categorical", n)))
            .chain(self.spec.ignore.iter().map(|n| ("ignore", n)))
            .chain(self.spec.log1p.iter().map(|n| ("log1p", n)))
            .chain(self.spec.merge.keys().map(|n| ("merge", n)));
        for (key, name) in named {
            if !names.contains(name.as_str()) {
                return Err(DataError::spec(
                    key,
                    format!(
                        "{} has no column {name:?}; it has {}",
                        path.display(),
                        listed(header)
                    ),
                ));
            }
            if !matches!(key, "label" | "merge") && name == self.label {
                return Err(DataError::spec(
                    key,
                    format!("{name:?} is the label's column"),
                ));
            }
        }
        self.columns = header.to_vec();
        self.uses(header)?;
        if !self
            .uses
            .iter()
            .any(|u| matches!(u, Use::Number | Use::Log1p | Use::Category(_)))
        {
            return Err(DataError::malformed(
                path,
                format!("has no column of inputs, only {}", listed(header)),
            ));
        }
        Ok(())
    }

    /// Settles what each column is used for.
    fn uses(&mut self, header: &[String]) -> Result<(), DataError> {
        let set = |names: &'_ [String]| names.iter().cloned().collect::<HashSet<String>>();
        let (ignored, categorical, log1p) = (
            set(&self.spec.ignore),
            set(&self.spec.categorical),
            set(&self.spec.log1p),
        );
        for name in header {
            self.uses.push(if name == self.label {
                Use::Label
            } else if ignored.contains(name) {
                Use::Ignored
            } else if categorical.contains(name) {
                self.categories.push(Texts::default());
                Use::Category(self.categories.len() - 1)
            } else if log1p.contains(name) {
                Use::Log1p
            } else {
                Use::Number
            });
            let groups = self.spec.merge.get(name);
            self.merged.push(
                groups
                    .into_iter()
                    .flatten()
                    .flat_map(|(to, from)| from.iter().map(|text| (text.as_str(), to.as_str())))
                    .collect(),
            );
            let text = matches!(self.uses.last(), Some(Use::Category(_) | Use::Label));
            if groups.is_some() && !text {
                return Err(DataError::spec(
                    "merge",
                    format!("{name:?} is no column of text: name it in data.categorical, too"),
                ));
            }
            if log1p.contains(name) && self.uses.last() != Some(&Use::Log1p) {
                return Err(DataError::spec(
                    "log1p",
                    format!("{name:?} is ignored or a column of text"),
                ));
            }
        }
        Ok(())
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
                            "If the column holds text, say categorical = [{column:?}]; \
                             to leave it out, ignore = [{column:?}]"
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
                        let hint = format!("To leave the column out, say ignore = [{column:?}]");
                        wrong(format!("one of at most {MAX_DISTINCT} categories"), hint)
                    })?;
                    raw.cells.push(n.into());
                }
                Use::Label if self.spec.target == Some(Target::Value) => {
                    let value = number().ok_or_else(|| {
                        let hint = "With target = \"value\" labels are numbers";
                        wrong("a finite number".into(), hint.into())
                    })?;
                    raw.labels.push(value);
                }
                Use::Label if text.is_empty() => {
                    let hint = format!(
                        "Give the row its label or leave the row out; to train on it as a class of its own, \
                         say merge = {{ {column:?} = {{ unknown = [\"\"] }} }}"
                    );
                    return Err(wrong("a label".into(), hint));
                }
                Use::Label => {
                    let n = self.labels.number(text).ok_or_else(|| {
                        let hint = "If labels are numbers to predict, say target = \"value\"";
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

    /// Names of the classes with the place of each label text among them; nothing for labels that are values.
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
        // The Task gives the order, and thereby the class numbers.
        let mut by_task = vec![0; self.labels.numbers.len()];
        for (text, n) in &self.labels.numbers {
            let exactly = given.iter().position(|name| name == text);
            let at = exactly
                .or_else(|| given.iter().position(|name| same_number(name, text)))
                .ok_or_else(|| {
                    DataError::spec(
                        "class_names",
                        format!(
                            "the label {:?} occurs, but is not among {}",
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

    /// That no label among numbers is what programs write for a missing one.
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
                 say merge = {{ {column:?} = {{ unknown = [{text:?}] }} }}"
            )
            .into(),
        })
    }

    /// One file's rows, with categories one-hot.
    fn part(
        &self,
        raw: Raw,
        sorted: &[Sorted],
        features: usize,
        place: Option<&[u32]>,
    ) -> Result<Part, DataError> {
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
        Part::new(
            &raw.path,
            &raw.path,
            vec![features],
            rows,
            Values::F64(values),
            labels,
        )
    }
}

/// A cell for a message: its beginning.
fn shortened(cell: &str) -> String {
    const SHOWN: usize = 80;
    match cell.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", cell.get(..end).unwrap_or_default()),
        None => cell.to_string(),
    }
}

fn broken(path: &Path, error: csv::Error) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => match CsvProblem::of(&e) {
            Some(problem) => DataError::malformed(path, problem.to_string()),
            None => files::unpacking(path, e),
        },
        other => DataError::malformed(path, format!("is no readable table: {other:?}")),
    }
}
