//! Arguments of the verbs that train and record.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::labels::LabelArgs;
use super::numbers::whole;
use super::sharding::ShardArgs;
use super::threads::threads;

/// `hindcast demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Folder for the run, the table and the picture (created if missing; the results of an earlier demo are replaced)
    #[arg(long, value_name = "DIR", default_value = "hindcast-demo")]
    pub out: PathBuf,
    /// How many of the most harmful examples to print
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: usize,
    /// Seed of the digits, the initial weights and the batches
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub seed: u64,
    /// Run nothing; write the files of the guide's examples of `clean` to this folder (created if missing): embeddings, a table and images with wrong labels, and the true ones
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "top", "seed"])]
    pub files: Option<PathBuf>,
}

/// `hindcast record`
#[derive(Debug, Args)]
pub struct Record {
    /// Name of a built-in task (see `hindcast task list`), or a TOML file
    #[arg(required_unless_present = "resume")]
    pub task: Option<String>,
    /// Folder with the data files (the generated digits need none)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Folder of the run, which must not exist yet; with --seeds, the folder of the runs
    #[arg(
        long,
        value_name = "RUN",
        required_unless_present = "resume",
        conflicts_with = "resume"
    )]
    pub out: Option<PathBuf>,
    /// Resume an interrupted run (Ctrl-C, a kill, a crash, a full disk) from its last recorded step, with the same bits as an uninterrupted run; task, seed and --keep are those of the run
    #[arg(long, value_name = "RUN", conflicts_with_all = ["keep", "note", "no_command_line", "encrypt_to"])]
    pub resume: Option<PathBuf>,
    /// Record one run per seed A..B (B excluded) in OUT/seed-A and so on, all on the same data split; the same command resumes an interrupted one (see --help)
    #[arg(long, value_name = "A..B", conflicts_with = "resume")]
    pub seeds: Option<String>,
    /// With --seeds: number of runs that train at the same time, at most eight per core of this machine [default: one per core]
    #[arg(long, value_name = "N", requires = "seeds", value_parser = threads, allow_negative_numbers = true)]
    pub jobs: Option<NonZeroUsize>,
    /// Which part of the seeds this process does.
    #[command(flatten)]
    pub shard: ShardArgs,
    /// With --resume, or with --seeds for the runs that it resumes: limit on the memory for reading a run, for example 8GB [default: the memory available now]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Which steps to keep: all, last-epoch, last-steps=N, every=N, or budget=SIZE (the newest steps that fit, for example 2GB)
    #[arg(long, default_value = "all")]
    pub keep: String,
    /// Which steps survive a power cut: os (those that the operating system has written to disk by then), seals (those in finished segments), every=N (all but the last N), always (all)
    #[arg(long, default_value = "seals")]
    pub durability: String,
    /// If storage is too slow: block (training waits), stop (with an error), or skip (record the step without its tensors)
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = WhenFullPolicy::Block, hide_possible_values = true)]
    pub when_full: WhenFullPolicy,
    /// If storage fails: fail (stop training) or train-on (continue training without recording; the trace marks the gap)
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = OnErrorPolicy::Fail, hide_possible_values = true)]
    pub on_error: OnErrorPolicy,
    /// Device of the training: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Change any key of the task, for example --set train.epochs=1 --set data.validation=1000
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "task")]
    pub set: Vec<String>,
    /// A note to store in the run, for example --note machine=n7
    #[arg(long = "note", value_name = "KEY=VALUE")]
    pub note: Vec<String>,
    /// Leave the command line out of what the run says about how it was made
    #[arg(long)]
    pub no_command_line: bool,
    /// Encrypt the run for the owner of this public key of age (`age1…`), or of the keys in this file; may be given several times
    #[arg(long, value_name = "KEY")]
    pub encrypt_to: Vec<String>,
    /// For scripts: print a summary as JSON (--help lists its fields)
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
    /// The step's digest and metadata are recorded without its tensors, and the step is counted.
    Skip,
}

/// What happens when storage fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnErrorPolicy {
    /// Training stops with an error.
    Fail,
    /// Training continues without recording, and the trace marks the gap.
    TrainOn,
}
