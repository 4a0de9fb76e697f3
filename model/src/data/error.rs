//! What can be wrong with data, said so that the reader knows where to look and what to do.

use crate::files::FileError;
use std::path::{Path, PathBuf};

/// Why data could not be loaded or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The source reads files and no folder was given.
    #[error(
        "data source {source_name:?} reads files, but no data folder was given: \
         name the folder that holds them (--data DIR)"
    )]
    NoFolder {
        /// The source's name in a Task.
        source_name: &'static str,
    },
    /// None of the names that a file may have exists.
    #[error(
        "no data file {name:?} in {}: looked for {}. {hint}",
        folder.display(),
        tried.join(", ")
    )]
    Missing {
        /// The data folder that was given.
        folder: PathBuf,
        /// The file's name in the Task.
        name: String,
        /// Every name that was tried, relative to the folder.
        tried: Vec<String>,
        /// What to do.
        hint: String,
    },
    /// The file system said no.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It isn't a regular file, or is larger than the limit for data files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file ends before what its header or its record size promises.
    #[error(
        "{} is truncated: {what} needs {expected} bytes, the file has {got}. Fetch or unpack \
         it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that is cut.
        what: String,
        /// Bytes needed (of the unpacked file).
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// The file goes on after what its header promises.
    #[error(
        "{} has bytes after its end: {what} takes {expected} bytes, the file has {got} or \
         more. Is it the right file?",
        path.display()
    )]
    Trailing {
        /// The file.
        path: PathBuf,
        /// What ends there.
        what: String,
        /// Bytes that the header speaks of.
        expected: u64,
        /// Bytes read so far.
        got: u64,
    },
    /// The file is of another kind.
    #[error(
        "{} is not {format}: it should begin with {expected}, but begins with {got}. Is it \
         the right file, and unpacked?",
        path.display()
    )]
    Magic {
        /// The file.
        path: PathBuf,
        /// The format expected.
        format: &'static str,
        /// First bytes expected.
        expected: String,
        /// First bytes found.
        got: String,
    },
    /// The file's content breaks its format.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what was expected.
        what: String,
    },
    /// Inputs and labels don't belong together.
    #[error(
        "{} has {inputs} rows, but {} has {labels} labels: they are not a pair",
        inputs_path.display(), labels_path.display()
    )]
    Count {
        /// The file of inputs.
        inputs_path: PathBuf,
        /// Its rows.
        inputs: u64,
        /// The file of labels.
        labels_path: PathBuf,
        /// Its labels.
        labels: u64,
    },
    /// A label is no class.
    #[error("{}: row {row} has label {got}, but classes are {expected}", path.display())]
    Class {
        /// The file.
        path: PathBuf,
        /// Row, from 0.
        row: u64,
        /// The label found.
        got: String,
        /// The classes allowed.
        expected: String,
    },
    /// A cell of a table can't be read. (Boxed texts keep the error small.)
    #[error(
        "{}: row {row} (line {line}), column {column:?}: expected {expected}, got {got:?}. \
         {hint}",
        path.display()
    )]
    Cell {
        /// The file.
        path: PathBuf,
        /// Row of data, from 0.
        row: u64,
        /// Line of the file, from 1.
        line: u64,
        /// The column's name.
        column: Box<str>,
        /// What a cell of this column is.
        expected: Box<str>,
        /// What it holds.
        got: Box<str>,
        /// What to do.
        hint: Box<str>,
    },
    /// A key of the Task's `[data]` or `[augment]` table is wrong.
    #[error("{key}: {what}")]
    Spec {
        /// The key, such as `data.train`.
        key: String,
        /// What is wrong with it and what would be right.
        what: String,
    },
    /// More examples are asked for than there are.
    #[error("{key} asks for {asked} examples, but {pool} has only {available}{left}")]
    TooFew {
        /// The key, such as `data.train`.
        key: &'static str,
        /// Examples asked for.
        asked: u64,
        /// Where they are drawn from.
        pool: String,
        /// Examples there.
        available: u64,
        /// What took the others, or nothing.
        left: String,
    },
    /// An index points outside its split.
    #[error("index {index} is outside of the {split} split, which has {len} examples")]
    Index {
        /// Name of the split.
        split: &'static str,
        /// The index asked for.
        index: u64,
        /// Examples in the split.
        len: u64,
    },
    /// Examples differ from the ones expected.
    #[error("the {split} split is not the recorded one: {what}")]
    Fingerprint {
        /// Name of the split.
        split: String,
        /// How it differs.
        what: String,
    },
    /// A tensor could not be made on the device.
    #[error("cannot make a batch: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A reason of an own data set.
    #[error("{0}")]
    Other(String),
}

impl DataError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    pub(crate) fn spec(key: &str, what: impl Into<String>) -> Self {
        Self::Spec {
            key: format!("data.{key}"),
            what: what.into(),
        }
    }
}
