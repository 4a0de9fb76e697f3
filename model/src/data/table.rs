//! Tables: CSV files with a header line, a label column, and numbers or categories in the others.

use super::spec::{DataSpec, Target};
use super::store::{Labels, Part, Parts, Values};
use super::texts::{MAX_DISTINCT, Texts};
use super::{DataError, files};
use std::collections::HashMap;
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
}

/// Rows of one file: inputs with categories as numbers of texts, and the label likewise.
struct Raw {
    path: PathBuf,
    cells: Vec<f64>,
    labels: Vec<f64>,
}

/// Names of the classes, and each label text's place among them.
type Classes = (Option<Vec<String>>, Option<Vec<u32>>);

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
    };
    let mut files = |paths: &[PathBuf]| {
        let files = paths.iter().map(|path| table.file(path));
        files.collect::<Result<Vec<_>, _>>()
    };
    let raw = [files(train)?, files(validation)?, files(test)?];
    let sorted: Vec<(Vec<String>, Vec<u32>)> = table.categories.iter().map(Texts::sorted).collect();
    let mut features = Vec::new();
    for (name, usage) in table.columns.iter().zip(&table.uses) {
        match usage {
            Use::Category(c) => features.extend(
                sorted
                    .get(*c)
                    .into_iter()
                    .flat_map(|s| &s.0)
                    .map(|text| format!("{name}={text}")),
            ),
            Use::Number => features.push(name.clone()),
            Use::Log1p => features.push(format!("log(1 + {name})")),
            Use::Label | Use::Ignored => {}
        }
    }
    let (names, place) = table.classes()?;
    let width = features.len();
    Parts::joined(raw, names, features, |file| {
        table.part(file, &sorted, width, place.as_deref())
    })
}

