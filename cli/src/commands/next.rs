//! The command that usually follows a verb, printed at its end.

use std::path::Path;

use super::context::Models;
use crate::report::reproduce::Words;
use crate::terminal::say;

/// The beginning of a command about a run, by the program that is running.
pub(crate) fn words(
    models: &Models,
    verb: &str,
    run: &Path,
    data: Option<&Path>,
    labels: Option<&Path>,
) -> Words {
    let words = Words::new(&program(models), verb, run, data);
    match labels {
        // Only the commands that load the data need the labels.
        Some(labels) if data.is_some() => words.option("--labels", &labels.display().to_string()),
        _ => words,
    }
}

/// Prints the command, with what it shows as a comment, so that the line can be pasted into a shell.
pub(crate) fn tell(command: Words, shows: &str) {
    say!("next: {}   # {shows}", command.text());
}

/// The name of the program in commands that are shown.
pub(crate) fn program(models: &Models) -> String {
    match models {
        Models::Recorded => "hindcast".to_owned(),
        Models::Own(_) => std::env::args_os()
            .next()
            .and_then(|word| Some(Path::new(&word).file_stem()?.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "hindcast".to_owned()),
    }
}
