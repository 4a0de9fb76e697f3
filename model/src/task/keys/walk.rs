//! Walks through the schema of a Task, and collects its tables and keys.

use serde_json::Value;

use super::key::{Choice, Key, KeyTable, Presence};
use super::order::declared;
use super::schema::{Object, Schema, Shape, constant, properties, required, text};
use super::words::toml;

/// The tables of a schema, the outer ones first.
pub(super) fn tables(schema: &Value) -> Vec<KeyTable> {
    let Some(schema) = Schema::new(schema) else {
        return Vec::new();
    };
    let mut walk = Walk {
        schema,
        declared: declared(),
        open: Vec::new(),
        tables: Vec::new(),
    };
    walk.table("", None, text(schema.root), schema.root);
    walk.tables
}

struct Walk<'a> {
    schema: Schema<'a>,
    declared: Vec<&'static [&'static str]>,
    /// The definitions that are being walked through. One of them can contain itself.
    open: Vec<&'a str>,
    tables: Vec<KeyTable>,
}

impl<'a> Walk<'a> {
    /// Adds a table and the tables in it.
    fn table(&mut self, path: &str, tag: Option<(&str, &str)>, about: String, object: &'a Object) {
        let required = required(object);
        let mut properties: Vec<(&'a str, &'a Object)> = properties(object)
            .filter(|(name, _)| tag.is_none_or(|(key, _)| key != *name))
            .collect();
        self.sort(&mut properties, &required);
        let keys = properties.iter().map(|(name, value)| Key {
            path: joined(path, name),
            name: (*name).to_owned(),
            kind: self.schema.words(value).one,
            presence: if required.contains(name) {
                Presence::Required
            } else {
                let default = value.get("default").and_then(toml);
                default.map_or(Presence::Optional, Presence::Default)
            },
            text: described(value, object),
            choices: self.schema.choices(value),
        });
        self.tables.push(KeyTable {
            path: path.to_owned(),
            tag: tag.map(|(key, value)| (key.to_owned(), value.to_owned())),
            text: about,
            keys: keys.collect(),
        });
        for (name, value) in properties {
            self.within(&joined(path, name), &text(value), value);
        }
    }

    /// Adds the tables in a value.
    fn within(&mut self, path: &str, about: &str, value: &'a Object) {
        let (_, definition) = self.schema.resolve(value);
        if definition.is_some_and(|name| self.open.contains(&name)) {
            return;
        }
        self.open.extend(definition);
        match self.schema.shape(value) {
            Shape::Table(object) => self.table(path, None, about.to_owned(), object),
            Shape::Tagged(tag, variants) => self.tagged(path, about, tag, variants),
            Shape::Named(of) => self.within(&joined(path, "NAME"), about, of),
            Shape::List(item, _) => self.within(&joined(path, "N"), about, item),
            Shape::Either(types) => {
                for each in types {
                    self.within(path, about, each);
                }
            }
            Shape::Choice(_) | Shape::Plain(_) => {}
        }
        let others = self.open.len() - usize::from(definition.is_some());
        self.open.truncate(others);
    }

    /// Adds a table with the key that decides the others, and a table for each of its values that has other keys.
    fn tagged(&mut self, path: &str, about: &str, tag: &'a str, variants: Vec<&'a Object>) {
        let named: Vec<(Choice, &Object)> = variants
            .into_iter()
            .filter_map(|variant| {
                let name = constant(variant, tag)?.to_owned();
                let text = text(variant);
                Some((Choice { name, text }, variant))
            })
            .collect();
        self.tables.push(KeyTable {
            path: path.to_owned(),
            tag: None,
            text: about.to_owned(),
            keys: vec![Key {
                path: joined(path, tag),
                name: tag.to_owned(),
                kind: "text".to_owned(),
                presence: Presence::Required,
                text: "Decides which other keys the table has.".to_owned(),
                choices: named.iter().map(|(choice, _)| choice.clone()).collect(),
            }],
        });
        for (choice, variant) in named {
            if properties(variant).count() > 1 {
                self.table(path, Some((tag, &choice.name)), choice.text, variant);
            }
        }
    }

    /// Sorts the keys as their struct declares them. The keys of an enum's variant: required ones first, then by name.
    fn sort(&self, properties: &mut [(&str, &Object)], required: &[&str]) {
        let whole = |fields: &&[&str]| {
            fields.len() == properties.len()
                && properties.iter().all(|(name, _)| fields.contains(name))
        };
        match self.declared.iter().copied().find(|fields| whole(fields)) {
            Some(fields) => {
                properties.sort_by_key(|(name, _)| fields.iter().position(|f| f == name));
            }
            None => properties.sort_by_key(|(name, _)| !required.contains(name)),
        }
    }
}

/// The comment of a key. A variant of an enum has it in the place of its only key.
fn described(key: &Object, table: &Object) -> String {
    let own = text(key);
    if own.is_empty() { text(table) } else { own }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
