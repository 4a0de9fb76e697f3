//! `influence` with several runs: means and their spread, what is refused, and how an interrupted command resumes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use super::slices::{end_by, pause_when};
use super::*;

/// Records one small run per seed into `out`.
fn record(dir: &Path, out: &str, seeds: &str, more: &[&str]) {
    let mut words = vec!["record", "digits", "--out", out, "--seeds", seeds];
    for set in [
        "data.train=120",
        "data.validation=40",
        "data.test=0",
        "train.epochs=2",
        "train.batch=25",
    ] {
        words.extend(["--set", set]);
    }
    words.extend(more);
    fine(dir, &words);
}

const RUNS: [&str; 3] = ["runs/seed-0", "runs/seed-1", "runs/seed-2"];

/// `influence` for these runs.
fn influence<'a>(runs: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&["influence"], runs, more].concat()
}

/// Columns of a CSV without quotes: the number in each row, by the example's index.
fn columns(path: &Path) -> BTreeMap<String, BTreeMap<u64, Option<f64>>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut out: BTreeMap<String, BTreeMap<u64, Option<f64>>> = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        for (name, cell) in names.iter().zip(&cells) {
            let index = cells[0].parse().unwrap();
            let column = out.entry((*name).to_owned()).or_default();
            column.insert(index, cell.parse().ok());
        }
    }
    out
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * (a.abs() + b.abs())
}

#[test]
fn a_joined_table_has_the_mean_the_deviation_and_t_of_the_single_tables() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "runs", "0..3", &[]);
    let window = ["--window", "last-epoch", "--at", "mean", "--top", "2"];
    let said = fine(
        dir,
        &influence(&RUNS, &[&window[..], &["--out", "all.csv"]].concat()),
    );
    assert!(said.contains("mean over 3 runs"), "{said}");
    assert!(said.contains("influence_sd"), "{said}");
    let single = ["0.csv", "1.csv", "2.csv"];
    for (run, out) in RUNS.iter().zip(single) {
        fine(
            dir,
            &influence(&[run], &[&window[..], &["--out", out]].concat()),
        );
    }
    let of = single.map(|name| columns(&dir.join(name)));
    let all = columns(&dir.join("all.csv"));
    for index in 0..120 {
        let at = |column: &str| all[column][&index].unwrap();
        let [x, y, z] = [0, 1, 2].map(|k: usize| of[k]["influence"][&index].unwrap());
        let mean = (x + y + z) / 3.0;
        let variance = ((x - mean).powi(2) + (y - mean).powi(2) + (z - mean).powi(2)) / 2.0;
        assert!(close(at("influence"), mean), "{index}");
        assert!(close(at("influence_sd"), variance.sqrt()), "{index}");
        assert!(
            close(at("influence_t"), mean / (variance / 3.0).sqrt()),
            "{index}"
        );
        assert_eq!((at("runs"), at("occurrences")), (3.0, 3.0));
    }
    let metadata = fs::read_to_string(dir.join("all.csv.meta.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["at"], "mean:last-epoch");
    for (k, run) in RUNS.iter().enumerate() {
        let trace = hindcast_format::Trace::open(dir.join(run)).unwrap();
        let head = hindcast_format::hex(&trace.head_digest().unwrap());
        assert_eq!(metadata["runs"][k]["digest"], head.as_str());
    }
    // Nothing but the two results is left.
    assert!(!dir.join("all.csv.run-1.csv").exists() && !dir.join("all.csv.run-3.csv").exists());

    let endings = if cfg!(feature = "parquet") {
        &["jsonl", "parquet"][..]
    } else {
        &["jsonl"]
    };
    for ending in endings {
        let out = format!("all.{ending}");
        fine(
            dir,
            &influence(&RUNS, &[&window[..], &["--out", &out]].concat()),
        );
        let again = format!("again-{ending}.csv");
        fine(dir, &["scores", &out, "--sort", "index", "--out", &again]);
        fine(
            dir,
            &[
                "scores",
                "all.csv",
                "--sort",
                "index",
                "--out",
                "sorted.csv",
            ],
        );
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read(&again), read("sorted.csv"), "{ending}");
    }

    the_table_is_about_each_of_its_runs(dir);
    rows_are_chosen_by_the_new_columns(dir, &all);
}

fn rows_are_chosen_by_the_new_columns(
    dir: &Path,
    all: &BTreeMap<String, BTreeMap<u64, Option<f64>>>,
) {
    let least = |column: &str| {
        let cells = all[column].iter().map(|(i, x)| (*i, x.unwrap()));
        cells.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0
    };
    for column in ["influence_t", "influence_sd"] {
        let said = fine(
            dir,
            &[
                "scores", "all.csv", "--sort", column, "--top", "1", "--json",
            ],
        );
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["rows"][0]["index"], least(column), "{column}");
    }
    let said = fine(
        dir,
        &["scores", "all.csv", "--where", "influence_t<-2", "--json"],
    );
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let below = all["influence_t"].values().filter(|t| t.unwrap() < -2.0);
    assert_eq!(said["rows"].as_array().unwrap().len(), below.count());
    let text = fine(dir, &["scores", "all.csv", "--top", "2"]);
    assert!(
        text.lines().next().unwrap().contains("influence_t"),
        "{text}"
    );
}

