//! Arguments of the verbs about the curves of runs.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::Args;

use super::dynamics::ReplayArgs;
use super::labels::LabelArgs;
use super::numbers::at_least_one;
use super::predictions::ModelArgs;

/// `hindcast history`
#[derive(Debug, Args)]
pub struct History {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files, for --validation and --gradients
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Steps to show: all, last-epoch, or A..B (B excluded)
    #[arg(long, value_name = "WINDOW", default_value = "all")]
    pub window: String,
    /// Add the norms of the parameters and of the updates and, for plain SGD, of the gradients; reads the tensors of all steps
    #[arg(long)]
    pub norms: bool,
    /// Add the norms of the gradients by replaying each step; needs the model and the data
    #[arg(long)]
    pub gradients: bool,
    /// Add the loss of the validation split after each epoch; needs the model and the data
    #[arg(long)]
    pub validation: bool,
    /// Measure the validation loss after every N steps and after the last one, instead of after each epoch
    #[arg(long, value_name = "N", requires = "validation", value_parser = at_least_one::<NonZeroU64>, allow_negative_numbers = true)]
    pub every: Option<NonZeroU64>,
    /// Measure the validation loss on N examples, which are spread over the split, instead of on all
    #[arg(long, value_name = "N", requires = "validation", value_parser = at_least_one::<NonZeroUsize>, allow_negative_numbers = true)]
    pub examples: Option<NonZeroUsize>,
    /// Write a table with one row per step: .csv or (in builds with the feature) .parquet
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write an event file for TensorBoard to this folder (created if missing)
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
    /// Draw the losses
    #[arg(long, value_name = "FILE.svg")]
    pub picture: Option<PathBuf>,
    /// How models are run.
    #[command(flatten)]
    pub replay: ReplayArgs,
    /// For scripts: print a summary (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

impl History {
    /// Whether the history needs the model and the data.
    pub(crate) fn computes(&self) -> bool {
        self.gradients || self.validation
    }
}

/// `hindcast compare`
#[derive(Debug, Args)]
pub struct Compare {
    /// Folder of the first run, A
    pub run: PathBuf,
    /// Folder of the second run, B
    pub other: PathBuf,
    /// Folder with the data files of both runs, for the losses
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder with the data files of run B, if it was trained on other files
    #[arg(long, value_name = "DIR")]
    pub other_data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// Leave out the losses of the splits, and the forward passes that they cost; needs no data
    #[arg(long)]
    pub no_losses: bool,
    /// Draw the losses of both runs
    #[arg(long, value_name = "FILE.svg")]
    pub picture: Option<PathBuf>,
    /// How the models are run.
    #[command(flatten)]
    pub model: ModelArgs,
    /// For scripts: print the result (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}
