//! `influence --mpi`: processes that share each step give the bytes of one process. Needs `mpirun`; without it, the tests are
//! skipped with a message.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::*;

/// A small convolutional net with batch norms, which exchange sums in every step.
const NORMED: &str = r#"
name = "normed"
[data]
source = "digits"
train = 150
validation = 40
test = 0
[model]
input = [1, 28, 28]
layers = [
  { kind = "conv2d", out = 4, kernel = 5, stride = 2 },
  { kind = "batch_norm" },
  { kind = "relu" },
  { kind = "flatten" },
  { kind = "linear", out = 10 },
]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "adam"
[schedule]
kind = "constant"
learning_rate = 0.003
[train]
epochs = 2
batch = 30
seed = 0
"#;

/// Runs the command in several processes. `None` if there is no `mpirun`.
fn together(dir: &Path, processes: usize, words: &[&str]) -> Option<Output> {
    let started = Command::new("mpirun")
        // Containers run as root, and have fewer cores than processes.
        .args(["--allow-run-as-root", "--oversubscribe", "-n"])
        .arg(processes.to_string())
        .arg(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .args(["--threads", "1"])
        .env("OMPI_MCA_mpi_yield_when_idle", "1")
        .current_dir(dir)
        .output();
    match started {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("skipped: there is no mpirun here");
            None
        }
    }
}

fn shared<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["influence", "run", "--mpi", "--out", out], more].concat()
}

#[test]
fn processes_that_share_each_step_give_the_bytes_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("normed.toml"), NORMED).unwrap();
    fine(dir, &["record", "normed.toml", "--out", "run"]);
    let more = ["--query", "validation:0..3", "--query", "validation"];
    fine(
        dir,
        &[&["influence", "run", "--out", "one.csv"], &more[..]].concat(),
    );
    let one = fs::read(dir.join("one.csv")).unwrap();
    for processes in [1, 2, 4] {
        let Some(output) = together(dir, processes, &shared("many.csv", &more)) else {
            return;
        };
        let text = stdout(&output) + &stderr(&output);
        assert_eq!(code(&output), 0, "{text}");
        let announced = text.contains(&format!("{processes} processes share each step"));
        assert_eq!(announced, processes > 1, "{text}");
        // Only one of them prints and writes.
        assert_eq!(text.matches("many.csv (150 rows").count(), 1, "{text}");
        assert!(
            fs::read(dir.join("many.csv")).unwrap() == one,
            "{processes}"
        );
        fs::remove_file(dir.join("many.csv")).unwrap();
    }
}

#[test]
fn mistakes_are_told_once_and_end_all_processes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let cases: [(&[&str], i32, &str); 4] = [
        (
            &["influence", "run", "--out", "s.csv"],
            2,
            "add --mpi to share each step",
        ),
        (
            &["influence", "nowhere", "--mpi", "--out", "s.csv"],
            1,
            "nowhere: not a recorded run",
        ),
        (
            &[
                "influence",
                "run",
                "--mpi",
                "--out",
                "s.csv",
                "--method",
                "random",
            ],
            2,
            "the method random isn't one",
        ),
        (
            &["influence", "run", "run", "--mpi", "--out", "s.csv"],
            2,
            "give one RUN",
        ),
    ];
    for (words, exit, said) in cases {
        let Some(output) = together(dir, 2, words) else {
            return;
        };
        let text = stderr(&output);
        assert_eq!(code(&output), exit, "{text}");
        assert!(text.contains(said), "{text}");
        // Rank 0 alone reads the run.
        if exit == 1 {
            assert_eq!(text.matches(said).count(), 1, "{text}");
        }
        assert!(!dir.join("s.csv").exists());
    }
}
