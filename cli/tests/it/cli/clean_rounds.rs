//! `clean` again and again: labels of earlier rounds, decisions that people read, files that are replaced, and what it advises.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::clean::{ROWS, clean, json, rows, table};
use super::{code, fine, hindcast, stderr};

fn refused(dir: &Path, words: &[&str], parts: &[&str]) {
    let output = hindcast(dir, words);
    assert_ne!(code(&output), 0, "{words:?}");
    let said = stderr(&output);
    for part in parts {
        assert!(said.contains(part), "{words:?}: {part}: {said}");
    }
}

/// Labels by file and row.
fn labels(path: &Path) -> BTreeMap<(String, String), String> {
    let rows = rows(path).into_iter();
    rows.map(|row| {
        (
            (row["file"].clone(), row["row"].clone()),
            row["label"].clone(),
        )
    })
    .collect()
}

#[test]
fn a_second_round_keeps_the_labels_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table(dir);
    // The first round mends the first five, so that the second has others to mend.
    fine(dir, &clean(&["--out-labels", "first.csv", "--first", "5"]));
    let first = labels(&dir.join("first.csv"));
    assert_eq!(first.len(), 5);
    let record = [
        "record",
        "task.toml",
        "--data",
        "data",
        "--labels",
        "first.csv",
    ];
    fine(dir, &[&record[..], &["--out", "run2"]].concat());
    let words = ["clean", "run2", "--data", "data", "--labels", "first.csv"];
    let written = ["--write-decisions", "d2.csv", "--out-labels", "second.csv"];
    let said = fine(dir, &[&words[..], &written].concat());
    assert!(said.contains("also has"), "{said}");
    let mut expected = first;
    for row in rows(&dir.join("d2.csv")) {
        expected.insert(
            (row["file"].clone(), row["row"].clone()),
            row["suggested"].clone(),
        );
    }
    assert!(expected.len() > 5);
    assert_eq!(labels(&dir.join("second.csv")), expected);
    // The data has them, too, and rows that keep their labels keep their bytes.
    let outs = ["--out", "second-train.csv", "--out-data", "second-data"];
    let decided = ["--decisions", "d2.csv"];
    let said = fine(dir, &[&words[..], &decided, &outs].concat());
    assert!(said.contains("second-train.csv also has "), "{said}");
    let lines = |path: &str| -> Vec<String> {
        let text = fs::read_to_string(dir.join(path)).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let (before, after) = (lines("data/train.csv"), lines("second-train.csv"));
    assert_eq!(after, lines("second-data/train.csv"));
    let mut changed = 0;
    for (row, (before, after)) in before.iter().zip(&after).skip(1).enumerate() {
        match expected.get(&("train.csv".to_owned(), row.to_string())) {
            Some(label) => {
                changed += usize::from(before != after);
                assert!(after.contains(label.as_str()), "{row}: {after}, {label}");
            }
            None => assert_eq!(before, after),
        }
    }
    assert!(changed > 5, "{changed}");
    // They are read back.
    let record = [
        "record",
        "task.toml",
        "--data",
        "data",
        "--labels",
        "second.csv",
    ];
    fine(dir, &[&record[..], &["--out", "run3"]].concat());
}

#[test]
fn decisions_show_the_example_and_how_sure_the_model_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table(dir);
    let names: String = (0..ROWS).map(|i| format!("pet {i}\n")).collect();
    fs::write(dir.join("names.txt"), names).unwrap();
    let said = fine(dir, &clean(&["--names", "names.txt", "--top", "3"]));
    let issues: BTreeMap<String, BTreeMap<String, String>> = rows(&dir.join("issues.csv"))
        .into_iter()
        .map(|row| (row["index"].clone(), row))
        .collect();
    let decisions = rows(&dir.join("decisions.csv"));
    for row in &decisions {
        let issue = &issues[&row["index"]];
        for column in ["given_probability", "predicted_probability"] {
            let shown = column.replace("predicted", "suggested");
            let (shown, exact): (f64, f64) =
                (row[&shown].parse().unwrap(), issue[column].parse().unwrap());
            assert!(
                (shown - exact).abs() <= 5.1e-5,
                "{column}: {shown}, {exact}"
            );
        }
        assert_eq!(row["name"], format!("pet {}", row["row"]));
        let text = format!("note: n {}, \"x\"", row["row"]);
        assert!(row["text"].contains(&text), "{row:?}");
    }
    let first = format!("pet {}", decisions[0]["row"]);
    assert!(said.contains(&first), "{said}");
    fs::write(dir.join("few.txt"), "a\nb\n").unwrap();
    let words = clean(&["--names", "few.txt", "--write-decisions", "d2.csv"]);
    refused(dir, &words, &["few.txt"]);
    let words = [
        "explain",
        "run",
        "--data",
        "data",
        "test:3",
        "--names",
        "names.txt",
    ];
    assert!(fine(dir, &words).contains("  pet "));
}