fn the_table_is_about_each_of_its_runs(dir: &Path) {
    // The last epoch, as in the table; the prediction for one run is that run's own.
    let words = [
        "counterfactual",
        "runs/seed-1",
        "--top",
        "3",
        "all.csv",
        "--window",
        "last-epoch",
        "--json",
    ];
    let output = hindcast(dir, &words);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(!stderr(&output).contains("warning"), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(found["predicted_from"], "a sweep of this window");
    let real = found["real_change"].as_f64().unwrap();
    let predicted = found["predicted_change"].as_f64().unwrap();
    assert!((predicted / real - 1.0).abs() < 0.2, "{predicted} {real}");

    record(dir, "other", "7..8", &[]);
    let output = hindcast(
        dir,
        &["counterfactual", "other/seed-7", "--top", "3", "all.csv"],
    );
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("none of them"),
        "{}",
        stderr(&output)
    );

    fine(
        dir,
        &[
            "report",
            "runs/seed-2",
            "all.csv",
            "--out",
            "page.html",
            "--top",
            "3",
        ],
    );
    let page = fs::read_to_string(dir.join("page.html")).unwrap();
    assert!(page.contains("mean over 3 runs"));
    assert!(page.contains("±"));
    let output = hindcast(
        dir,
        &["report", "other/seed-7", "all.csv", "--out", "no.html"],
    );
    assert_eq!(code(&output), 1);
}

#[test]
fn runs_that_do_not_answer_the_same_question_are_refused_before_a_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "runs", "0..1", &[]);
    record(dir, "split", "1..2", &["--set", "data.seed=9"]);
    record(dir, "long", "1..2", &["--set", "train.epochs=3"]);
    record(
        dir,
        "named",
        "1..2",
        &[
            "--set",
            "data.class_names=[\"o\",\"i\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]",
        ],
    );
    fs::create_dir(dir.join("copies")).unwrap();
    copy(&dir.join("runs/seed-0"), &dir.join("copies/one"));
    let cases: [(&[&str], i32, &str); 6] = [
        (&["split/seed-1"], 1, "their train examples differ"),
        (
            &["long/seed-1"],
            1,
            "the window all is 0..10 of 10 steps in one and 0..15 of 15 steps in the other",
        ),
        (&["named/seed-1"], 1, "different classes"),
        (&["copies/one"], 1, "are the same run"),
        (&["runs/seed-0"], 1, "are the same run"),
        (&["long/seed-1", "--refine", "5"], 2, "--refine"),
    ];
    for (more, exit, hint) in cases {
        let output = hindcast(dir, &influence(&["runs/seed-0"], more));
        let said = stderr(&output);
        assert_eq!(code(&output), exit, "{more:?}: {said}");
        assert!(said.contains(hint), "{more:?}: {said}");
        assert!(!said.contains("to sweep"), "{more:?}: {said}");
    }
    assert!(!dir.join("scores.csv").exists());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn an_interrupted_command_resumes_within_a_run_to_the_same_table() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "runs", "0..3", &["--set", "train.epochs=6"]);
    fine(dir, &influence(&RUNS, &["--out", "whole.csv"]));
    let more = ["--out", "scores.csv", "--checkpoint-every", "0"];
    let second = dir.join("scores.csv.run-2.csv.sweep.safetensors");
    let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(influence(&RUNS, &more))
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(
        pause_when(&mut child, || second.exists()),
        "the command ended before the signal"
    );
    end_by(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
    assert!(dir.join("scores.csv.run-1.csv").exists());
    assert!(!dir.join("scores.csv").exists());

    let output = hindcast(dir, &influence(&RUNS, &more));
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("scores.csv.run-1.csv holds the scores of one run"),
        "{}",
        stderr(&output)
    );
    let output = hindcast(
        dir,
        &influence(
            &RUNS,
            &[&more[..], &["--resume", "--window", "last-epoch"]].concat(),
        ),
    );
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("of another run or question"),
        "{}",
        stderr(&output)
    );
    let output = hindcast(dir, &influence(&RUNS, &[&more[..], &["--resume"]].concat()));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("scores.csv.run-1.csv: kept")
            && stderr(&output).contains("continuing after"),
        "{}",
        stderr(&output)
    );
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    assert_eq!(read("scores.csv"), read("whole.csv"));
    let left = fs::read_dir(dir).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains(".run-")
    });
    assert_eq!(left.count(), 0);
}
