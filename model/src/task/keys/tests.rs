//! Compares the list of keys with what deserialisation accepts.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::{Table, Value};

use super::{Key, KeyTable, Presence};
use crate::data::Pair;
use crate::task::{Task, suggest};

const UNKNOWN: &str = "not_a_key";

/// A value of the key's type.
fn example(key: &Key, tables: &[KeyTable]) -> Value {
    match key.kind.as_str() {
        "table" => Value::Table(required(&key.path, None, tables)),
        "whole number" => 1.into(),
        "number" => 0.5.into(),
        "true or false" => true.into(),
        "one character" => "x".into(),
        kind if kind.starts_with("table of ") => Value::Table(Table::new()),
        kind if kind.starts_with("list of ") => Value::Array(Vec::new()),
        kind if kind.starts_with("text") => {
            let first = key.choices.first();
            first
                .map_or("x".to_owned(), |choice| choice.name.clone())
                .into()
        }
        kind if kind.starts_with("whole number or ") => 1.into(),
        kind if kind.starts_with("number or ") => 0.5.into(),
        other => panic!("{}: no example of {other:?}", key.path),
    }
}

/// The keys that a table must have.
fn required(path: &str, tag: Option<&(String, String)>, tables: &[KeyTable]) -> Table {
    let of = |tag| {
        let found = tables.iter().find(|t| t.path == path && t.tag == tag);
        found.map(|t| t.keys.as_slice()).unwrap_or_default()
    };
    let mut keys: Vec<&Key> = of(None).iter().collect();
    let mut chosen = tag.cloned();
    if let [only] = keys.as_slice()
        && chosen.is_none()
        && let Some(first) = only.choices.first()
    {
        chosen = Some((only.name.clone(), first.name.clone()));
    }
    keys.extend(of(chosen.clone()).iter().filter(|_| chosen.is_some()));
    let mut table: Table = keys
        .into_iter()
        .filter(|key| key.presence == Presence::Required)
        .map(|key| (key.name.clone(), example(key, tables)))
        .collect();
    table.extend(chosen.map(|(key, value)| (key, value.into())));
    table
}

/// A Task with only its required keys, and this value at this path.
fn with(path: &str, value: Value, tables: &[KeyTable]) -> Table {
    let mut task = required("", None, tables);
    let names: Vec<&str> = path.split('.').filter(|name| !name.is_empty()).collect();
    let Some((last, parents)) = names.split_last() else {
        return value.as_table().unwrap().clone();
    };
    let mut at = &mut task;
    let mut names = parents.iter().peekable();
    let mut so_far = String::new();
    while let Some(name) = names.next() {
        so_far = format!("{so_far}{}{name}", if so_far.is_empty() { "" } else { "." });
        // A list of one table, or a table.
        let list = names.peek() == Some(&&"N");
        let inner = if list {
            so_far += ".N";
            Value::Array(vec![Value::Table(required(&so_far, None, tables))])
        } else {
            Value::Table(required(&so_far, None, tables))
        };
        names.next_if(|_| list);
        let entry = at.entry((*name).to_owned()).or_insert(inner);
        if let Value::Array(items) = entry
            && items.is_empty()
        {
            items.push(Value::Table(required(&so_far, None, tables)));
        }
        at = match entry {
            Value::Table(table) => table,
            Value::Array(items) => items[0].as_table_mut().unwrap(),
            other => panic!("{path}: {other}"),
        };
    }
    if *last == "N" {
        panic!("{path} ends in a list");
    }
    at.insert((*last).to_owned(), value);
    task
}

/// Puts a table at its path. A path that ends with `N` is an entry of a list.
fn with_table(path: &str, table: Table, tables: &[KeyTable]) -> Table {
    match path.strip_suffix(".N") {
        Some(list) => with(list, Value::Array(vec![Value::Table(table)]), tables),
        None => with(path, Value::Table(table), tables),
    }
}

/// The names that serde offers instead of the unknown key.
fn offered(problem: &str) -> Option<BTreeSet<String>> {
    let (name, known) = suggest::unknown(problem)?;
    (name == UNKNOWN).then(|| known.into_iter().collect())
}

fn names(keys: &[Key]) -> BTreeSet<String> {
    keys.iter().map(|key| key.name.clone()).collect()
}

#[test]
fn the_list_has_every_key_that_deserialisation_accepts_and_no_other() {
    let tables = Task::keys();
    assert!(tables.len() > 30, "{} tables", tables.len());
    for table in &tables {
        let (path, title) = (&table.path, table.title());
        let tagged = tables.iter().any(|t| t.path == *path && t.tag.is_some());
        let mut content = required(path, table.tag.as_ref(), &tables);
        if tagged && table.tag.is_none() {
            // The values of the key that decides the others: an unknown one is answered by the list of all.
            let only = &table.keys[0];
            content.insert(only.name.clone(), UNKNOWN.into());
            let problem = Task::deserialize_value(with_table(path, content, &tables)).unwrap_err();
            let listed: BTreeSet<String> = only.choices.iter().map(|c| c.name.clone()).collect();
            assert_eq!(offered(&problem), Some(listed), "{title}: {problem}");
            continue;
        }
        content.insert(UNKNOWN.to_owned(), 1.into());
        let problem = match Task::deserialize_value(with_table(path, content.clone(), &tables)) {
            Err(problem) => problem,
            Ok(_) => panic!("{title}: an unknown key is accepted"),
        };
        // One of several forms: serde doesn't say which keys this one has.
        let alone = Table::from_iter([(UNKNOWN.to_owned(), Value::from(1))]);
        let problem = match path {
            path if path.ends_with("_files") => Pair::deserialize(content).unwrap_err().to_string(),
            path if path.starts_with("data.missing.") => {
                Task::deserialize_value(with_table(path, alone, &tables)).unwrap_err()
            }
            _ => problem,
        };
        let mut accepted = offered(&problem).unwrap_or_else(|| panic!("{title}: {problem}"));
        // The texts that can stand in the place of the table.
        let named = tables.iter().flat_map(|t| &t.keys);
        for key in named.filter(|key| key.path == *path) {
            for choice in &key.choices {
                accepted.remove(&choice.name);
            }
        }
        if path.ends_with(".NAME") {
            accepted.retain(|name| table.keys.iter().any(|key| key.name == *name));
        }
        assert_eq!(names(&table.keys), accepted, "{title}");
    }
}

