//! `hindcast history` against exported steps, against predictions, and against TensorBoard's own reader.

use std::collections::BTreeMap;
use std::fs;

use safetensors::SafeTensors;
use serde_json::Value;

use super::*;
use crate::states::TASK;

fn json(dir: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&fine(dir, words)).unwrap()
}

/// A table without quotes, by column. Empty cells are `None`.
fn table(path: &Path) -> BTreeMap<String, Vec<Option<f64>>> {
    let mut csv = csv::Reader::from_path(path).unwrap();
    let names = csv.headers().unwrap().clone();
    let mut out: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    for record in csv.records() {
        for (name, cell) in names.iter().zip(&record.unwrap()) {
            let value = (!cell.is_empty()).then(|| cell.parse().unwrap());
            out.entry(name.to_owned()).or_default().push(value);
        }
    }
    out
}

/// A run of 12 steps of a linear model in float64, by plain SGD, in three epochs.
fn plain_run(dir: &Path, more: &[&str]) {
    let text: String = (0..40)
        .map(|i| {
            let (a, b) = (
                f64::from(i * 7 % 20) / 10.0 - 1.0,
                f64::from(i * 3 % 20) / 10.0 - 1.0,
            );
            format!("{a},{b},{}\n", u8::from(a + b > 0.1))
        })
        .collect();
    fs::write(dir.join("train.csv"), format!("a,b,y\n{text}")).unwrap();
    fs::write(dir.join("task.toml"), TASK).unwrap();
    let words = [
        "record",
        "task.toml",
        "--data",
        ".",
        "--out",
        "run",
        "--set",
        "train.dtype=f64",
    ];
    fine(dir, &[&words, more].concat());
}

/// All parameters before each step, and after the last one.
fn parameters(dir: &Path) -> Vec<Vec<f64>> {
    let read = |path: &Path| -> Vec<f64> {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut names = file.names();
        names.sort();
        let of = |name: &&str| file.tensor(name).unwrap().data().to_vec();
        let bytes: Vec<u8> = names.iter().flat_map(of).collect();
        bytes
            .chunks(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    (0..=12)
        .map(|step| {
            let file = format!("{step}.safetensors");
            let step = step.to_string();
            fine(dir, &["checkpoint", "run", "--step", &step, "--out", &file]);
            read(&dir.join(file))
        })
        .collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

fn close(found: Option<f64>, expected: f64, tolerance: f64) {
    let found = found.unwrap();
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "{found} {expected}"
    );
}

#[test]
fn norms_are_those_of_the_checkpoints_and_gradients_those_of_the_replay() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    plain_run(dir, &["--set", "optimizer.weight_decay=0.01"]);
    fine(dir, &["history", "run", "--norms", "--out", "norms.csv"]);
    let norms = table(&dir.join("norms.csv"));
    let models = parameters(dir);
    assert_eq!(norms["step"].len(), 12);
    for t in 0..12 {
        close(
            norms["parameter_norm"][t],
            norm(models[t].iter().copied()),
            1e-12,
        );
        let update = models[t].iter().zip(&models[t + 1]).map(|(a, b)| b - a);
        close(norms["update_norm"][t], norm(update), 1e-12);
        let gradient = models[t]
            .iter()
            .zip(&models[t + 1])
            .map(|(a, b)| (a - b) / 0.05 - 0.01 * a);
        close(norms["gradient_norm"][t], norm(gradient), 1e-9);
    }
    // The replay computes the gradients from the data, by two engines that share no code.
    for engine in ["kernels", "autodiff"] {
        let words = [
            "history",
            "run",
            "--data",
            ".",
            "--gradients",
            "--out",
            "replayed.csv",
            "--engine",
            engine,
        ];
        fine(dir, &words);
        let replayed = table(&dir.join("replayed.csv"));
        assert!(!replayed.contains_key("update_norm"));
        for t in 0..12 {
            close(
                norms["gradient_norm"][t],
                replayed["gradient_norm"][t].unwrap(),
                1e-9,
            );
        }
    }
}

/// The last step of a window has the norms that it has in the whole run: its update ends in the next step's model.
#[test]
fn norms_of_a_window_are_those_of_the_whole_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    plain_run(dir, &[]);
    fine(dir, &["history", "run", "--norms", "--out", "all.csv"]);
    let all = table(&dir.join("all.csv"));
    for (window, steps) in [("2..6", 2..6), ("last-epoch", 8..12), ("11..12", 11..12)] {
        let words = [
            "history", "run", "--norms", "--window", window, "--out", "some.csv",
        ];
        fine(dir, &words);
        let some = table(&dir.join("some.csv"));
        assert_eq!(some.len(), all.len());
        for (name, column) in &some {
            assert_eq!(*column, all[name][steps.clone()], "{window} {name}");
        }
    }
}

