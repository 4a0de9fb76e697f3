//! `clean --retrain`: its first row is the recorded model, also if the training amplifies rounding.

use std::fs;
use std::path::Path;

use super::{fine, hindcast, stderr, stdout};

/// A net whose training by the kernels ends far from the recorded parameters.
const TASK: &str = r#"
name = "rough"
description = "Batch norm at a high learning rate"
[data]
source = "digits"
[model]
input = [1, 28, 28]
layers = [
  { kind = "conv2d", out = 8, kernel = 5, stride = 2 },
  { kind = "batch_norm" },
  { kind = "relu" },
  { kind = "conv2d", out = 16, kernel = 5, stride = 2 },
  { kind = "batch_norm" },
  { kind = "relu" },
  { kind = "flatten" },
  { kind = "linear", out = 10 },
]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.5
[train]
epochs = 20
batch = 32
seed = 0
"#;

fn json(dir: &Path, words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&fine(dir, words)).unwrap()
}

#[test]
fn the_first_row_is_the_recorded_model_and_the_control_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("task.toml"), TASK).unwrap();
    let mut record = vec!["record", "task.toml", "--out", "run"];
    let sets = [
        "data.train=500",
        "data.validation=200",
        "data.test=0",
        "data.flipped=0.1",
    ];
    record.extend(sets.iter().flat_map(|set| ["--set", set]));
    fine(dir, &record);
    let predicted = ["predict", "run", "--split", "validation", "--json"];
    let predicted = json(dir, &[&predicted[..], &["--out", "p.csv"]].concat());
    let recorded = predicted["mean_loss"].as_f64().unwrap();
    // `clean` finds no wrong label here, so the decisions are made by hand.
    let decisions = "index,decision\n3,drop\n4,drop\n5,drop\n";
    fs::write(dir.join("made.csv"), decisions).unwrap();
    let clean = [
        "clean",
        "run",
        "--decisions",
        "made.csv",
        "--retrain",
        "--scan",
        "5",
    ];
    let loss = |said: &serde_json::Value| {
        let losses = &said["retrained"][0]["losses"];
        losses[0]["loss"].as_f64().unwrap()
    };

    // The kernels end at another model, and that is said.
    let more = ["--engine", "kernels"];
    let said = fine(dir, &[&clean[..], &more].concat());
    assert!(
        said.contains("warning: retraining with all examples ends"),
        "{said}"
    );

    let said = json(dir, &[&clean[..], &["--json"]].concat());
    let control = &said["control"];
    assert_eq!(control["engine"], "autodiff", "{control}");
    assert_eq!(control["bit_identical"], true, "{control}");
    assert!(
        control["kernels_apart"].as_f64().unwrap() > 1e-2,
        "{control}"
    );
    assert!(
        (loss(&said) - recorded).abs() < 1e-6 * recorded,
        "{said} {recorded}"
    );
    let output = hindcast(dir, &clean);
    let said = stdout(&output);
    for part in ["retrained with autodiff", "bit for bit"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let told = stderr(&output);
    let again = "all is repeated with autodiff, which takes longer than announced";
    assert_eq!(told.matches(again).count(), 1, "{told}");
}
