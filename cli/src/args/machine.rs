//! Arguments of the verbs that test or time this machine.

use std::num::NonZeroUsize;

use clap::Args;

use super::numbers::at_least_one;
use super::replay::Precision;
use super::threads::threads;

/// `hindcast exactness`
#[derive(Debug, Args)]
pub struct Exactness {
    /// Print only rows whose name contains all of these words, for example "conv2d mean"
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// For scripts: print a JSON list of {kind, name, error, second}: the kind of row, the case, its largest relative error, and that of its second derivatives or null; a row fails if an error is above 1e-6
    #[arg(long)]
    pub json: bool,
}

/// `hindcast bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// Name of a built-in task (see `hindcast task list`), or a TOML file
    pub task: String,
    /// Examples per batch [default: the task's]
    #[arg(long, value_name = "B", value_parser = at_least_one::<NonZeroUsize>, allow_negative_numbers = true)]
    pub batch: Option<NonZeroUsize>,
    /// Number of threads, at most eight per core of this machine [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub threads: Option<NonZeroUsize>,
    /// Number of queries that a replay step answers
    #[arg(long, value_name = "Q", default_value = "1", value_parser = at_least_one::<NonZeroUsize>, allow_negative_numbers = true)]
    pub queries: NonZeroUsize,
    /// Float type: recorded (that of the task), f32 or f64
    #[arg(long, value_enum, default_value_t = Precision::Recorded)]
    pub precision: Precision,
    /// How many times each operation is timed
    #[arg(long, value_name = "R", default_value = "50", value_parser = at_least_one::<NonZeroUsize>, allow_negative_numbers = true)]
    pub reps: NonZeroUsize,
    /// Change any key of the task, for example --set optimizer.momentum=0.9
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// For scripts: print JSON (--help lists the fields)
    #[arg(long)]
    pub json: bool,
}
