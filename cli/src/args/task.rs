//! Arguments of `hindcast task`.

#[cfg(feature = "record")]
use std::path::PathBuf;

#[cfg(feature = "record")]
use clap::ValueEnum;
use clap::{Args, Subcommand};

/// `hindcast task`
#[derive(Debug, Args)]
pub struct TaskCommand {
    /// What to do.
    #[command(subcommand)]
    pub verb: TaskVerb,
}

/// `hindcast task list|show|keys|new|check`
#[derive(Debug, Subcommand)]
pub enum TaskVerb {
    /// Print the names and one-line descriptions of the built-in tasks
    List {
        /// For scripts: print a JSON list of {name, description}
        #[arg(long)]
        json: bool,
    },
    /// Print a task as TOML, to save, change and record it
    Show {
        /// Name of a built-in task, or a TOML file
        task: String,
        /// Change a key first, for example --set train.epochs=1
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Print every key of a task file: its type, its default and what it means
    Keys {
        /// Only this key and the keys below it, for example data, schedule or data.documents.min_df
        key: Option<String>,
        /// For scripts: print a JSON list of tables {path, tag, text, keys}; keys is a list of {path, type, presence, default, text, choices}
        #[arg(long, conflicts_with = "schema")]
        json: bool,
        /// For editors: print the JSON Schema of a task file, which completes and checks it while you type
        #[arg(long, conflicts_with = "key")]
        schema: bool,
    },
    /// Look at your own files, and write a task for them that `record` can train: with comments, to read and change
    #[cfg(feature = "record")]
    #[command(after_long_help = super::help::TASK_NEW)]
    New(TaskNew),
    /// Check a task and its data before a recording: all problems at once, or the size, memory, disk space and time of the run
    #[cfg(feature = "record")]
    #[command(after_long_help = super::help::TASK_CHECK)]
    Check(TaskCheck),
}

/// `hindcast task check`
#[cfg(feature = "record")]
#[derive(Debug, Args)]
pub struct TaskCheck {
    /// Name of a built-in task, or a TOML file
    pub task: String,
    /// Folder with the data files (the generated digits need none)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: super::labels::LabelArgs,
    /// Change a key first, for example --set train.epochs=1
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Which steps the run would keep, as for `hindcast record`
    #[arg(long, default_value = "all")]
    pub keep: String,
    /// Largest number of problems of the data that are printed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = super::numbers::whole::<usize>, allow_negative_numbers = true)]
    pub most: usize,
    /// For scripts: print the result as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// `hindcast task new`
#[cfg(feature = "record")]
#[derive(Debug, Clone, Args)]
pub struct TaskNew {
    /// What the files are (see --help)
    #[arg(value_enum)]
    pub kind: NewKind,
    /// The files with the training examples; for npy and IDX images the file of inputs and then that of labels; for images a folder with one folder per class
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Column of the labels by name or number (-1 is the last), or field of the labels of documents
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    pub label: Option<String>,
    /// Whether labels that are numbers are classes or values to predict [default: values if there are many or they have fractions]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub target: Option<NewTarget>,
    /// Files with validation examples, in the same form [default: files beside the training files with validation, valid, val or dev in their names; otherwise a fifth of the training examples is drawn]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub validation: Vec<PathBuf>,
    /// Files with test examples, in the same form [default: files beside the training files with test in their names; otherwise a fifth of the training examples is drawn, unless there are validation files]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub test: Vec<PathBuf>,
    /// Draw no validation and test examples from the training files, so that all of them are trained on, as `clean` needs it to judge all of their labels
    #[arg(long)]
    pub train_on_all: bool,
    /// Write the task to this file (.toml), which must not exist [default: print it]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What the files of `task new` are.
#[cfg(feature = "record")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NewKind {
    /// Tables.
    Csv,
    /// NumPy arrays of inputs and labels.
    Npy,
    /// Folders of images, or IDX files.
    Images,
    /// Documents (.jsonl), texts in a table (.csv) or plain text.
    Text,
}

/// What labels that are numbers mean.
#[cfg(feature = "record")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NewTarget {
    /// Each number is a class.
    Class,
    /// The numbers are values to predict.
    Value,
}
