//! How a verb ended, and the exit code of the process.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::{in_one_line, interrupt};
use crate::terminal;

/// How a verb ended if it returned no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1: the verb ran to its end, and what it checked doesn't hold.
    Failed,
    /// Exit code 3: the trace has lost or corrupt data.
    Damaged,
}

/// Wrong usage that clap can't detect, such as a key that no task has: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub String);

/// Refuses a file name whose extension isn't that of the format that is written.
pub(crate) fn ends_in(option: &str, path: &Path, extension: &str) -> Result<(), Usage> {
    let found = path.extension().and_then(|e| e.to_str());
    if found.is_some_and(|e| e.eq_ignore_ascii_case(extension)) {
        return Ok(());
    }
    Err(Usage(format!(
        "{option} {}: expected a name that ends in .{extension}",
        path.display()
    )))
}

const CANNOT_PRINT: &str = "cannot write to standard output";

/// Prints help, the version or clap's error, and returns the exit code.
pub(crate) fn answered(answer: &clap::Error) -> ExitCode {
    let code = u8::try_from(answer.exit_code()).unwrap_or(2);
    match answer.print() {
        // Help that can't be printed is a failure, unless its reader closed the pipe.
        Err(e) if code == 0 && e.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "{CANNOT_PRINT}: {e}");
            ExitCode::from(1)
        }
        _ => ExitCode::from(code),
    }
}

/// Prints how a verb ended if it failed, and returns the exit code.
pub(crate) fn exit(program: &str, outcome: anyhow::Result<Outcome>) -> ExitCode {
    let (code, ended) = match outcome {
        Ok(Outcome::Fine) => (0, true),
        Ok(Outcome::Failed) => (1, true),
        Ok(Outcome::Damaged) => (3, true),
        Err(error) => (failed(program, &error), false),
    };
    // A reader that closes the pipe (`| head`) is not a failure; a full disk is. Neither hides the verb's own failure.
    let Some(problem) = terminal::unprinted() else {
        return ExitCode::from(code);
    };
    let rest = if ended {
        "; the command was completed, and its output files were written"
    } else {
        ""
    };
    let _ = writeln!(
        io::stderr(),
        "{program}: {CANNOT_PRINT}: {}{rest}",
        terminal::message(&problem)
    );
    ExitCode::from(code.max(1))
}

/// Prints the error of a verb, prefixed with the program's name, and returns the exit code.
pub(crate) fn failed(program: &str, error: &anyhow::Error) -> u8 {
    let code = exit_code(error);
    let mut out = io::stderr();
    let _ = writeln!(out, "{program}: {}", terminal::message(&in_one_line(error)));
    if code == 3 {
        let _ = writeln!(
            out,
            "{program}: `hindcast verify` lists all damage; `hindcast recover` copies what is readable to a new run"
        );
    }
    if refused_for_memory(error) {
        let _ = writeln!(
            out,
            "{program}: free memory, use a larger machine, or raise the limit (--memory SIZE)"
        );
    }
    code
}

/// Whether the error refuses a run that may need more memory than is available or allowed.
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
            .is_some_and(|e| {
                e.is_damage() || matches!(e, hindcast_format::FormatError::NotIntact { .. })
            })
    });
    if damaged { 3 } else { 1 }
}
