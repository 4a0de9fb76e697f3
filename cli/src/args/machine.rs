//! Arguments of the verbs that test or time this machine.

use std::num::NonZeroUsize;

use clap::Args;

use super::replay::Precision;

/// `hindcast exactness`
#[derive(Debug, Args)]
pub struct Exactness {
    /// Print only rows whose name contains all of these words, for example "conv2d mean"
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// For scripts: print JSON
    #[arg(long)]
    pub json: bool,
}

/// `hindcast bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// Name of a built-in task (see `hindcast task list`), or a TOML file
    pub task: String,
    /// Examples per batch [default: the task's]
    #[arg(long, value_name = "B", value_parser = at_least_one)]
    pub batch: Option<NonZeroUsize>,
    /// Number of threads [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<NonZeroUsize>,
    /// Number of queries that a replay step answers
    #[arg(long, value_name = "Q", default_value = "1", value_parser = at_least_one)]
    pub queries: NonZeroUsize,
    /// Float type: recorded (that of the task), f32 or f64
    #[arg(long, value_enum, default_value_t = Precision::Recorded)]
    pub precision: Precision,
    /// How many times each operation is timed
    #[arg(long, value_name = "R", default_value = "50", value_parser = at_least_one)]
    pub reps: NonZeroUsize,
    /// Change any key of the task, for example --set optimizer.momentum=0.9
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// For scripts: print JSON (--help lists the fields)
    #[arg(long)]
    pub json: bool,
}

/// Parses a count that may not be 0.
fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "expected a whole number, 1 or more".to_owned())
}
