//! The command line: what can be asked for. Each verb runs in the file of `commands/` that bears its name.

#[cfg(feature = "experiments")]
mod experiments;
pub(crate) mod help;
mod own;

pub use own::{OwnProgram, run_with};

#[cfg(feature = "record")]
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::EngineKind;
#[cfg(feature = "experiments")]
pub use experiments::{Agreement, Cleansing, Experiment, Quality, RecordingCost};

/// Record a training run once; later, and elsewhere, ask which training examples made the model what it is.
#[derive(Debug, Parser)]
#[command(name = "hindcast", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100, after_help = help::EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole road on digits drawn by code: record, close, reopen, rank, retrain without the worst
    #[cfg(feature = "record")]
    Demo(Demo),
    /// List the tasks that ship, or show one as TOML
    Task(TaskCommand),
    /// Train a task and record every step of it
    #[cfg(feature = "record")]
    #[command(after_long_help = help::RECORD_JSON)]
    Record(Record),
    /// Say what a run holds
    #[command(after_long_help = help::INFO_JSON)]
    Info(Info),
    /// Check that a trace is whole and unaltered, and (--replay) that its steps really are training steps on that data
    #[command(after_long_help = help::VERIFY_JSON)]
    Verify(Verify),
    /// Replay the trace backwards and rank the training examples by influence
    #[command(after_long_help = format!("{}\n\n{}\n\n{}", help::methods(), help::INFLUENCE, help::NAMES))]
    Influence(Influence),
    /// List the methods of `influence`, or say all about one: its options, what it takes, where it comes from
    Methods(Methods),
    /// Sort, filter and print the table that `influence` wrote, or write a part of it
    #[command(after_long_help = format!("{}\n\n{}", help::SCORES, help::NAMES))]
    Scores(Scores),
    /// Really retrain without some examples, on the recorded batches, and compare with the prediction
    #[command(after_long_help = help::COUNTERFACTUAL_JSON)]
    Counterfactual(Counterfactual),
    /// Say what the paper's theory guarantees of the estimates, beside what is so (plain SGD, one pass over the data)
    #[command(after_long_help = help::BOUNDS)]
    Bounds(Bounds),
    /// Show a run and its scores as one page: training, harmful and helpful examples, and how far to trust them
    #[command(after_long_help = format!("{}\n\n{}", help::REPORT, help::NAMES))]
    Report(Report),
    /// Write steps as safetensors files, one a step, and steps.jsonl
    #[command(after_long_help = help::EXPORT_JSON)]
    Export(Export),
    /// Write what can still be read of a damaged run as a new run that is whole, and say what was lost
    Recover(Recover),
    /// Write the model as it stood before a step as one safetensors file: a trace is also every checkpoint
    Checkpoint(Checkpoint),
    /// Print the exactness matrix: scores against finite differences of re-weighted training, in float64
    #[cfg(feature = "record")]
    Exactness(Exactness),
    /// Time the steps of a task on this machine: training, replay, gradient, decoding; needs no data
    #[cfg(feature = "record")]
    #[command(after_long_help = help::BENCH)]
    Bench(Bench),
    /// Many runs against the truth: how well predictions agree with retraining, what recording costs
    #[cfg(feature = "experiments")]
    #[command(subcommand)]
    Experiment(Experiment),
    /// Print completions for a shell: hindcast completions bash > /etc/bash_completion.d/hindcast
    Completions(Completions),
    /// Print the manual page, or write one a verb
    Man(Man),
}

/// `hindcast demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Folder for the run, the table and the picture (made if missing; an earlier demo in it is replaced)
    #[arg(long, value_name = "DIR", default_value = "hindcast-demo")]
    pub out: PathBuf,
    /// How many of the worst examples to print
    #[arg(long, value_name = "K", default_value_t = 10)]
    pub top: usize,
    /// Seed of the digits, the initial weights and the batches
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// `hindcast task`
#[derive(Debug, Args)]
pub struct TaskCommand {
    /// List or show.
    #[command(subcommand)]
    pub verb: TaskVerb,
}

/// `hindcast task list|show`
#[derive(Debug, Subcommand)]
pub enum TaskVerb {
    /// Names and one-line descriptions of the tasks that ship
    List {
        /// For scripts: a list of {name, description}
        #[arg(long)]
        json: bool,
    },
    /// Print a task as TOML: save it, change it, record it
    Show {
        /// Name of a task that ships, or a TOML file
        task: String,
        /// Change a key first: --set train.epochs=1
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}

/// `hindcast record`
#[derive(Debug, Args)]
pub struct Record {
    /// Name of a task that ships (see `hindcast task list`), or a TOML file
    pub task: String,
    /// Folder with the data files (digits need none)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of the run; must not exist yet
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// What to keep: all, last-epoch, last-steps=N, every=N, budget=SIZE (as 2GB; keeps the newest)
    #[arg(long, default_value = "all")]
    pub keep: String,
    /// When a power cut may lose nothing: os (when the system writes), seals (each finished segment), every=N (steps), always
    #[arg(long, default_value = "seals")]
    pub durability: String,
    /// When storage is too slow: block training, stop with an error, or skip (keep digest and metadata, count it)
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = WhenFullPolicy::Block, hide_possible_values = true)]
    pub when_full: WhenFullPolicy,
    /// When storage fails: fail (stop training) or train-on (train on, mark the gap)
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = OnErrorPolicy::Fail, hide_possible_values = true)]
    pub on_error: OnErrorPolicy,
    /// Where to train: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Change any key of the task: --set train.epochs=1 --set data.validation=1000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Something to keep with the run: --note machine=n7
    #[arg(long = "note", value_name = "KEY=VALUE")]
    pub note: Vec<String>,
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// What happens when storage cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhenFullPolicy {
    /// Training waits.
    Block,
    /// Training stops with an error.
    Stop,
    /// The step's digest and metadata are kept without its tensors, and counted.
    Skip,
}

