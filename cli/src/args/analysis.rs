//! What the verbs take that ask a recorded run, and show what they found.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use hindcast_analyzer::sweep::Saving;

use super::replay::{Engine, Precision};

/// `hindcast influence`
#[derive(Debug, Args)]
pub struct Influence {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What to ask about: validation (its mean loss), validation:3,17, train:5, validation:0..99 (a query an example), per-class, or vector:FILE.safetensors (a gradient of your own); --help says more; may be given several times
    #[arg(long, value_name = "QUERY", default_value = "validation")]
    pub query: Vec<String>,
    /// How to score: sgd (SGD-influence, the sweep), or another of the methods below; `hindcast methods NAME` says more
    #[arg(long, value_name = "NAME", default_value = "sgd")]
    pub method: String,
    /// Set an option of the method: --method-set damping=0.1; may be given several times
    #[arg(long = "method-set", value_name = "KEY=VALUE")]
    pub method_set: Vec<String>,
    /// Steps whose use of an example counts: all, last-epoch, or A..B
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// Where to write the table: .csv, .jsonl or (with the feature) .parquet
    #[arg(long, value_name = "SCORES", default_value = "scores.csv")]
    pub out: PathBuf,
    /// Go on from where an interrupted sweep for the same table stopped
    #[arg(long)]
    pub resume: bool,
    /// Keep a long sweep's state every so many seconds, so that a crash loses no more (0: after every step)
    #[arg(long, value_name = "SECONDS", default_value_t = Saving::SECONDS)]
    pub checkpoint_every: u64,
    /// Arithmetic of the replay: as recorded, or the float64 reference
    #[arg(long, value_enum, default_value_t = Precision::Recorded)]
    pub precision: Precision,
    /// What replays: kernels (models of tasks, on the CPU; the default there) or autodiff (any model and device, slower)
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true)]
    pub engine: Option<Engine>,
    /// Add a column an epoch
    #[arg(long)]
    pub per_epoch: bool,
    /// Look again at the K most harmful examples of each query by the accumulative estimate, and at some by retraining (SGD only)
    #[arg(long, value_name = "K")]
    pub refine: Option<usize>,
    /// How many of those to leave out for real, one after the other
    #[arg(long, value_name = "M", default_value_t = 5, requires = "refine")]
    pub refine_truth: usize,
    /// How many of the most harmful and most helpful examples to print
    #[arg(long, value_name = "K", default_value_t = 10)]
    pub top: usize,
    /// Where to replay: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Write a picture of the most harmful examples (image data only)
    #[arg(long, value_name = "FILE.png")]
    pub picture: Option<PathBuf>,
    /// Names of the examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// Memory that the sweep may take, as 8GB, instead of what is available now; where it isn't enough for all queries at once, they are answered in several passes over the steps
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Options of the check of recorded steps, which runs first.
    #[command(flatten)]
    pub check: CheckArgs,
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// Options of the check that recorded steps follow from the recorded rule, batches and data.
#[derive(Debug, Clone, Default, Args)]
pub struct CheckArgs {
    /// Continue even if the recorded steps don't follow from the recorded update rule, batches and data; the result says UNVERIFIED
    #[arg(long)]
    pub unverified: bool,
    /// Seed of the random choice of steps for this check [default: random; it is printed]
    #[arg(long, value_name = "N")]
    pub check_seed: Option<u64>,
}

/// Names of one's own for examples.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// Your own ids, file names or texts of the examples, for what is printed and a column of the table (--help says how)
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
    /// What numbers mean in --names: rows of the original file, or indices of the training split
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

/// What numbers mean in a file of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NamesBy {
    /// The row in the original file.
    Row,
    /// The index in the training split.
    Index,
}

/// `hindcast methods`
#[derive(Debug, Args)]
pub struct Methods {
    /// One method, with all that there is to say about it
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// For scripts: a list of {name, about, needs, source, predicts, windowed, options: [{key, default, about}]}
    #[arg(long)]
    pub json: bool,
}

