//! Closed or full standard output and standard error: the exit code still tells the result, and nothing panics.

use std::fs::{self, File};
use std::process::Stdio;

use super::*;

/// A pipe that its reader has closed.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A full disk.
fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

fn run(dir: &Path, words: &[&str], out: Stdio) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .current_dir(dir)
        .stdout(out)
        .output()
        .unwrap()
}

/// Records `run`, and copies it to `hit` with a damaged segment.
fn damaged(dir: &Path) {
    small_run(dir);
    let segment = dir.join("run/seg-00000000.hcs");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::create_dir(dir.join("hit")).unwrap();
    fs::copy(dir.join("run/manifest.json"), dir.join("hit/manifest.json")).unwrap();
    fs::write(dir.join("hit/seg-00000000.hcs"), bytes).unwrap();
}

#[test]
fn a_closed_or_full_output_does_not_change_the_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    damaged(dir);
    let other = "0".repeat(64);
    for (words, verdict) in [
        (&["verify", "run"][..], 0),
        (&["verify", "run", "--json"], 0),
        (&["verify", "run", "--head", &other], 3),
        (&["verify", "hit"], 3),
        (&["verify", "hit", "--json"], 3),
        (&["info", "hit"], 3),
        (&["influence", "hit"], 3),
        (&["influence", "none"], 1),
        (&["verify"], 2),
        (&["--help"], 0),
        (&["verify", "--help"], 0),
        (&["--version"], 0),
    ] {
        let output = run(dir, words, gone());
        let said = stderr(&output);
        assert_eq!(code(&output), verdict, "{words:?} | true: {said}");
        assert!(!said.contains("standard output"), "{words:?}: {said}");
        // Output that can't be printed is a failure, and doesn't hide damage.
        let output = run(dir, words, full());
        let said = stderr(&output);
        let expected = if verdict == 0 { 1 } else { verdict };
        assert_eq!(code(&output), expected, "{words:?} >/dev/full: {said}");
        let told = said.contains("cannot write to standard output: No space left");
        let silent = verdict == 2 || words[0] == "influence";
        assert_eq!(told, !silent, "{words:?}: {said}");
    }
    for (name, out) in [("a", gone()), ("b", full())] {
        let words = ["recover", "hit", "--out", name];
        assert_eq!(code(&run(dir, &words, out)), 3);
        fine(dir, &["verify", name]);
    }
}

#[test]
fn a_report_that_cannot_be_printed_does_not_hide_the_written_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for (words, made) in [
        (&["recover", "run", "--out", "new"][..], "new/manifest.json"),
        (
            &["prune", "run", "--keep", "every=2", "--out", "thin"],
            "thin/manifest.json",
        ),
        (&["influence", "run"], "scores.csv"),
        (&["scores", "scores.csv", "--out", "part.csv"], "part.csv"),
        (
            &["export", "run", "--steps", "0..2", "--out", "steps"],
            "steps/steps.jsonl",
        ),
    ] {
        let output = run(dir, words, full());
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{words:?}: {said}");
        assert!(
            said.contains("its output files were written"),
            "{words:?}: {said}"
        );
        assert!(dir.join(made).exists(), "{words:?}");
    }
    fine(dir, &["verify", "new"]);
}

#[test]
fn nothing_panics_if_standard_error_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, err) in [("a", gone()), ("b", full())] {
        let words = [
            "record",
            "digits",
            "--out",
            name,
            "--set",
            "data.train=50",
            "--set",
            "data.validation=20",
            "--set",
            "data.test=0",
            "--set",
            "train.epochs=1",
        ];
        let status = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(words)
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(err)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0), "{name}");
        fine(dir, &["verify", name]);
    }
    for (words, expected) in [
        (&["influence", "a"][..], 0),
        (&["influence", "none"], 1),
        (&["influence", "--nonsense"], 2),
        (&["verify", "none"], 1),
    ] {
        for (out, err) in [(gone(), gone()), (full(), full())] {
            let status = Command::new(env!("CARGO_BIN_EXE_hindcast"))
                .args(words)
                .current_dir(dir)
                .stdout(out)
                .stderr(err)
                .status()
                .unwrap();
            let status = status.code().unwrap();
            // A full disk for the results is a failure.
            assert!(
                status == expected || (status, expected) == (1, 0),
                "{words:?}: {status}"
            );
        }
    }
}
