//! Tables that don't belong to the run: of other runs or data, empty, with repeated or contradictory rows.

use std::fs;

use hindcast_analyzer::ScoreTable;
use hindcast_analyzer::output::sidecar_path;

use super::*;

/// A run of 120 digits with its table, and a run of another seed.
fn two_runs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    small_run(dir.path());
    fine(dir.path(), &["influence", "run", "--top", "0"]);
    let other = [
        "record",
        "digits",
        "--out",
        "other",
        "--set",
        "data.train=120",
        "--set",
        "data.validation=40",
        "--set",
        "data.test=0",
        "--set",
        "data.seed=0",
        "--set",
        "train.epochs=1",
        "--set",
        "train.batch=25",
        "--set",
        "train.seed=7",
    ];
    fine(dir.path(), &other);
    dir
}

fn refused(dir: &Path, words: &[&str], hint: &str) {
    let output = hindcast(dir, words);
    assert_eq!(
        code(&output),
        1,
        "{words:?}: {}{}",
        stdout(&output),
        stderr(&output)
    );
    assert!(
        stderr(&output).contains(hint),
        "{words:?} does not say {hint:?}: {}",
        stderr(&output)
    );
}

#[test]
fn a_table_of_another_run_leaves_nothing_out() {
    let dir = two_runs();
    let dir = dir.path();
    refused(
        dir,
        &["counterfactual", "other", "--top", "3", "scores.csv"],
        "scores.csv: made from another run",
    );
    refused(
        dir,
        &["report", "other", "scores.csv"],
        "made from another run",
    );
    // It can be accepted on request: its rows are the same examples.
    let words = [
        "counterfactual",
        "other",
        "--top",
        "3",
        "scores.csv",
        "--other-run",
    ];
    let output = hindcast(dir, &words);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: scores.csv: made from another run"));
    assert!(stdout(&output).contains("predicted (by a sweep of this window)"));
    // The table's window isn't the one of the removal: both are printed.
    let words = [
        "counterfactual",
        "run",
        "--window",
        "last-epoch",
        "--top",
        "3",
        "scores.csv",
    ];
    let output = hindcast(dir, &words);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("ranks by the steps 0..10; the examples are left out of 5..10"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn rows_that_differ_from_the_data_are_refused_by_every_verb() {
    let dir = two_runs();
    let dir = dir.path();
    let table = ScoreTable::read(&dir.join("scores.csv")).unwrap();
    type Spoil = fn(&mut ScoreTable);
    let spoilt: [(&str, Spoil, &str); 6] = [
        ("empty.csv", |t| t.rows.clear(), "the table has no rows"),
        (
            "far.csv",
            |t| t.rows[5].index = 120,
            "example 120, but the training split has 120",
        ),
        (
            "label.csv",
            |t| t.rows[5].label = "x".to_owned(),
            "example 5 has the label \"x\" in the table",
        ),
        (
            "row.csv",
            |t| t.rows[5].row = 6,
            "example 5 has the row \"6\" in the table and \"5\"",
        ),
        (
            "file.csv",
            |t| t.rows[5].file = "a.csv".to_owned(),
            "example 5 has the file \"a.csv\"",
        ),
        (
            "steps.csv",
            |t| t.metadata.run_steps = 11,
            "its metadata says 11 steps, and the run has 10",
        ),
    ];
    for (name, spoil, hint) in spoilt {
        let mut table = table.clone();
        spoil(&mut table);
        table.write(&dir.join(name)).unwrap();
        refused(dir, &["counterfactual", "run", "--top", "2", name], hint);
        if name != "steps.csv" {
            refused(dir, &["report", "run", name], hint);
        }
    }
    assert!(!dir.join("report.html").exists());
    // A table with a repeated row can't be read.
    let mut twice = table.clone();
    twice.rows.push(twice.rows[5].clone());
    for name in ["twice.csv", "twice.jsonl"] {
        twice.write(&dir.join(name)).unwrap();
        let hint = "example 5 appears twice, in rows 6 and 121";
        refused(dir, &["counterfactual", "run", "--top", "2", name], hint);
        refused(dir, &["report", "run", name], hint);
        refused(dir, &["scores", name], hint);
    }
    let text = fs::read_to_string(dir.join("scores.csv")).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    fs::write(
        dir.join("columns.csv"),
        format!("{header},influence\n{}", rows.replace('\n', ",1\n")),
    )
    .unwrap();
    refused(
        dir,
        &["scores", "columns.csv"],
        "column `influence` appears twice",
    );
    // Metadata of a later version may have a different meaning.
    let sidecar = sidecar_path(&dir.join("label.csv"));
    let newer = fs::read_to_string(&sidecar).unwrap();
    fs::write(
        &sidecar,
        newer.replacen("\"version\": 1", "\"version\": 2", 1),
    )
    .unwrap();
    refused(dir, &["scores", "label.csv"], "metadata of version 2");
}

#[test]
fn a_table_without_metadata_is_taken_with_a_warning() {
    let dir = two_runs();
    let dir = dir.path();
    fs::copy(dir.join("scores.csv"), dir.join("alone.csv")).unwrap();
    let output = hindcast(dir, &["counterfactual", "run", "--top", "3", "alone.csv"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("warning: alone.csv.meta.json is missing") && said.contains("which run"),
        "{said}"
    );
    // Its rows are checked in any case.
    fs::write(dir.join("alone.csv"), "index,label,influence\n3,none,-1\n").unwrap();
    refused(
        dir,
        &["counterfactual", "run", "--top", "1", "alone.csv"],
        "example 3 has the label \"none\"",
    );
}

#[test]
fn the_querys_column_ranks_and_missing_scores_are_reported() {
    let dir = two_runs();
    let dir = dir.path();
    let words = [
        "influence",
        "run",
        "--query",
        "validation:3",
        "--query",
        "train:5",
        "--out",
        "two.csv",
    ];
    fine(dir, &words);
    refused(
        dir,
        &["counterfactual", "run", "--top", "2", "two.csv"],
        "no column for the query validation, but several others (validation:3, train:5)",
    );
    let of = |query| {
        let words = [
            "counterfactual",
            "run",
            "--query",
            query,
            "--top",
            "2",
            "two.csv",
        ];
        hindcast(dir, &words)
    };
    assert_eq!(code(&of("train:5")), 0);

    let mut table = ScoreTable::read(&dir.join("scores.csv")).unwrap();
    for row in &mut table.rows[2..] {
        row.influence[0] = None;
    }
    table.rows[1].influence[0] = Some(f64::NAN);
    table.write(&dir.join("few.csv")).unwrap();
    let output = hindcast(dir, &["counterfactual", "run", "--top", "5", "few.csv"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("scores for only 1 examples, not for 5"),
        "{}",
        stderr(&output)
    );
    table.rows[0].influence[0] = None;
    table.write(&dir.join("none.csv")).unwrap();
    refused(
        dir,
        &["counterfactual", "run", "--top", "5", "none.csv"],
        "no row of none.csv has a score",
    );
}

#[test]
fn an_error_in_a_list_names_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let without = |text: &str| {
        fs::write(dir.join("list.txt"), text).unwrap();
        hindcast(dir, &["counterfactual", "run", "--without", "list.txt"])
    };
    let output = without("\u{feff}3\r\n# two\n\n7\n3\n");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("without 2 examples"));
    assert!(
        stderr(&output).contains("list.txt, line 5: example 3 is in line 1 already"),
        "{}",
        stderr(&output)
    );
    // A table, as `scores --out` writes it.
    let output = without("index,row,label,validation\n3,5,\"a, b\",-1e-3\n7,9,c,\n");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("without 2 examples"));
    for (text, hint) in [
        ("", "names no example"),
        ("# none\n", "names no example"),
        ("3\n120\n", "line 2: example 120 can't be left out"),
        (
            "row\n3\n",
            "line 1: expected the index of a training example",
        ),
        (
            "row,index\n3,x\n",
            "line 2: expected the index of a training example, got \"x\"",
        ),
        ("-3\n", "line 1: expected the index"),
    ] {
        let output = without(text);
        assert_eq!(code(&output), 1, "{text:?}");
        assert!(
            stderr(&output).contains(hint),
            "{text:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_vector_is_identified_by_its_content() {
    let dir = two_runs();
    let dir = dir.path();
    for (step, out) in [("final", "q.safetensors"), ("0", "first.safetensors")] {
        fine(dir, &["checkpoint", "run", "--step", step, "--out", out]);
    }
    let query = ["--query", "vector:q.safetensors"];
    let sweep = ["influence", "run", "--out", "v.csv", "--top", "0"];
    fine(dir, &[&sweep[..], &query].concat());
    let words = ["counterfactual", "run", "--top", "2", "v.csv"];
    let words = [&words[..], &query].concat();
    assert!(fine(dir, &words).contains("predicted (by the table)"));
    let removed = [&words[..], &["--each", "--out", "cf.json"]].concat();
    fine(dir, &removed);
    let report = ["report", "run", "v.csv", "--removed", "cf.json", "--json"];
    assert!(!fine(dir, &report).contains("not checked"));
    let same = fs::read(dir.join("q.safetensors")).unwrap();
    fs::rename(dir.join("first.safetensors"), dir.join("q.safetensors")).unwrap();
    let hint = "the file of vector:q.safetensors has changed since";
    refused(dir, &words, hint);
    // Retrainings of the other vector say nothing about this vector's table.
    let sweep = ["influence", "run", "--out", "w.csv", "--top", "0"];
    fine(dir, &[&sweep[..], &query].concat());
    let verdict = |table: &str| {
        let words = ["report", "run", table, "--removed", "cf.json", "--json"];
        let said: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
        said["views"][0]["reasons"][0].as_str().unwrap().to_owned()
    };
    assert!(verdict("v.csv").contains("2 examples were left out one at a time"));
    assert!(!verdict("w.csv").contains("were left out one at a time"));
    // A table of an earlier version only has the value.
    let sidecar = sidecar_path(&dir.join("v.csv"));
    let text = fs::read_to_string(&sidecar).unwrap();
    let lines = text.lines().filter(|line| !line.contains("\"digest\""));
    fs::write(&sidecar, lines.collect::<Vec<_>>().join("\n")).unwrap();
    refused(dir, &words, ", and the table says");
    fs::write(dir.join("q.safetensors"), same).unwrap();
    assert!(fine(dir, &words).contains("predicted (by the table)"));
}

#[test]
fn a_table_with_the_metadata_of_another_is_refused() {
    let dir = two_runs();
    let dir = dir.path();
    fine(dir, &["influence", "other", "--out", "o.csv", "--top", "0"]);
    fine(dir, &["influence", "run", "--out", "s.jsonl", "--top", "0"]);
    let own = fs::read(dir.join("scores.csv")).unwrap();
    let hint = "isn't the table that scores.csv.meta.json was written with";
    let all: [&[&str]; 3] = [
        &["counterfactual", "run", "--top", "2", "scores.csv"],
        &["report", "run", "scores.csv"],
        &["scores", "scores.csv"],
    ];
    fs::copy(dir.join("o.csv"), dir.join("scores.csv")).unwrap();
    all.iter().for_each(|words| refused(dir, words, hint));
    // A number that was edited is not a score of that sweep.
    let text = String::from_utf8(own.clone()).unwrap();
    let row = text.lines().nth(3).unwrap();
    let cell = row.split(',').nth(4).unwrap();
    fs::write(dir.join("scores.csv"), text.replace(cell, "-1e3")).unwrap();
    all.iter().for_each(|words| refused(dir, words, hint));
    // Without metadata it is read, with a warning.
    let sidecar = dir.join("scores.csv.meta.json");
    let told = fs::read_to_string(&sidecar).unwrap();
    fs::remove_file(&sidecar).unwrap();
    let output = hindcast(dir, all[0]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("scores.csv.meta.json is missing"));
    assert!(stdout(&output).contains("predicted (by a sweep of this window)"));
    // The right table, with metadata of earlier versions, which have no digest.
    fs::write(dir.join("scores.csv"), own).unwrap();
    fs::write(&sidecar, &told).unwrap();
    assert!(fine(dir, all[0]).contains("predicted (by the table)"));
    let lines = told.lines().filter(|line| !line.contains("table_digest"));
    let older = lines
        .collect::<Vec<_>>()
        .join("\n")
        .replace("],\n}", "]\n}");
    assert_ne!(older, told.trim_end());
    fs::write(&sidecar, older).unwrap();
    assert!(fine(dir, all[0]).contains("predicted (by the table)"));
    // Other formats, and tables written by `scores`, are checked in the same way.
    fine(
        dir,
        &["scores", "s.jsonl", "--top", "5", "--out", "five.csv"],
    );
    let lines = fs::read_to_string(dir.join("five.csv")).unwrap();
    fs::write(dir.join("five.csv"), lines.trim_end()).unwrap();
    refused(
        dir,
        &["scores", "five.csv"],
        "five.csv.meta.json was written with",
    );
}

#[test]
fn helpful_examples_are_never_listed_as_harmful() {
    let dir = two_runs();
    let dir = dir.path();
    let words = ["influence", "run", "--out", "a.csv", "--top", "200"];
    let said: serde_json::Value =
        serde_json::from_str(&fine(dir, &[&words[..], &["--json"]].concat())).unwrap();
    let scores = |end: &str| -> Vec<f64> {
        let rows = said["queries"][0][end].as_array().unwrap();
        rows.iter()
            .map(|row| row["influence"].as_f64().unwrap())
            .collect()
    };
    let (harmful, helpful) = (scores("most_harmful"), scores("most_helpful"));
    assert!(!harmful.is_empty() && harmful.iter().all(|score| *score < 0.0));
    assert!(!helpful.is_empty() && helpful.iter().all(|score| *score > 0.0));
    let printed = fine(dir, &words);
    for (end, n) in [("falls", harmful.len()), ("rises", helpful.len())] {
        let line = printed
            .lines()
            .find(|l| l.contains(&format!("{end} without them")))
            .unwrap();
        assert!(line.ends_with(&format!(": only {n}")), "{line}");
    }
    let top = (harmful.len() + 1).to_string();
    let output = hindcast(dir, &["counterfactual", "run", "--top", &top, "a.csv"]);
    let hint = format!("only {} of the {top} examples", harmful.len());
    assert!(stderr(&output).contains(&hint), "{}", stderr(&output));
}

#[test]
fn the_same_retraining_counts_once() {
    let dir = two_runs();
    let dir = dir.path();
    let words = [
        "counterfactual",
        "run",
        "--each",
        "--top",
        "4",
        "scores.csv",
    ];
    fine(dir, &[&words[..], &["--out", "cf.json"]].concat());
    fs::copy(dir.join("cf.json"), dir.join("copy.json")).unwrap();
    let report = |files: &[&str]| {
        let mut words = vec!["report", "run", "scores.csv", "--json"];
        files
            .iter()
            .for_each(|file| words.extend(["--removed", file]));
        hindcast(dir, &words)
    };
    let views = |files: &[&str]| -> serde_json::Value {
        let output = report(files);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        serde_json::from_str::<serde_json::Value>(&stdout(&output)).unwrap()["views"].clone()
    };
    let once = views(&["cf.json"]);
    assert!(
        once[0]["reasons"][0]
            .as_str()
            .unwrap()
            .contains("4 examples were left out one at a time")
    );
    assert_eq!(views(&["cf.json", "copy.json"]), once);
    for again in ["cf.json", "./cf.json"] {
        let output = report(&["cf.json", again]);
        assert_eq!(code(&output), 2);
        assert!(
            stderr(&output).contains("given twice"),
            "{}",
            stderr(&output)
        );
    }
}
