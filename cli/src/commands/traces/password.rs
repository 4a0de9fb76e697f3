//! Passwords of keys: from a file, or from the terminal.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use hindcast_model::files::{self, KEY};

/// The password of a key that exists.
pub(super) fn of_key(file: Option<&Path>, key: &Path) -> anyhow::Result<String> {
    match file {
        Some(file) => from_file(file),
        None => ask(&format!("password of {}: ", key.display())),
    }
}

/// The password of a new key, asked twice on a terminal.
pub(super) fn new(file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(file) = file {
        return from_file(file);
    }
    let first = ask("new password for the secret key: ")?;
    if first.is_empty() {
        bail!("the password is empty; --no-password makes a key without one");
    }
    if ask("the same again: ")? != first {
        bail!("the two passwords differ: nothing was written");
    }
    Ok(first)
}

fn from_file(file: &Path) -> anyhow::Result<String> {
    let text = files::read_text(file, KEY)
        .with_context(|| format!("--password-file {}", file.display()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => bail!(
            "--password-file {}: expected the password in the first line, got an empty one",
            file.display()
        ),
    }
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        bail!(
            "a password is needed, and there is no terminal to ask for it: give --password-file FILE"
        );
    }
    rpassword::prompt_password(prompt).context("reading the password from the terminal")
}
