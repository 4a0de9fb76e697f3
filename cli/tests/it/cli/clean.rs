//! `clean` on a table and on arrays with planted wrong labels: issues, decisions, cleaned files, retraining.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{code, fine, hindcast, stderr};

const NAMES: [&str; 3] = ["cat", "dog", "ox"];
pub(super) const ROWS: usize = 300;

/// Two features of row i around the centre of its class, in a spread that overlaps a little.
fn features(i: usize) -> (f64, f64) {
    let centre = [(0.0, 2.0), (2.0, -1.0), (-2.0, -1.0)][i % 3];
    let spread = |k: usize| ((i * k) % 97) as f64 / 97.0 * 3.0 - 1.5;
    (centre.0 + spread(31), centre.1 + spread(59))
}

/// Whether row i has a wrong label: every tenth row of each class.
fn is_wrong(i: usize) -> bool {
    i / 3 % 10 == 4
}

fn given(i: usize) -> usize {
    if is_wrong(i) {
        (i + 1 + i / 3 % 2) % 3
    } else {
        i % 3
    }
}

pub(super) const TASK: &str = r#"
name = "animals"
description = "Two features, three classes, some wrong labels"
[data]
source = "csv"
train_files = "train.csv"
test_files = "test.csv"
label = "kind"
ignore = ["note"]
delimiter = ";"
pick = "first"
train = 300
[model]
input = [2]
layers = [{ kind = "linear", out = 3 }]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.1
[train]
epochs = 6
batch = 10
seed = 3
"#;

/// A row with a column of text that makes tables hard to write.
fn row_of_table(i: usize, label: usize) -> String {
    let (a, b) = features(i);
    format!("{a:.3};\"n {i}, \"\"x\"\"\"; {b:.3};{}", NAMES[label])
}

/// A folder with a table and a run on it.
pub(super) fn table(dir: &Path) {
    let train: String = (0..ROWS)
        .map(|i| format!("{}\r\n", row_of_table(i, given(i))))
        .collect();
    let test: String = (1000..1200)
        .map(|i| format!("{}\n", row_of_table(i, i % 3)))
        .collect();
    fs::create_dir(dir.join("data")).unwrap();
    let header = "a;note;b;kind";
    fs::write(dir.join("data/train.csv"), format!("{header}\r\n{train}")).unwrap();
    fs::write(dir.join("data/test.csv"), format!("{header}\n{test}")).unwrap();
    fs::write(dir.join("task.toml"), TASK).unwrap();
    fine(
        dir,
        &["record", "task.toml", "--data", "data", "--out", "run"],
    );
}

pub(super) fn json(dir: &Path, words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&fine(dir, &[words, &["--json"]].concat())).unwrap()
}

/// A CSV file as rows by column.
pub(super) fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut csv = csv::Reader::from_path(path).unwrap();
    csv.deserialize().map(|row| row.unwrap()).collect()
}

const CLEAN: [&str; 4] = ["clean", "run", "--data", "data"];

pub(super) fn clean<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&CLEAN[..], more].concat()
}

/// For each example of these steps: its uses, and the sums of its label's probability and of its margin.
fn sums_of_uses(dir: &Path, steps: &str) -> BTreeMap<usize, (f64, f64, f64)> {
    fine(
        dir,
        &["dynamics", "run", "--data", "data", "--window", steps],
    );
    let mut sums: BTreeMap<usize, (f64, f64, f64)> = BTreeMap::new();
    for row in rows(&dir.join("dynamics.csv")) {
        let sum = sums.entry(row["example"].parse().unwrap()).or_default();
        let number = |name: &str| row[name].parse::<f64>().unwrap();
        *sum = (
            sum.0 + 1.0,
            sum.1 + number("probability"),
            sum.2 + number("margin"),
        );
    }
    sums
}

