//! Arguments of the verbs that analyse a recorded run and show the results.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use hindcast_analyzer::QueryPoint;
use hindcast_analyzer::sweep::Saving;

use super::labels::LabelArgs;
use super::numbers::whole;
use super::replay::{Engine, Precision};
use super::sharding::ShardArgs;
use super::threads::Threads;

/// `hindcast influence`
#[derive(Debug, Clone, Args)]
pub struct Influence {
    /// Folder of the run; several runs of the same data, such as those of `record --seeds`, give the mean, the standard deviation and t of each score
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// The value whose change is predicted: validation (its mean loss), validation:3,17, train:5, validation:0..99 (one query per example), per-class, or vector:FILE.safetensors (a gradient of your own); see --help; may be given several times
    #[arg(long, value_name = "QUERY", default_value = "validation")]
    pub query: Vec<String>,
    /// The model that the query is asked about: mean (of the models after each step of the last quarter of the
    /// epochs, within the window), final (after the last step), mean:last-epoch, mean:N-epochs, mean:N-steps, step:N (before step N), or ema:β (a moving average); see --help
    #[arg(long, value_name = "POINT", default_value_t = QueryPoint::default())]
    pub at: QueryPoint,
    /// Scoring method: sgd (SGD-influence, the sweep) or another method listed in --help; `hindcast methods NAME` describes one
    #[arg(long, value_name = "NAME", default_value = "sgd")]
    pub method: String,
    /// Set an option of the method, for example --method-set damping=0.1; may be given several times
    #[arg(long = "method-set", value_name = "KEY=VALUE")]
    pub method_set: Vec<String>,
    /// Count only the use of examples in these steps: all, last-epoch, or A..B (B excluded)
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// The table to write: .csv, .jsonl (or .ndjson) or, in builds with the parquet feature, .parquet
    #[arg(long, value_name = "SCORES", default_value = "scores.csv")]
    pub out: PathBuf,
    /// Replace a table that holds the scores of another run or question. Without this, only a table of the same question is replaced
    #[arg(long)]
    pub replace: bool,
    /// Resume an interrupted sweep for the same table
    #[arg(long)]
    pub resume: bool,
    /// Save the state of a long sweep every SECONDS; a crash loses at most that much work (0: after every step)
    #[arg(long, value_name = "SECONDS", default_value_t = Saving::SECONDS, value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub checkpoint_every: u64,
    /// Float type of the replay: recorded (that of the training), f32, or f64 (the most exact)
    #[arg(long, value_enum, default_value_t = Precision::Recorded)]
    pub precision: Precision,
    /// Replay engine: kernels (models of tasks, on the CPU; the default for them) or autodiff (any model and device, slower)
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true)]
    pub engine: Option<Engine>,
    /// Add one column per epoch
    #[arg(long)]
    pub per_epoch: bool,
    /// Leave out the columns predicted, probability, label_probability and loss, and the forward pass that they cost
    #[arg(long)]
    pub no_predictions: bool,
    /// For token sequences, with a model that says its loss per token: also write the influence of each token to this table,
    /// .csv or .jsonl (or .ndjson) (see --help)
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Compute the accumulative estimate for the K most harmful examples of each query, and retrain without some of them (only for SGD without momentum and clipping; see --help)
    #[arg(long, value_name = "K", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub refine: Option<usize>,
    /// How many of the refined examples to leave out and retrain, one at a time
    #[arg(long, value_name = "M", default_value_t = 5, requires = "refine", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub refine_truth: usize,
    /// Check the table by retraining: without each of N random examples, one at a time, and without a few groups (see --help)
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub retrain_check: Option<usize>,
    /// Seed of the choice of examples for --retrain-check
    #[arg(
        long,
        value_name = "SEED",
        default_value_t = 0,
        requires = "retrain_check", value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub retrain_seed: u64,
    /// How many of the most harmful and most helpful examples to print
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: usize,
    /// Device of the replay: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Share each step among the processes that `mpirun` started, for models whose steps are too slow on one machine (builds with the mpi feature; see --help)
    #[arg(long, conflicts_with = "shard")]
    pub mpi: bool,
    /// Write a picture of the most harmful examples (image data only)
    #[arg(long, value_name = "FILE.png")]
    pub picture: Option<PathBuf>,
    /// Names of the examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// Limit on the memory of the sweep, for example 8GB [default: the memory available now]; if it is too small for all queries at once, they are answered in several passes over the steps; work that certainly needs more is refused, and work that may need more starts with a warning
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Options of the check of recorded steps, which runs first.
    #[command(flatten)]
    pub check: CheckArgs,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
    /// Which part of the work this process does.
    #[command(flatten)]
    pub shard: ShardArgs,
    /// On how many threads the verb computes.
    #[command(flatten)]
    pub threads: Threads,
}

