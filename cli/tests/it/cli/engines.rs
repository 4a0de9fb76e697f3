//! The engine can be chosen, is named in the table, and changes scores only by rounding.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use hindcast_analyzer::measures::kendall_tau;
use rustix::process::Signal;

use super::slices::{pause_when, signal};
use super::*;

/// Cells of a CSV table's column `influence`; examples in no batch have none.
fn influences(dir: &Path, table: &str) -> Vec<f64> {
    let mut csv = csv::Reader::from_path(dir.join(table)).unwrap();
    let at = csv.headers().unwrap().iter().position(|c| c == "influence");
    let cells = csv.records().map(|r| r.unwrap()[at.unwrap()].to_owned());
    cells.filter_map(|c| c.parse().ok()).collect()
}

fn engine_of(dir: &Path, table: &str) -> String {
    let text = fs::read_to_string(dir.join(format!("{table}.meta.json"))).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
    meta["engine"].as_str().unwrap().to_owned()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    assert_eq!(a.len(), b.len());
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn both_engines_give_the_scores_and_tables_name_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for (out, more) in [
        ("kernels.csv", &["--precision", "f64"][..]),
        (
            "autodiff.csv",
            &["--precision", "f64", "--engine", "autodiff"],
        ),
        ("short.csv", &["--engine", "kernels"]),
    ] {
        let mut words = vec!["influence", "run", "--out", out, "--top", "0"];
        words.extend(more);
        fine(dir, &words);
    }
    assert!(engine_of(dir, "kernels.csv").starts_with("kernels, f64"));
    assert!(engine_of(dir, "autodiff.csv").starts_with("autodiff, f64"));
    let reference = influences(dir, "autodiff.csv");
    assert!(distance(&influences(dir, "kernels.csv"), &reference) < 1e-10);
    assert!(distance(&influences(dir, "short.csv"), &reference) < 1e-3);
}

/// Sweeps so that a checkpoint remains: a sweep that can't write its table keeps it. The folder in the table's place is made
/// during the sweep, because the command would refuse it at the start.
pub(super) fn leave_checkpoint(dir: &Path, words: &[&str]) {
    let (table, checkpoint) = (
        dir.join("scores.csv"),
        dir.join("scores.csv.sweep.safetensors"),
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(
        pause_when(&mut child, || checkpoint.exists()),
        "the sweep ended without a checkpoint"
    );
    fs::create_dir(&table).unwrap();
    signal(&child, Signal::CONT);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    fs::remove_dir(&table).unwrap();
    assert!(checkpoint.exists());
}

#[test]
fn a_checkpoint_of_one_engine_is_refused_by_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let words = [
        "influence",
        "run",
        "--out",
        "scores.csv",
        "--checkpoint-every",
        "0",
    ];
    leave_checkpoint(dir, &words);
    let mut other = words.to_vec();
    other.extend(["--resume", "--engine", "autodiff"]);
    let output = hindcast(dir, &other);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("kernels"), "{}", stderr(&output));
    let mut same = words.to_vec();
    same.push("--resume");
    fine(dir, &same);
}

#[test]
fn a_typo_in_the_engines_name_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let output = hindcast(dir.path(), &["influence", "run", "--engine", "kernel"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("kernels"), "{}", stderr(&output));
}

/// The data folder next to the repository, or the one that is named.
fn mnist() -> Option<PathBuf> {
    let folder = match std::env::var_os("HINDCAST_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    Some(folder.join("mnist")).filter(|f| f.join("train-images-idx3-ubyte.gz").exists())
}

#[test]
fn single_precision_ranks_as_double_does() {
    let Some(data) = mnist() else {
        eprintln!(
            "skipped: no MNIST files next to the repository (HINDCAST_TEST_DATA names a folder)"
        );
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = data.to_str().unwrap();
    fine(
        dir,
        &[
            "record",
            "mnist-cnn",
            "--data",
            data,
            "--out",
            "run",
            "--set",
            "data.train=1280",
            "--set",
            "data.validation=200",
            "--set",
            "train.epochs=2",
        ],
    );
    for precision in ["f32", "f64"] {
        let out = format!("{precision}.csv");
        fine(
            dir,
            &[
                "influence",
                "run",
                "--data",
                data,
                "--window",
                "last-epoch",
                "--precision",
                precision,
                "--out",
                &out,
                "--top",
                "0",
            ],
        );
    }
    let tau = kendall_tau(&influences(dir, "f32.csv"), &influences(dir, "f64.csv")).unwrap();
    eprintln!("Kendall's tau of f32 and f64 scores: {tau:.5}");
    assert!(tau >= 0.999, "{tau}");
}
