//! Arguments of the verbs that show how a run learned its examples.

use std::path::PathBuf;

use clap::Args;

use super::analysis::CheckArgs;
use super::labels::LabelArgs;
use super::numbers::{at_least_three, number, whole};
use super::replay::{Engine, Precision};
use super::threads::Threads;

/// `hindcast dynamics`
#[derive(Debug, Args)]
pub struct Dynamics {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Steps to write: all, last-epoch, or A..B (B excluded)
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// Write one row per example instead of one per use: mean loss, margin, epochs since last forgotten and self-influence (see --help)
    #[arg(long)]
    pub per_example: bool,
    /// The table to write: .csv or (in builds with the feature) .parquet
    #[arg(long, value_name = "FILE", default_value = "dynamics.csv")]
    pub out: PathBuf,
    /// How the steps are replayed.
    #[command(flatten)]
    pub replay: ReplayArgs,
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// `hindcast spikes`
#[derive(Debug, Args)]
pub struct Spikes {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Steps to look at: all, last-epoch, or A..B (B excluded)
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// Number of steps before a step whose median loss is its expected loss
    #[arg(long, value_name = "STEPS", default_value_t = 100, value_parser = at_least_three, allow_negative_numbers = true)]
    pub before: u32,
    /// How many robust standard deviations above its expected loss a step's loss has to be
    #[arg(long, value_name = "K", default_value_t = 6.0, value_parser = number, allow_negative_numbers = true)]
    pub above: f64,
    /// How many of the largest jumps to explain
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: usize,
    /// How many examples of each batch to print, those with the largest share first; --json prints all
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub rows: usize,
    /// How the steps are replayed.
    #[command(flatten)]
    pub replay: ReplayArgs,
    /// For scripts: print the result (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// How recorded steps are replayed.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Float type of the replay: the recorded one, f32 or f64 (the reference)
    #[arg(long, value_enum, default_value_t = Precision::Recorded)]
    pub precision: Precision,
    /// Replay engine: kernels (models of tasks, on the CPU; the default for them) or autodiff (any model and device, slower)
    #[arg(long, value_enum, value_name = "ENGINE", hide_possible_values = true)]
    pub engine: Option<Engine>,
    /// Device of the replay: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Options of the check of recorded steps, which runs first.
    #[command(flatten)]
    pub check: CheckArgs,
    /// On how many threads the verb computes.
    #[command(flatten)]
    pub threads: Threads,
}