/// What happens when storage fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnErrorPolicy {
    /// Training stops with an error.
    Fail,
    /// Training goes on without its recording, which says so.
    TrainOn,
}

/// `hindcast info`
#[derive(Debug, Args)]
pub struct Info {
    /// Folder of the run
    pub run: PathBuf,
    /// For scripts (--help lists the fields)
    #[arg(long)]
    pub json: bool,
}

/// `hindcast verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Folder of the run
    pub run: PathBuf,
    /// For scripts (--help lists the fields)
    #[arg(long)]
    pub json: bool,
    /// Recompute sampled steps from the data and compare with what was recorded
    #[arg(long)]
    pub replay: bool,
    /// Folder with the data files, for --replay
    #[arg(long, value_name = "DIR", requires = "replay")]
    pub data: Option<PathBuf>,
    /// How many steps --replay recomputes (0: all)
    #[arg(long, value_name = "N", default_value_t = 20, requires = "replay")]
    pub steps: usize,
    /// Head digest that you kept outside the trace: fail unless the trace ends in it
    #[arg(long, value_name = "HEX")]
    pub head: Option<String>,
}

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
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub checkpoint_every: u64,
    /// Arithmetic of the replay: as recorded, or the float64 reference
    #[arg(long, value_enum, default_value_t = Precision::Recorded)]
    pub precision: Precision,
    /// What replays: kernels (models of tasks, on the CPU; the default there) or autodiff (any model and device, slower)
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true)]
    pub engine: Option<EngineKind>,
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
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
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

/// `hindcast completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `hindcast man`
#[derive(Debug, Args)]
pub struct Man {
    /// Write hindcast.1, hindcast-record.1 and so on to this folder (made if missing)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Float type of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Precision {
    /// The float type that the run trained in.
    #[default]
    Recorded,
    /// 32 bits.
    F32,
    /// 64 bits: the reference.
    F64,
}

impl Precision {
    /// The float type, unless it is the recorded one.
    pub fn dtype(self) -> Option<candle_core::DType> {
        match self {
            Precision::Recorded => None,
            Precision::F32 => Some(candle_core::DType::F32),
            Precision::F64 => Some(candle_core::DType::F64),
        }
    }
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
    pub engine: Option<EngineKind>,
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
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
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
}

/// `hindcast export`
#[derive(Debug, Args)]
pub struct Export {
    /// Folder of the run
    pub run: PathBuf,
    /// Steps to write: A..B (B left out), or one step
    #[arg(long, value_name = "A..B")]
    pub steps: String,
    /// Folder to write to; must not exist yet or be empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// `hindcast recover`
#[derive(Debug, Args)]
#[command(
    after_help = help::RECOVER
)]
pub struct Recover {
    /// Folder of the run, which is only read
    pub run: PathBuf,
    /// Folder of the new run; must not exist yet
    #[arg(long, value_name = "NEW")]
    pub out: PathBuf,
    /// For scripts (--help lists the fields)
    #[arg(long)]
    pub json: bool,
}

/// `hindcast checkpoint`
#[derive(Debug, Args)]
pub struct Checkpoint {
    /// Folder of the run
    pub run: PathBuf,
    /// Which state: before step T, last (the newest that the run holds), or final (after the last step of a finished run)
    #[arg(long, value_name = "T")]
    pub step: String,
    /// File to write: parameters and buffers under their names, as candle's VarMap::load expects them; must not exist yet
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
}

/// `hindcast exactness`
#[cfg(feature = "record")]
#[derive(Debug, Args)]
pub struct Exactness {
    /// Only rows whose name has all of these words in it, like "conv2d mean"
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

/// `hindcast bench`
#[cfg(feature = "record")]
#[derive(Debug, Args)]
pub struct Bench {
    /// Name of a task that ships (see `hindcast task list`), or a TOML file
    pub task: String,
    /// Examples a batch [default: the task's]
    #[arg(long, value_name = "B", value_parser = at_least_one)]
    pub batch: Option<NonZeroUsize>,
    /// Threads that work [default: as many as the machine has cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<NonZeroUsize>,
    /// Queries of a replay step
    #[arg(long, value_name = "Q", default_value = "1", value_parser = at_least_one)]
    pub queries: NonZeroUsize,
    /// Arithmetic: as the task trains, or another float type
    #[arg(long, value_enum, default_value_t = Precision::Recorded)]
    pub precision: Precision,
    /// How often each thing is done and timed
    #[arg(long, value_name = "R", default_value = "50", value_parser = at_least_one)]
    pub reps: NonZeroUsize,
    /// Change any key of the task: --set optimizer.momentum=0.9
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// For scripts (--help lists the fields)
    #[arg(long)]
    pub json: bool,
}

/// A count of things of which there must be some.
#[cfg(feature = "record")]
fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "expected a whole number, 1 or more".to_owned())
}
