//! Decoded examples in memory, in the type of their file.

use super::DataError;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Inputs of all rows, one row after the other.
#[derive(Debug)]
pub(super) enum Values {
    U8(Vec<u8>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Values {
    fn name(&self) -> &'static str {
        match self {
            Self::U8(_) => "bytes",
            Self::F32(_) => "32-bit floats",
            Self::F64(_) => "64-bit floats",
        }
    }

    /// Size of the values, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::F32(v) => 4 * v.len(),
            Self::F64(v) => 8 * v.len(),
        }
    }

    fn append(&mut self, other: Self) -> Result<(), (&'static str, &'static str)> {
        match (&mut *self, other) {
            (Self::U8(a), Self::U8(mut b)) => a.append(&mut b),
            (Self::F32(a), Self::F32(mut b)) => a.append(&mut b),
            (Self::F64(a), Self::F64(mut b)) => a.append(&mut b),
            (a, b) => return Err((a.name(), b.name())),
        }
        Ok(())
    }

    fn retain(&mut self, rows: &[usize], width: usize) {
        match self {
            Self::U8(v) => retain(v, rows, width),
            Self::F32(v) => retain(v, rows, width),
            Self::F64(v) => retain(v, rows, width),
        }
    }
}

/// Class number of a row whose class isn't kept.
pub(super) const DROPPED: u32 = u32::MAX;
/// Class number of a row whose true class isn't known.
pub(super) const UNKNOWN: u32 = DROPPED - 1;

/// The label of a row that has one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Label {
    Class(u32),
    Value(f64),
}

impl Label {
    /// The name of the class, or the value.
    pub(super) fn text(self, names: &[String]) -> String {
        match self {
            Label::Class(class) => {
                let name = names.get(class as usize);
                name.cloned().unwrap_or_else(|| class.to_string())
            }
            Label::Value(value) => value.to_string(),
        }
    }
}

/// Labels of all rows.
#[derive(Debug, Clone)]
pub(super) enum Labels {
    Classes(Vec<u32>),
    Values { width: usize, data: Vec<f64> },
}

impl Labels {
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Classes(v) => v.len(),
            Self::Values { width, data } => data.len().checked_div(*width).unwrap_or(0),
        }
    }

    /// The first label for each of some rows, as a placeholder.
    pub(super) fn repeated(&self, rows: usize) -> Self {
        match self {
            Self::Classes(v) => Self::Classes(vec![v.first().copied().unwrap_or(0); rows]),
            Self::Values { width, data } => {
                let first = data.get(..*width).unwrap_or_default();
                Self::Values {
                    width: *width,
                    data: first.repeat(rows),
                }
            }
        }
    }

    /// Sets the labels of some rows. Returns how many of them changed.
    pub(super) fn set(&mut self, labels: impl Iterator<Item = (usize, Label)>) -> usize {
        let mut changed = 0;
        for (row, label) in labels {
            changed += usize::from(match (&mut *self, label) {
                (Self::Classes(all), Label::Class(class)) => all
                    .get_mut(row)
                    .is_some_and(|at| std::mem::replace(at, class) != class),
                (Self::Values { width: 1, data }, Label::Value(value)) => data
                    .get_mut(row)
                    .is_some_and(|at| std::mem::replace(at, value) != value),
                _ => false,
            });
        }
        changed
    }

    /// Labels of as many rows, all of them unknown.
    pub(super) fn unknown(&self) -> Self {
        match self {
            Self::Classes(all) => Self::Classes(vec![UNKNOWN; all.len()]),
            Self::Values { width, data } => Self::Values {
                width: *width,
                data: vec![f64::NAN; data.len()],
            },
        }
    }

    /// Takes unknown labels from `other`.
    pub(super) fn fill_unknown(&mut self, other: &Self) {
        match (self, other) {
            (Self::Classes(all), Self::Classes(other)) => {
                for (at, other) in all.iter_mut().zip(other).filter(|(at, _)| **at == UNKNOWN) {
                    *at = *other;
                }
            }
            (Self::Values { data, .. }, Self::Values { data: other, .. }) => {
                for (at, other) in data.iter_mut().zip(other).filter(|(at, _)| at.is_nan()) {
                    *at = *other;
                }
            }
            _ => {}
        }
    }

    fn append(&mut self, other: Self) -> Result<(), &'static str> {
        match (self, other) {
            (Self::Classes(a), Self::Classes(mut b)) => a.append(&mut b),
            (
                Self::Values { width, data },
                Self::Values {
                    width: w,
                    data: mut d,
                },
            ) if *width == w => data.append(&mut d),
            (Self::Values { .. }, Self::Values { .. }) => return Err("labels of another width"),
            _ => {
                return Err(
                    "labels of another type (integers are classes, floats are values; \
                     target = \"class\" or \"value\" in [data] reads both alike)",
                );
            }
        }
        Ok(())
    }

    fn retain(&mut self, rows: &[usize]) {
        match self {
            Self::Classes(v) => retain(v, rows, 1),
            Self::Values { width, data } => retain(data, rows, *width),
        }
    }
}

