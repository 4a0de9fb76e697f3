//! Programs with their own model, as separate processes. A module with such a program has an ignored test `process`, which
//! this binary runs to become the program.

use std::path::Path;
use std::process::{Command, ExitCode};

/// The variable with the command line, one word per line.
const WORDS: &str = "HINDCAST_TEST_WORDS";

/// The command line of the program `name`, if this process was started as one.
pub(crate) fn words(name: &str) -> Option<Vec<String>> {
    let words = std::env::var(WORDS).ok()?;
    let name = std::iter::once(name);
    Some(name.chain(words.split('\n')).map(String::from).collect())
}

/// Ends the process with this code, which can't be converted to a number otherwise.
pub(crate) fn exit(code: ExitCode) -> ! {
    let is = |n: u8| format!("{code:?}") == format!("{:?}", ExitCode::from(n));
    let code = (0..=3).find(|&n| is(n));
    std::process::exit(code.map_or(99, i32::from))
}

/// The command that starts the program of a module in `dir`.
pub(crate) fn command(module: &str, dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            &format!("{module}::process"),
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(WORDS, words.join("\n"))
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .current_dir(dir);
    command
}

/// A shell script that runs the program of a module with the script's arguments.
#[cfg(unix)]
pub(crate) fn script(module: &str) -> String {
    format!(
        "#!/bin/sh\n{WORDS}=$(printf '%s\\n' \"$@\")\nexport {WORDS}\n\
         exec '{}' --exact {module}::process --ignored --nocapture --test-threads=2\n",
        std::env::current_exe().unwrap().display()
    )
}