#[test]
fn earlier_results_are_replaced_on_request_and_data_never() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table(dir);
    let outs = ["--out", "c.csv", "--out-labels", "l.csv", "--out-data", "c"];
    fine(dir, &clean(&outs));
    let hint = "--replace";
    refused(dir, &clean(&outs), &[hint]);
    let drop = ["--decide", "drop", "--first", "3", "--replace"];
    fine(dir, &clean(&[&outs[..], &drop].concat()));
    assert!(
        rows(&dir.join("decisions.csv"))
            .iter()
            .all(|row| row["decision"] == "drop")
    );
    assert_eq!(
        fs::read_to_string(dir.join("c.csv"))
            .unwrap()
            .lines()
            .count(),
        ROWS - 2
    );
    assert_eq!(
        fs::read(dir.join("c/train.csv")).unwrap(),
        fs::read(dir.join("c.csv")).unwrap()
    );
    assert_eq!(rows(&dir.join("l.csv")).len(), 0);

    let original = fs::read(dir.join("data/train.csv")).unwrap();
    let refused_to = |words: &[&str], part: &str| {
        refused(dir, &clean(&[words, &["--replace"]].concat()), &[part]);
    };
    refused_to(&["--out", "data/train.csv"], "a data file of the task");
    refused_to(&["--out", "data/test.csv"], "a data file of the task");
    refused_to(&["--out-data", "data"], "it is the data folder");
    refused_to(
        &["--out-labels", "task.csv", "--write-decisions", "c.csv"],
        "isn't a file of decisions",
    );
    let inside = [
        "clean",
        "run",
        "--data",
        "c",
        "--out-data",
        "c",
        "--replace",
        "--unverified",
    ];
    fs::write(dir.join("c/train.csv"), &original).unwrap();
    refused(dir, &inside, &["which this command reads"]);
    assert_eq!(fs::read(dir.join("data/train.csv")).unwrap(), original);
    assert_eq!(fs::read(dir.join("c/train.csv")).unwrap(), original);
}

#[test]
fn a_truth_of_some_rows_counts_these() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    table(dir);
    // The true class of row i is i modulo 3. Row 0 isn't known, and the last cell is empty.
    let kinds = ["cat", "dog", "ox"];
    let known: String = (30..90)
        .map(|i| format!("{i},{}\n", kinds[i % 3]))
        .collect();
    fs::write(dir.join("truth.csv"), format!("row,truth\n{known}90,\n")).unwrap();
    let said = json(dir, &clean(&["--truth", "truth.csv"]));
    let planted = &said["planted"];
    assert_eq!(
        (&planted["known"], &planted["labels"]),
        (&60.into(), &6.into()),
        "{planted}"
    );
    let is_known =
        |row: &&BTreeMap<String, String>| (30..90).contains(&row["row"].parse::<usize>().unwrap());
    let decisions = rows(&dir.join("decisions.csv"));
    let count = decisions.iter().filter(is_known).count();
    assert_eq!(planted["issues"], count);
    let words = clean(&["--truth", "truth.csv", "--replace"]);
    let said = fine(dir, &words);
    assert!(
        said.contains("the true labels of 60 of the 300 examples are known"),
        "{said}"
    );
}

