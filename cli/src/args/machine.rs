//! What the verbs take that try this machine.

use std::num::NonZeroUsize;

use clap::Args;

use super::replay::Precision;

/// `hindcast exactness`
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
fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "expected a whole number, 1 or more".to_owned())
}
