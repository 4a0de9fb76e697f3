//! `hindcast spikes` on a run whose data has a batch of wrong labels at a known step.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::*;

const TASK: &str = r#"
name = "planted"
description = "Two separate clouds of points"
[data]
source = "csv"
train_files = "train.csv"
label = "y"
train = 600
validation = 40
[model]
input = [2]
layers = [{ kind = "linear", out = 2 }]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.1
[train]
dtype = "f64"
epochs = 1
batch = 10
"#;

/// The step whose batch gets wrong labels.
const STEP: usize = 45;

/// Writes 640 points around (2, 1) and (−2, −1) with their cloud as the label. Rows in `wrong` have the other label.
fn write(dir: &Path, wrong: &BTreeSet<u64>) {
    let mut text = "a,b,y\n".to_owned();
    for row in 0..640u64 {
        let side = if row * 7 % 13 < 6 { 1.0 } else { -1.0 };
        let noise = |by: u64| (row * by % 101) as f64 / 101.0 - 0.5;
        let right = (side > 0.0) != wrong.contains(&row);
        let name = if right { "upper" } else { "lower" };
        let (a, b) = (2.0 * side + noise(37), side + noise(53));
        text += &format!("{a},{b},{name}\n");
    }
    fs::write(dir.join("train.csv"), text).unwrap();
}

fn record(dir: &Path, run: &str) {
    fine(dir, &["record", "task.toml", "--data", ".", "--out", run]);
}

fn json(dir: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&fine(dir, words)).unwrap()
}

/// The loss and the examples of each step, from the exported metadata.
fn steps(dir: &Path, run: &str) -> Vec<(f64, Vec<u64>)> {
    fine(
        dir,
        &["export", run, "--steps", "0..60", "--out", run_steps(run)],
    );
    let text = fs::read_to_string(dir.join(run_steps(run)).join("steps.jsonl")).unwrap();
    let of = |line: &str| {
        let step: Value = serde_json::from_str(line).unwrap();
        let indices = serde_json::from_value(step["indices"].clone()).unwrap();
        (step["loss"].as_f64().unwrap(), indices)
    };
    text.lines().map(of).collect()
}

fn run_steps(run: &str) -> &'static str {
    match run {
        "clean" => "clean-steps",
        _ => "planted-steps",
    }
}

/// The median, of a list with an odd number of values.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    assert_eq!(sorted.len() % 2, 1);
    sorted[sorted.len() / 2]
}

/// Records `planted`: six examples of the batch of step 45 have the wrong label. Returns their rows.
fn planted(dir: &Path) -> BTreeSet<u64> {
    fs::write(dir.join("task.toml"), TASK).unwrap();
    write(dir, &BTreeSet::new());
    record(dir, "clean");
    let said = json(dir, &["spikes", "clean", "--data", ".", "--json"]);
    let spikes = said["spikes"].as_array().unwrap();
    assert!(spikes.iter().all(|spike| spike["step"] != STEP), "{said}");
    let batch = steps(dir, "clean")[STEP].1.clone();
    let words = ["influence", "clean", "--data", ".", "--method", "random"];
    fine(dir, &[&words[..], &["--out", "rows.csv"]].concat());
    let table = hindcast_analyzer::ScoreTable::read(&dir.join("rows.csv")).unwrap();
    let row = |index: &u64| table.rows.iter().find(|r| r.index == *index).unwrap().row;
    let wrong: BTreeSet<u64> = batch[..6].iter().map(row).collect();
    write(dir, &wrong);
    record(dir, "planted");
    wrong
}