#[test]
fn wrong_labels_of_a_table_are_found_and_its_file_is_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table(dir);
    let said = json(
        dir,
        &clean(&["--out", "cleaned.csv", "--retrain", "--at", "final"]),
    );
    let issues = rows(&dir.join("issues.csv"));
    assert_eq!(issues.len(), ROWS);
    let wrong: BTreeSet<usize> = (0..ROWS).filter(|&i| is_wrong(i)).collect();
    let found: BTreeSet<usize> = issues
        .iter()
        .filter(|row| row["is_label_issue"] == "true")
        .map(|row| row["row"].parse().unwrap())
        .collect();
    assert_eq!(said["issues"], found.len());
    let right = found.intersection(&wrong).count();
    assert!(right * 10 >= wrong.len() * 7, "{found:?}");
    assert!(right * 10 >= found.len() * 9, "{found:?}");

    // The table says what the forward passes of the evidence gave.
    let evidence = |key: &str| said["evidence"][key].as_u64().unwrap();
    assert_eq!(evidence("epochs"), 6);
    assert_eq!(evidence("start"), evidence("first_epoch") * 30);
    assert_eq!(evidence("end"), (evidence("last_epoch") + 1) * 30);
    let sums = sums_of_uses(dir, &format!("{}..{}", evidence("start"), evidence("end")));
    for row in &issues {
        let (n, probability, margin) = sums[&row["index"].parse::<usize>().unwrap()];
        let number = |name: &str| row[name].parse::<f64>().unwrap();
        assert!((number("label_score") - probability / n).abs() < 1e-12);
        assert!((number("rank_score") - margin / n).abs() < 1e-9);
    }

    // The suggested labels are in the file, and nothing else has changed.
    let decisions = rows(&dir.join("decisions.csv"));
    assert_eq!(decisions.len(), found.len());
    assert!(decisions.iter().all(|row| row["decision"] == "relabel"));
    let new: BTreeMap<usize, String> = decisions
        .iter()
        .map(|row| (row["row"].parse().unwrap(), row["suggested"].clone()))
        .collect();
    let before = fs::read_to_string(dir.join("data/train.csv")).unwrap();
    let after = fs::read_to_string(dir.join("cleaned.csv")).unwrap();
    let pairs: Vec<(&str, &str)> = before
        .split_inclusive('\n')
        .zip(after.split_inclusive('\n'))
        .skip(1)
        .collect();
    assert_eq!(pairs.len(), ROWS);
    for (i, (before, after)) in pairs.into_iter().enumerate() {
        let expected = match new.get(&i) {
            None => before.to_owned(),
            Some(name) => {
                let (start, _) = before.rsplit_once(';').unwrap();
                format!("{start};{name}\r\n")
            }
        };
        assert_eq!(after, expected, "row {i}");
    }

    // Recording on the cleaned file is the training that --retrain measured.
    fs::create_dir(dir.join("again")).unwrap();
    fs::rename(dir.join("cleaned.csv"), dir.join("again/train.csv")).unwrap();
    fs::copy(dir.join("data/test.csv"), dir.join("again/test.csv")).unwrap();
    for (data, at) in [("data", 0), ("again", 3)] {
        let out = format!("run-{data}");
        fine(dir, &["record", "task.toml", "--data", data, "--out", &out]);
        let real = json(
            dir,
            &[
                "influence",
                &out,
                "--replace",
                "--data",
                data,
                "--query",
                "mean:test:0..200",
                "--at",
                "final",
                "--top",
                "0",
            ],
        );
        let real = real["queries"][0]["value"].as_f64().unwrap();
        let row = &said["retrained"][at];
        let loss = row["losses"][0]["loss"].as_f64().unwrap();
        assert!((loss - real).abs() < 1e-5 * real, "{data}: {row}, {real}");
    }
    let error = |at: usize| {
        said["retrained"][at]["losses"][0]["error_rate"]
            .as_f64()
            .unwrap()
    };
    assert_eq!(said["retrained"][3]["decisions"], found.len());
    assert!(error(3) <= error(0), "{said}");
}