#[test]
fn the_validation_loss_is_that_of_predictions() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    plain_run(dir, &[]);
    let words = [
        "history",
        "run",
        "--data",
        ".",
        "--validation",
        "--out",
        "h.csv",
        "--json",
    ];
    let said = json(dir, &words);
    let rows = table(&dir.join("h.csv"));
    let measured: Vec<usize> = (0..12)
        .filter(|&t| rows["validation_loss"][t].is_some())
        .collect();
    assert_eq!(measured, [3, 7, 11], "the ends of the epochs");
    for (place, t) in measured.into_iter().enumerate() {
        let at = match t {
            11 => "final".to_owned(),
            t => format!("step:{}", t + 1),
        };
        let words = ["predict", "run", "--data", ".", "--at", &at, "--json"];
        let predicted = json(dir, &words);
        close(
            rows["validation_loss"][t],
            predicted["mean_loss"].as_f64().unwrap(),
            1e-12,
        );
        close(
            rows["validation_error"][t],
            predicted["error"].as_f64().unwrap(),
            1e-12,
        );
        assert_eq!(said["held_out"]["losses"][place]["step"], t);
        let loss = said["epochs"][place]["held_out_loss"].as_f64();
        close(loss, rows["validation_loss"][t].unwrap(), 1e-12);
    }
    assert_eq!(said["held_out"]["split"], "validation");
    assert_eq!(
        (&said["held_out"]["examples"], &said["held_out"]["of"]),
        (&8.into(), &8.into())
    );
    // Every fifth step and the last one, on some examples.
    let words = [
        "history",
        "run",
        "--data",
        ".",
        "--validation",
        "--every",
        "5",
        "--examples",
        "3",
        "--json",
    ];
    let said = json(dir, &words);
    let losses = said["held_out"]["losses"].as_array().unwrap();
    let steps: Vec<u64> = losses.iter().map(|p| p["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [4, 9, 11]);
    assert_eq!(said["held_out"]["examples"], 3);
}

#[test]
fn the_table_has_the_exported_metadata_and_windows_cut_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    plain_run(dir, &[]);
    let said = json(dir, &["history", "run", "--out", "h.csv", "--json"]);
    fine(
        dir,
        &["export", "run", "--steps", "0..12", "--out", "steps"],
    );
    let rows = table(&dir.join("h.csv"));
    let exported = fs::read_to_string(dir.join("steps/steps.jsonl")).unwrap();
    let mut losses = Vec::new();
    for (t, line) in exported.lines().enumerate() {
        let step: Value = serde_json::from_str(line).unwrap();
        assert_eq!(rows["step"][t], step["step"].as_f64());
        assert_eq!(rows["epoch"][t], step["epoch"].as_f64());
        assert_eq!(rows["loss"][t], step["loss"].as_f64());
        let batch = step["indices"].as_array().unwrap().len();
        assert_eq!(rows["batch_size"][t], Some(batch as f64));
        assert_eq!(rows["learning_rate"][t], Some(0.05));
        losses.push(step["loss"].as_f64().unwrap());
    }
    assert_eq!(losses.len(), 12);
    let mean = losses[4..8].iter().sum::<f64>() / 4.0;
    close(said["epochs"][1]["mean_loss"].as_f64(), mean, 1e-12);
    assert_eq!(said["losses"]["first"]["loss"], losses[0]);
    assert_eq!(said["columns"].as_array().unwrap().len(), 5);
    assert_eq!(said["tensorboard"], Value::Null);
    for (window, steps) in [("last-epoch", 8..12), ("2..9", 2..9)] {
        let said = json(dir, &["history", "run", "--window", window, "--json"]);
        assert_eq!(
            (&said["steps"]["start"], &said["steps"]["end"]),
            (&steps.start.into(), &steps.end.into())
        );
    }
    // The same table may be written again, and no other file is replaced.
    fine(dir, &["history", "run", "--norms", "--out", "h.csv"]);
    for (words, says) in [
        (vec!["--out", "train.csv"], "isn't a table of steps"),
        (vec!["--out", "h.json"], "ends in .csv"),
        (vec!["--out", "run/h.csv"], "folder of a recorded run"),
        (vec!["--tensorboard", "run/tb"], "folder of a recorded run"),
        (vec!["--tensorboard", "h.csv"], "expected a folder"),
        (vec!["--picture", "h.png"], "ends in .svg"),
        (vec!["--window", "20..30"], "20..30"),
        (vec!["--every", "5"], "--validation"),
        (vec!["--validation"], "--data"),
    ] {
        let output = hindcast(dir, &[vec!["history", "run"], words.clone()].concat());
        assert!([1, 2].contains(&code(&output)), "{words:?}");
        assert!(
            stderr(&output).contains(says),
            "{words:?}: {}",
            stderr(&output)
        );
    }
    let picture = [
        "history",
        "run",
        "--data",
        ".",
        "--validation",
        "--picture",
        "h.svg",
    ];
    fine(dir, &picture);
    fine(dir, &picture);
    let svg = fs::read_to_string(dir.join("h.svg")).unwrap();
    assert!(svg.contains("validation loss") && svg.contains("mean of an epoch"));
}

