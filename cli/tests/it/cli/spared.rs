//! Outputs that would replace data or paid results are refused before anything is computed.

use std::fs;

use super::new_rows::shop_run;
use super::*;

/// Runs a command that must fail with this code and say these parts, and returns what it says.
fn refused(dir: &Path, words: &[&str], exit: i32, parts: &[&str]) -> String {
    let output = hindcast(dir, words);
    let said = stderr(&output);
    assert_eq!(code(&output), exit, "{words:?}: {}{said}", stdout(&output));
    for part in parts {
        assert!(said.contains(part), "{words:?}: {part:?} is not in {said}");
    }
    said
}

#[test]
fn data_files_of_the_task_are_no_outputs_and_no_message_says_to_remove_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    shop_run(dir);
    let before = fs::read(dir.join("data/shop.csv")).unwrap();
    for words in [
        &["clean", "run", "--data", "data", "--out", "data/shop.csv"][..],
        &[
            "clean",
            "run",
            "--data",
            "data",
            "--replace",
            "--out",
            "data/shop.csv",
        ],
        &["clean", "run", "--data", "data", "--out-data", "data"],
        &[
            "influence",
            "run",
            "--data",
            "data",
            "--out",
            "data/shop.csv",
        ],
        &[
            "influence",
            "run",
            "--data",
            "data",
            "--out",
            "data/../data/shop.csv",
        ],
    ] {
        let what = if words.contains(&"--out-data") {
            "it is the data folder"
        } else {
            "it is a data file of the task"
        };
        let said = refused(dir, words, 1, &[what]);
        assert!(!said.contains("remove"), "{said}");
        assert!(!dir.join("issues.csv").exists() && !dir.join("scores.csv").exists());
    }
    assert_eq!(fs::read(dir.join("data/shop.csv")).unwrap(), before);
}

#[test]
fn clean_checks_all_outputs_before_it_writes_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    shop_run(dir);
    fs::write(dir.join("mine.csv"), "mine").unwrap();
    let run = ["clean", "run", "--data", "data"];
    for (words, exit, part) in [
        (&["--out", "none/out.csv"][..], 1, "there is no folder none"),
        (&["--out-data", "none/out"], 1, "there is no folder none"),
        (&["--issues", "none/i.csv"], 1, "there is no folder none"),
        (
            &["--out-labels", "none/l.csv"],
            1,
            "there is no folder none",
        ),
        (&["--out", "mine.csv"], 1, "the file exists"),
        (&["--out-labels", "mine.csv"], 1, "the file exists"),
        (
            &["--out", "a.csv", "--out-labels", "a.csv"],
            2,
            "--out and --out-labels both name a.csv",
        ),
        (
            &["--issues", "a.csv", "--write-decisions", "./a.csv"],
            2,
            "--issues and --write-decisions both name",
        ),
    ] {
        refused(dir, &[&run[..], words].concat(), exit, &[part]);
        for name in ["issues.csv", "decisions.csv", "a.csv"] {
            assert!(!dir.join(name).exists(), "{words:?}: {name}");
        }
    }
    assert_eq!(fs::read(dir.join("mine.csv")).unwrap(), b"mine");
    // Decisions without an output, and decisions that change nothing.
    fine(dir, &[&run[..], &["--decide", "keep"]].concat());
    let said = fine(dir, &[&run[..], &["--decisions", "decisions.csv"]].concat());
    assert!(said.contains("nothing was written"), "{said}");
    let words = ["--decisions", "decisions.csv", "--retrain"];
    let said = fine(dir, &[&run[..], &words].concat());
    assert!(said.contains("nothing was trained again"), "{said}");
    assert!(!said.contains("trained again with the first"), "{said}");
}

#[test]
fn a_table_of_another_question_is_kept_unless_it_may_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let table = || fs::read(dir.join("scores.csv")).unwrap();
    fine(dir, &["influence", "run", "--retrain-check", "2"]);
    let first = table();
    // The same question.
    fine(dir, &["influence", "run"]);
    assert_eq!(table(), first);
    fine(dir, &["influence", "run", "--retrain-check", "2"]);
    for words in [
        &["--method", "mean-loss"][..],
        &["--query", "validation:3"],
        &["--window", "last-epoch"],
        &["--at", "final"],
        &["--per-epoch"],
    ] {
        let words = [&["influence", "run"], words].concat();
        let said = refused(
            dir,
            &words,
            1,
            &["scores.csv holds the scores of another", "--replace"],
        );
        assert!(said.contains("method sgd, query validation"), "{said}");
        assert_eq!(table(), first, "{words:?}");
    }
    let other = ["influence", "run", "--retrain-check", "3"];
    refused(
        dir,
        &other,
        1,
        &["scores.csv.check.json holds the results of another check"],
    );
    let words = ["influence", "run", "--method", "mean-loss", "--replace"];
    fine(dir, &words);
    assert_ne!(table(), first);
    // As a program leaves it that is killed between the two files.
    fs::remove_file(dir.join("scores.csv.meta.json")).unwrap();
    fine(dir, &["influence", "run"]);
    assert_eq!(table(), first);
}

#[test]
fn a_picture_of_data_without_pictures_is_refused_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    shop_run(dir);
    for words in [
        &["influence", "run", "--data", "data", "--picture", "p.png"][..],
        &[
            "explain",
            "run",
            "validation:1",
            "--data",
            "data",
            "--picture",
            "p.png",
        ],
    ] {
        let said = refused(
            dir,
            words,
            2,
            &["--picture p.png: this data has no pictures"],
        );
        assert!(!said.contains("to sweep"), "{said}");
    }
    assert!(!dir.join("scores.csv").exists());
}
