//! `hindcast compare` on runs that differ in one known thing.

use std::fs;

use safetensors::SafeTensors;
use serde_json::Value;

use super::*;
use crate::states::TASK;

fn json(dir: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&fine(dir, words)).unwrap()
}

/// The table of features. `flipped` is a row with the other label.
fn write_table(dir: &Path, flipped: Option<i32>) {
    let text: String = (0..40)
        .map(|i| {
            let (a, b) = (
                f64::from(i * 7 % 20) / 10.0 - 1.0,
                f64::from(i * 3 % 20) / 10.0 - 1.0,
            );
            format!(
                "{a},{b},{}\n",
                u8::from((a + b > 0.1) != (flipped == Some(i)))
            )
        })
        .collect();
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("train.csv"), format!("a,b,y\n{text}")).unwrap();
}

/// Records a run of 12 steps in three epochs.
fn record(dir: &Path, run: &str, data: &str, more: &[&str]) {
    write_table(&dir.join("data"), None);
    write_table(&dir.join("flipped"), Some(3));
    fs::write(dir.join("task.toml"), TASK).unwrap();
    let words = ["record", "task.toml", "--data", data, "--out", run];
    let f64 = ["--set", "train.dtype=f64"];
    fine(dir, &[&words, &f64[..], more].concat());
}

/// ‖θ_A − θ_B‖ before a step, from checkpoints.
fn distance(dir: &Path, step: &str) -> f64 {
    let of = |run: &str| -> Vec<f64> {
        let file = format!("{run}-{step}.safetensors");
        fine(dir, &["checkpoint", run, "--step", step, "--out", &file]);
        let bytes = fs::read(dir.join(file)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut names = file.names();
        names.sort();
        let bytes: Vec<u8> = names
            .iter()
            .flat_map(|name| file.tensor(name).unwrap().data().to_vec())
            .collect();
        bytes
            .chunks(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let (a, b) = (of("a"), of("b"));
    let squares = a.iter().zip(&b).map(|(x, y)| (x - y) * (x - y));
    squares.sum::<f64>().sqrt()
}

fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= 1e-12 * expected.abs(),
        "{found} {expected}"
    );
}

fn names(said: &Value) -> Vec<&str> {
    let settings = said["settings"].as_array().unwrap();
    settings
        .iter()
        .map(|s| s["setting"].as_str().unwrap())
        .collect()
}

#[test]
fn two_runs_of_one_command_are_identical() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "a", "data", &[]);
    record(dir, "b", "data", &[]);
    let said = json(dir, &["compare", "a", "b", "--data", "data", "--json"]);
    assert_eq!(said["identical"], true, "{said:#}");
    assert_eq!(said["settings"], Value::Array(Vec::new()));
    assert_eq!(said["first_step"], Value::Null);
    assert_eq!(said["parting"]["compared"], 12);
    assert_eq!(said["parting"]["models"], 13);
    let text = fine(dir, &["compare", "a", "b", "--no-losses"]);
    assert!(text.contains("the runs are identical"), "{text}");
    assert!(text.contains("no setting differs"), "{text}");
}

#[test]
fn another_seed_differs_from_the_first_model_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "a", "data", &[]);
    record(dir, "b", "data", &["--set", "train.seed=1"]);
    let said = json(dir, &["compare", "a", "b", "--data", "data", "--json"]);
    assert!(names(&said).contains(&"train.seed"), "{said:#}");
    assert_eq!(said["first_step"], 0);
    let parameters = &said["parting"]["parameters"];
    assert_eq!(parameters["step"], 0);
    close(&parameters["norm"], distance(dir, "0"));
    let last = said["distances"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(last["step"], 12);
    close(&last["norm"], distance(dir, "12"));
    // The losses are those of the predictions.
    for (at, run) in ["a", "b"].into_iter().enumerate() {
        let losses = said["runs"][at]["split_losses"].as_array().unwrap();
        assert_eq!(losses.len(), 4, "train and validation, at two models");
        for loss in losses {
            let (split, point) = (
                loss["split"].as_str().unwrap(),
                loss["at"].as_str().unwrap(),
            );
            let words = [
                "predict", run, "--data", "data", "--split", split, "--at", point, "--json",
            ];
            let predicted = json(dir, &words);
            close(&loss["loss"], predicted["mean_loss"].as_f64().unwrap());
            close(&loss["error"], predicted["error"].as_f64().unwrap());
        }
    }
    let text = fine(
        dir,
        &["compare", "a", "b", "--data", "data", "--picture", "p.svg"],
    );
    assert!(text.contains("they begin with other parameters"), "{text}");
    let svg = fs::read_to_string(dir.join("p.svg")).unwrap();
    assert!(svg.contains(">a<") || svg.contains("a\n"), "{svg}");
}

