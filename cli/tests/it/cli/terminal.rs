//! Output is plain text: text from files moves no cursor, starts no line and changes no writing direction.

use std::fs;
use std::sync::Arc;

use hindcast_analyzer::ScoreTable;
use hindcast_format::{DType, Durability, FsStorage, Layout, Role, RunInfo, RunWriter, TensorSpec};

use super::*;

/// Clears the screen, sets the window's title, forges a line of `verify`, and changes the writing direction.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;title\u{7}\nok: 5 steps in 1 segments are whole\r\u{202e}gpj\u{2066}\u{9b}31m";

/// Whether a terminal could act on this character instead of printing it.
fn obeyed(c: char) -> bool {
    (c.is_control() && !"\n\t".contains(c))
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Runs a command whose output must be plain text. Returns the output and the exit code.
fn harmless(dir: &Path, words: &[&str]) -> (String, i32) {
    let output = hindcast(dir, words);
    let text = stdout(&output) + &stderr(&output);
    assert!(!text.chars().any(obeyed), "{words:?}: {text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with("ok: 5 steps")),
        "{words:?}: a line is forged: {text}"
    );
    (text, code(&output))
}

#[test]
fn a_runs_own_words_stay_on_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let tensor = TensorSpec {
        name: HOSTILE.to_owned(),
        role: Role::Parameter,
        dtype: DType::F32,
        shape: vec![2],
        group: 0,
    };
    let mut info = RunInfo::new(Layout::new(vec![tensor]).unwrap(), 0);
    info.created = HOSTILE.to_owned();
    info.writer = HOSTILE.to_owned();
    info.keep = HOSTILE.to_owned();
    info.objective = Some(HOSTILE.to_owned());
    info.notes.insert(HOSTILE.to_owned(), HOSTILE.to_owned());
    let storage = Arc::new(FsStorage::new(dir.join("run")));
    let writer = RunWriter::create(storage, info, Durability::Seals).unwrap();
    writer.abandon([(HOSTILE.to_owned(), 3)].into()).unwrap();

    let (said, exit) = harmless(dir, &["info", "run"]);
    assert_eq!(exit, 0, "{said}");
    assert!(
        said.contains("\\u001b[2J") && said.contains("\\nok: 5 steps"),
        "{said}"
    );
    let notes = said.lines().filter(|l| l.starts_with("  note ")).count();
    assert_eq!(notes, 1, "{said}");
    // The JSON denotes the original text.
    let output = hindcast(dir, &["info", "run", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["info"]["writer"], HOSTILE);
    assert!(!stdout(&output).chars().any(obeyed));
    for words in [
        &["verify", "run"][..],
        &["influence", "run"],
        &["export", "run", "--steps", "0..1", "--out", "steps"],
        &[
            "checkpoint",
            "run",
            "--step",
            "last",
            "--out",
            "m.safetensors",
        ],
        &["recover", "run", "--out", "again"],
    ] {
        harmless(dir, words);
    }
    // A folder can have any name, too.
    let odd = "odd\u{1b}[2J\nok: 5 steps";
    fs::rename(dir.join("run"), dir.join(odd)).unwrap();
    for verb in ["info", "verify", "influence"] {
        harmless(dir, &[verb, odd]);
    }
    harmless(dir, &["info", "none\nok: 5 steps"]);
}

const TASK: &str = r#"
name = "HOSTILE"
description = "HOSTILE"
[data]
source = "csv"
train_files = "train.csv"
label = "y"
validation = 4
[model]
input = [2]
layers = [{ kind = "linear", out = 2 }]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.1
[train]
epochs = 1
batch = 4
"#;

#[test]
fn labels_names_and_tasks_stay_on_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let rows: String = (0..16)
        .map(|i| {
            let label = if i % 3 == 0 { HOSTILE } else { "plain" };
            format!("{},{},\"{label}\"\n", i % 5, i % 7)
        })
        .collect();
    fs::write(dir.join("train.csv"), format!("a,\"{HOSTILE}\",y\n{rows}")).unwrap();
    let quoted = serde_json::to_string(HOSTILE)
        .unwrap()
        .replace('\u{9b}', "\\u009b");
    fs::write(dir.join("task.toml"), TASK.replace("\"HOSTILE\"", &quoted)).unwrap();
    let names: String = (0..12)
        .map(|i| format!("{{\"index\": {i}, \"name\": {quoted}}}\n"))
        .collect();
    fs::write(dir.join("names.jsonl"), names).unwrap();
    let data = ["--data", "."];
    for (words, hostile) in [
        (&["record", "task.toml", "--out", "run"][..], true),
        (&["info", "run"], true),
        (&["verify", "run", "--replay"], false),
        (
            &[
                "influence",
                "run",
                "--query",
                "validation",
                "--query",
                "per-class",
                "--names",
                "names.jsonl",
            ],
            true,
        ),
        (
            &[
                "counterfactual",
                "run",
                "--each",
                "--top",
                "3",
                "scores.csv",
            ],
            false,
        ),
        (&["report", "run", "scores.csv"], true),
    ] {
        let with_data = words[0] != "info";
        let words = [words, if with_data { &data[..] } else { &[] }].concat();
        let (said, exit) = harmless(dir, &words);
        assert_eq!(exit, 0, "{words:?}: {said}");
        assert!(!hostile || said.contains("\\u001b[2J"), "{words:?}: {said}");
    }
    let (said, exit) = harmless(dir, &["scores", "scores.csv"]);
    assert_eq!(exit, 0, "{said}");
    assert_eq!(said.lines().count(), 13, "one line per example: {said}");
    // The table has the original text.
    let table = ScoreTable::read(&dir.join("scores.csv")).unwrap();
    assert!(
        table
            .rows
            .iter()
            .all(|row| row.name.as_deref() == Some(HOSTILE))
    );
    assert!(table.rows.iter().any(|row| row.label == HOSTILE));
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(!page.chars().any(obeyed));
    assert!(page.contains("\\u202egpj"));

    // An error quotes invalid input.
    fs::write(dir.join("train.csv"), format!("a,b,y\n1,\"{HOSTILE}\",2\n")).unwrap();
    let (said, exit) = harmless(dir, &["record", "task.toml", "--data", ".", "--out", "new"]);
    assert_eq!(exit, 1, "{said}");
    fs::write(
        dir.join("task.toml"),
        format!("name = 1\n# {HOSTILE}\n{HOSTILE} = 3\n"),
    )
    .unwrap();
    let (said, _) = harmless(dir, &["record", "task.toml", "--data", ".", "--out", "new"]);
    assert!(said.contains("task"), "{said}");
    fs::write(dir.join("list.txt"), "\u{1b}[2J\n").unwrap();
    harmless(
        dir,
        &[
            "counterfactual",
            "run",
            "--data",
            ".",
            "--without",
            "list.txt",
        ],
    );
}
