//! Runs the command line of `hindcast`.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::layout::laid_out;
use crate::args::{Cli, Command, Threads};
use crate::commands::context::Models;
#[cfg(feature = "record")]
use crate::commands::lab;
use crate::commands::{
    Outcome, analysis, answered, completions, exit, interrupt, keys, recording, sharding, threads,
    traces,
};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    interrupt::survive_file_size_limits();
    let matches = laid_out(Cli::command()).try_get_matches();
    match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => exit("hindcast", run(cli)),
        Err(answer) => answered(&answer),
    }
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    keys::take(cli.keys.identity.as_deref())?;
    if let Some(asked) = computes(&cli.command) {
        threads::start(asked)?;
    }
    match cli.command {
        #[cfg(feature = "record")]
        Command::Demo(args) => recording::demo::run(&args),
        Command::Task(args) => recording::task::run(&args),
        #[cfg(feature = "record")]
        Command::Record(args) => recording::record::run(&args),
        Command::Info(args) => traces::info::run(&args),
        Command::Verify(args) => traces::verify::run(&args, &Models::Recorded),
        Command::Sign(args) => traces::sign::run(&args),
        Command::Keygen(args) => traces::keygen::run(&args),
        Command::Methods(args) => analysis::methods::run(&args),
        Command::Predict(args) => analysis::predict::run(&args, &Models::Recorded),
        Command::Influence(args) => analysis::influence::run(&args, &Models::Recorded),
        Command::Explain(args) => analysis::explain::run(&args, &Models::Recorded),
        Command::Scores(args) => analysis::scores::run(&args),
        Command::Compare(args) => analysis::compare::run(&args, &Models::Recorded),
        Command::History(args) => analysis::history::run(&args, &Models::Recorded),
        Command::Dynamics(args) => analysis::dynamics::run(&args, &Models::Recorded),
        Command::Spikes(args) => analysis::spikes::run(&args, &Models::Recorded),
        Command::Counterfactual(args) => analysis::counterfactual::run(&args, &Models::Recorded),
        Command::Merge(args) => sharding::merge::run(&args),
        Command::Clean(args) => analysis::clean::run(&args, &Models::Recorded),
        Command::Bounds(args) => analysis::bounds::run(&args),
        Command::Report(args) => analysis::report::run(&args, &Models::Recorded),
        Command::Export(args) => traces::export::run(&args),
        Command::Recover(args) => traces::recover::run(&args),
        Command::Prune(args) => traces::derive::prune(&args),
        Command::Compact(args) => traces::derive::compact(&args),
        Command::Redact(args) => traces::derive::redact(&args),
        Command::Checkpoint(args) => traces::checkpoint::run(&args),
        #[cfg(feature = "record")]
        Command::Exactness(args) => lab::exactness::run(&args),
        #[cfg(feature = "record")]
        Command::Bench(args) => lab::bench::run(&args),
        #[cfg(feature = "record")]
        Command::Experiment(args) => lab::experiment::run(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
    }
}

/// The threads of a verb that loads data or computes with a model, and so needs the thread pool. `bench` starts its own, with
/// the number of threads that its option gives.
fn computes(command: &Command) -> Option<Threads> {
    match command {
        #[cfg(feature = "record")]
        Command::Demo(_) | Command::Record(_) | Command::Exactness(_) => Some(Threads::default()),
        #[cfg(feature = "record")]
        Command::Experiment(_) => Some(Threads::default()),
        Command::Verify(args) => args.replay.then_some(args.threads),
        Command::Predict(args) => Some(args.model.threads),
        Command::Explain(args) => Some(args.replay.threads),
        Command::Influence(args) => Some(args.threads),
        Command::Counterfactual(args) => Some(args.threads),
        Command::Clean(args) => Some(args.replay.threads),
        Command::Bounds(args) => Some(args.threads),
        Command::Compare(args) => (!args.no_losses).then_some(args.model.threads),
        Command::History(args) => args.computes().then_some(args.replay.threads),
        Command::Dynamics(args) => Some(args.replay.threads),
        Command::Spikes(args) => Some(args.replay.threads),
        Command::Report(_) => Some(Threads::default()),
        _ => None,
    }
}
