//! `hindcast task keys`: every key of a task file.

use std::io::Write;

use hindcast_model::task::{Key, KeyTable, Presence, Task};
use serde_json::{Value, json};

use crate::args::layout::fitted;
use crate::commands::Usage;

/// What is printed.
pub(super) enum Form {
    Text,
    Json,
    Schema,
}

/// Prints the keys: all of them, or `asked` and those below it.
pub(super) fn print(out: &mut impl Write, asked: Option<&str>, form: Form) -> anyhow::Result<()> {
    if matches!(form, Form::Schema) {
        serde_json::to_writer_pretty(&mut *out, &Task::schema())?;
        writeln!(out)?;
        return Ok(());
    }
    let tables = match asked {
        None => Task::keys(),
        Some(asked) => below(asked)?,
    };
    if matches!(form, Form::Json) {
        let list: Vec<Value> = tables.iter().map(as_json).collect();
        serde_json::to_writer_pretty(&mut *out, &list)?;
        writeln!(out)?;
        return Ok(());
    }
    for (i, table) in tables.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", fitted(as_text(table).trim_end()))?;
    }
    Ok(())
}

/// The tables with only the keys that are `asked` or below it.
fn below(asked: &str) -> Result<Vec<KeyTable>, Usage> {
    let asked = asked.trim_end_matches('.');
    let start = format!("{asked}.");
    let mut tables = Task::keys();
    for table in &mut tables {
        table
            .keys
            .retain(|key| key.path == asked || key.path.starts_with(&start));
    }
    tables.retain(|table| !table.keys.is_empty());
    if tables.is_empty() {
        return Err(Usage(format!(
            "a task has no key {asked:?}: `hindcast task keys` lists all, with their full paths, as in train.epochs"
        )));
    }
    Ok(tables)
}

fn as_text(table: &KeyTable) -> String {
    let title = match (table.path.as_str(), &table.tag) {
        ("", _) => "The file".to_owned(),
        (path, None) => format!("[{path}]"),
        (path, Some((key, value))) => format!("[{path}] with {key} = {value:?}"),
    };
    // The sentence about a kind is with the values of `kind`.
    let mut text = if table.text.is_empty() || table.tag.is_some() {
        format!("{title}\n")
    } else {
        format!("{title}: {}\n", table.text)
    };
    for key in &table.keys {
        text += &format!("  {} ({}, {})\n", key.path, key.kind, presence(key));
        text += &format!("      {}\n", key.text);
        let longest = key.choices.iter().map(|c| c.name.len() + 2).max();
        for choice in &key.choices {
            let name = format!("{:?}", choice.name);
            let width = longest.unwrap_or(0);
            text += &format!("      {name:<width$}  {}\n", choice.text);
        }
    }
    text
}

fn presence(key: &Key) -> String {
    match &key.presence {
        Presence::Required => "required".to_owned(),
        Presence::Optional => "optional".to_owned(),
        Presence::Default(value) => format!("default {value}"),
    }
}

fn as_json(table: &KeyTable) -> Value {
    let keys: Vec<Value> = table
        .keys
        .iter()
        .map(|key| {
            let choices: Vec<Value> = key
                .choices
                .iter()
                .map(|choice| json!({ "name": choice.name, "text": choice.text }))
                .collect();
            let (presence, default) = match &key.presence {
                Presence::Required => ("required", None),
                Presence::Optional => ("optional", None),
                Presence::Default(value) => ("default", Some(value)),
            };
            json!({
                "path": key.path,
                "type": key.kind,
                "presence": presence,
                "default": default,
                "text": key.text,
                "choices": choices,
            })
        })
        .collect();
    let tag = table
        .tag
        .as_ref()
        .map(|(key, value)| json!({ "key": key, "value": value }));
    json!({ "path": table.path, "tag": tag, "text": table.text, "keys": keys })
}
