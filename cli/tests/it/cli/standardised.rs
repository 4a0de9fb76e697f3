//! Regressions on a standardised target: predictions are in the unit of the labels, losses in that of the training.

use std::fs;

use serde_json::Value;

use super::predictions::{Row, json, outputs, regression, rows, table_run};
use super::*;

/// Mean and standard deviation by which training saw the labels, computed by hand.
fn moments(labels: &[f64]) -> (f64, f64) {
    let n = labels.len() as f64;
    let mean = labels.iter().sum::<f64>() / n;
    let variance = labels.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

fn task() -> String {
    regression().replace(
        "target = \"value\"",
        "target = \"value\"\nstandardise_target = true",
    )
}

fn predicted(dir: &Path, words: &[&str], table: &str) -> Vec<Row> {
    let all = [
        "predict", "run", "--data", "data", "--at", "final", "--out", table,
    ];
    fine(dir, &[&all[..], words].concat());
    rows(&dir.join(table))
}

#[test]
fn predictions_are_in_the_unit_of_the_labels_and_losses_in_that_of_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = table_run(dir, &task());
    let train = predicted(dir, &["--split", "train"], "train.csv");
    let labels: Vec<f64> = train.iter().map(|row| data[row.row as usize][2]).collect();
    let (mean, sd) = moments(&labels);
    for row in predicted(dir, &[], "p.csv").iter().chain(&train) {
        let [a, b, y] = data[row.row as usize];
        let z = outputs(dir, "final", &[a, b])[0];
        let far = |a: f64, b: f64| (a - b).abs() > 1e-5;
        assert!(
            !far(row.predicted.parse().unwrap(), mean + sd * z),
            "{row:?}"
        );
        let scaled = (y - mean) / sd;
        assert!(!far(row.loss, (z - scaled) * (z - scaled)), "{row:?}");
        assert_eq!(row.label.parse::<f64>().unwrap(), y);
    }
    let words = ["predict", "run", "--data", "data", "--at", "final"];
    let said = json(dir, &[&words[..], &["--json"]].concat());
    let close = |key: &str, x: f64| {
        let found = said["target_scale"][key][0].as_f64().unwrap();
        assert!((found - x).abs() < 1e-12, "{key}: {found} {x}");
    };
    close("mean", mean);
    close("sd", sd);
    // The mean loss is the squared error in units of the standard deviation.
    let root = said["root_mean_square"].as_f64().unwrap();
    let loss = said["mean_loss"].as_f64().unwrap();
    assert!((root * root - sd * sd * loss).abs() < 1e-5, "{root} {loss}");
    let output = hindcast(dir, &words);
    assert_eq!(code(&output), 0);
    let (out, err) = (stdout(&output), stderr(&output));
    assert!(
        out.contains(" of the standardised target; root mean"),
        "{out}"
    );
    assert!(
        err.contains("note: losses and influences are those of the standardised target"),
        "{err}"
    );
    let check = fine(dir, &["task", "check", "task.toml", "--data", "data"]);
    assert!(check.contains("target  standardised: mean 0."), "{check}");
    let explained = fine(dir, &["explain", "run", "validation:1", "--data", "data"]);
    assert!(explained.contains("predicted 0."), "{explained}");
}

/// The scaling is that of the labels that the run was trained on, corrected ones included.
#[test]
fn corrected_labels_decide_the_scaling_also_of_new_rows() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = table_run(dir, &task());
    let before = predicted(dir, &[], "before.csv");
    fs::remove_dir_all(dir.join("run")).unwrap();
    let train = predicted_rows(dir, &data);
    let corrected: String = train
        .iter()
        .map(|row| format!("{row},{}\n", 30 + row % 3))
        .collect();
    fs::write(dir.join("corrected.csv"), format!("row,label\n{corrected}")).unwrap();
    let labels = ["--labels", "corrected.csv"];
    let record = ["record", "task.toml", "--data", "data", "--out", "run"];
    fine(dir, &[&record[..], &labels].concat());
    let held = predicted(dir, &labels, "held.csv");
    for (row, other) in held.iter().zip(&before) {
        assert_eq!(row.row, other.row);
        let value: f64 = row.predicted.parse().unwrap();
        assert!((20.0..40.0).contains(&value), "{row:?}");
    }
    let lines: String = held
        .iter()
        .map(|row| {
            let [a, b, _] = data[row.row as usize];
            format!("{a},{b}\n")
        })
        .collect();
    fs::write(dir.join("new.csv"), format!("a,b\n{lines}")).unwrap();
    fine(
        dir,
        &[
            &[
                "predict", "run", "--data", "data", "--at", "final", "--rows", "new.csv",
            ][..],
            &["--out", "new-predictions.csv"],
            &labels,
        ]
        .concat(),
    );
    let mut csv = csv::Reader::from_path(dir.join("new-predictions.csv")).unwrap();
    let new: Vec<String> = csv
        .records()
        .map(|row| row.unwrap()[4].to_owned())
        .collect();
    let held: Vec<String> = held.into_iter().map(|row| row.predicted).collect();
    assert_eq!(new, held);
}

/// The rows of the training examples.
fn predicted_rows(dir: &Path, data: &[[f64; 3]]) -> Vec<u64> {
    let record = ["record", "task.toml", "--data", "data", "--out", "run"];
    fine(dir, &record);
    let train = predicted(dir, &["--split", "train"], "rows.csv");
    fs::remove_dir_all(dir.join("run")).unwrap();
    assert!(train.len() < data.len());
    train.into_iter().map(|row| row.row).collect()
}

#[test]
fn targets_that_cant_be_standardised_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table_run(dir, &task());
    for (task, hint) in [
        (
            task().replace("target = \"value\"", "target = \"class\""),
            "data.standardise_target",
        ),
        (
            task().replace("mean-squared-error", "binary-cross-entropy"),
            "remove data.standardise_target",
        ),
    ] {
        fs::write(dir.join("other.toml"), task).unwrap();
        let output = hindcast(
            dir,
            &["task", "check", "other.toml", "--data", "data", "--json"],
        );
        assert_eq!(code(&output), 1);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let problems = said["problems"].to_string();
        assert!(problems.contains(hint), "{problems}");
    }
}
