//! The verbs of a program that has its own model.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::context::Models;
use super::{Outcome, answered, exit, keys, threads};
use crate::args::help;
use crate::args::layout::laid_out;
use crate::args::{
    Checkpoint, Clean, Compare, Counterfactual, Dynamics, Explain, Export, History, Influence,
    Info, KeyArgs, Predict, Recover, Report, Scores, Spikes, Threads, Verify,
};
use crate::commands::analysis::{
    clean, compare, counterfactual, dynamics, explain, history, influence, predict, report, scores,
    spikes,
};
use crate::commands::traces::{checkpoint, export, info, recover, verify};
use crate::own::OwnSource;

/// Ask which training examples made this model what it is.
#[derive(Debug, Parser)]
#[command(arg_required_else_help = true, max_term_width = 100, after_help = help::EXIT_CODES)]
struct Own {
    /// Don't compare the model's derivatives with finite differences first
    #[arg(long, global = true)]
    skip_check: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what a run contains
    #[command(after_long_help = help::INFO_JSON)]
    Info(Info),
    /// Check that a trace is complete and unaltered, and (--replay) that its steps are training steps of this model on this data
    #[command(after_long_help = help::VERIFY_JSON)]
    Verify(Verify),
    /// Write the recorded model's predictions for a split: class or value, probability, loss; and list the wrong ones
    #[command(after_long_help = help::PREDICT)]
    Predict(Predict),
    /// Replay the trace backwards and rank the training examples by influence
    #[command(after_long_help = format!("{}\n\n{}", help::INFLUENCE, help::NAMES))]
    Influence(Influence),
    /// Explain predictions: which training examples pushed the model towards the label of an example, and which away from it
    #[command(after_long_help = help::EXPLAIN)]
    Explain(Explain),
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
    /// Find the examples whose label is probably wrong, write decisions to edit, and what training on the cleaned data gains
    #[command(after_long_help = help::CLEAN)]
    Clean(Clean),
    /// Write a run and its scores as one HTML page: training, harmful and helpful examples, and how far to trust them
    #[command(after_long_help = format!("{}\n\n{}", help::REPORT, help::NAMES))]
    Report(Report),
    /// Write steps as safetensors files, one per step, with their metadata in steps.jsonl
    #[command(after_long_help = help::EXPORT_JSON)]
    Export(Export),
    /// Copy everything that is still readable in a damaged run to a new run, and report what was lost
    Recover(Recover),
    /// Write the model as it was before any recorded step to a safetensors file
    Checkpoint(Checkpoint),
}

/// Runs a command line whose first word is the program's name.
pub(crate) fn main(model: OwnSource, words: impl Iterator<Item = OsString>) -> ExitCode {
    super::interrupt::survive_file_size_limits();
    let words: Vec<OsString> = words.collect();
    let name = words
        .first()
        .and_then(|word| Path::new(word).file_stem())
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from("hindcast"))
        .display()
        .to_string();
    let command = Own::command()
        .display_name(name.clone())
        .bin_name(name.clone());
    let parsed = laid_out(command)
        .try_get_matches_from(words)
        .and_then(|matches| Own::from_arg_matches(&matches));
    let own = match parsed {
        Ok(own) => own,
        Err(error) => return answered(&error),
    };
    exit(&name, run(own, model))
}

fn run(own: Own, mut model: OwnSource) -> anyhow::Result<Outcome> {
    keys::take(own.keys.identity.as_deref())?;
    model.check &= !own.skip_check;
    let models = Models::Own(model);
    let computes = match &own.verb {
        Verb::Verify(args) => args.replay.then_some(args.threads),
        Verb::Predict(args) => Some(args.model.threads),
        Verb::Explain(args) => Some(args.replay.threads),
        Verb::Influence(args) => Some(args.threads),
        Verb::Compare(args) => (!args.no_losses).then_some(args.model.threads),
        Verb::History(args) => args.computes().then_some(args.replay.threads),
        Verb::Dynamics(args) => Some(args.replay.threads),
        Verb::Spikes(args) => Some(args.replay.threads),
        Verb::Counterfactual(args) => Some(args.threads),
        Verb::Clean(args) => Some(args.replay.threads),
        Verb::Report(_) => Some(Threads::default()),
        _ => None,
    };
    if let Some(asked) = computes {
        threads::start_beside_others(asked)?;
    }
    match own.verb {
        Verb::Info(args) => info::run(&args),
        Verb::Verify(args) => verify::run(&args, &models),
        Verb::Predict(args) => predict::run(&args, &models),
        Verb::Influence(args) => influence::run(&args, &models),
        Verb::Explain(args) => explain::run(&args, &models),
        Verb::Scores(args) => scores::run(&args),
        Verb::Compare(args) => compare::run(&args, &models),
        Verb::History(args) => history::run(&args, &models),
        Verb::Dynamics(args) => dynamics::run(&args, &models),
        Verb::Spikes(args) => spikes::run(&args, &models),
        Verb::Counterfactual(args) => counterfactual::run(&args, &models),
        Verb::Clean(args) => clean::run(&args, &models),
        Verb::Report(args) => report::run(&args, &models),
        Verb::Export(args) => export::run(&args),
        Verb::Recover(args) => recover::run(&args),
        Verb::Checkpoint(args) => checkpoint::run(&args),
    }
}