/// Options of the check that recorded steps follow from the recorded rule, batches and data.
#[derive(Debug, Clone, Default, Args)]
pub struct CheckArgs {
    /// Continue even if the recorded steps don't follow from the recorded update rule, batches and data; the result says UNVERIFIED
    #[arg(long)]
    pub unverified: bool,
    /// Seed of the random choice of steps for this check [default: random; it is printed]
    #[arg(long, value_name = "N", value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub check_seed: Option<u64>,
}

/// The user's own names for examples.
#[derive(Debug, Clone, Args)]
pub struct NamesArgs {
    /// File with your own ids, file names or texts of the examples, to show with them and, where a table is written, to add to it as a column (see --help)
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
    /// Whether numbers in --names are rows of the original file or indices of the split (the training split; for `predict` that of --split)
    #[arg(
        long,
        value_enum,
        value_name = "row|index",
        requires = "names",
        hide_possible_values = true
    )]
    pub names_by: Option<NamesBy>,
    /// Which column of --names holds the names
    #[arg(long, value_name = "COLUMN", requires = "names")]
    pub name_column: Option<String>,
}

/// Meaning of the numbers in a file of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NamesBy {
    /// The row in the original file.
    Row,
    /// The index in the split.
    Index,
}

/// `hindcast methods`
#[derive(Debug, Args)]
pub struct Methods {
    /// Describe this method in full
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// For scripts: print a JSON list of {name, about, needs, source, predicts, asks, windowed, options: [{key, default, about}]}
    #[arg(long)]
    pub json: bool,
}

/// `hindcast scores`
#[derive(Debug, Args)]
pub struct Scores {
    /// Table written by `influence`: .csv, .jsonl (or .ndjson) or, in builds with the parquet feature, .parquet
    #[arg(value_name = "SCORES")]
    pub table: PathBuf,
    /// Column to sort by, ascending [default: the first influence, so the most harmful first]
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Sort descending
    #[arg(long)]
    pub descending: bool,
    /// Keep only rows that meet this condition: --where label=3 --where 'influence<0' --where 'label!=predicted'; may be given several times
    #[arg(long = "where", value_name = "CONDITION")]
    pub conditions: Vec<String>,
    /// Keep only the first K rows that have a value in the sorted column
    #[arg(long, value_name = "K", conflicts_with = "bottom", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: Option<usize>,
    /// Keep only the last K rows that have a value in the sorted column, in reverse order
    #[arg(long, value_name = "K", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub bottom: Option<usize>,
    /// Names of the examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// Write the rows to a table instead of printing them: .csv, .jsonl (or .ndjson) or, in builds with the parquet feature, .parquet
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// For scripts: print the rows as JSON (--help lists the fields)
    #[arg(long)]
    pub json: bool,
}