#[test]
fn another_rate_and_another_label_part_at_their_steps() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "a", "data", &[]);
    record(dir, "b", "data", &["--set", "schedule.learning_rate=0.06"]);
    let said = json(dir, &["compare", "a", "b", "--no-losses", "--json"]);
    assert_eq!(names(&said), ["schedule.learning_rate"]);
    assert_eq!(said["first_step"], 0);
    assert_eq!(
        said["parting"]["learning_rate"],
        serde_json::json!({ "step": 0, "first": 0.05, "second": 0.06 })
    );
    assert_eq!(said["parting"]["batch"], Value::Null);
    let parameters = &said["parting"]["parameters"];
    assert_eq!(parameters["step"], 1);
    close(&parameters["norm"], distance(dir, "1"));
    let text = fine(dir, &["compare", "a", "b", "--no-losses"]);
    assert!(
        text.contains("part at step 0: its learning rate differs"),
        "{text}"
    );

    // One label differs: the runs part at the first step whose batch has the example.
    fs::remove_dir_all(dir.join("b")).unwrap();
    record(dir, "b", "flipped", &[]);
    let said = json(dir, &["compare", "a", "b", "--no-losses", "--json"]);
    assert!(
        names(&said).iter().all(|name| name.starts_with("data.")),
        "{said:#}"
    );
    fine(dir, &["export", "a", "--steps", "0..12", "--out", "steps"]);
    let exported = fs::read_to_string(dir.join("steps/steps.jsonl")).unwrap();
    let predicted = json(
        dir,
        &[
            "predict", "a", "--data", "data", "--split", "train", "--out", "p.csv", "--json",
        ],
    );
    assert_eq!(predicted["examples"], 32);
    let mut csv = csv::Reader::from_path(dir.join("p.csv")).unwrap();
    let example = csv
        .records()
        .map(Result::unwrap)
        .find(|row| &row[1] == "3")
        .map(|row| row[0].parse::<u64>().unwrap());
    match example {
        Some(example) => {
            let first = exported.lines().position(|line| {
                let step: Value = serde_json::from_str(line).unwrap();
                step["indices"]
                    .as_array()
                    .unwrap()
                    .contains(&example.into())
            });
            assert_eq!(said["first_step"].as_u64(), first.map(|t| t as u64));
            assert_eq!(said["parting"]["loss"]["step"], said["first_step"]);
            assert_eq!(
                said["parting"]["parameters"]["step"].as_u64(),
                first.map(|t| t as u64 + 1)
            );
        }
        // The row is in the validation split, so the training is the same.
        None => assert_eq!(said["identical"], true),
    }
    assert_eq!(said["same_training_data"], example.is_none());
    let text = fine(dir, &["compare", "a", "b", "--no-losses"]);
    assert_eq!(
        text.contains("trained on different data"),
        example.is_some()
    );
    assert!(!text.contains("other data or labels"), "{text}");
    // One folder can't be the data of both.
    for data in ["data", "flipped"] {
        let output = hindcast(dir, &["compare", "a", "b", "--data", data]);
        assert_eq!(code(&output), 1);
        let said = stderr(&output);
        assert!(said.contains("--other-data for that of B"), "{said}");
    }
    let both = ["--data", "data", "--other-data", "flipped"];
    fine(dir, &[&["compare", "a", "b"], &both[..]].concat());
}

/// The columns of a line of the printed table of epochs.
fn of_epoch<'a>(text: &'a str, epoch: &str) -> Vec<&'a str> {
    let begin = text.find(" epoch ").expect("a table of epochs");
    let mut rows = text[begin..].lines().map(|l| l.split_whitespace());
    rows.find(|row| row.clone().next() == Some(epoch))
        .expect("the epoch")
        .collect()
}