#[test]
fn a_planted_batch_is_found_with_its_rows_and_shares() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wrong = planted(dir);
    let words = [
        "spikes", "planted", "--data", ".", "--before", "31", "--rows", "6",
    ];
    let said = json(dir, &[&words[..], &["--json"]].concat());
    let spike = &said["spikes"][0];
    assert_eq!(spike["step"], STEP, "{said}");
    let number = |key: &str| spike[key].as_f64().unwrap();
    let (loss, expected) = (number("loss"), number("expected"));

    // Expected loss and deviations by hand, from the recorded losses.
    let recorded: Vec<f64> = steps(dir, "planted").iter().map(|s| s.0).collect();
    let before = &recorded[STEP - 31..STEP];
    let middle = median(before.iter().copied());
    let spread = 1.482_602_218_505_602 * median(before.iter().map(|x| (x - middle).abs()));
    assert!((expected - middle).abs() < 1e-12, "{expected} {middle}");
    assert_eq!(loss, recorded[STEP]);
    let deviations = (loss - middle) / spread;
    assert!((number("deviations") - deviations).abs() < 1e-9 * deviations);

    // The six planted rows come first. Without a penalty, an example of ten is expected to have the expected loss.
    let examples = spike["examples"].as_array().unwrap();
    assert_eq!(examples.len(), 10);
    let rows: BTreeSet<u64> = examples[..6]
        .iter()
        .map(|e| e["row"].as_u64().unwrap())
        .collect();
    assert_eq!(rows, wrong);
    let mut sum = 0.0;
    for (at, e) in examples.iter().enumerate() {
        let (own, share) = (e["loss"].as_f64().unwrap(), e["share"].as_f64().unwrap());
        let by_hand = 0.1 * (own - middle) / (loss - middle);
        assert!((share - by_hand).abs() < 1e-9, "{e}: {by_hand}");
        assert_eq!(share > 0.05, at < 6, "{e}");
        assert_eq!(e["margin"].as_f64().unwrap() < 0.0, at < 6, "{e}");
        sum += if at < 6 { share } else { 0.0 };
    }
    assert!(sum > 0.9, "the planted examples carry the jump: {sum}");

    let text = fine(dir, &words);
    assert!(
        text.contains(&format!("step {STEP} (epoch 0): loss ")),
        "{text}"
    );
    let listed = |row: &u64| {
        let mut lines = text.lines().map(|line| line.split_whitespace());
        lines.any(|mut cells| cells.nth(1) == Some(&row.to_string()))
    };
    assert!(wrong.iter().all(listed), "{wrong:?}: {text}");
}

/// Damage of the tensors is an error where they are read, and the output says that others weren't read.
#[test]
fn damage_is_an_error_where_tensors_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    planted(dir);
    let segment = dir.join("planted/seg-00000000.hcs");
    let whole = fs::read(&segment).unwrap();
    let with_damage_at = |steps: &[usize]| {
        let mut bytes = whole.clone();
        for step in steps {
            // In the tensors at the end of the step's frame.
            let end = super::damage::frame(&bytes, step + 1);
            bytes[end - 13] ^= 1;
        }
        fs::write(&segment, &bytes).unwrap();
        assert_eq!(code(&hindcast(dir, &["verify", "planted"])), 3);
        hindcast(
            dir,
            &[
                "spikes",
                "planted",
                "--data",
                ".",
                "--check-seed",
                "1",
                "--top",
                "1",
            ],
        )
    };
    // A frame holds the difference to the step before, and a reader comes from either side: so in two frames.
    let output = with_damage_at(&[STEP, STEP + 1]);
    assert_eq!(code(&output), 3, "{}{}", stdout(&output), stderr(&output));
    let elsewhere: Vec<Output> = (2..40)
        .step_by(4)
        .map(|step| with_damage_at(&[step]))
        .collect();
    let unseen: Vec<&Output> = elsewhere.iter().filter(|o| code(o) == 0).collect();
    assert!(!unseen.is_empty(), "each damage is noticed: say so");
    assert!(elsewhere.iter().all(|o| [0, 3].contains(&code(o))));
    for output in unseen {
        let said = stdout(output);
        assert!(
            said.contains("only the tensors of the checked and the shown steps were read"),
            "{said}"
        );
    }
}