#[test]
fn edited_decisions_are_applied_and_bad_rows_are_named_together() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table(dir);
    fine(dir, &clean(&["--decide", "keep"]));
    let original = fs::read(dir.join("data/train.csv")).unwrap();
    let apply = |name: &str, text: &str, out: &str| {
        fs::write(dir.join(name), text).unwrap();
        hindcast(dir, &clean(&["--decisions", name, "--out", out]))
    };

    // Decisions that keep everything keep every byte.
    fine(
        dir,
        &clean(&["--decisions", "decisions.csv", "--out", "same.csv"]),
    );
    assert_eq!(fs::read(dir.join("same.csv")).unwrap(), original);

    // A spreadsheet may add columns and change their order.
    let edited = "decision,remark,index,suggested,given,row\r\ndrop,,0,,cat,0\r\nRelabel,sure,2,dog,ox,2\r\nkeep,,5,unknown,,\r\n";
    let output = apply("edited.csv", edited, "edited-out.csv");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = String::from_utf8(original.clone()).unwrap();
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    assert!(lines[3].ends_with(";ox\r\n"));
    lines[3] = lines[3].replace(";ox\r\n", ";dog\r\n");
    lines.remove(1);
    let written = fs::read_to_string(dir.join("edited-out.csv")).unwrap();
    assert_eq!(written, lines.concat());

    let bad = "index,row,given,suggested,decision\n0,0,cat,dog,fix\n300,,,dog,relabel\n1,1,cat,ox,relabel\n2,3,ox,dog,relabel\n3,3,cat,cow,relabel\n4,4,,,relabel\n6,6,cat,cat,relabel\n7,7\n8,8,,,drop\n8,8,,,keep\n";
    let output = apply("bad.csv", bad, "bad-out.csv");
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    for part in [
        "bad.csv: 9 rows can't be applied; nothing was changed",
        "line 2: decision `fix`: expected one of keep, relabel, drop",
        "line 3: index: expected a training example, 0 to 299, got \"300\"",
        "line 4: given: example 1 has \"dog\", and the row says \"cat\"",
        "line 5: row: example 2 has \"2\", and the row says \"3\"",
        "line 6: suggested: expected one of the classes cat, dog, ox, got \"cow\"",
        "line 7: suggested: expected one of the classes",
        "line 8: suggested: example 6 already has the label \"cat\"",
        "line 9: has 2 cells, expected 5",
        "line 11: example 8 has a decision in line 10 already",
    ] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    assert!(!dir.join("bad-out.csv").exists());
    let output = apply("other.csv", "a;decision\n1;keep\n", "x.csv");
    assert!(
        stderr(&output).contains("no column \"index\""),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("commas"), "{}", stderr(&output));
}

#[test]
fn nothing_of_the_user_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table(dir);
    let refused = |words: &[&str], said: &[&str]| {
        let output = hindcast(dir, &clean(words));
        assert_ne!(code(&output), 0, "{words:?}");
        for part in said {
            assert!(
                stderr(&output).contains(part),
                "{words:?}: {}",
                stderr(&output)
            );
        }
    };
    let original = fs::read(dir.join("data/train.csv")).unwrap();
    refused(
        &["--out", "data/train.csv"],
        &["--out", "it is a data file of the task"],
    );
    refused(
        &["--out-data", "data"],
        &["--out-data", "it is the data folder"],
    );
    refused(&["--out", "run/x.csv"], &["folder of a recorded run"]);
    refused(&["--issues", "task.toml"], &["--issues", ".csv"]);
    fs::write(dir.join("mine.csv"), "a,b\n1,2\n").unwrap();
    refused(
        &["--issues", "mine.csv"],
        &["isn't a table of label issues"],
    );
    assert!(!dir.join("issues.csv").exists() && !dir.join("decisions.csv").exists());
    fine(dir, &clean(&[]));
    let decisions = fs::read(dir.join("decisions.csv")).unwrap();
    refused(
        &[],
        &["decisions.csv", "--replace", "--decisions decisions.csv"],
    );
    // The table of issues is a result: it is replaced.
    fine(dir, &clean(&["--write-decisions", "second.csv"]));
    assert_eq!(fs::read(dir.join("second.csv")).unwrap(), decisions);
    assert_eq!(fs::read(dir.join("data/train.csv")).unwrap(), original);
    refused(
        &["--decisions", "decisions.csv", "--decide", "drop"],
        &["--decide"],
    );
}

