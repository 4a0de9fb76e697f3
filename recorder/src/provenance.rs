//! What a new run says about the program and the machine that record it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hindcast_format::{made_here, made_note};

/// The version of candle that this crate is built with.
#[cfg(feature = "candle")]
const CANDLE: &str = "0.11";
/// Longest command line that is noted, in bytes.
const LONGEST: usize = 4096;
/// How long git may take. A repository on slow storage mustn't delay a training.
const PATIENCE: Duration = Duration::from_secs(2);

/// The notes. `command_line` says whether they include the command line.
pub(crate) fn notes(command_line: bool) -> Vec<(String, String)> {
    let mut notes = made_here();
    let mut add = |what: &str, text: Option<String>| notes.extend(text.map(|t| made_note(what, t)));
    add("features", Some(features()));
    add("program", program());
    add("commit", commit());
    add("gpu", gpu());
    if command_line {
        add("command", Some(line(std::env::args_os())));
    }
    notes
}

/// The parts of this crate that were built.
fn features() -> String {
    #[cfg(feature = "candle")]
    let base = format!("candle {CANDLE}");
    #[cfg(not(feature = "candle"))]
    let base = "without candle".to_owned();
    if cfg!(feature = "cuda") {
        base + ", cuda"
    } else {
        base
    }
}

/// The name of the program's file.
fn program() -> Option<String> {
    let path = std::env::current_exe().ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// The commit of the repository in which the program runs, and whether tracked files differ from it. `None` if there is no such
/// repository, or no git.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--abbrev=64", "--exclude=*"])
        .arg("--dirty= with changes")
        // Reading must not write the index.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let child = patiently(git.spawn().ok()?)?;
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

/// Waits until the process has ended. Ends it, and returns `None`, if that takes too long.
fn patiently(mut child: Child) -> Option<Child> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(_)) => return Some(child),
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// NVIDIA's driver and the models of its devices. `None` if there are none, or for a build without CUDA.
fn gpu() -> Option<String> {
    if !cfg!(feature = "cuda") {
        return None;
    }
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let devices = std::fs::read_dir("/proc/driver/nvidia/gpus").ok()?;
    let models = devices.flatten().filter_map(|device| {
        let about = std::fs::read_to_string(device.path().join("information")).ok()?;
        let model = about.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(model.trim().to_owned())
    });
    let mut models: Vec<String> = models.collect();
    models.sort();
    models.push(driver.lines().next().unwrap_or_default().to_owned());
    Some(models.join("; "))
}

/// A command line, quoted for a POSIX shell.
fn line(words: impl Iterator<Item = std::ffi::OsString>) -> String {
    let words = words.map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    let mut line = words.collect::<Vec<_>>().join(" ");
    if line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_run_again() {
        let of = |words: &[&str]| line(words.iter().map(|word| (*word).into()));
        assert_eq!(
            of(&["hindcast", "record", "my task.toml", "--set", "a=[1]", ""]),
            "hindcast record 'my task.toml' --set 'a=[1]' ''"
        );
        assert_eq!(of(&["it's"]), r"'it'\''s'");
        assert!(of(&["é".repeat(5000).as_str()]).len() < LONGEST + 8);
    }

    #[test]
    fn the_command_line_is_left_out_if_asked() {
        let has = |notes: Vec<(String, String)>| {
            let mut keys = notes.into_iter().map(|(key, _)| key);
            keys.any(|key| key == "made.command")
        };
        assert!(has(notes(true)) && !has(notes(false)));
    }

    #[cfg(feature = "candle")]
    #[test]
    fn the_version_of_candle_is_the_one_in_use() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let workspace: toml::Table = std::fs::read_to_string(root).unwrap().parse().unwrap();
        let candle = &workspace["workspace"]["dependencies"]["candle-core"]["version"];
        let version = candle.as_str().unwrap();
        assert!(version.starts_with(&format!("{CANDLE}.")), "{version}");
    }
}
