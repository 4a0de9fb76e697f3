//! `--at POINT`: its forms, what is refused, and that tables, sweeps and written models are about the same model.

use std::fs;

use super::engines::leave_checkpoint;
use super::*;

/// Every form of POINT with what it stands for in a run of two epochs of five steps.
const FORMS: [(&str, &str); 10] = [
    ("final", "final"),
    ("mean", "mean:last-epoch"),
    (" mean:last-epoch ", "mean:last-epoch"),
    ("mean:1-epochs", "mean:1-epochs"),
    ("mean:1-epoch", "mean:1-epochs"),
    ("mean:2-epochs", "mean:2-epochs"),
    ("mean:5-steps", "mean:5-steps"),
    ("mean:1-step", "mean:1-steps"),
    ("mean:10-steps", "mean:10-steps"),
    ("ema:0.75", "ema:0.75"),
];

fn influence(dir: &Path, words: &[&str]) -> serde_json::Value {
    let words = [&["influence", "run", "--json", "--replace"], words].concat();
    serde_json::from_str(&fine(dir, &words)).unwrap()
}

/// The column `influence` of a table, as text.
fn scores(dir: &Path, table: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(table)).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let at = lines.next().unwrap().position(|name| name == "influence");
    lines.map(|mut row| row.nth(at.unwrap()).unwrap()).collect()
}

#[test]
fn every_form_is_recorded_as_what_it_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let mut tables = Vec::new();
    for (n, (form, stands_for)) in FORMS.into_iter().enumerate() {
        let out = format!("{n}.csv");
        let said = influence(dir, &["--at", form, "--out", &out]);
        assert_eq!(said["at"], stands_for, "{form}");
        let meta = fs::read(dir.join(format!("{out}.meta.json"))).unwrap();
        let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(meta["at"], stands_for, "{form}");
        let value = said["queries"][0]["value"].as_f64().unwrap();
        tables.push((form, scores(dir, &out), value));
    }
    let of = |form: &str| tables.iter().find(|(name, ..)| *name == form).unwrap();
    // Different words for the same models give the same bits.
    let same = |a: &str, b: &str| assert_eq!(of(a).1, of(b).1, "{a} {b}");
    same("mean", " mean:last-epoch ");
    same("mean", "mean:1-epochs");
    same("mean", "mean:1-epoch");
    same("mean", "mean:5-steps");
    same("mean:2-epochs", "mean:10-steps");
    same("mean:1-step", "final");
    let distinct = ["final", "mean", "mean:2-epochs", "ema:0.75"];
    for (at, a) in distinct.iter().enumerate() {
        for b in &distinct[..at] {
            assert_ne!(of(a).1, of(b).1, "{a} {b}");
            assert_ne!(of(a).2, of(b).2, "{a} {b}");
        }
    }
    // `counterfactual` measures at the table's model.
    for (n, (_, stands_for)) in FORMS.into_iter().enumerate().step_by(5) {
        let words = [
            "counterfactual",
            "run",
            "--top",
            "3",
            &format!("{n}.csv"),
            "--json",
        ];
        let said: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
        assert_eq!(said["at"], stands_for);
    }
}

#[test]
fn wrong_forms_are_wrong_usage_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fs::write(dir.join("list.txt"), "3\n").unwrap();
    for form in [
        "",
        "last",
        "final:2",
        "mean:",
        "mean:5",
        "mean:0-steps",
        "mean:0-epochs",
        "mean:-1-steps",
        "mean:1.5-epochs",
        "mean:3-weeks",
        "ema",
        "ema:",
        "ema:0",
        "ema:1",
        "ema:1.5",
        "ema:-0.5",
        "ema:nan",
        "ema:x",
        "weighted:00",
    ] {
        for verb in [
            &["influence", "run", "--out", "new.csv"][..],
            &["counterfactual", "run", "--without", "list.txt"],
            &["checkpoint", "run", "--out", "new.safetensors"],
        ] {
            let at = format!("--at={form}");
            let output = hindcast(dir, &[verb, &[&at]].concat());
            let said = stderr(&output);
            assert_eq!(code(&output), 2, "{verb:?} {form:?}: {said}");
            assert!(said.contains("--at"), "{verb:?} {form:?}: {said}");
        }
    }
    assert!(!dir.join("new.csv").exists() && !dir.join("new.safetensors").exists());
}

