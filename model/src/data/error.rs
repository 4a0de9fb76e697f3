//! Errors of data. Each message says where to look and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::files::FileError;

/// The reason why data can't be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The source reads files, but no data folder was given.
    #[error(
        "data source {source_name:?} reads files, but no data folder was given: \
         name the folder that contains them (--data DIR)"
    )]
    NoFolder {
        /// The name of the source in a Task.
        source_name: &'static str,
    },
    /// A file was not found under any of its names.
    #[error(
        "no data file {name:?} in {} (looked for {}). {hint}",
        folder.display(),
        tried.join(", ")
    )]
    Missing {
        /// The data folder that was given.
        folder: PathBuf,
        /// The name of the file in the Task.
        name: String,
        /// All names that were tried, relative to the folder.
        tried: Vec<String>,
        /// What to do.
        hint: String,
    },
    /// The file system returned an error.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file isn't a regular file, or is larger than the limit for data files.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is shorter than its header or its record size requires.
    #[error(
        "{} is truncated: {what} needs {expected} bytes, the file has {got}. Fetch or decompress \
         it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that is cut off.
        what: String,
        /// Required number of bytes of the decompressed file.
        expected: u64,
        /// Actual number of bytes.
        got: u64,
    },
    /// The file is longer than its header says.
    #[error(
        "{} has bytes after its end: {what} takes {expected} bytes, the file has {got} or \
         more. Is it the right file?",
        path.display()
    )]
    Trailing {
        /// The file.
        path: PathBuf,
        /// The part after which the file should end.
        what: String,
        /// Number of bytes by the header.
        expected: u64,
        /// Number of bytes that were read.
        got: u64,
    },
    /// The file has another format.
    #[error(
        "{} is not {format}: it should begin with {expected}, but begins with {got}. Is it \
         the right file, and decompressed?",
        path.display()
    )]
    Magic {
        /// The file.
        path: PathBuf,
        /// The expected format.
        format: &'static str,
        /// The expected first bytes.
        expected: String,
        /// The first bytes of the file.
        got: String,
    },
    /// The content of the file violates its format.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem, its place, and what was expected.
        what: String,
    },
    /// The files of inputs and labels have different numbers of rows.
    #[error(
        "{} has {inputs} rows, but {} has {labels} labels: they are not a pair",
        inputs_path.display(), labels_path.display()
    )]
    Count {
        /// The file of inputs.
        inputs_path: PathBuf,
        /// The number of inputs.
        inputs: u64,
        /// The file of labels.
        labels_path: PathBuf,
        /// The number of labels.
        labels: u64,
    },
    /// A label isn't a class.
    #[error("{}: row {row} has label {got}, but classes are {expected}", path.display())]
    Class {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: u64,
        /// The label.
        got: String,
        /// The allowed classes.
        expected: String,
    },
    /// The labels can't be classes, so they may be numbers to predict.
    #[error("{}: {what}; for regression write target = \"value\"", path.display())]
    NotClasses {
        /// The file.
        path: PathBuf,
        /// The labels, and which ones are classes.
        what: String,
    },
    /// A cell of a table has a wrong value. (Boxed texts keep the error small.)
    #[error(
        "{}: row {row} (line {line}), column {column:?}: expected {expected}, got {got:?}. \
         {hint}",
        path.display()
    )]
    Cell {
        /// The file.
        path: PathBuf,
        /// The row of data, from 0.
        row: u64,
        /// The line of the file, from 1.
        line: u64,
        /// The name of the column.
        column: Box<str>,
        /// The allowed content of a cell in this column.
        expected: Expected,
        /// The content of the cell.
        got: Box<str>,
        /// What to do.
        hint: Box<str>,
    },
    /// A key of the Task's `[data]` or `[augment]` table is wrong.
    #[error("{key}: {what}")]
    Spec {
        /// The key, such as `data.train`.
        key: String,
        /// The problem and how to correct it.
        what: String,
    },
    /// The Task asks for more examples than there are.
    #[error("{key} asks for {asked} examples, but there are only {available} in {pool}{left}")]
    TooFew {
        /// The key, such as `data.train`.
        key: &'static str,
        /// The requested number of examples.
        asked: u64,
        /// The files from which they are drawn.
        pool: String,
        /// The available number of examples.
        available: u64,
        /// For messages: the number of examples that other splits take. May be empty.
        left: String,
    },
    /// An index is outside its split.
    #[error("index {index} is outside the {split} split, which has {len} examples")]
    Index {
        /// Name of the split.
        split: &'static str,
        /// The index.
        index: u64,
        /// Number of examples in the split.
        len: u64,
    },
    /// The examples differ from the recorded ones.
    #[error("the {split} split is not the recorded one: {what}")]
    Fingerprint {
        /// Name of the split.
        split: String,
        /// The difference.
        what: String,
    },
    /// The files of the examples can't be edited.
    #[error(
        "the training examples come from the source {source_name:?}, whose files can't be written with other labels: the sources \
         csv, npy, idx, cifar10 and images can"
    )]
    NotEditable {
        /// The name of the source in a Task.
        source_name: &'static str,
    },
    /// A batch can't be made on the device.
    #[error("cannot make a batch: {0}")]
    Tensor(#[from] candle_core::Error),
    /// An error of a user's own data set.
    #[error("{0}")]
    Other(String),
}

/// The allowed content of a cell. [`DataError::Cell`] writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// A finite number.
    Number,
    /// In words.
    Text(Box<str>),
}

impl Expected {
    /// The content in words.
    pub(crate) fn text(&self) -> &str {
        match self {
            Expected::Number => "a finite number",
            Expected::Text(text) => text,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
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
