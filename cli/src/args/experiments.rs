//! Arguments of `hindcast experiment`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use hindcast_analyzer::QueryPoint;

use super::labels::LabelArgs;
use super::numbers::{number, whole};
use super::sharding::ShardArgs;
use super::threads::threads_or_all;

/// `hindcast experiment`
#[derive(Debug, Subcommand)]
pub enum Experiment {
    /// Compare every method's scores with retraining without each training example: Kendall's tau and Jaccard index (paper, section 7.1)
    Agreement(Agreement),
    /// Measure the test error after removing each method's worst examples and retraining (paper, section 7.2)
    Cleansing(Cleansing),
    /// Measure the quality of rankings by one of: linear datamodeling score, leave-one-out correlation, mislabel detection, brittleness
    Quality(Quality),
    /// Measure the cost of recording: the same task with and without recording, alternating in one process
    Recording(RecordingCost),
}

/// `hindcast experiment recording`
#[derive(Debug, Args)]
pub struct RecordingCost {
    /// Tasks to train: names of built-in tasks, or TOML files
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Number of consecutive steps that are timed as one block
    #[arg(long, default_value_t = 10, value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub block: u64,
    /// Change any key of the tasks
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// For scripts: print a JSON list of {task, steps, block, plain_ms, recorded_ms, ratio, stored_share}, one per task: median milliseconds per step without and with recording, the median ratio of adjacent blocks, and the size of the run divided by that of its raw tensors
    #[arg(long)]
    pub json: bool,
}

/// `hindcast experiment agreement`
#[derive(Debug, Clone, Args)]
pub struct Agreement {
    /// Settings to run, for example adult/dnn or adult; there are adult, 20news and mnist, each with logreg and dnn [default: all six]
    #[arg(long, value_name = "DATA[/MODEL]", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Methods to measure, by their names in the printed rows [default: all except discounted]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Seeds A..B (B excluded)
    #[arg(long, default_value = "0..10")]
    pub seeds: String,
    /// The model that the query is asked about, in the scores and in the truth: final, mean, … (as `influence --at`)
    #[arg(long, value_name = "POINT", default_value = "final")]
    pub at: QueryPoint,
    /// CSV file of rows; rows that it already has are not computed again, and rows of other settings or data are refused
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw the rows of --out as the paper's figures: SVG files in this folder (created if missing)
    #[arg(long, value_name = "DIR", requires = "out")]
    pub figures: Option<PathBuf>,
    /// Number of seeds computed at the same time, at most eight per core of this machine (0: the number of cores)
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads_or_all, allow_negative_numbers = true)]
    pub threads: usize,
    /// Change any key of the tasks; without train.dtype they are trained in float64
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Which part of the seeds this process does.
    #[command(flatten)]
    pub shard: ShardArgs,
}

/// `hindcast experiment cleansing`
#[derive(Debug, Clone, Args)]
pub struct Cleansing {
    /// Folder with the data files, or with subfolders mnist and cifar10 that contain them
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Task to train: mnist (the task mnist-cnn), cifar10 (cifar10-cnn), another built-in task, or a TOML file; may be
    /// given several times [default: mnist and cifar10]
    #[arg(long, value_name = "TASK")]
    pub only: Vec<String>,
    /// Seeds A..B (B excluded)
    #[arg(long, default_value = "0..3")]
    pub seeds: String,
    /// CSV file of rows; rows that it already has are not computed again, and rows of other settings or data are refused. Runs and scores are kept in FILE.work next to it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw the rows of --out as the paper's figures: SVG files in this folder (created if missing)
    #[arg(long, value_name = "DIR", requires = "out")]
    pub figures: Option<PathBuf>,
    /// Rankings, separated by commas: a method's name (see `hindcast methods`), then :KEY=VALUE to set one of its options,
    /// -last-epoch to use that window and -flipped to reverse the order [default: the rankings of the paper and of other common methods]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Numbers of worst examples to remove, separated by commas [default: the paper's thirteen, 1 to 10,000]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub remove: Vec<u64>,
    /// Which steps are retrained: last-epoch or all
    #[arg(long, value_enum, default_value = "last-epoch")]
    pub retrain: Retrained,
    /// Also evaluate the retrained runs at an average of their last models, such as mean; a ranking asks about the end unless
    /// its name has @POINT, for example sgd-last-epoch@mean
    #[arg(long, value_name = "POINT", default_value = "final")]
    pub at: QueryPoint,
    /// Change any key of the tasks
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Which part of the seeds this process does.
    #[command(flatten)]
    pub shard: ShardArgs,
}