#[test]
fn averages_of_more_than_the_run_has_are_refused_before_the_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fs::write(dir.join("list.txt"), "3\n").unwrap();
    for (point, hint) in [
        (
            "mean:3-epochs",
            "the trace contains steps of only 2 epochs: ask for this number or fewer",
        ),
        ("mean:11-steps", "the run has only 10 steps"),
    ] {
        for verb in [
            &["influence", "run", "--out", "new.csv"][..],
            &["counterfactual", "run", "--without", "list.txt"],
            &["checkpoint", "run", "--out", "new.safetensors"],
        ] {
            let output = hindcast(dir, &[verb, &["--at", point]].concat());
            let said = stderr(&output);
            assert_eq!(code(&output), 1, "{verb:?}: {said}");
            assert!(
                said.contains(hint) && said.contains(point),
                "{verb:?}: {said}"
            );
            assert!(!said.contains("the sweep took"), "{said}");
        }
    }
    assert!(!dir.join("new.csv").exists() && !dir.join("new.safetensors").exists());
}

/// The default fits what the run has, and other averages say what it has.
#[test]
fn a_run_with_only_its_last_epoch_averages_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut words = vec!["record", "digits", "--out", "run", "--keep", "last-steps=6"];
    for set in [
        "data.train=120",
        "data.validation=40",
        "data.test=0",
        "train.epochs=8",
        "train.batch=25",
    ] {
        words.extend(["--set", set]);
    }
    fine(dir, &words);
    let info: serde_json::Value =
        serde_json::from_str(&fine(dir, &["info", "run", "--json"])).unwrap();
    let first = info["ranges"][0]["start"].as_u64().unwrap();
    assert!((30..35).contains(&first), "{info}");
    let newest = format!("mean:{}-steps", 40 - first);
    // Of the last quarter of eight epochs, only the newest steps are there, and the mean is over those.
    let said = influence(dir, &[]);
    assert_eq!(said["at"], "mean:2-epochs");
    let whole = scores(dir, "scores.csv");
    influence(dir, &["--at", &newest]);
    assert_eq!(scores(dir, "scores.csv"), whole);
    let window = ["--window", "last-epoch"];
    let said = influence(dir, &[&window[..], &["--at", "mean:last-epoch"]].concat());
    assert_eq!(said["at"], "mean:last-epoch");
    for point in ["mean:20-steps", "ema:0.9"] {
        let words = ["influence", "run", "--at", point, "--window", "last-epoch"];
        let output = hindcast(dir, &words);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{point}: {said}");
        let hint = format!("so {newest} or less is possible");
        assert!(
            said.contains("not in the trace") && said.contains(&hint),
            "{point}: {said}"
        );
    }
}

#[test]
fn the_default_averages_only_models_of_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fs::write(dir.join("left-out.txt"), "1\n3\n").unwrap();
    for (window, stands_for) in [
        ("all", "mean:last-epoch"),
        ("3..10", "mean:last-epoch"),
        ("last-epoch", "mean:last-epoch"),
        ("7..10", "mean:3-steps"),
        ("7..9", "mean:3-steps"),
        ("9..10", "final"),
    ] {
        let said = influence(dir, &["--window", window, "--out", "default.csv"]);
        assert_eq!(said["at"], stands_for, "{window}");
        let named = ["--window", window, "--at", stands_for, "--out", "named.csv"];
        influence(dir, &named);
        let (default, named) = (scores(dir, "default.csv"), scores(dir, "named.csv"));
        assert_eq!(default, named, "{window}");
        // A retraining of the window measures at the same model, with and without a table.
        let table = ["--top", "2", "default.csv"];
        for chosen in [&table[..], &["--without", "left-out.txt"]] {
            let words = ["counterfactual", "run", "--window", window, "--json"];
            let said = fine(dir, &[&words[..], chosen].concat());
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said["at"], stands_for, "{window} {chosen:?}");
        }
    }
}

#[test]
fn several_queries_at_an_average_have_the_bits_of_separate_sweeps() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let queries = ["validation", "train:5", "validation:class-3"];
    let mut words = vec!["--at", "ema:0.5", "--out", "all.csv"];
    words.extend(queries.iter().flat_map(|q| ["--query", q]));
    influence(dir, &words);
    let text = fs::read_to_string(dir.join("all.csv")).unwrap();
    let names: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    for query in queries {
        influence(
            dir,
            &["--at", "ema:0.5", "--query", query, "--out", "one.csv"],
        );
        let name = format!("influence[{query}]");
        let at = names.iter().position(|n| *n == name).unwrap();
        let rows = text.lines().skip(1);
        let column: Vec<&str> = rows.map(|line| line.split(',').nth(at).unwrap()).collect();
        assert_eq!(column, scores(dir, "one.csv"), "{query}");
    }
}

