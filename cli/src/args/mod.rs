//! The command line: what can be asked for. Each verb runs in the file of `commands/` that bears its name.

mod analysis;
#[cfg(feature = "record")]
mod experiments;
pub(crate) mod help;
#[cfg(feature = "record")]
mod machine;
mod recording;
mod replay;
mod traces;

pub use analysis::{
    Bounds, CheckArgs, Counterfactual, DenominatorKind, Influence, Methods, NamesArgs, NamesBy,
    RemovalKind, Report, Scores,
};
#[cfg(feature = "record")]
pub use experiments::{Agreement, Cleansing, Experiment, Quality, RecordingCost};
#[cfg(feature = "record")]
pub use machine::{Bench, Exactness};
pub use recording::{Demo, OnErrorPolicy, Record, TaskCommand, TaskVerb, WhenFullPolicy};
pub use replay::Precision;
pub use traces::{Checkpoint, Export, Info, Recover, Verify};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    #[command(after_long_help = help::COUNTERFACTUAL)]
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
    #[cfg(feature = "record")]
    #[command(subcommand)]
    Experiment(Experiment),
    /// Print completions for a shell: hindcast completions bash > /etc/bash_completion.d/hindcast
    Completions(Completions),
    /// Print the manual page, or write one a verb
    Man(Man),
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
