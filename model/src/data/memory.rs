//! The examples of a loaded data set, as decoded. They are scaled and augmented when a batch is made.

use super::DataError;
use super::augment::AugmentSpec;
use super::fingerprint::{Digest, RawInput, RawLabel, leaf};
use super::scale::Scale;
use super::select::Splits;
use super::spec::Target;
use super::store::{Labels, Rows, UNKNOWN, Values};
use super::table::WrittenTables;
use super::target_scale::TargetScale;
use crate::objective::Split;
use std::path::PathBuf;

/// Decoded examples, and everything that is needed to make batches of them.
pub(super) struct Examples {
    /// Rows that are in a split, in the order of the files.
    pub(super) rows: Rows,
    /// For each kept row, its position among the rows of all files.
    pub(super) origins: Vec<usize>,
    /// All files, with their first rows.
    pub(super) files: Vec<FileStart>,
    /// For each split, positions in `rows`.
    pub(super) splits: Splits,
    /// Names of the classes. Empty if the labels are values.
    pub(super) names: Vec<String>,
    /// Names of the features. Empty if they have none.
    pub(super) features: Vec<String>,
    /// The characters of a text, by the channel of the input. Empty for other data.
    pub(super) alphabet: Vec<char>,
    /// For each kept row, the free text of its table. Empty if there is none.
    pub(super) texts: Vec<String>,
    /// The files of a table, to show rows as they are written. `None` for other data.
    pub(super) tables: Option<WrittenTables>,
    pub(super) scale: Scale,
    pub(super) augment: AugmentSpec,
    pub(super) target: Target,
    /// The standardisation of numbers to predict. `None` if they are trained on as they are.
    pub(super) target_scale: Option<TargetScale>,
    /// The true label of each row, as far as it is known: [`UNKNOWN`] or NaN where it isn't, and `DROPPED` for a class that the
    /// Task leaves out. `None` if none is known.
    pub(super) truth: Option<Labels>,
    /// Labels of the user's file: positions among the rows of all files, and the labels as text. Also of rows that are in no split.
    pub(super) given: Vec<(usize, String)>,
    /// Whether the true labels are from a file of the user's, and not those before labels were made wrong on purpose.
    pub(super) truth_given: bool,
    /// Notes and warnings about the files for users, one per line.
    pub(super) notes: Vec<String>,
    /// Name of the source.
    pub(super) source: &'static str,
}

/// A file and the positions of its first row.
#[derive(Debug, Clone)]
pub(super) struct FileStart {
    pub(super) path: PathBuf,
    /// Its name in tables: the file name, preceded by the folders that distinguish it from the other files.
    pub(super) name: String,
    /// Number of its group of files, from 0: training, validation, test. A group without files gets no number.
    pub(super) part: usize,
    /// Position of the first row among the rows of all files.
    pub(super) first: usize,
    /// Number of its rows.
    pub(super) rows: usize,
    /// Position of the first row among the rows of all training, all validation or all test files.
    pub(super) first_of_part: usize,
}

impl Examples {
    pub(super) fn split(&self, split: Split) -> &[usize] {
        let [train, validation, test] = &self.splits;
        match split {
            Split::Train => train,
            Split::Validation => validation,
            Split::Test => test,
        }
    }

    /// Position of an example in `rows`. `None` for an index outside the split.
    pub(super) fn row(&self, split: Split, index: u64) -> Option<usize> {
        self.split(split).get(usize::try_from(index).ok()?).copied()
    }

    pub(super) fn checked(&self, split: Split, index: u64) -> Result<usize, DataError> {
        self.row(split, index).ok_or_else(|| DataError::Index {
            split: split.name(),
            index,
            len: self.split(split).len() as u64,
        })
    }

    pub(super) fn width(&self) -> usize {
        self.rows.shape.iter().product()
    }

    pub(super) fn input(&self, row: usize) -> RawInput<'_> {
        let range = row * self.width()..(row + 1) * self.width();
        match &self.rows.values {
            Values::U8(v) => RawInput::U8(v.get(range).unwrap_or_default()),
            Values::F32(v) => RawInput::F32(v.get(range).unwrap_or_default()),
            Values::F64(v) => RawInput::F64(v.get(range).unwrap_or_default()),
        }
    }

    pub(super) fn raw_label(&self, row: usize) -> RawLabel<'_> {
        match &self.rows.labels {
            Labels::Classes(c) => RawLabel::Class(c.get(row).copied().unwrap_or(0)),
            Labels::Values { width, data } => {
                RawLabel::Values(data.get(row * width..(row + 1) * width).unwrap_or_default())
            }
        }
    }

    /// The true label of a row. `None` if it isn't known.
    pub(super) fn true_label_of(&self, row: usize) -> Option<RawLabel<'_>> {
        match self.truth.as_ref()? {
            Labels::Classes(c) => {
                let class = c.get(row).copied().filter(|class| *class != UNKNOWN)?;
                Some(RawLabel::Class(class))
            }
            Labels::Values { width, data } => {
                let values = data.get(row * width..(row + 1) * width)?;
                let known = !values.iter().any(|value| value.is_nan());
                known.then_some(RawLabel::Values(values))
            }
        }
    }

    /// A label as text: the name of its class, or its values. `None` for a class without a name.
    pub(super) fn words(&self, label: RawLabel<'_>) -> Option<String> {
        match label {
            RawLabel::Class(class) => self.names.get(class as usize).cloned(),
            RawLabel::Values(values) => {
                let values: Vec<String> = values.iter().map(f64::to_string).collect();
                Some(values.join(" "))
            }
        }
    }

    pub(super) fn leaf_of(&self, row: usize) -> Digest {
        leaf(&self.rows.shape, self.input(row), self.raw_label(row))
    }

    /// The file of a row, given by its position among the rows of all files.
    pub(super) fn file_of(&self, origin: usize) -> Option<&FileStart> {
        self.files.get(self.file_at(origin)?)
    }

    pub(super) fn file_at(&self, origin: usize) -> Option<usize> {
        let after = self.files.partition_point(|f| f.first <= origin);
        after.checked_sub(1)
    }
}