#[test]
fn another_ranking_chooses_which_labels_are_issues() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table(dir);
    // The task has no validation examples to ask about.
    let query = ["--query", "mean:test:0..200"];
    let count = |words: &[&str]| -> u64 {
        let said = json(dir, &clean(&[words, &query].concat()));
        said["issues"].as_u64().unwrap()
    };
    let usual = count(&[]);
    let listed = |name: &str| -> BTreeSet<String> {
        rows(&dir.join(name))
            .into_iter()
            .map(|row| row["index"].clone())
            .collect()
    };
    let other = count(&["--method", "mean-loss", "--write-decisions", "loss.csv"]);
    assert_eq!(usual, other);
    let words = [
        "influence",
        "run",
        "--data",
        "data",
        "--method",
        "mean-loss",
        "--top",
        "0",
    ];
    fine(dir, &[&words[..], &query].concat());
    count(&["--scores", "scores.csv", "--write-decisions", "table.csv"]);
    assert_eq!(listed("loss.csv"), listed("table.csv"));
    let issues = rows(&dir.join("issues.csv"));
    let other: BTreeSet<String> = issues
        .into_iter()
        .filter(|row| row["given_label"] != row["predicted_label"])
        .map(|row| row["index"].clone())
        .collect();
    let lowest: BTreeSet<String> = {
        let mut scored = rows(&dir.join("scores.csv"));
        scored.retain(|row| other.contains(&row["index"]));
        scored.sort_by(|a, b| {
            let score = |row: &BTreeMap<String, String>| row["influence"].parse::<f64>().unwrap();
            score(a).total_cmp(&score(b))
        });
        scored
            .into_iter()
            .take(usual as usize)
            .map(|row| row["index"].clone())
            .collect()
    };
    assert_eq!(listed("table.csv"), lowest);
}

/// A little-endian array of numpy's version 1.
pub(super) fn npy(kind: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dict:<0$}\n", length - 1).bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn arrays_are_written_as_a_folder_on_which_the_task_trains() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("data")).unwrap();
    let array = |range: std::ops::Range<usize>| -> Vec<u8> {
        let values = range.flat_map(|i| [features(i).0 as f32, features(i).1 as f32]);
        values.flat_map(f32::to_le_bytes).collect()
    };
    let labels = |classes: &mut dyn Iterator<Item = usize>| -> Vec<u8> {
        classes.flat_map(|c| (c as i32).to_be_bytes()).collect()
    };
    let write = |name: &str, bytes: Vec<u8>| fs::write(dir.join("data").join(name), bytes).unwrap();
    write("x.npy", npy("<f4", "(300, 2)", &array(0..ROWS)));
    write(
        "y.npy",
        npy(">i4", "(300,)", &labels(&mut (0..ROWS).map(given))),
    );
    write("tx.npy", npy("<f4", "(200, 2)", &array(1000..1200)));
    write(
        "ty.npy",
        npy(">i4", "(200,)", &labels(&mut (1000..1200).map(|i| i % 3))),
    );
    let data = "[data]\nsource = \"npy\"\ntrain_files = { inputs = \"x.npy\", labels = \"y.npy\" }\ntest_files = { inputs = \"tx.npy\", labels = \"ty.npy\" }\n";
    let (head, rest) = TASK.split_once("[data]").unwrap();
    let (_, rest) = rest.split_once("[model]").unwrap();
    fs::write(dir.join("task.toml"), format!("{head}{data}[model]{rest}")).unwrap();
    fine(
        dir,
        &["record", "task.toml", "--data", "data", "--out", "run"],
    );

    // A table isn't written for an array.
    let output = hindcast(dir, &clean(&["--out", "y.csv"]));
    assert_eq!(code(&output), 1);
    for part in ["y.csv", ".npy", "--out-labels"] {
        assert!(
            stderr(&output).contains(part),
            "{part}: {}",
            stderr(&output)
        );
    }
    assert!(!dir.join("issues.csv").exists());

    // Labels alone are one file.
    fine(dir, &clean(&["--out", "y.npy"]));
    let relabelled = fs::read(dir.join("y.npy")).unwrap();
    let original = fs::read(dir.join("data/y.npy")).unwrap();
    assert_eq!(relabelled.len(), original.len());
    let decisions = rows(&dir.join("decisions.csv"));
    let mut expected = original.clone();
    let body = expected.len() - 4 * ROWS;
    for row in &decisions {
        let (at, class): (usize, i32) = (
            row["row"].parse().unwrap(),
            row["suggested"].parse().unwrap(),
        );
        expected[body + 4 * at..][..4].copy_from_slice(&class.to_be_bytes());
    }
    assert_eq!(relabelled, expected);

    // Dropped examples change the inputs, too.
    let drop = ["--decide", "drop", "--write-decisions", "drop.csv"];
    let output = hindcast(dir, &clean(&[&drop[..], &["--out", "z.npy"]].concat()));
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("--out-data DIR"),
        "{}",
        stderr(&output)
    );
    let words = ["--decisions", "drop.csv", "--out-data", "cleaned"];
    fine(dir, &clean(&words));
    let left = (ROWS - decisions.len()).to_string();
    fine(
        dir,
        &[
            "record",
            "task.toml",
            "--data",
            "cleaned",
            "--out",
            "run2",
            "--set",
            &format!("data.train={left}"),
        ],
    );
    let dropped: BTreeSet<usize> = decisions
        .iter()
        .map(|row| row["row"].parse().unwrap())
        .collect();
    let kept = (0..ROWS).filter(|i| !dropped.contains(i));
    let shape = format!("({left},)");
    let labels = npy(">i4", &shape, &labels(&mut kept.map(given)));
    assert_eq!(fs::read(dir.join("cleaned/y.npy")).unwrap(), labels);
    #[cfg(unix)]
    assert!(dir.join("cleaned/tx.npy").is_symlink());
}

