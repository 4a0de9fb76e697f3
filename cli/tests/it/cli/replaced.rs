//! A result may replace an earlier result of its kind, but no other file.

use std::collections::BTreeMap;
use std::fs;

use super::*;

/// Somebody's data, under a name that a table, a page or a picture could have.
const MINE: &str = "x1,x2,y\n1,2,cat\n3,4,dog\n";

/// Every file of a folder with its bytes, and the names of subfolders.
fn held(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap_or_default())
        })
        .collect()
}

/// Runs a command that must be refused because of `file`, and leave every file unchanged.
fn refused(dir: &Path, words: &[&str], file: &str, hint: &str) {
    let before = held(dir);
    let output = hindcast(dir, words);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{words:?}: {}{said}", stdout(&output));
    assert!(
        said.contains(file) && said.contains(hint) && said.contains("name another file"),
        "{words:?}: {said}"
    );
    assert!(
        !said.contains("swept in") && !said.contains("to sweep"),
        "{said}"
    );
    assert_eq!(held(dir), before, "{words:?}");
}

#[test]
fn no_verb_replaces_a_file_of_another_kind() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--top", "0"]);
    fs::write(dir.join("list.txt"), "3\n").unwrap();
    let mine = [
        "mine.csv",
        "mine.jsonl",
        "mine.json",
        "mine.html",
        "mine.png",
        "s.csv.meta.json",
        "t.csv.sweep.safetensors",
    ];
    for name in mine {
        fs::write(dir.join(name), MINE).unwrap();
    }
    let exists = "the file exists and isn't";
    for (words, file) in [
        (&["influence", "run", "--out", "mine.csv"][..], "mine.csv"),
        (&["influence", "run", "--out", "mine.jsonl"], "mine.jsonl"),
        (&["influence", "run", "--out", "s.csv"], "s.csv.meta.json"),
        (
            &["influence", "run", "--out", "t.csv"],
            "t.csv.sweep.safetensors",
        ),
        (
            &[
                "influence",
                "run",
                "--out",
                "new.csv",
                "--picture",
                "mine.png",
            ],
            "mine.png",
        ),
        (&["scores", "scores.csv", "--out", "mine.csv"], "mine.csv"),
        (
            &["scores", "scores.csv", "--out", "s.csv"],
            "s.csv.meta.json",
        ),
        (
            &[
                "counterfactual",
                "run",
                "--without",
                "list.txt",
                "--out",
                "mine.json",
            ],
            "mine.json",
        ),
        (
            &[
                "counterfactual",
                "run",
                "--without",
                "list.txt",
                "--out",
                "scores.csv.meta.json",
            ],
            "scores.csv.meta.json",
        ),
        (
            &["report", "run", "scores.csv", "--out", "mine.html"],
            "mine.html",
        ),
        (&["bounds", "run", "--out", "mine.csv"], "mine.csv"),
        // A table of another kind is not a table of bounds.
        (&["bounds", "run", "--out", "scores.csv"], "scores.csv"),
    ] {
        refused(dir, words, file, exists);
        let said = stderr(&hindcast(dir, words));
        let shown = match file {
            "scores.csv" | "scores.csv.meta.json" => "it begins with",
            _ => "it begins with `x1,x2,y`",
        };
        assert!(said.contains(shown), "{said}");
    }
    // An empty file, such as one from `mktemp`, may be replaced.
    fs::write(dir.join("empty.csv"), "").unwrap();
    fine(dir, &["scores", "scores.csv", "--out", "empty.csv"]);
}

#[test]
fn results_are_replaced_by_results() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for _ in 0..2 {
        let picture = ["influence", "run", "--top", "0", "--picture", "w.png"];
        fine(dir, &picture);
        fine(dir, &["influence", "run", "--top", "0", "--out", "s.jsonl"]);
        for out in ["part.csv", "part.jsonl"] {
            fine(dir, &["scores", "scores.csv", "--top", "9", "--out", out]);
        }
        let removed = [
            "counterfactual",
            "run",
            "--top",
            "2",
            "scores.csv",
            "--out",
            "r.json",
        ];
        fine(dir, &removed);
        fine(
            dir,
            &[
                "report",
                "run",
                "scores.csv",
                "--removed",
                "r.json",
                "--out",
                "page.html",
            ],
        );
        fine(dir, &["man", "--out", "man"]);
    }
    fs::write(dir.join("man/hindcast-scores.1"), MINE).unwrap();
    let output = hindcast(dir, &["man", "--out", "man"]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains("hindcast-scores.1") && said.contains("isn't a manual page"),
        "{said}"
    );
}