#[test]
fn a_rule_whose_gradients_dont_follow_from_updates_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    plain_run(dir, &["--set", "optimizer.momentum=0.9"]);
    let said = json(
        dir,
        &["history", "run", "--norms", "--out", "h.csv", "--json"],
    );
    let note = said["notes"][0].as_str().unwrap();
    assert!(note.contains("--gradients"), "{note}");
    let rows = table(&dir.join("h.csv"));
    assert!(rows.contains_key("update_norm") && !rows.contains_key("gradient_norm"));
}

/// TensorBoard's own reader, if it is installed, finds the values of the table.
#[test]
fn tensorboard_reads_the_event_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    plain_run(dir, &[]);
    let words = [
        "history",
        "run",
        "--data",
        ".",
        "--norms",
        "--validation",
        "--out",
        "h.csv",
        "--tensorboard",
        "logs/run",
        "--json",
    ];
    let said = json(dir, &words);
    let file = said["tensorboard"].as_str().unwrap();
    assert!(file.starts_with("logs/run/events.out.tfevents."), "{file}");
    // The same run replaces its file, and another run is refused.
    fine(dir, &words);
    fine(
        dir,
        &[
            "record",
            "task.toml",
            "--data",
            ".",
            "--out",
            "other",
            "--set",
            "data.validation=0",
        ],
    );
    // Before anything is computed: there are no examples whose loss could be measured.
    let asked = ["--data", ".", "--validation", "--tensorboard", "logs/run"];
    let output = hindcast(dir, &[&["history", "other"], &asked[..]].concat());
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("another run or program"),
        "{}",
        stderr(&output)
    );
    let script = "\
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import json, sys
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'tensors': 0})
events.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}))
";
    let python = std::env::var("HINDCAST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let read = Command::new(&python)
        .args(["-c", script, "logs/run"])
        .current_dir(dir)
        .output();
    let read = match read {
        Ok(read) if read.status.success() => read,
        other => {
            let said = other.map(|output| stderr(&output)).unwrap_or_default();
            assert!(
                said.is_empty()
                    || said.contains("ModuleNotFoundError")
                    || said.contains("not found"),
                "{said}"
            );
            println!(
                "skipped: {python} has no module tensorboard (pip install tensorboard; HINDCAST_PYTHON names another Python)"
            );
            return;
        }
    };
    let tags: BTreeMap<String, Vec<(usize, f64)>> = serde_json::from_slice(&read.stdout).unwrap();
    let rows = table(&dir.join("h.csv"));
    for (tag, column) in [
        ("train/loss", "loss"),
        ("train/learning_rate", "learning_rate"),
        ("train/epoch", "epoch"),
        ("train/batch_size", "batch_size"),
        ("train/gradient_norm", "gradient_norm"),
        ("train/parameter_norm", "parameter_norm"),
        ("train/update_norm", "update_norm"),
        ("validation/loss", "validation_loss"),
        ("validation/error", "validation_error"),
    ] {
        let expected: Vec<(usize, f64)> = rows[column]
            .iter()
            .enumerate()
            .filter_map(|(t, x)| Some((t, f64::from((*x)? as f32))))
            .collect();
        assert_eq!(tags[tag], expected, "{tag}");
    }
    assert_eq!(tags.len(), 9);
}
