//! The command line as clap types. Each verb is run by the file of the same name in `commands/`.

mod analysis;
mod clean;
mod curves;
mod derive;
mod dynamics;
#[cfg(feature = "record")]
mod experiments;
pub(crate) mod help;
mod labels;
pub(crate) mod layout;
#[cfg(feature = "record")]
mod machine;
mod numbers;
mod predictions;
#[cfg(feature = "record")]
mod recording;
mod replay;
mod sharding;
mod task;
mod threads;
mod traces;

pub use analysis::{
    Bounds, CheckArgs, Counterfactual, DenominatorKind, Influence, Methods, NamesArgs, NamesBy,
    RemovalKind, Report, Scores,
};
pub use clean::{Clean, Decide};
pub use curves::{Compare, History};
pub use derive::{Compact, Derived, Prune, Redact};
pub use dynamics::{Dynamics, ReplayArgs, Spikes};
#[cfg(feature = "record")]
pub use experiments::{Agreement, Cleansing, Experiment, Quality, RecordingCost};
#[cfg(feature = "record")]
pub use labels::LabelArgs;
#[cfg(feature = "record")]
pub use machine::{Bench, Exactness};
pub use predictions::{Explain, ModelArgs, Predict};
#[cfg(feature = "record")]
pub use recording::{Demo, OnErrorPolicy, Record, WhenFullPolicy};
pub use replay::Precision;
pub use sharding::{Merge, ShardArgs};
#[cfg(feature = "record")]
pub use task::{NewKind, NewTarget, TaskCheck, TaskNew};
pub use task::{TaskCommand, TaskVerb};
pub use threads::Threads;
pub use traces::{Checkpoint, Export, Info, Keygen, Recover, Sign, Verify};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Record a training run once, then ask at any time, on any machine, which training examples made the model what it is.
#[derive(Debug, Parser)]
#[command(name = "hindcast", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100, after_help = help::EXIT_CODES)]
pub struct Cli {
    /// Keys for encrypted runs.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Name of the environment variable that stands for `--identity`.
pub(crate) const IDENTITY_VARIABLE: &str = "HINDCAST_IDENTITY";

/// The keys of encrypted runs.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// File with your secret keys of age, for encrypted runs [default: the file named by HINDCAST_IDENTITY]
    #[arg(long, value_name = "FILE", global = true, display_order = 900)]
    pub identity: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything end to end on generated digits: record, verify, rank the examples, retrain without the worst
    #[cfg(feature = "record")]
    Demo(Demo),
    /// Write a task for your own files, check a task, explain its keys, or list and show the built-in tasks
    Task(TaskCommand),
    /// Train a task and record every training step
    #[cfg(feature = "record")]
    #[command(after_long_help = help::RECORD_JSON)]
    Record(Record),
    /// Show what a run contains
    #[command(after_long_help = help::INFO_JSON)]
    Info(Info),
    /// Check that a trace is complete and unaltered, and (--replay) that its steps are training steps on this data
    #[command(after_long_help = help::VERIFY_JSON)]
    Verify(Verify),
    /// Sign a run, so that anyone with the public key can check who vouches for it and that nothing was changed since
    #[command(after_long_help = help::SIGN)]
    Sign(Sign),
    /// Make a pair of keys: a secret one that signs runs and a public one that checks signatures; or (--encrypt) keys of encrypted runs
    Keygen(Keygen),
    /// Write the recorded model's predictions for a split: class or value, probability, loss; and list the wrong ones
    #[command(after_long_help = format!("{}\n\n{}", help::PREDICT, help::NAMES))]
    Predict(Predict),
    /// Replay the trace backwards and rank the training examples by influence
    #[command(after_long_help = format!("{}\n\n{}\n\n{}", help::methods(), help::INFLUENCE, help::NAMES))]
    Influence(Influence),
    /// Explain predictions: which training examples pushed the model towards the label of an example, and which away from it
    #[command(after_long_help = format!("{}\n\n{}", help::EXPLAIN, help::NAMES))]
    Explain(Explain),
    /// List the methods of `influence`, or describe one: its options, its requirements and its source
    Methods(Methods),
    /// Sort, filter and print a table written by `influence`, or write some of its rows to another table
    #[command(after_long_help = format!("{}\n\n{}", help::SCORES, help::NAMES))]
    Scores(Scores),
    /// Show how a run trained: loss, learning rate, norms and validation loss by step, as a table, for TensorBoard, or as a picture
    #[command(after_long_help = help::HISTORY)]
    History(History),
    /// Compare two runs: settings, the first step at which they differ, the distance of their models, curves and losses
    #[command(visible_alias = "diff", after_long_help = help::COMPARE)]
    Compare(Compare),
    /// Write the loss, margin and probability of every use of every example in training, as one long table
    #[command(after_long_help = help::DYNAMICS)]
    Dynamics(Dynamics),
    /// Find the steps where the loss jumped, and what each example of their batches contributed
    #[command(after_long_help = help::SPIKES)]
    Spikes(Spikes),
    /// Retrain without some examples, on the recorded batches, and compare the result with the prediction
    #[command(after_long_help = help::COUNTERFACTUAL)]
    Counterfactual(Counterfactual),
    /// Join the complete parts of a command that was divided among processes (--shard) to the result that it would have written alone
    #[command(after_long_help = help::MERGE)]
    Merge(Merge),
    /// Find the examples whose label is probably wrong, write decisions to edit, the cleaned data, and what training on it gains
    #[command(after_long_help = format!("{}\n\n{}", help::CLEAN, help::NAMES))]
    Clean(Clean),
    /// Compare the paper's error bounds with the measured errors (plain SGD, one pass over the data)
    #[command(after_long_help = help::BOUNDS)]
    Bounds(Bounds),
    /// Write a run and its scores as one HTML page: training, harmful and helpful examples, and how far to trust them
    #[command(after_long_help = format!("{}\n\n{}", help::REPORT, help::NAMES))]
    Report(Report),
    /// Write steps as safetensors files, one per step, with their metadata in steps.jsonl
    #[command(after_long_help = help::EXPORT_JSON)]
    Export(Export),
    /// Copy everything that is still readable in a damaged run to a new run, and report what was lost
    Recover(Recover),
    /// Copy some of a run's steps to a new, smaller run: the last epoch, every n-th step, or a window
    #[command(after_long_help = help::DERIVE_JSON)]
    Prune(Prune),
    /// Copy a run to a new one with the same content in fewer bytes
    #[command(after_long_help = help::DERIVE_JSON)]
    Compact(Compact),
    /// Copy a run to a new one without command line, notes, names of files and classes, and, on request, stored examples
    #[command(after_long_help = format!("{}\n\n{}", help::REDACT, help::DERIVE_JSON))]
    Redact(Redact),
    /// Write the model as it was before any recorded step to a safetensors file
    Checkpoint(Checkpoint),
    /// Print the exactness matrix: scores against finite differences of re-weighted training, in float64
    #[cfg(feature = "record")]
    Exactness(Exactness),
    /// Time the steps of a task on this machine: training, replay, gradient and decoding; needs no data
    #[cfg(feature = "record")]
    #[command(after_long_help = help::BENCH)]
    Bench(Bench),
    /// Run an experiment over many runs: how well scores agree with retraining, or what recording costs
    #[cfg(feature = "record")]
    #[command(subcommand)]
    Experiment(Experiment),
    /// Print completions for a shell, for example: hindcast completions bash > /etc/bash_completion.d/hindcast
    Completions(Completions),
    /// Print the manual page, or write one page per verb
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
    /// Write hindcast.1, hindcast-record.1 and so on to this folder (created if missing)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