#[test]
fn a_key_that_is_no_table_in_the_list_is_none_in_a_task() {
    let tables = Task::keys();
    for table in &tables {
        for key in &table.keys {
            if key.kind.contains("table") {
                let of_list = format!("{}.N", key.path);
                let listed = |t: &KeyTable| t.path == key.path || t.path == of_list;
                let residual = key.path.starts_with("model.layers.N.");
                assert!(
                    residual || key.kind.starts_with("table of ") || tables.iter().any(listed),
                    "{}: the keys of the table are not listed",
                    key.path
                );
                continue;
            }
            let mut content = required(&table.path, table.tag.as_ref(), &tables);
            let unknown: Table = [(UNKNOWN.to_owned(), Value::from(1))].into_iter().collect();
            content.insert(key.name.clone(), Value::Table(unknown));
            let problem =
                Task::deserialize_value(with_table(&table.path, content, &tables)).unwrap_err();
            assert!(
                !problem.contains("unknown field"),
                "{}: {problem}",
                key.path
            );
        }
    }
}

#[test]
fn every_default_is_the_value_of_a_task_without_the_key() {
    let tables = Task::keys();
    let parsed = |table: &KeyTable, content: Table| {
        Task::deserialize_value(with_table(&table.path, content, &tables))
    };
    for table in &tables {
        // These tables are one of several forms, so serde doesn't name a missing key.
        if table.path.ends_with("_files") || table.path.starts_with("data.missing.") {
            continue;
        }
        for key in &table.keys {
            let content = required(&table.path, table.tag.as_ref(), &tables);
            match &key.presence {
                Presence::Required => {
                    let mut without = content.clone();
                    without.remove(&key.name);
                    let problem = parsed(table, without).unwrap_err();
                    assert!(problem.contains("missing field"), "{}: {problem}", key.path);
                }
                Presence::Default(text) => {
                    let value: Table = toml::from_str(&format!("x = {text}")).unwrap();
                    let mut given = content.clone();
                    given.insert(key.name.clone(), value["x"].clone());
                    assert_eq!(
                        parsed(table, given),
                        parsed(table, content),
                        "{} = {text}",
                        key.path
                    );
                }
                Presence::Optional => {
                    // `schemars(!skip_serializing_if)` on the field shows a default that is not written to a file.
                    assert!(
                        key.kind != "true or false",
                        "{}: the default isn't shown",
                        key.path
                    );
                    assert!(parsed(table, content).is_ok(), "{}", key.path);
                }
            }
        }
    }
}

#[test]
fn every_key_has_a_sentence_without_links_and_a_default_that_is_shown() {
    for table in Task::keys() {
        for key in &table.keys {
            let choices = key.choices.iter().map(|c| (&c.name, &c.text));
            for (name, text) in choices.chain([(&key.path, &key.text)]) {
                assert!(text.ends_with('.'), "{name}: {text:?} is no sentence");
                let linked = text.contains("[`") || text.contains("](");
                assert!(!linked, "{name}: readers can't follow a link in {text:?}");
            }
        }
        assert!(!table.text.contains("[`"), "{}", table.title());
    }
}

#[test]
fn keys_have_types_defaults_and_sentences() {
    let tables = Task::keys();
    let key = |path: &str, tag: Option<&str>| {
        let mut found = tables.iter().filter(|t| {
            tag.is_none_or(|tag| t.tag.as_ref().is_some_and(|(_, value)| value == tag))
        });
        let found = found.find_map(|t| t.keys.iter().find(|key| key.path == path));
        found.unwrap_or_else(|| panic!("no {path}"))
    };
    let epochs = key("train.epochs", None);
    assert_eq!(epochs.kind, "whole number");
    assert_eq!(epochs.presence, Presence::Required);
    assert_eq!(epochs.text, "Number of passes over the training examples.");
    let stride = key("data.text.stride", None);
    assert_eq!(stride.presence, Presence::Default("1".into()));
    let eps = key("optimizer.eps", Some("adam"));
    assert_eq!(eps.presence, Presence::Default("1e-8".into()));
    assert_eq!(
        key("data.pool", None).presence,
        Presence::Default("\"separate\"".into())
    );
    let kernel = key("model.layers.N.kernel", Some("conv2d"));
    assert_eq!(kernel.kind, "whole number or list of 2 whole numbers");
    assert_eq!(
        key("data.merge", None).kind,
        "table of tables of lists of texts"
    );
    assert_eq!(key("data.delimiter", None).kind, "one character");
    let files = key("data.train_files", None);
    assert_eq!(files.kind, "text or list of texts or table");
    let source = key("data.source", None);
    assert!(
        source
            .choices
            .iter()
            .any(|c| c.name == "csv" && c.text.contains("table"))
    );
    let strip = key("data.documents.strip", None);
    assert_eq!(
        (strip.kind.as_str(), strip.choices.len()),
        ("list of texts", 3)
    );
    let first: Vec<&str> = tables[0]
        .keys
        .iter()
        .map(|k| k.name.as_str())
        .take(4)
        .collect();
    assert_eq!(first, ["name", "description", "data", "model"]);
}
