//! One verb, one file. This one runs them and turns how they ended into an exit code.
//!
//! All output of the verbs goes through the module `clean`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::clean;
use context::Models;

mod advice;
pub(crate) mod analysis;
mod completions;
pub(crate) mod context;
mod interrupt;
#[cfg(feature = "record")]
mod lab;
mod memory;
pub(crate) mod own;
mod picture;
pub(crate) mod progress;
mod recording;
mod threads;
pub(crate) mod traces;

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

const CANNOT_PRINT: &str = "cannot write to standard output";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    interrupt::survive_file_size_limits();
    match Cli::try_parse() {
        Ok(cli) => exit("hindcast", run(cli)),
        Err(answer) => answered(&answer),
    }
}

/// Prints help, a version or what is wrong with the words; the exit code.
pub(crate) fn answered(answer: &clap::Error) -> ExitCode {
    let code = u8::try_from(answer.exit_code()).unwrap_or(2);
    match answer.print() {
        // Help that can't be printed is no help, unless its reader has seen enough.
        Err(e) if code == 0 && e.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "{CANNOT_PRINT}: {e}");
            ExitCode::from(1)
        }
        _ => ExitCode::from(code),
    }
}

/// The exit code of how a verb ended; what went wrong is said in the name of the program.
fn exit(program: &str, outcome: anyhow::Result<Outcome>) -> ExitCode {
    let (code, ended) = match outcome {
        Ok(Outcome::Fine) => (0, true),
        Ok(Outcome::Failed) => (1, true),
        Ok(Outcome::Damaged) => (3, true),
        Err(error) => {
            let code = exit_code(&error);
            let mut out = io::stderr();
            let _ = writeln!(out, "{program}: {}", clean::message(&in_one_line(&error)));
            if code == 3 {
                let _ = writeln!(
                    out,
                    "{program}: `hindcast verify` says all that is damaged; `hindcast recover` writes what is left as a new run"
                );
            }
            if refused_for_memory(&error) {
                let _ = writeln!(
                    out,
                    "{program}: free memory, use a larger machine, or raise the limit (--memory SIZE)"
                );
            }
            (code, false)
        }
    };
    // A reader that has seen enough (`| head`) is no failure; a full disk is. Neither changes the verdict.
    let Some(problem) = clean::unprinted() else {
        return ExitCode::from(code);
    };
    let rest = if ended {
        "; the command ran to its end, and the files that it was to write are written"
    } else {
        ""
    };
    let _ = writeln!(
        io::stderr(),
        "{program}: {CANNOT_PRINT}: {}{rest}",
        clean::message(&problem)
    );
    ExitCode::from(code.max(1))
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    if computes(&cli.command) {
        threads::start()?;
    }
    match cli.command {
        #[cfg(feature = "record")]
        Command::Demo(args) => recording::demo::run(&args),
        Command::Task(args) => recording::task::run(&args),
        #[cfg(feature = "record")]
        Command::Record(args) => recording::record::run(&args),
        Command::Info(args) => traces::info::run(&args),
        Command::Verify(args) => traces::verify::run(&args, &Models::Recorded),
        Command::Methods(args) => analysis::methods::run(&args),
        Command::Influence(args) => analysis::influence::run(&args, &Models::Recorded),
        Command::Scores(args) => analysis::scores::run(&args),
        Command::Counterfactual(args) => analysis::counterfactual::run(&args, &Models::Recorded),
        Command::Bounds(args) => analysis::bounds::run(&args),
        Command::Report(args) => analysis::report::run(&args, &Models::Recorded),
        Command::Export(args) => traces::export::run(&args),
        Command::Recover(args) => traces::recover::run(&args),
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

/// Whether a verb loads data or computes with a model on all cores. `bench` has its own option for the number of
/// threads.
fn computes(command: &Command) -> bool {
    match command {
        #[cfg(feature = "record")]
        Command::Demo(_) | Command::Record(_) | Command::Exactness(_) => true,
        #[cfg(feature = "record")]
        Command::Experiment(_) => true,
        Command::Verify(args) => args.replay,
        Command::Influence(_)
        | Command::Counterfactual(_)
        | Command::Bounds(_)
        | Command::Report(_) => true,
        _ => false,
    }
}

/// The chain of causes and the advice for it. A cause that its effect quotes is not repeated.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    if let Some(advice) = advice::advice(error) {
        text.push_str("; ");
        text.push_str(&advice);
    }
    text
}

/// Whether the error is a run that may need more memory than is available or allowed.
fn refused_for_memory(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<hindcast_format::FormatError>(),
            Some(hindcast_format::FormatError::Memory { .. })
        )
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Usage>()) {
        return 2;
    }
    if error
        .chain()
        .any(|cause| cause.is::<interrupt::Interrupted>())
    {
        return interrupt::exit_code();
    }
    let damaged = error.chain().any(|cause| {
        cause
            .downcast_ref::<hindcast_format::FormatError>()
            .is_some_and(|e| e.is_damage())
    });
    if damaged { 3 } else { 1 }
}
