//! Ctrl-C, `kill` and `kill -9` during the work: what is kept, how it resumes, and the exit code.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::slices::{end_by, pause_when, signal};
use super::*;

/// A run with 12 steps per epoch, whose replay takes long enough to be interrupted.
fn longer_run(dir: &Path, epochs: u64) {
    fine(
        dir,
        &[
            "record",
            "digits",
            "--out",
            "run",
            "--set",
            "data.train=120",
            "--set",
            "data.validation=20",
            "--set",
            "data.test=0",
            "--set",
            &format!("train.epochs={epochs}"),
            "--set",
            "train.batch=10",
        ],
    );
}

fn start(dir: &Path, words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the child has written a line with this start to standard error. Returns a thread that reads the rest.
fn wait_for(child: &mut Child, begins: &str) -> std::thread::JoinHandle<String> {
    let mut from = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with(begins) {
        line.clear();
        let read = from.read_line(&mut line).unwrap();
        assert!(read > 0, "it ended without {begins:?}");
    }
    std::thread::spawn(move || {
        let mut rest = String::new();
        from.read_to_string(&mut rest).unwrap();
        rest
    })
}

/// Number of steps done in a checkpoint, read without the library.
fn swept(path: &Path) -> Option<u64> {
    let bytes = fs::read(path).ok()?;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).ok()?;
    let header = metadata.metadata().as_ref()?.get("hindcast-sweep")?.clone();
    let header: serde_json::Value = serde_json::from_str(&header).ok()?;
    Some(header["end"].as_u64()? - header["next"].as_u64()?)
}

/// Sends a signal to the child when its checkpoint has this many steps. Returns false if it ended before.
fn stopped_at(child: &mut Child, checkpoint: &Path, steps: u64, by: Signal) -> bool {
    let there = pause_when(child, || swept(checkpoint) >= Some(steps));
    if there {
        end_by(child, by);
    }
    there
}

#[test]
fn an_interrupted_sweep_resumes_to_the_same_table() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    longer_run(dir, 8);
    let words = |out: &'static str| {
        [
            "influence",
            "run",
            "--query",
            "validation",
            "--query",
            "validation:3",
            "--per-epoch",
            "--checkpoint-every",
            "0",
            "--out",
            out,
        ]
    };
    fine(dir, &words("whole.csv"));
    assert!(
        !dir.join("whole.csv.sweep.safetensors").exists(),
        "a finished sweep leaves no checkpoint"
    );
    let checkpoint = dir.join("scores.csv.sweep.safetensors");
    let mut words = words("scores.csv").to_vec();
    for (steps, by, code) in [
        (5, Signal::INT, Some(130)),
        (12, Signal::TERM, Some(143)),
        (25, Signal::KILL, None),
        (40, Signal::INT, Some(130)),
    ] {
        let mut child = start(dir, &words);
        assert!(
            stopped_at(&mut child, &checkpoint, steps, by),
            "the sweep ended before the signal"
        );
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{}", stderr(&output));
        if code.is_some() {
            let said = stderr(&output);
            assert!(
                said.contains("of 96 steps are swept") && said.contains("--resume"),
                "{said}"
            );
            assert!(!said.contains("96 of 96"), "{said}");
        }
        assert!(swept(&checkpoint) >= Some(steps));
        assert!(!dir.join("scores.csv").exists());
        if words.last() != Some(&"--resume") {
            // Starting again would discard the work, so it needs an explicit decision.
            let output = hindcast(dir, &words);
            assert_eq!(super::code(&output), 1);
            assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
            words.push("--resume");
        }
    }
    // A different question can't use the checkpoint.
    let output = hindcast(
        dir,
        &["influence", "run", "--resume", "--query", "validation:4"],
    );
    assert_eq!(super::code(&output), 1);
    assert!(
        stderr(&output).contains("its query: expected validation:4, got validation, validation:3"),
        "{}",
        stderr(&output)
    );
    fine(dir, &words);
    assert!(
        fs::read(dir.join("scores.csv")).unwrap() == fs::read(dir.join("whole.csv")).unwrap(),
        "the table of an interrupted sweep differs from that of an uninterrupted one"
    );
    assert!(
        !checkpoint.exists(),
        "a finished sweep leaves no checkpoint"
    );
    // There is no checkpoint: the command starts from the beginning, and says so.
    let output = hindcast(dir, &words);
    assert_eq!(super::code(&output), 0);
    assert!(
        stderr(&output).contains("from the beginning"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_counterfactual_stops_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    longer_run(dir, 50);
    fs::write(dir.join("out.txt"), "3\n").unwrap();
    let mut child = start(dir, &["counterfactual", "run", "--without", "out.txt"]);
    let rest = wait_for(&mut child, "to retrain: ");
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let said = rest.join().unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.contains("interrupted: ") && output.stdout.is_empty(),
        "{said}"
    );
}

#[cfg(feature = "record")]
#[test]
fn an_interrupted_recording_is_a_run_that_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut child = start(
        dir,
        &[
            "record",
            "digits",
            "--out",
            "run",
            "--set",
            "train.epochs=200",
        ],
    );
    let rest = wait_for(&mut child, "keeping all: ");
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let said = rest.join().unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("closed as unfinished"), "{said}");
    fine(dir, &["verify", "run"]);
    let info = fine(dir, &["info", "run"]);
    assert!(info.contains("unfinished"), "{info}");
}

/// A signal before the verb listens, or a second one, ends the process at once.
#[test]
fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    longer_run(dir, 50);
    fs::write(dir.join("out.txt"), "3\n").unwrap();
    let mut child = start(dir, &["counterfactual", "run", "--without", "out.txt"]);
    let rest = wait_for(&mut child, "to retrain: ");
    signal(&child, Signal::INT);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", rest.join().unwrap());
}

#[test]
fn an_interrupted_export_and_recovery_leave_nothing_that_looks_complete() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    longer_run(dir, 60);
    let begun = |name: &str| {
        let name = name.to_owned();
        move || {
            let entries = fs::read_dir(dir).unwrap().flatten();
            let mut paths = entries.map(|entry| entry.path());
            paths.any(|path| path.file_name().unwrap().to_string_lossy().contains(&name))
        }
    };
    for (words, sign, out) in [
        (
            ["export", "run", "--steps", "0..720", "--out", "steps"],
            "steps",
            "steps",
        ),
        (
            ["recover", "run", "--out", "new", "--memory", "8GB"],
            ".new",
            "new",
        ),
    ] {
        let mut child = start(dir, &words);
        let there = pause_when(&mut child, begun(sign));
        assert!(there, "{words:?} ended before it could be stopped");
        end_by(&child, Signal::INT);
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(130), "{words:?}: {said}");
        assert!(said.contains("interrupted: "), "{words:?}: {said}");
        assert!(!dir.join(out).exists(), "{words:?}: {said}");
    }
    assert!(
        fs::read_dir(dir).unwrap().count() == 1,
        "only the run is there"
    );
}