impl Table<'_> {
    /// Reads one file.
    fn file(&mut self, path: &Path) -> Result<Raw, DataError> {
        let spec = self.spec;
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(spec.columns.is_empty())
            .delimiter(spec.delimiter.map_or(b',', |c| c as u8))
            .comment(spec.comment.map(|c| c as u8))
            .trim(csv::Trim::All)
            .from_reader(files::open(path)?);
        let header = if spec.columns.is_empty() {
            reader
                .headers()
                .map_err(|e| broken(path, e))?
                .iter()
                .map(String::from)
                .collect()
        } else {
            spec.columns.clone()
        };
        self.header(path, &header)?;
        let mut raw = Raw {
            path: path.to_path_buf(),
            cells: Vec::new(),
            labels: Vec::new(),
        };
        let mut record = csv::StringRecord::new();
        let mut row = 0;
        while reader
            .read_record(&mut record)
            .map_err(|e| broken(path, e))?
        {
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != self.columns.len() {
                let what = format!(
                    "line {line} has {} cells, expected {} ({})",
                    record.len(),
                    self.columns.len(),
                    self.columns.join(", ")
                );
                return Err(DataError::malformed(path, what));
            }
            self.record(&record, row, line, &mut raw)?;
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
                    header.join(", "),
                    self.columns.join(", ")
                );
                return Err(DataError::malformed(path, what));
            }
            return Ok(());
        }
        let listed = || header.join(", ");
        for (i, name) in header.iter().enumerate() {
            if header.iter().skip(i + 1).any(|other| other == name) {
                return Err(DataError::malformed(
                    path,
                    format!(
                        "has two columns {name:?}: rename one, or name them all by data.columns"
                    ),
                ));
            }
        }
        let label = std::slice::from_ref(&self.spec.label).iter().flatten();
        let named = label
            .map(|n| ("label", n))
            .chain(self.spec.categorical.iter().map(|n| ("categorical", n)))
            .chain(self.spec.ignore.iter().map(|n| ("ignore", n)))
            .chain(self.spec.log1p.iter().map(|n| ("log1p", n)))
            .chain(self.spec.merge.keys().map(|n| ("merge", n)));
        for (key, name) in named {
            if !header.contains(name) {
                return Err(DataError::spec(
                    key,
                    format!(
                        "{} has no column {name:?}; it has {}",
                        path.display(),
                        listed()
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
        for name in header {
            self.uses.push(if name == self.label {
                Use::Label
            } else if self.spec.ignore.contains(name) {
                Use::Ignored
            } else if self.spec.categorical.contains(name) {
                self.categories.push(Texts::default());
                Use::Category(self.categories.len() - 1)
            } else if self.spec.log1p.contains(name) {
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
            if self.spec.log1p.contains(name) && self.uses.last() != Some(&Use::Log1p) {
                return Err(DataError::spec(
                    "log1p",
                    format!("{name:?} is ignored or a column of text"),
                ));
            }
        }
        if !self
            .uses
            .iter()
            .any(|u| matches!(u, Use::Number | Use::Log1p | Use::Category(_)))
        {
            return Err(DataError::malformed(
                path,
                format!("has no column of inputs, only {}", listed()),
            ));
        }
        Ok(())
    }

    fn record(
        &mut self,
        record: &csv::StringRecord,
        row: u64,
        line: u64,
        raw: &mut Raw,
    ) -> Result<(), DataError> {
        let columns = self.uses.iter().zip(&self.columns).zip(&self.merged);
        for (cell, ((usage, column), merged)) in record.iter().zip(columns) {
            let path = &raw.path;
            let text = merged.get(cell).copied().unwrap_or(cell);
            let wrong = |expected: String, hint: String| DataError::Cell {
                path: path.clone(),
                row,
                line,
                column: column.as_str().into(),
                expected: expected.into(),
                got: cell.into(),
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
                Use::Label => {
                    let n = self.labels.number(text).ok_or_else(|| {
                        let hint = "If labels are numbers to predict, say target = \"value\"";
                        wrong(
                            format!("one of at most {MAX_DISTINCT} classes"),
                            hint.into(),
                        )
                    })?;
                    raw.labels.push(n.into());
                }
            }
        }
        Ok(())
    }

    /// Names of the classes with the place of each label text among them; nothing for labels that are values.
    fn classes(&self) -> Result<Classes, DataError> {
        if self.spec.target == Some(Target::Value) {
            return Ok((None, None));
        }
        let (names, place) = self.labels.sorted();
        if self.spec.class_names.is_empty() {
            return Ok((Some(names), Some(place)));
        }
        // The Task gives the order, and thereby the class numbers.
        let mut by_task = vec![0; place.len()];
        for (text, n) in &self.labels.numbers {
            let at = self
                .spec
                .class_names
                .iter()
                .position(|name| name == text)
                .ok_or_else(|| {
                    DataError::spec(
                        "class_names",
                        format!(
                            "the label {text:?} occurs, but is not among {}",
                            self.spec.class_names.join(", ")
                        ),
                    )
                })?;
            if let Some(slot) = by_task.get_mut(*n as usize) {
                *slot = at as u32;
            }
        }
        Ok((Some(self.spec.class_names.clone()), Some(by_task)))
    }

    /// One file's rows, with categories one-hot.
    fn part(
        &self,
        raw: Raw,
        sorted: &[(Vec<String>, Vec<u32>)],
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
                let Some((texts, places)) = sorted.get(*c) else {
                    continue;
                };
                let hot = places
                    .get(*cell as usize)
                    .map_or(usize::MAX, |p| *p as usize);
                values.extend((0..texts.len()).map(|i| if i == hot { 1.0 } else { 0.0 }));
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

fn broken(path: &Path, error: csv::Error) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => files::unpacking(path, e),
        csv::ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let line = pos.map_or(0, |p| p.line());
            DataError::malformed(
                path,
                format!(
                    "line {line} has {len} cells, expected {expected_len} as in the first line"
                ),
            )
        }
        csv::ErrorKind::Utf8 { pos, err } => {
            let line = pos.map_or(0, |p| p.line());
            DataError::malformed(path, format!("line {line} is not UTF-8 text ({err})"))
        }
        other => DataError::malformed(path, format!("is no readable table: {other:?}")),
    }
}