/// Keeps the given rows of `width` values each, in place. `rows` is ascending.
fn retain<T: Copy>(values: &mut Vec<T>, rows: &[usize], width: usize) {
    for (to, &from) in rows.iter().enumerate() {
        values.copy_within(from * width..(from + 1) * width, to * width);
    }
    values.truncate(rows.len() * width);
    values.shrink_to_fit();
}

/// Rows of one or more files, in order.
#[derive(Debug)]
pub(super) struct Rows {
    /// Shape of an example.
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
    pub(super) labels: Labels,
    /// The files and their numbers of rows.
    pub(super) files: Vec<(PathBuf, usize)>,
    /// Rows that are in no split because a value is missing, ascending.
    pub(super) left_out: Vec<usize>,
}

impl Rows {
    /// Rows of one file, or of a pair of files, in which case `path` is the file of inputs.
    pub(super) fn new(
        path: &Path,
        labels_path: &Path,
        shape: Vec<usize>,
        rows: usize,
        values: Values,
        labels: Labels,
    ) -> Result<Self, DataError> {
        if labels.rows() != rows {
            return Err(DataError::Count {
                inputs_path: path.to_path_buf(),
                inputs: rows as u64,
                labels_path: labels_path.to_path_buf(),
                labels: labels.rows() as u64,
            });
        }
        if shape.contains(&0) {
            return Err(DataError::malformed(
                path,
                format!("an example has shape {shape:?}, which has no values"),
            ));
        }
        Ok(Self {
            shape,
            values,
            labels,
            files: vec![(path.to_path_buf(), rows)],
            left_out: Vec::new(),
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.labels.rows()
    }

    /// Appends the rows of another file.
    pub(super) fn append(&mut self, other: Self) -> Result<(), DataError> {
        let path = other.files.first().map(|f| f.0.clone()).unwrap_or_default();
        let before = self.rows();
        if self.shape != other.shape {
            return Err(DataError::malformed(
                &path,
                format!(
                    "examples have shape {:?}, but the previous examples have {:?}",
                    other.shape, self.shape
                ),
            ));
        }
        self.values.append(other.values).map_err(|(a, b)| {
            DataError::malformed(
                &path,
                format!("holds {b}, but the previous examples are {a}"),
            )
        })?;
        self.labels.append(other.labels).map_err(|what| {
            DataError::malformed(&path, format!("has {what} than the previous examples"))
        })?;
        self.files.extend(other.files);
        self.left_out
            .extend(other.left_out.into_iter().map(|row| before + row));
        Ok(())
    }
}

/// The rows of a source: those of its training files, and those of its validation and test files, if there are any.
pub(super) struct SourceRows {
    pub(super) train: Rows,
    pub(super) validation: Option<Rows>,
    pub(super) test: Option<Rows>,
    /// Names of the classes, if the source has them.
    pub(super) names: Option<Vec<String>>,
    /// Names of the features. Empty if they have none.
    pub(super) features: Vec<String>,
    /// The characters of a text, by the channel of the input. Empty for other sources.
    pub(super) alphabet: Vec<char>,
    /// Notes about the files for users, one per line.
    pub(super) notes: Vec<String>,
    /// The folder from which the names of files start. `None` if a file is named by its shortest unambiguous name.
    pub(super) root: Option<PathBuf>,
    /// What is done to the rows when the training split is known.
    pub(super) finish: Option<Box<dyn Finish>>,
}

/// The last part of reading, for sources with statistics of the training split.
pub(super) trait Finish {
    /// Fits the statistics to the training split, and computes the inputs of all kept rows.
    ///
    /// `origins` are the positions of the kept rows among the rows of all files. `train` are the positions of the training
    /// examples among the kept rows.
    fn finish(
        self: Box<Self>,
        rows: &mut Rows,
        origins: &[usize],
        train: &[usize],
    ) -> Result<Finished, DataError>;
}

/// What a source knows of its rows when they are finished.
#[derive(Default)]
pub(super) struct Finished {
    /// Names of the features.
    pub(super) features: Vec<String>,
    /// The free text of each kept row. Empty if the rows have none.
    pub(super) texts: Vec<String>,
    /// Notes for users, one per line.
    pub(super) notes: Vec<String>,
}

impl SourceRows {
    /// Rows without names of classes or features.
    pub(super) fn of(train: Rows, validation: Option<Rows>, test: Option<Rows>) -> Self {
        Self {
            train,
            validation,
            test,
            names: None,
            features: Vec::new(),
            alphabet: Vec::new(),
            notes: Vec::new(),
            root: None,
            finish: None,
        }
    }

    /// Reads the training, validation and test files, and joins the rows of each group.
    pub(super) fn joined<F>(
        files: [Vec<F>; 3],
        names: Option<Vec<String>>,
        features: Vec<String>,
        mut read: impl FnMut(F) -> Result<Rows, DataError>,
    ) -> Result<Self, DataError> {
        let mut join = |files: Vec<F>| {
            let mut joined: Option<Rows> = None;
            for file in files {
                let part = read(file)?;
                match &mut joined {
                    Some(before) => before.append(part)?,
                    None => joined = Some(part),
                }
            }
            Ok::<_, DataError>(joined)
        };
        let [train, validation, test] = files;
        let (train, validation, test) = (join(train)?, join(validation)?, join(test)?);
        let train =
            train.ok_or_else(|| DataError::spec("train_files", "expected at least one file"))?;
        Ok(Self {
            names,
            features,
            ..Self::of(train, validation, test)
        })
    }
}

/// All rows of a source, in one store.
pub(super) struct Store {
    pub(super) all: Rows,
    /// Rows of training, validation and test files within `all`.
    pub(super) ranges: [Range<usize>; 3],
    /// The true labels, as far as they are known: [`UNKNOWN`] or NaN where they aren't. `None` if none is.
    pub(super) truth: Option<Labels>,
}

impl Store {
    pub(super) fn new(
        train: Rows,
        validation: Option<Rows>,
        test: Option<Rows>,
    ) -> Result<Self, DataError> {
        let mut all = train;
        let mut ends = [all.rows(); 3];
        for (end, part) in ends.iter_mut().skip(1).zip([validation, test]) {
            if let Some(part) = part {
                all.append(part)?;
            }
            *end = all.rows();
        }
        let [a, b, c] = ends;
        Ok(Self {
            all,
            ranges: [0..a, a..b, b..c],
            truth: None,
        })
    }

    /// Removes all rows except `rows`, which are ascending.
    pub(super) fn retain(&mut self, rows: &[usize]) {
        if rows.len() == self.all.rows() {
            return;
        }
        let width = self.all.shape.iter().product();
        self.all.values.retain(rows, width);
        self.all.labels.retain(rows);
        if let Some(truth) = &mut self.truth {
            truth.retain(rows);
        }
    }
}
