//! Arguments of the verbs about single predictions.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use hindcast_analyzer::QueryPoint;

use super::analysis::NamesArgs;
use super::dynamics::ReplayArgs;
use super::labels::LabelArgs;
use super::numbers::{at_least_one, whole};
use super::replay::{Engine, Precision};
use super::threads::Threads;

/// `hindcast predict`
#[derive(Debug, Args)]
pub struct Predict {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// The examples: validation, test or train
    #[arg(
        long,
        value_name = "SPLIT",
        default_value = "validation",
        conflicts_with = "rows"
    )]
    pub split: String,
    /// Predict new rows instead: a file of the kind that the run's task reads, with or without labels; for npy and IDX files the file of inputs, and that of labels if there is one (see --help)
    #[arg(long, value_name = "FILE", num_args = 1..=2)]
    pub rows: Vec<PathBuf>,
    /// The model that predicts: mean (of the models after each step of the last quarter of the epochs), final (after the last
    /// step), mean:last-epoch, mean:N-epochs, mean:N-steps, step:N (before step N), or ema:β (a moving average), as for `influence`
    #[arg(long, value_name = "POINT", default_value_t = QueryPoint::default())]
    pub at: QueryPoint,
    /// List only the wrong predictions, the most confident first; of a model that predicts numbers, list those with the largest loss
    #[arg(long)]
    pub wrong: bool,
    /// How many of the wrong predictions, or of those for new rows, to print; the table has all
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: usize,
    /// Write a table, one row per example (with --wrong, per wrong prediction): .csv, .jsonl (or .ndjson) or, in builds with the parquet feature, .parquet
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The user's own names for examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// How the model is run.
    #[command(flatten)]
    pub model: ModelArgs,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// `hindcast explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// Folder of the run
    pub run: PathBuf,
    /// The examples whose predictions are explained, such as validation:17, test:3,5 or train:0..4 (end excluded)
    #[arg(value_name = "EXAMPLES", required_unless_present = "wrong")]
    pub examples: Vec<String>,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Explain the wrong predictions for this split (validation, test or train), the most confident first; of a model that predicts numbers, those with the largest loss
    #[arg(long, value_name = "SPLIT")]
    pub wrong: Option<String>,
    /// How many wrong predictions to explain
    #[arg(long, value_name = "N", default_value = "5", requires = "wrong", value_parser = at_least_one::<NonZeroUsize>, allow_negative_numbers = true)]
    pub count: NonZeroUsize,
    /// The model that predicts, as for `influence`: mean (of the models after each step of the last quarter of the epochs, within
    /// the window), final (after the last step), mean:last-epoch, mean:N-epochs, mean:N-steps, step:N (before step N), or ema:β
    #[arg(long, value_name = "POINT", default_value_t = QueryPoint::default())]
    pub at: QueryPoint,
    /// Count only the use of examples in these steps: all, last-epoch, or A..B (B excluded)
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// How many training examples to show on each side
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: usize,
    /// Draw each example with the training examples of both sides (image data only)
    #[arg(long, value_name = "FILE.png")]
    pub picture: Option<PathBuf>,
    /// Write the scores of all training examples, one column per explained example, for `scores` and `report`: .csv, .jsonl (or .ndjson) or, in builds with the parquet feature, .parquet
    #[arg(long, value_name = "SCORES")]
    pub out: Option<PathBuf>,
    /// Replace a table that holds the scores of another run or question. Without this, only a table of the same question is replaced
    #[arg(long, requires = "out")]
    pub replace: bool,
    /// The user's own names for examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// How the steps are replayed.
    #[command(flatten)]
    pub replay: ReplayArgs,
    /// For scripts: print the result as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// How a recorded model is run.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Float type of the computation: recorded (that of the training), f32, or f64
    #[arg(long, value_enum, default_value_t = Precision::Recorded)]
    pub precision: Precision,
    /// Engine: kernels (models of tasks, on the CPU; the default for them) or autodiff (any model and device, slower)
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true)]
    pub engine: Option<Engine>,
    /// Device of the computation: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// On how many threads the verb computes.
    #[command(flatten)]
    pub threads: Threads,
}