/// A table that is both input and output would lose the rows that weren't selected.
#[test]
fn no_result_replaces_an_input_of_its_command() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--top", "0"]);
    for (words, hint) in [
        (
            &["scores", "scores.csv", "--top", "3", "--out", "scores.csv"][..],
            "it is the table",
        ),
        (
            &[
                "influence",
                "run",
                "--names",
                "scores.csv",
                "--out",
                "scores.csv",
                "--name-column",
                "label",
            ],
            "it is the names",
        ),
    ] {
        refused(dir, words, words[5], hint);
    }
}

/// `explain` writes a table that `influence` may have paid for.
#[cfg(feature = "record")]
#[test]
fn explain_replaces_only_a_table_of_its_own_question() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--out", "s.csv", "--top", "0"]);
    let explain = ["explain", "run", "validation:3", "--out", "s.csv"];
    refused(dir, &explain, "s.csv", "another run or question");
    let said = fine(dir, &[&explain[..], &["--replace"]].concat());
    assert!(said.contains("validation:3"), "{said}");
    // The same question again, and another one.
    fine(dir, &explain);
    let other = ["explain", "run", "validation:4", "--out", "s.csv"];
    refused(dir, &other, "s.csv", "query validation:3");
    let window = [&explain[..], &["--window", "last-epoch"]].concat();
    refused(dir, &window, "s.csv", "another run or question");
    let output = hindcast(dir, &["explain", "run", "validation:3", "--replace"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

/// The demo's folder is checked before anything in it is removed.
#[cfg(feature = "record")]
#[test]
fn a_demo_leaves_other_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for name in ["scores.csv", "worst.png"] {
        let folder = dir.join(name.replace('.', "-"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(name), MINE).unwrap();
        let output = hindcast(&folder, &["demo", "--out", "."]);
        assert_eq!(code(&output), 1, "{}", stdout(&output));
        assert!(stderr(&output).contains(name), "{}", stderr(&output));
        assert_eq!(held(&folder).len(), 1);
    }
}

/// A task may come from somebody else's file: its name must not lead to another folder.
#[cfg(feature = "record")]
#[test]
fn an_experiment_makes_folders_only_next_to_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let task = fine(dir, &["task", "show", "digits"]);
    assert!(task.contains("name = \"digits\""), "{task}");
    for name in [
        "../../up",
        "/tmp/there",
        "a/../../b",
        "..",
        ".hidden",
        "a\\\\b",
    ] {
        let named = task.replacen("\"digits\"", &format!("\"{name}\""), 1);
        fs::write(dir.join("task.toml"), named).unwrap();
        let words = [
            "experiment",
            "quality",
            "--only",
            "task.toml",
            "--seeds",
            "0..1",
            "--out",
            "rows.csv",
            "lds",
        ];
        let output = hindcast(dir, &words);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{name}: {said}");
        assert!(said.contains("can't name a folder"), "{name}: {said}");
        let left: Vec<String> = held(dir).into_keys().collect();
        assert_eq!(left, ["task.toml"], "{name}");
    }
    // Rows are only appended to rows of the same experiment.
    fs::write(dir.join("task.toml"), &task).unwrap();
    for text in [MINE, "x1,x2,y\n", "one line without an end"] {
        fs::write(dir.join("rows.csv"), text).unwrap();
        let words = [
            "experiment",
            "quality",
            "--only",
            "task.toml",
            "--out",
            "rows.csv",
            "lds",
        ];
        let output = hindcast(dir, &words);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert!(stderr(&output).contains("not a table of this experiment"));
        assert_eq!(fs::read_to_string(dir.join("rows.csv")).unwrap(), text);
    }
}
