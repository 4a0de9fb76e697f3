//! Messages about files that can't be read or written: they name the file once, say which operation failed, and are short.

use std::fs;

use super::{code, fine, hindcast, small_run, stderr};

/// Commands that read the file `@`.
const READ: &[&str] = &[
    "record @.toml --out new",
    "task check @.toml",
    "record digits --labels @.csv --out new",
    "record digits --encrypt-to ./@ --out new",
    "info @",
    "verify run --pubkey ./@",
    "verify run --replay --labels @.csv",
    "predict run --names @.csv",
    "influence run --out new.csv --names @.txt",
    "influence run --out new.csv --query vector:@.safetensors",
    "explain run validation:1 --names @.jsonl",
    "scores @.csv",
    "scores scores.csv --names @.csv",
    "counterfactual run --without @.txt",
    "counterfactual run --top 3 @.csv",
    "clean run --decisions @.csv --out-labels new.csv",
    "clean run --scores @.csv",
    "report run @.csv",
    "report run --issues @.csv",
    "report run scores.csv --removed @.json",
    "report run scores.csv --tokens @.csv",
    "compare run @",
    "prune @ --keep last-epoch --out new",
    "recover @ --out new",
    "checkpoint @ --step 1 --out new.safetensors",
];

/// Commands that write the file or the folder `@`.
const WRITE: &[&str] = &[
    "record digits --out @",
    "keygen @",
    "predict run --out @.csv",
    "influence run --out @.csv",
    "explain run validation:1 --out @.csv",
    "scores scores.csv --out @.csv",
    "history run --out @.csv",
    "history run --tensorboard @",
    "dynamics run --out @.csv",
    "counterfactual run --top 3 scores.csv --out @.json",
    "clean run --out-labels @.csv",
    "clean run --issues @.csv",
    "clean run --write-decisions @.csv",
    "report run scores.csv --out @.html",
    "export run --steps 0..1 --out @",
    "recover run --out @",
    "prune run --keep last-epoch --out @",
    "compact run --out @",
    "redact run --out @",
    "checkpoint run --step 1 --out @.safetensors",
    "demo --out @",
    "demo --files @",
];

/// The first line of what a command that fails says.
fn said(dir: &std::path::Path, command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    let output = hindcast(dir, &words);
    let said = stderr(&output);
    assert!(matches!(code(&output), 1 | 2), "{command}: {said}");
    let line = said.lines().find(|line| line.starts_with("hindcast: "));
    match line {
        Some(line) => line.to_owned(),
        // `task check` lists the problems of a task on standard output.
        None => String::from_utf8(output.stdout).unwrap(),
    }
}

#[test]
fn a_file_that_cannot_be_read_or_written_is_named_once_in_a_short_message() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--top", "0"]);
    fs::write(dir.join("file"), "mine").unwrap();
    let endings = [
        "",
        ".csv",
        ".toml",
        ".txt",
        ".jsonl",
        ".json",
        ".html",
        ".safetensors",
    ];
    for ending in endings {
        let folder = dir.join(format!("heap{ending}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("x"), "x").unwrap();
    }
    let read = READ
        .iter()
        .map(|command| (command, ["none", "heap", "file/x"]));
    let written = WRITE
        .iter()
        .map(|command| (command, ["file/x", "heap", "file/x/y"]));
    let mut long = Vec::new();
    for (command, names) in read.chain(written) {
        for name in names {
            // These verbs also write to a folder that is there.
            if name == "heap" && (command.contains("tensorboard") || command.contains("demo")) {
                continue;
            }
            let command = command.replace('@', name);
            let said = said(dir, &command);
            let operation = said.contains("cannot ") || !said.contains("os error");
            if said.matches(": ").count() > 3 || !operation || said.matches(name).count() > 2 {
                long.push(format!("{command}\n  {said}"));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "mine");
}

#[test]
fn the_advice_comes_after_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fs::write(dir.join("decisions.csv"), "index,decision\n3,keep\n").unwrap();
    assert_eq!(
        said(dir, "clean run"),
        "hindcast: cannot write decisions.csv: the file exists (it begins with `index,decision`); name another \
         file; you may have edited these decisions, which --decisions decisions.csv applies and --replace replaces"
    );
    assert_eq!(
        said(dir, "record none.toml --out new"),
        "hindcast: cannot read none.toml: No such file or directory (os error 2)"
    );
    assert_eq!(
        said(dir, "recover run --out decisions.csv/new"),
        "hindcast: cannot create the run decisions.csv/new: Not a directory (os error 20)"
    );
}
