//! One verb, one file. This one runs them and turns how they ended into an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use context::Models;

mod checkpoint;
pub(crate) mod context;
mod counterfactual;
#[cfg(feature = "record")]
mod demo;
#[cfg(feature = "record")]
mod exactness;
#[cfg(feature = "experiments")]
mod experiment;
mod export;
mod influence;
mod info;
pub(crate) mod own;
mod pictures;
mod progress;
#[cfg(feature = "record")]
mod record;
mod tables;
mod task;
mod verify;

/// How a verb ended when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1: it ran, and the answer is no.
    Failed,
    /// Exit code 3: the trace has lost or corrupt data.
    Damaged,
}

/// Wrong usage that clap cannot see (a key that no task has, a window that does not parse): exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub String);

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    exit("hindcast", run(Cli::parse()))
}

/// The exit code of how a verb ended; what went wrong is said in the name of the program.
fn exit(program: &str, outcome: anyhow::Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Damaged) => ExitCode::from(3),
        // Whoever reads our output has seen enough (`| head`): that is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}` prints the chain of causes on one line.
            let _ = writeln!(io::stderr(), "{program}: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    match cli.command {
        #[cfg(feature = "record")]
        Command::Demo(args) => demo::run(&args),
        Command::Task(args) => task::run(&args),
        #[cfg(feature = "record")]
        Command::Record(args) => record::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Verify(args) => verify::run(&args, &Models::Recorded),
        Command::Influence(args) => influence::run(&args, &Models::Recorded),
        Command::Counterfactual(args) => counterfactual::run(&args, &Models::Recorded),
        Command::Export(args) => export::run(&args),
        Command::Checkpoint(args) => checkpoint::run(&args),
        #[cfg(feature = "record")]
        Command::Exactness(args) => exactness::run(&args),
        #[cfg(feature = "experiments")]
        Command::Experiment(args) => experiment::run(&args),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Usage>()) {
        return 2;
    }
    let damaged = error.chain().any(|cause| {
        cause
            .downcast_ref::<hindcast_format::FormatError>()
            .is_some_and(|e| e.is_damage())
    });
    if damaged { 3 } else { 1 }
}
