//! `hindcast task keys`, and docs/task-keys.md, which is made from the same list.

use std::fmt::Write as _;

use hindcast_model::task::{Key, KeyTable, Presence, Task};

use super::{code, fine, hindcast, stderr};
use crate::generated::is_up_to_date;

const BEGIN: &str = "<!-- from the types of a task: begin -->\n";
const END: &str = "<!-- from the types of a task: end -->\n";

fn page() -> String {
    let mut text = String::new();
    for table in Task::keys() {
        section(&mut text, &table);
    }
    text
}

fn section(text: &mut String, table: &KeyTable) {
    let title = match (table.path.as_str(), &table.tag) {
        ("", _) => "The file".to_owned(),
        (path, None) => format!("`[{path}]`"),
        (path, Some((key, value))) => format!("`[{path}]` with `{key} = {value:?}`"),
    };
    let _ = writeln!(text, "\n## {title}\n");
    // The sentence about a kind is with the values of `kind`.
    if table.tag.is_none() {
        let _ = writeln!(text, "{}\n", cell(&table.text));
    }
    text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    for key in &table.keys {
        let default = match &key.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional => "optional".to_owned(),
            Presence::Default(value) => format!("`{value}`"),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} |",
            key.path,
            key.kind,
            meaning(key)
        );
    }
}

fn meaning(key: &Key) -> String {
    let mut meaning = cell(&key.text);
    for choice in &key.choices {
        let _ = write!(meaning, "<br>`{:?}`: {}", choice.name, cell(&choice.text));
    }
    meaning
}

/// A text in a cell of a table. A bar ends a cell, also in code.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_page_of_keys_is_made_from_the_types() {
    is_up_to_date(
        "task-keys.md",
        [BEGIN, END],
        &page(),
        "the types",
        "HINDCAST_WRITE_KEYS",
        "the_page_of_keys",
    );
}

#[test]
fn task_keys_prints_all_keys_or_those_below_one() {
    let dir = tempfile::tempdir().unwrap();
    let keys = |words: &[&str]| fine(dir.path(), &[&["task", "keys"], words].concat());
    let all = keys(&[]);
    for table in Task::keys() {
        for key in &table.keys {
            // Long lines are broken at spaces.
            let start = format!("  {} ({}", key.path, key.kind);
            let start = start.split_inclusive(' ').take(4).collect::<String>();
            assert!(all.contains(start.trim_end()), "{start:?} is not in\n{all}");
        }
    }
    let seed =
        "  train.seed (whole number, default 0)\n      Seed of all random numbers of the run.\n";
    assert!(all.contains(seed), "{all}");
    let some = keys(&["data.documents"]);
    let min_df = "data.documents.min_df (number, default 0.0)";
    assert!(some.contains(min_df) && !some.contains("train."), "{some}");
    let json = keys(&["train.batch", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let key = &json[0]["keys"][0];
    let told = (key["path"].as_str(), key["presence"].as_str());
    assert_eq!(told, (Some("train.batch"), Some("required")));
    let schema: serde_json::Value = serde_json::from_str(&keys(&["--schema"])).unwrap();
    let told = schema["properties"]["train"]["description"].as_str();
    assert_eq!(
        told,
        Some("Number of epochs, batches, seed and float type.")
    );
}

#[test]
fn a_key_that_no_task_has_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = hindcast(dir.path(), &["task", "keys", "train.epocs"]);
    let said = stderr(&wrong);
    assert_eq!(code(&wrong), 2, "{said}");
    assert!(said.contains("a task has no key \"train.epocs\""), "{said}");
}