#[test]
fn an_interrupted_sweep_resumes_at_its_own_point_only() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let at = |point: &'static str| {
        let words = [
            "influence",
            "run",
            "--out",
            "scores.csv",
            "--checkpoint-every",
            "0",
        ];
        [&words[..], &["--at", point]].concat()
    };
    fine(dir, &at("mean:3-steps"));
    let whole = fs::read(dir.join("scores.csv")).unwrap();
    fs::remove_file(dir.join("scores.csv")).unwrap();
    leave_checkpoint(dir, &at("mean:3-steps"));
    for other in ["final", "mean:4-steps", "ema:0.5"] {
        let output = hindcast(dir, &[&at(other)[..], &["--resume"]].concat());
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{other}: {said}");
        assert!(
            said.contains("its query point: expected ")
                && said.contains(other)
                && said.contains("got mean:3-steps"),
            "{other}: {said}"
        );
    }
    fine(dir, &[&at("mean:3-steps")[..], &["--resume"]].concat());
    assert_eq!(fs::read(dir.join("scores.csv")).unwrap(), whole);
}

/// The f32 values of a file's tensors, in the order of their names.
fn values(path: &Path) -> Vec<f64> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let data = tensors.iter().flat_map(|(_, t)| t.data().to_vec());
    let data: Vec<u8> = data.collect();
    let floats = data.as_chunks::<4>().0.iter();
    floats.map(|b| f64::from(f32::from_le_bytes(*b))).collect()
}

#[test]
fn checkpoint_writes_the_average_of_the_recorded_models() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let write = |words: [&str; 2], out: &str| {
        let words = ["checkpoint", "run", words[0], words[1], "--out", out];
        let said = fine(dir, &words);
        (said, values(&dir.join(out)))
    };
    // θ_k, the model before step k.
    let models: Vec<Vec<f64>> = (0..=10)
        .map(|k| write(["--step", &k.to_string()], &format!("{k}.safetensors")).1)
        .collect();
    let mean_from = |first: usize| -> Vec<f64> {
        let of = |i: usize| models[first..].iter().map(|m| m[i]).sum::<f64>();
        let n = (models.len() - first) as f64;
        (0..models[0].len()).map(|i| of(i) / n).collect()
    };
    let mut moving = models[0].clone();
    for model in &models[1..] {
        for (x, y) in moving.iter_mut().zip(model) {
            *x = 0.75 * *x + 0.25 * y;
        }
    }
    for (n, (point, wanted)) in [
        ("final", models[10].clone()),
        ("mean", mean_from(6)),
        ("mean:2-epochs", mean_from(1)),
        ("mean:3-steps", mean_from(8)),
        ("ema:0.75", moving),
    ]
    .into_iter()
    .enumerate()
    {
        let (said, got) = write(["--at", point], &format!("at-{n}.safetensors"));
        assert_eq!(got.len(), wanted.len());
        for (a, b) in got.iter().zip(&wanted) {
            assert!(
                (a - b).abs() <= 1e-7 * b.abs().max(1e-3),
                "{point}: {a} {b}"
            );
        }
        assert_eq!(said.contains("the average"), point != "final", "{said}");
    }
    let words = [
        "checkpoint",
        "run",
        "--at",
        "mean",
        "--step",
        "3",
        "--out",
        "new.safetensors",
    ];
    assert_eq!(code(&hindcast(dir, &words)), 2);
}

/// A table without metadata doesn't say what it is about. The change is then measured where `influence` would ask.
#[test]
fn a_table_without_metadata_is_measured_at_the_default_model() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    influence(dir, &["--at", "final", "--out", "scores.csv"]);
    let measured = |option: &str, number: &str| {
        let words = [
            "counterfactual",
            "run",
            option,
            number,
            "scores.csv",
            "--json",
        ];
        let said: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
        said["at"].clone()
    };
    assert_eq!(measured("--top", "3"), "final");
    fs::remove_file(dir.join("scores.csv.meta.json")).unwrap();
    assert_eq!(measured("--top", "3"), "mean:last-epoch");
    assert_eq!(measured("--scan", "1,3"), "mean:last-epoch");
}