/// `hindcast counterfactual`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("removed").required(true).args(["without", "top", "scan"]))]
pub struct Counterfactual {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// File with the examples to leave out: one index per line, or a table with the column `index`, as `scores --out` writes it (.csv)
    #[arg(long, value_name = "FILE")]
    pub without: Option<PathBuf>,
    /// Leave out the K most harmful examples of a table written by `influence`
    #[arg(long, num_args = 2, value_names = ["K", "SCORES"], allow_negative_numbers = true)]
    pub top: Option<Vec<String>>,
    /// For each K of a list, leave out the K most harmful examples of a table, and print predicted and real changes against K
    #[arg(long, num_args = 2, value_names = ["K,K,...", "SCORES"], conflicts_with = "each")]
    pub scan: Option<Vec<String>>,
    /// Accept a table for --top or --scan that was made from another run, for example the run that this one was recovered from
    #[arg(long, conflicts_with = "without")]
    pub other_run: bool,
    /// Steps that the examples are left out of: all, last-epoch, or A..B (B excluded)
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// The value whose change is measured: one query, as for `influence` (write a range as mean:validation:0..99)
    #[arg(long, value_name = "QUERY", default_value = "validation")]
    pub query: String,
    /// The model at which the change is measured, as for `influence` [default: that of the table for --top or --scan, else that of `influence`]
    #[arg(long, value_name = "POINT")]
    pub at: Option<QueryPoint>,
    /// What leaving out an example removes: loss-only (its loss; it still counts in the statistics of batch norm) or absent (the whole example)
    #[arg(long, value_enum, default_value_t = RemovalKind::LossOnly)]
    pub removal: RemovalKind,
    /// Engine of the retraining and of the prediction: kernels (models of tasks, on the CPU) or autodiff (retraining on all
    /// examples then reproduces the recorded parameters bit for bit) [default: kernels; autodiff for the retraining if the
    /// training amplifies rounding so much that only autodiff reproduces it]
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true)]
    pub engine: Option<Engine>,
    /// What a batch's loss is divided by after the removal: fixed (the original batch size) or renormalised (the remaining size)
    #[arg(long, value_enum, default_value_t = DenominatorKind::Fixed)]
    pub denominators: DenominatorKind,
    /// Retrain once per example, each time without only that example, instead of once without all of them
    #[arg(long)]
    pub each: bool,
    /// Write the results to a file, for `report`
    #[arg(long, value_name = "FILE.json")]
    pub out: Option<PathBuf>,
    /// Limit on the memory of the retraining, for example 8GB [default: the memory available now]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Options of the check of recorded steps, which runs first.
    #[command(flatten)]
    pub check: CheckArgs,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
    /// Which part of the work this process does.
    #[command(flatten)]
    pub shard: ShardArgs,
    /// On how many threads the verb computes.
    #[command(flatten)]
    pub threads: Threads,
}

/// What leaving an example out means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RemovalKind {
    /// Its loss term is removed; it stays in the batch statistics.
    LossOnly,
    /// It is removed from the batch.
    Absent,
}

/// What a batch's loss is divided by after an example is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DenominatorKind {
    /// The original size (the paper's rule).
    Fixed,
    /// The remaining size.
    Renormalised,
}

/// `hindcast bounds`
#[derive(Debug, Args)]
pub struct Bounds {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Steps that the examples are left out of: all, last-epoch, or A..B (B excluded); no example may occur twice in the steps from A to the end of training
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// Only these examples, for example 0..50,77 [default: all in the window]
    #[arg(long, value_name = "LIST")]
    pub examples: Option<String>,
    /// Constants of Theorem 6, for a model from which they can't be derived: largest eigenvalue of the Hessian, Lipschitz constant of the Hessian, largest gradient norm
    #[arg(long, value_name = "Λ,L,G")]
    pub constants: Option<String>,
    /// The table to write: .csv or .jsonl (or .ndjson)
    #[arg(long, value_name = "FILE", default_value = "bounds.csv")]
    pub out: PathBuf,
    /// Options of the check of recorded steps, which runs first.
    #[command(flatten)]
    pub check: CheckArgs,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// On how many threads the verb computes.
    #[command(flatten)]
    pub threads: Threads,
}

/// `hindcast report`
#[derive(Debug, Args)]
pub struct Report {
    /// Folder of the run
    pub run: PathBuf,
    /// Tables written by `influence`, for example one per method or window; at least one, or --issues
    #[arg(value_name = "SCORES")]
    pub tables: Vec<PathBuf>,
    /// Folder with the data files; without them, only the numbers of the examples are shown
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// The page to write
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    pub out: PathBuf,
    /// A file written by `counterfactual --out`, to compare predicted and real changes; may be given several times
    #[arg(long, value_name = "FILE.json")]
    pub removed: Vec<PathBuf>,
    /// A table of label issues written by `clean`, to show the most suspicious labels
    #[arg(long, value_name = "ISSUES.csv")]
    pub issues: Option<PathBuf>,
    /// A table written by `influence --tokens`, to mark the heaviest tokens of each sequence
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// A query to show [default: the first four of each table]; may be given several times
    #[arg(long, value_name = "QUERY")]
    pub query: Vec<String>,
    /// Leave out the predictions for the validation split and for explained examples, and the forward passes that they cost
    #[arg(long)]
    pub no_predictions: bool,
    /// Leave the validation loss out of the training curve, and the forward passes that it costs: at most 20 epochs and 2000 examples
    #[arg(long)]
    pub no_validation_loss: bool,
    /// How many of the most harmful and most helpful examples, and of the label issues, to show
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: usize,
    /// Names of the examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}
