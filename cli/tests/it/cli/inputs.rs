//! Inputs that aren't files, tasks that can't be trained, and systems without threads: reported at once, and nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Runs `hindcast`, which must end within half a minute.
fn at_once(dir: &Path, words: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("hindcast {words:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// Writes a task on `train.csv` with these layers.
fn task(dir: &Path, layers: &str) {
    let text = format!(
        "name = 'own'\n[data]\nsource = 'csv'\ntrain_files = 'train.csv'\nlabel = 'y'\n[model]\ninput = [2]\n\
         layers = [{layers}]\n[loss]\nkind = 'cross-entropy'\n[optimizer]\nkind = 'sgd'\n[schedule]\nkind = 'constant'\n\
         learning_rate = 0.1\n[train]\nepochs = 1\nbatch = 5\n"
    );
    fs::write(dir.join("task.toml"), text).unwrap();
}

/// Writes `train.csv` with this number of rows. `last` is the first value of the last row.
fn table(dir: &Path, rows: usize, last: &str) {
    let mut text = "a,b,y\n".to_owned();
    for row in 1..rows {
        text.push_str(&format!("{row},0.5,{}\n", row % 2));
    }
    text.push_str(&format!("{last},0.5,0\n"));
    fs::write(dir.join("train.csv"), text).unwrap();
}

const LINEAR: &str = "{ kind = 'linear', out = 2 }";

#[test]
fn a_pipe_a_device_and_a_folder_are_refused_as_input_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--out", "scores.csv"]);
    for name in ["pipe", "pipe.csv", "pipe.jsonl", "pipe.toml"] {
        let made = Command::new("mkfifo").arg(dir.join(name)).status().unwrap();
        assert!(made.success());
    }
    fs::create_dir(dir.join("folder.csv")).unwrap();
    let before = fs::read_dir(dir).unwrap().count();
    let query = ["vector:pipe", "vector:/dev/zero", "vector:folder.csv"];
    let mut all: Vec<(Vec<&str>, &str)> = vec![
        (vec!["record", "pipe.toml", "--out", "new"], "a pipe"),
        (vec!["record", "/dev/zero", "--out", "new"], "a device"),
        (vec!["task", "show", "./folder.csv"], "a folder"),
        (vec!["scores", "pipe.csv"], "a pipe"),
        (vec!["scores", "pipe.jsonl"], "a pipe"),
        (vec!["scores", "folder.csv"], "a folder"),
        (
            vec!["counterfactual", "run", "--top", "3", "pipe.csv"],
            "a pipe",
        ),
        (
            vec!["report", "run", "pipe.csv", "--out", "report.html"],
            "a pipe",
        ),
    ];
    for (file, found) in [
        ("pipe", "a pipe"),
        ("/dev/zero", "a device"),
        ("folder.csv", "a folder"),
    ] {
        all.push((vec!["counterfactual", "run", "--without", file], found));
        all.push((vec!["scores", "scores.csv", "--names", file], found));
        all.push((
            vec!["influence", "run", "--out", "new.csv", "--names", file],
            found,
        ));
    }
    for (query, found) in query.into_iter().zip(["a pipe", "a device", "a folder"]) {
        all.push((
            vec!["influence", "run", "--out", "new.csv", "--query", query],
            found,
        ));
    }
    for (words, found) in all {
        let output = at_once(dir, &words);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{words:?}: {said}");
        assert!(
            said.contains(&format!("it is {found}")),
            "{words:?}: {said}"
        );
        assert_eq!(
            fs::read_dir(dir).unwrap().count(),
            before,
            "{words:?} left something"
        );
    }
    // Standard input from a file is a file; its byte order mark is not part of the first number.
    fs::write(dir.join("without"), "\u{feff}3\n").unwrap();
    let from = fs::File::open(dir.join("without")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(["counterfactual", "run", "--without", "/dev/stdin"])
        .current_dir(dir)
        .stdin(from)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn a_run_whose_steps_would_fail_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let norm = format!("{{ kind = 'linear', out = 4 }}, {{ kind = 'batch_norm' }}, {LINEAR}");
    for (layers, rows, last, set, pieces) in [
        (
            LINEAR,
            4,
            "1",
            "train.drop_last=true",
            ["no batch to train on", "train.drop_last"],
        ),
        (
            &norm,
            21,
            "1",
            "train.seed=1",
            ["1.batch_norm", "train.batches = \"even\""],
        ),
        (
            LINEAR,
            4,
            "1e300",
            "train.seed=1",
            ["row 3 of train.csv", "train.dtype = \"f64\""],
        ),
        (
            LINEAR,
            4,
            "inf",
            "train.seed=1",
            ["line 5", "a finite number"],
        ),
    ] {
        task(dir, layers);
        table(dir, rows, last);
        let words = [
            "record",
            "task.toml",
            "--data",
            ".",
            "--out",
            "run",
            "--set",
            set,
        ];
        let output = at_once(dir, &words);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{said}");
        for piece in pieces {
            assert!(said.contains(piece), "no {piece:?} in {said}");
        }
        assert!(!dir.join("run").exists(), "{said}");
        // Nothing blocks the next attempt.
        table(dir, 20, "1");
        let words = ["record", "task.toml", "--data", ".", "--out", "run"];
        fine(dir, &words);
        fs::remove_dir_all(dir.join("run")).unwrap();
    }
}

#[test]
fn a_class_without_training_examples_gets_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    task(dir, &LINEAR.replace('2', "4"));
    table(dir, 20, "1");
    fs::write(dir.join("test.csv"), "a,b,y\n1,2,no\n2,3,0\n").unwrap();
    let set = "data.test_files=test.csv";
    let words = [
        "record",
        "task.toml",
        "--data",
        ".",
        "--out",
        "run",
        "--set",
        set,
    ];
    let output = at_once(dir, &words);
    let said = stderr(&output);
    assert_eq!(code(&output), 0, "{said}");
    for piece in [
        "warning: the test split",
        "\"no\" (1 example)",
        "cannot learn",
    ] {
        assert!(said.contains(piece), "no {piece:?} in {said}");
    }
}

/// Each thread needs more stack than the process may have memory.
#[cfg(target_os = "linux")]
#[test]
fn an_error_names_threads_that_cannot_be_started() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for words in [
        "record digits --out new",
        "influence run",
        "verify run --replay",
    ] {
        let limited = format!(
            "ulimit -v 4000000; exec {} {words}",
            env!("CARGO_BIN_EXE_hindcast")
        );
        let output = Command::new("sh")
            .args(["-c", &limited])
            .env("RUST_MIN_STACK", "16000000000")
            .current_dir(dir)
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{words}: {said}");
        assert!(
            said.contains("threads that compute can't be started") && said.contains("ulimit -u"),
            "{words}: {said}"
        );
        assert!(!dir.join("new").exists(), "{words}");
    }
}
