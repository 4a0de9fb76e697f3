//! Tables that are not about the run: of other runs, of other data, empty, doubled, contradictory.

use std::fs;

use hindcast_analyzer::{ScoreTable, sidecar_path};

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
    // It can be wanted: its rows are the same examples.
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
    // The window that was ranked by isn't the one that is left out: both are said.
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
fn rows_that_are_not_the_datas_are_refused_by_every_verb() {
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
    // A row that is there twice can't be read at all.
    let mut twice = table.clone();
    twice.rows.push(twice.rows[5].clone());
    for name in ["twice.csv", "twice.jsonl"] {
        twice.write(&dir.join(name)).unwrap();
        let hint = "example 5 is there twice, in rows 6 and 121";
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
        "column `influence` is there twice",
    );
    // Metadata of a later version may mean other things.
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
    // Its rows are looked at all the same.
    fs::write(dir.join("alone.csv"), "index,label,influence\n3,none,-1\n").unwrap();
    refused(
        dir,
        &["counterfactual", "run", "--top", "1", "alone.csv"],
        "example 3 has the label \"none\"",
    );
}

#[test]
fn the_column_of_the_query_ranks_and_scores_that_are_missing_are_said() {
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
        "no column for the query validation, and several others (validation:3, train:5)",
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
        stderr(&output).contains("a score for 1 examples alone, not for 5"),
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
fn a_list_says_its_line_where_it_is_wrong() {
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
    for (text, hint) in [
        ("", "names no example"),
        ("# none\n", "names no example"),
        ("3\n120\n", "line 2: example 120 can't be left out"),
        (
            "index\n3\n",
            "line 1: expected the index of a training example",
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