/// `hindcast scores`
#[derive(Debug, Args)]
pub struct Scores {
    /// Table written by `influence`: .csv, .jsonl or (with the feature) .parquet
    #[arg(value_name = "SCORES")]
    pub table: PathBuf,
    /// Column to sort by, ascending [default: the first influence, so the most harmful first]
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Sort descending
    #[arg(long)]
    pub descending: bool,
    /// Only rows for which this is so: --where label=3 --where 'influence<0'; may be given several times
    #[arg(long = "where", value_name = "CONDITION")]
    pub conditions: Vec<String>,
    /// Only the first K rows that have a value in the sorted column
    #[arg(long, value_name = "K", conflicts_with = "bottom")]
    pub top: Option<usize>,
    /// Only the last K rows that have a value in the sorted column, the last one first
    #[arg(long, value_name = "K")]
    pub bottom: Option<usize>,
    /// Names of the examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// Write the rows to a table instead of printing them: .csv, .jsonl or (with the feature) .parquet
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// For scripts: print the rows as JSON (--help lists the fields)
    #[arg(long)]
    pub json: bool,
}

/// `hindcast counterfactual`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("removed").required(true).args(["without", "top"]))]
pub struct Counterfactual {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// File with the examples to leave out: one index a line
    #[arg(long, value_name = "FILE")]
    pub without: Option<PathBuf>,
    /// Leave out the K most harmful examples of a table written by `influence`
    #[arg(long, num_args = 2, value_names = ["K", "SCORES"])]
    pub top: Option<Vec<String>>,
    /// Accept a table of --top that was made from another run, for example the run that this one was recovered from
    #[arg(long, requires = "top")]
    pub other_run: bool,
    /// Steps that the examples are left out of: all, last-epoch, or A..B
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// What the change is measured on: one query, as for `influence` (a range as mean:validation:0..99)
    #[arg(long, value_name = "QUERY", default_value = "validation")]
    pub query: String,
    /// What leaving out means under batch norm: loss-only (it stays in the batch statistics) or absent
    #[arg(long, value_enum, default_value_t = RemovalKind::LossOnly)]
    pub removal: RemovalKind,
    /// What retrains, and replays for the prediction: kernels (models of tasks, on the CPU; the default there) or autodiff, by
    /// which retraining with everyone gives the recorded bits
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true)]
    pub engine: Option<Engine>,
    /// What the rest of a batch is divided by: fixed (the original size) or renormalised
    #[arg(long, value_enum, default_value_t = DenominatorKind::Fixed)]
    pub denominators: DenominatorKind,
    /// Leave each example out in a run of its own, instead of all of them in one
    #[arg(long)]
    pub each: bool,
    /// Keep what came out in a file, for `report`
    #[arg(long, value_name = "FILE.json")]
    pub out: Option<PathBuf>,
    /// Memory that the retraining may take, as 8GB, instead of what is available now
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Options of the check of recorded steps, which runs first.
    #[command(flatten)]
    pub check: CheckArgs,
    /// For scripts (--help lists the fields)
    #[arg(long)]
    pub json: bool,
}

/// What leaving an example out means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RemovalKind {
    /// Its loss term goes, it stays in the batch statistics.
    LossOnly,
    /// It leaves the batch.
    Absent,
}

/// What a batch's loss is divided by once an example is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DenominatorKind {
    /// The original size (the paper's rule).
    Fixed,
    /// The size that is left.
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
    /// Steps that the examples are left out of: all, last-epoch, or A..B; no example may come twice from A on
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// Only these examples, as 0..50,77 [default: all that the window holds]
    #[arg(long, value_name = "LIST")]
    pub examples: Option<String>,
    /// Constants to believe, for Theorem 6 of a model whose own are not known: largest eigenvalue of a Hessian, its Lipschitz constant, largest gradient
    #[arg(long, value_name = "Λ,L,G")]
    pub constants: Option<String>,
    /// Where to write the table: .csv or .jsonl
    #[arg(long, value_name = "FILE", default_value = "bounds.csv")]
    pub out: PathBuf,
    /// Options of the check of recorded steps, which runs first.
    #[command(flatten)]
    pub check: CheckArgs,
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}

/// `hindcast report`
#[derive(Debug, Args)]
pub struct Report {
    /// Folder of the run
    pub run: PathBuf,
    /// Tables written by `influence`, one a method or window
    #[arg(required = true, value_name = "SCORES")]
    pub tables: Vec<PathBuf>,
    /// Folder with the data files; without them examples are numbers
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    pub out: PathBuf,
    /// A file that `counterfactual --out` wrote, for predicted against real; may be given several times
    #[arg(long, value_name = "FILE.json")]
    pub removed: Vec<PathBuf>,
    /// Which of the tables' queries to show [default: the first four of each table]; may be given several times
    #[arg(long, value_name = "QUERY")]
    pub query: Vec<String>,
    /// How many examples to show at each end
    #[arg(long, value_name = "K", default_value_t = 20)]
    pub top: usize,
    /// Names of the examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}