/// The second run keeps only its last epochs, and holds out other examples.
#[test]
fn epochs_and_splits_of_the_two_runs_are_not_mixed_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "a", "data", &[]);
    record(dir, "b", "data", &["--keep", "last-epoch"]);
    let text = fine(dir, &["compare", "a", "b", "--data", "data"]);
    let first = of_epoch(&text, "0");
    assert_eq!((first[2], first[4]), ("-", "-"), "{text}");
    let last = of_epoch(&text, "2");
    assert!(last.len() == 5 && last[1] != "-", "{text}");
    assert_eq!((last[1], last[3]), (last[2], last[4]), "{text}");

    fs::remove_dir_all(dir.join("b")).unwrap();
    let other = [
        "--set",
        "data.validation=0",
        "--set",
        "data.test_files=train.csv",
    ];
    record(dir, "b", "data", &other);
    let words = ["compare", "a", "b", "--data", "data", "--picture", "p.svg"];
    let text = fine(dir, &words);
    assert!(text.contains("validation A"), "{text}");
    assert!(text.contains("test B"), "{text}");
    let svg = fs::read_to_string(dir.join("p.svg")).unwrap();
    for label in ["its validation loss", "its test loss"] {
        assert!(svg.contains(label), "{label}: {svg}");
    }
}

/// A cause is stated only if the runs show it: with gaps, the parameters before a step aren't known to be the same.
#[test]
fn parameters_between_kept_steps_are_not_said_to_be_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let decay = ["--set", "optimizer.weight_decay=0.01"];
    record(dir, "a", "data", &["--keep", "every=4"]);
    record(
        dir,
        "b",
        "data",
        &[&["--keep", "every=4"], &decay[..]].concat(),
    );
    let said = json(dir, &["compare", "a", "b", "--no-losses", "--json"]);
    // The first update differs, so the loss of the second step does.
    assert_eq!(said["first_step"], 1, "{said:#}");
    assert_eq!(said["parting"]["parameters"]["step"], 4);
    let text = fine(dir, &["compare", "a", "b", "--no-losses"]);
    assert!(!text.contains("although parameters"), "{text}");
    assert!(
        text.contains("aren't recorded in both runs, and are the same before step 0"),
        "{text}"
    );
    // Where all steps are kept, the update is named.
    for run in ["a", "b"] {
        fs::remove_dir_all(dir.join(run)).unwrap();
    }
    record(dir, "a", "data", &[]);
    record(dir, "b", "data", &decay);
    let text = fine(dir, &["compare", "a", "b", "--no-losses"]);
    assert!(text.contains("part by the update of step 0:"), "{text}");
}

#[test]
fn runs_of_other_models_and_missing_data_are_compared_as_far_as_possible() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "a", "data", &[]);
    let wider = [
        "--set",
        "model.layers=[{kind=\"linear\",out=3},{kind=\"linear\",out=2}]",
    ];
    record(dir, "b", "data", &wider);
    let said = json(dir, &["compare", "a", "b", "--json"]);
    assert_eq!(said["parting"]["incomparable"], "other-tensors");
    assert_eq!(said["identical"], false);
    assert_eq!(said["parting"]["parameters"], Value::Null);
    assert_eq!(said["parting"]["loss"]["step"], 0);
    let notes = said["notes"].as_array().unwrap();
    assert_eq!(notes.len(), 2);
    assert!(notes[0].as_str().unwrap().contains("--data"), "{said:#}");
    assert_eq!(said["runs"][0]["split_losses"], Value::Array(Vec::new()));
    for (words, says) in [
        (vec!["--data", "flipped"], "not the data"),
        (vec!["--picture", "p.png"], "ends in .svg"),
        (vec!["--other-data", "data", "--no-losses"], "--no-losses"),
    ] {
        let output = hindcast(dir, &[vec!["compare", "a", "b"], words.clone()].concat());
        assert!([1, 2].contains(&code(&output)), "{words:?}");
        assert!(
            stderr(&output).contains(says),
            "{words:?}: {}",
            stderr(&output)
        );
    }
    let output = hindcast(dir, &["compare", "a", "nowhere"]);
    assert_eq!(code(&output), 1);
}