/// `hindcast experiment quality`
#[derive(Debug, Clone, Args)]
pub struct Quality {
    /// What to measure
    #[arg(value_enum)]
    pub measure: Measured,
    /// Folder with the data files, or with subfolders mnist and cifar10 that contain them
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Task to train: mnist (the task mnist-cnn), cifar10 (cifar10-cnn), another built-in task, or a TOML file; may be
    /// given several times
    #[arg(long, value_name = "TASK", default_value = "mnist")]
    pub only: Vec<String>,
    /// Seeds A..B (B excluded)
    #[arg(long, default_value = "0..1")]
    pub seeds: String,
    /// CSV file of rows; rows that it already has are not computed again, and rows of other settings or data are refused.
    /// Runs, scores and retrainings are kept in FILE.work next to it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Rankings, separated by commas, as for `cleansing`; a ranking whose name has no window uses --window [default: the
    /// usual methods]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Steps that examples are left out of (mislabels: steps that are swept) and that methods use: all, last-epoch, or A..B
    #[arg(long, value_name = "WINDOW", default_value = "last-epoch")]
    pub window: String,
    /// The model at which real changes are measured, and about which rankings ask: final, mean, … (as `influence --at`); a
    /// ranking whose name has @POINT asks about that model instead
    #[arg(long, value_name = "POINT", default_value = "final")]
    pub at: QueryPoint,
    /// lds: share of the training examples that each subset leaves out
    #[arg(long, default_value_t = 0.01, value_parser = number, allow_negative_numbers = true)]
    pub share: f64,
    /// lds: number of subsets left out; leave-one-out: number of examples left out
    #[arg(long, default_value_t = 100, value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub runs: u64,
    /// lds and brittleness: number of test examples, each of which is one query
    #[arg(long, default_value_t = 100, value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub queries: u64,
    /// brittleness: numbers of most helpful examples to leave out
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "10,30,100,300", value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub remove: Vec<u64>,
    /// Change any key of the tasks, for example --set data.train=10000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Which part of the seeds this process does.
    #[command(flatten)]
    pub shard: ShardArgs,
}

/// Which steps are retrained without the removed examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Retrained {
    /// The last epoch, from the recorded state before it
    LastEpoch,
    /// All steps, from the first one
    All,
}

impl From<Retrained> for hindcast_lab::protocols::Retrain {
    fn from(retrained: Retrained) -> Self {
        match retrained {
            Retrained::LastEpoch => Self::LastEpoch,
            Retrained::All => Self::All,
        }
    }
}

/// What `hindcast experiment quality` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measured {
    /// Linear datamodeling score: correlation of predicted and real changes of each query over random subsets left out (Spearman)
    Lds,
    /// Correlation of predicted and real changes of the validation loss over examples left out one at a time (Kendall, Spearman)
    LeaveOneOut,
    /// How well the scores find labels that were flipped on purpose or are known to be wrong (area under the ROC curve, precision)
    Mislabels,
    /// Share of test predictions that flip when the most helpful examples are left out
    Brittleness,
}

impl From<Measured> for hindcast_lab::protocols::Measure {
    fn from(measured: Measured) -> Self {
        match measured {
            Measured::Lds => Self::Lds,
            Measured::LeaveOneOut => Self::LeaveOneOut,
            Measured::Mislabels => Self::Mislabels,
            Measured::Brittleness => Self::Brittleness,
        }
    }
}
