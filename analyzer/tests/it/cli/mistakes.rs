//! Days on which the user errs: what went wrong, where, and what to do.

use std::fs;
use std::process::Stdio;

use super::*;

#[test]
fn wrong_usage_exits_with_2_and_says_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    for (words, expected) in [
        (vec!["influense"], "influence"),
        (vec!["influence", "run", "--resum"], "--resume"),
        (vec!["influence", "run", "--precision", "f46"], "f64"),
        (vec!["record", "digitz", "--out", "run"], "digits"),
        (
            vec!["record", "digits", "--out", "run", "--set", "train.epoch=1"],
            "epochs",
        ),
        (
            vec!["record", "digits", "--out", "run", "--set", "train.epochs"],
            "KEY=VALUE",
        ),
        (
            vec!["record", "digits", "--out", "run", "--keep", "some"],
            "last-epoch",
        ),
        (
            vec!["record", "digits", "--out", "run", "--device", "gpu"],
            "cuda",
        ),
        (vec!["influence", "run", "--window", "5..2"], "5..2"),
        (vec!["influence", "run", "--query", "valid"], "validation"),
        (vec!["influence", "run", "--out", "scores.xls"], "csv"),
        (vec!["counterfactual", "run"], "--without"),
    ] {
        let output = hindcast(dir.path(), &words);
        assert_eq!(code(&output), 2, "{words:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(expected),
            "{words:?} does not say {expected:?}: {}",
            stderr(&output)
        );
        assert!(
            fs::read_dir(dir.path()).unwrap().next().is_none(),
            "{words:?} left something behind"
        );
    }
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for verb in ["info", "verify", "influence"] {
        let output = hindcast(dir, &[verb, "nowhere"]);
        assert_eq!(code(&output), 1, "{verb}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("nowhere"),
            "{verb}: {}",
            stderr(&output)
        );
    }
    let output = hindcast(dir, &["record", "mnist-cnn", "--data", ".", "--out", "run"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("train-images-idx3-ubyte"),
        "{}",
        stderr(&output)
    );
    assert!(!dir.join("run").exists(), "a run without data is not begun");
}

#[test]
fn an_existing_run_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let before = fs::read(dir.join("run/manifest.json")).unwrap();
    let output = hindcast(dir, &["record", "digits", "--out", "run"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("exists"), "{}", stderr(&output));
    assert_eq!(fs::read(dir.join("run/manifest.json")).unwrap(), before);
}

#[test]
fn an_example_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let output = hindcast(dir, &["influence", "run", "--query", "validation:40"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("40"), "{}", stderr(&output));
    fs::write(dir.join("out.txt"), "3\n120\n").unwrap();
    let output = hindcast(dir, &["counterfactual", "run", "--without", "out.txt"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("120"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(["task", "show", "cifar10-cnn"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}
