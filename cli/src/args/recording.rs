//! What the verbs take that train and record.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
    #[arg(required_unless_present = "resume")]
    pub task: Option<String>,
    /// Folder with the data files (digits need none)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of the run; must not exist yet
    #[arg(
        long,
        value_name = "RUN",
        required_unless_present = "resume",
        conflicts_with = "resume"
    )]
    pub out: Option<PathBuf>,
    /// Continue a run that was interrupted (Ctrl-C, a kill, a crash, a full disk) from the last recorded step, to the bits of an uninterrupted run; task, seed and --keep are those of the run
    #[arg(long, value_name = "RUN", conflicts_with_all = ["keep", "note"])]
    pub resume: Option<PathBuf>,
    /// With --resume: memory that reading the run may take, as 8GB, instead of what is available now
    #[arg(long, value_name = "SIZE", requires = "resume")]
    pub memory: Option<String>,
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
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "task")]
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
