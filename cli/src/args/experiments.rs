//! What `hindcast experiment` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `hindcast experiment`
#[derive(Debug, Subcommand)]
pub enum Experiment {
    /// Kendall's tau and Jaccard index of every method's scores against leaving each training example out for real (paper, section 7.1)
    Agreement(Agreement),
    /// Test error after removing the worst examples by every method and retraining for real (paper, section 7.2)
    Cleansing(Cleansing),
    /// The field's other measures of a ranking: linear datamodeling score, leave-one-out correlation, mislabel detection, brittleness
    Quality(Quality),
    /// What recording adds to training: the same task with and without it, side by side in one process
    Recording(RecordingCost),
}

/// `hindcast experiment recording`
#[derive(Debug, Args)]
pub struct RecordingCost {
    /// Tasks to train: names of tasks that ship, or TOML files
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Steps timed together
    #[arg(long, default_value_t = 10)]
    pub block: u64,
    /// Change any key of the tasks
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

/// `hindcast experiment agreement`
#[derive(Debug, Args)]
pub struct Agreement {
    /// Settings to run, as adult/dnn or adult: adult, 20news and mnist, each with logreg and dnn; all six unless said
    #[arg(long, value_name = "DATA[/MODEL]", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Methods to measure, by the names that the rows have; all that there are unless said
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Seeds, A..B with B left out
    #[arg(long, default_value = "0..10")]
    pub seeds: String,
    /// CSV file of rows; those already in it are not run again, and those of other settings or data are refused
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw the rows of --out as the paper's figures, as SVG files in this folder (made if missing)
    #[arg(long, value_name = "DIR", requires = "out")]
    pub figures: Option<PathBuf>,
    /// Seeds at a time; 0 is as many as the machine has cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Change any key of the tasks, which are trained in float64 unless this says otherwise
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `hindcast experiment cleansing`
#[derive(Debug, Args)]
pub struct Cleansing {
    /// Folder with the data files, or with a folder mnist and a folder cifar10 that have them
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What to train: mnist (the task mnist-cnn), cifar10 (cifar10-cnn), another task that ships, or a TOML file; may be
    /// given several times [default: mnist and cifar10]
    #[arg(long, value_name = "TASK")]
    pub only: Vec<String>,
    /// Seeds, A..B with B left out
    #[arg(long, default_value = "0..3")]
    pub seeds: String,
    /// CSV file of rows; those already in it are not computed again, and those of other settings or data are refused. Runs and scores are kept in FILE.work beside it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw the rows of --out as the paper's figures, as SVG files in this folder (made if missing)
    #[arg(long, value_name = "DIR", requires = "out")]
    pub figures: Option<PathBuf>,
    /// Rankings, separated by commas: a method's name (see `hindcast methods`), followed by -last-epoch for that window and
    /// by -flipped for the opposite sign [default: all that the paper compares]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// How many of the worst are removed, separated by commas [default: the paper's thirteen, 1 to 10,000]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub remove: Vec<u64>,
    /// What is trained again: last-epoch or all
    #[arg(long, value_enum, default_value = "last-epoch")]
    pub retrain: Retrained,
    /// Change any key of the tasks
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `hindcast experiment quality`
#[derive(Debug, Args)]
pub struct Quality {
    /// What to measure
    #[arg(value_enum)]
    pub measure: Measured,
    /// Folder with the data files, or with a folder mnist and a folder cifar10 that have them
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What to train: mnist (the task mnist-cnn), cifar10 (cifar10-cnn), another task that ships, or a TOML file; may be
    /// given several times
    #[arg(long, value_name = "TASK", default_value = "mnist")]
    pub only: Vec<String>,
    /// Seeds, A..B with B left out
    #[arg(long, default_value = "0..1")]
    pub seeds: String,
    /// CSV file of rows; those already in it are not computed again, and those of other settings or data are refused.
    /// Runs, scores and retrainings are kept in FILE.work beside it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Rankings, separated by commas, as for `cleansing`; those whose name says no steps are of --window [default: all
    /// methods, in the window]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Steps that examples are left out of (mislabels: that are swept), and that methods look at: all, last-epoch, or A..B
    #[arg(long, value_name = "WINDOW", default_value = "last-epoch")]
    pub window: String,
    /// lds: share of the training examples that a subset leaves out
    #[arg(long, default_value_t = 0.01)]
    pub share: f64,
    /// lds: how many subsets are left out; leave-one-out: how many examples
    #[arg(long, default_value_t = 100)]
    pub runs: u64,
    /// lds and brittleness: how many test examples are asked about
    #[arg(long, default_value_t = 100)]
    pub queries: u64,
    /// brittleness: how many of the most helpful examples are left out
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "10,30,100,300"
    )]
    pub remove: Vec<u64>,
    /// Change any key of the tasks: --set data.train=10000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// What is trained again without the removed examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Retrained {
    /// The newest epoch, from the recorded state before it
    LastEpoch,
    /// Everything, from the first step
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
    /// Linear datamodeling score: predicted against real change of each query over random subsets left out (Spearman)
    Lds,
    /// Predicted against real change of the validation loss over examples left out one at a time (Kendall, Spearman)
    LeaveOneOut,
    /// How well the most harmful examples find labels that were flipped on purpose (area under the ROC curve, precision)
    Mislabels,
    /// How many of the most helpful examples must go before a prediction flips (share of test examples)
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