#[test]
fn generated_digits_have_issues_but_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    super::scan::digits(dir);
    let said = fine(dir, &["clean", "run", "--retrain", "--scan", "5,9999"]);
    for part in [
        "label issues: ",
        "that were made wrong on purpose",
        "the suggested labels can't be trusted, so the decisions say keep: the model predicts only ",
        "issues.csv (300 rows, with issues.csv.meta.json)",
        // What relabelling gains is measured nevertheless.
        "trained again with the first K issues relabelled, although the decisions say keep",
        "--decide relabel --first ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Labels for another recording need no file of the data.
    fine(dir, &["clean", "run", "--replace", "--decide", "relabel"]);
    let words = ["clean", "run", "--decisions", "decisions.csv"];
    fine(dir, &[&words[..], &["--out-labels", "labels.csv"]].concat());
    let count = rows(&dir.join("decisions.csv")).len();
    assert_eq!(rows(&dir.join("labels.csv")).len(), count);
    let sizes = ["data.train=300", "data.validation=100", "train.epochs=3"];
    let mut record = vec![
        "record",
        "digits",
        "--labels",
        "labels.csv",
        "--out",
        "second",
    ];
    for set in sizes.iter().chain(&["data.flipped=0"]) {
        record.extend(["--set", set]);
    }
    fine(dir, &record);
    let output = hindcast(dir, &[&words[..], &["--out", "c.csv"]].concat());
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("\"digits\""),
        "{}",
        stderr(&output)
    );
}

/// Records 40 epochs on 400 drawn digits, 40 of them with a wrong label, until the model knows all of them by heart.
fn memorised(dir: &Path, more: &[&str]) {
    let sets = [
        "data.train=400",
        "data.validation=50",
        "data.flipped=0.1",
        "train.epochs=40",
        "optimizer.kind=adamw",
        "schedule.kind=constant",
        "schedule.learning_rate=0.005",
    ];
    let mut words = vec!["record", "digits", "--out", "run"];
    words.extend(more);
    for set in sets {
        words.extend(["--set", set]);
    }
    fine(dir, &words);
}

#[test]
fn memorised_labels_are_found_by_the_epochs_before_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    memorised(dir, &[]);
    let said = json(dir, &["clean", "run"]);
    let evidence = &said["evidence"];
    assert_eq!(evidence["reason"], "memorising");
    assert!(evidence["last_epoch"].as_u64().unwrap() < 20, "{evidence}");
    assert_eq!(evidence["epochs"], 40);
    let planted = &said["planted"];
    assert_eq!(planted["labels"], 40);
    assert!(planted["found"].as_u64().unwrap() >= 20, "{planted}");
    let words = ["clean", "run", "--window", "all", "--write-decisions"];
    let all = json(dir, &[&words[..], &["all.csv"]].concat());
    assert_eq!(all["evidence"]["reason"], "asked");
    assert!(all["planted"]["found"].as_u64().unwrap() < 10, "{all}");
}

#[test]
fn a_run_of_its_last_epoch_says_that_its_evidence_is_late() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    memorised(dir, &["--keep", "last-epoch"]);
    let said = fine(dir, &["clean", "run"]);
    let late = "evidence from late training only (steps ";
    assert!(said.contains(late), "{said}");
}