#[test]
fn a_weak_models_suggestions_are_not_applied() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let sets = [
        "data.train=300",
        "data.validation=100",
        "train.epochs=2",
        "schedule.learning_rate=0.0005",
    ];
    let mut record = vec!["record", "digits", "--out", "run"];
    record.extend(sets.iter().flat_map(|set| ["--set", set]));
    fine(dir, &record);
    let said = json(dir, &["clean", "run"]);
    assert_eq!(said["suggestions"]["advice"], "too-weak", "{said}");
    assert!(said["suggestions"]["agreement"].as_f64().unwrap() < 0.55);
    assert_eq!(said["decisions"]["keep"], said["issues"]);
    let said = fine(dir, &["clean", "run", "--replace", "--decide", "relabel"]);
    assert!(
        said.contains("warning: the suggested labels can't be trusted"),
        "{said}"
    );
    assert!(
        said.contains("although the decisions say relabel"),
        "{said}"
    );
    assert!(
        rows(&dir.join("decisions.csv"))
            .iter()
            .all(|row| row["decision"] == "relabel")
    );
}

#[test]
fn numbers_are_refused_with_the_command_that_ranks_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("data")).unwrap();
    let line = |i: usize| format!("{},{}\n", i % 7, (i % 7) as f64 * 0.5 + 0.25);
    let lines: String = (0..60).map(line).collect();
    fs::write(dir.join("data/train.csv"), format!("a,y\n{lines}")).unwrap();
    fine(
        dir,
        &["task", "new", "csv", "data/train.csv", "--out", "task.toml"],
    );
    fine(
        dir,
        &[
            "record",
            "task.toml",
            "--data",
            "data",
            "--out",
            "run",
            "--set",
            "train.epochs=2",
        ],
    );
    let output = hindcast(dir, &clean(&[]));
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    // Both commands run as they are.
    let said = stderr(&output);
    let commands: Vec<&str> = said
        .split('`')
        .filter_map(|part| part.strip_prefix("hindcast "))
        .collect();
    assert_eq!(commands.len(), 2, "{said}");
    for command in commands {
        let command = command.replace("10,30,100", "2,4");
        fine(dir, &command.split_whitespace().collect::<Vec<_>>());
    }
    // What `scores` writes can be left out.
    fine(
        dir,
        &["scores", "scores.csv", "--top", "3", "--out", "w.csv"],
    );
    let without = [
        "counterfactual",
        "run",
        "--data",
        "data",
        "--without",
        "w.csv",
    ];
    assert!(fine(dir, &without).contains("without 3 examples"));
    // Wrong predictions are the farthest ones.
    let of = |verb| [verb, "run", "--data", "data"];
    let predict = ["--split", "train", "--wrong", "--top", "60"];
    let said = json(dir, &[&of("predict")[..], &predict].concat());
    let losses: Vec<f64> = said["most_confident"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["loss"].as_f64().unwrap())
        .collect();
    assert!(
        losses.len() > 10 && losses.is_sorted_by(|a, b| a >= b),
        "{losses:?}"
    );
    let explain = [&of("explain")[..], &["--wrong", "train", "--count", "2"]].concat();
    let explained = json(dir, &explain);
    let first = explained["explained"][0]["loss"].as_f64().unwrap();
    assert!(
        (first - losses[0]).abs() <= 1e-6 * losses[0],
        "{first} {losses:?}"
    );
    let said = fine(dir, &[&of("predict")[..], &["--wrong"]].concat());
    assert!(
        said.contains("farthest from the label, the largest loss first:"),
        "{said}"
    );
}

#[test]
fn the_advice_says_why_it_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (validation, hint) in [
        ("0", "no validation and no test examples"),
        (
            "29",
            "only 29 validation or test examples, and an estimate needs 30",
        ),
    ] {
        let validation = format!("data.validation={validation}");
        let sets = [
            "data.train=300",
            "data.test=0",
            "train.epochs=3",
            &validation,
        ];
        let mut record = vec!["record", "digits", "--out", "run"];
        record.extend(sets.iter().flat_map(|set| ["--set", set]));
        fine(dir, &record);
        let said = fine(dir, &["clean", "run", "--replace"]);
        let expected = format!(
            "suggested labels: no advice whether to trust them, because the run has {hint}"
        );
        assert!(said.contains(&expected), "{said}");
        let output = hindcast(dir, &["clean", "run", "--replace", "--retrain"]);
        if validation.ends_with("=0") {
            // Nothing is trained in vain.
            assert_eq!(code(&output), 2);
            let said = stderr(&output);
            assert!(
                said.contains("nothing would measure what the decisions gain"),
                "{said}"
            );
        } else {
            assert_eq!(code(&output), 0, "{}", stderr(&output));
        }
        fs::remove_dir_all(dir.join("run")).unwrap();
    }
}
