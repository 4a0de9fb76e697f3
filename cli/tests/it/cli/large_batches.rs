//! Batches far larger than the data: a small file can have millions of indices. Every verb that loads batches checks the memory
//! first.

use hindcast_recorder::{BatchInfo, StepInfo};

use super::own_run::OwnRun;
use super::*;

/// Number of indices of the large batch.
const LARGE: usize = 2_000_000;

/// A run whose second of three steps names two million examples.
fn record(dir: &Path) {
    let run = OwnRun::new();
    let recorder = run.recorder(dir);
    let (small, large) = (vec![7; 10], vec![3; LARGE]);
    for indices in [&small, &large, &small] {
        recorder
            .step(&StepInfo::new(BatchInfo::new(0, indices), 0.05))
            .unwrap();
    }
    recorder.finish().unwrap();
}

/// Runs the command with an address space of `limit` bytes, beyond which it fails.
fn within(dir: &Path, limit: u64, words: &[&str]) -> Output {
    Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -v {}; exec \"$0\" \"$@\"", limit / 1024))
        .arg(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn a_batch_that_cannot_fit_is_refused_before_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir);
    std::fs::write(dir.join("without.txt"), "3\n").unwrap();
    let verbs: [&[&str]; 6] = [
        &["verify", "run", "--replay"],
        &["bounds", "run"],
        &["influence", "run"],
        &["influence", "run", "--method", "tracin"],
        &["influence", "run", "--method", "accumulative"],
        &["counterfactual", "run", "--without", "without.txt"],
    ];
    for words in verbs {
        let words: Vec<&str> = words.iter().copied().chain(["--memory", "500MB"]).collect();
        let output = within(dir, 2 << 30, &words);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{words:?}: {said}");
        assert!(
            said.contains("2000000 examples") && said.contains("--memory"),
            "{words:?}: {said}"
        );
    }
}
