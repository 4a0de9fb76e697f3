//! All mistakes in the text of a Task at once. Deserialisation stops at the first.

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::keys::schema::{Object, Schema, Shape, constant, properties, required};
use super::keys::words::Plain;
use super::spec::Task;
use super::suggest;
use crate::data::DataSpec;

/// A mistake in the text of a Task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mistake {
    /// The line, from 1. `None` if it isn't known.
    pub line: Option<usize>,
    /// The path of the key, such as `train.epochs`. Empty for text that isn't TOML.
    pub key: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// The mistakes in a text, and what can be read in spite of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReadTask {
    /// The mistakes, in the order of the text.
    pub mistakes: Vec<Mistake>,
    /// The Task. If there are mistakes, each of them was mended by the likeliest guess, so that the rest can be checked.
    /// `None` if there was no guess. It isn't validated.
    pub task: Option<Task>,
    /// The `[data]` table, also if there is no Task.
    pub data: Option<DataSpec>,
}

impl Task {
    /// Reads a text and finds all of its mistakes: unknown keys, missing keys, and values of a wrong type.
    /// [`Task::problems`] continues with the values.
    pub fn read_all(text: &str) -> ReadTask {
        let (tree, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let mistakes = errors.iter().map(|error| Mistake {
                line: error.span().map(|span| line(text, span.start)),
                key: String::new(),
                what: format!("this is not TOML: {}", suggest::explain(error.message())),
            });
            return ReadTask {
                mistakes: mistakes.collect(),
                task: None,
                data: None,
            };
        }
        let schema = Self::schema();
        let (Some(schema), Ok(table)) = (Schema::new(&schema), toml::from_str::<Table>(text))
        else {
            return read_at_once(text);
        };
        let mut search = Search {
            schema,
            found: Vec::new(),
        };
        let (mended, complete) = search.table(&[], schema.root, None, table);
        let mut mistakes: Vec<Mistake> = search
            .found
            .into_iter()
            .map(|(path, what)| Mistake {
                line: offset(tree.get_ref(), &path).map(|at| line(text, at)),
                key: written(&path),
                what,
            })
            .collect();
        let data = mended.get("data").cloned();
        let data = data.and_then(|data| DataSpec::deserialize(data).ok());
        let task = complete.then(|| Self::deserialize_value(mended));
        if mistakes.is_empty()
            && let Some(Err(problem)) = &task
        {
            // A value that the schema accepts and the type doesn't, such as a number that is too large.
            mistakes.extend(read_at_once(text).mistakes);
            if mistakes.is_empty() {
                mistakes.push(Mistake {
                    line: None,
                    key: String::new(),
                    what: problem.clone(),
                });
            }
        }
        mistakes.sort_by_key(|mistake| mistake.line);
        ReadTask {
            mistakes,
            task: task.and_then(Result::ok),
            data,
        }
    }
}

/// Reads a text up to its first mistake.
fn read_at_once(text: &str) -> ReadTask {
    let read = toml::from_str::<Task>(text);
    let mistakes = read.as_ref().err().map(|error| Mistake {
        line: error.span().map(|span| line(text, span.start)),
        key: String::new(),
        what: suggest::explain(error.message()),
    });
    let task = read.ok();
    ReadTask {
        mistakes: mistakes.into_iter().collect(),
        data: task.as_ref().map(|task| task.data.clone()),
        task,
    }
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Key(String),
    Entry(usize),
}

struct Search<'a> {
    schema: Schema<'a>,
    found: Vec<(Vec<At>, String)>,
}

impl<'a> Search<'a> {
    /// Checks a table. Returns it with its mistakes mended, and whether it has all keys that it needs. `tag` is a key
    /// that was checked before.
    fn table(
        &mut self,
        path: &[At],
        of: &'a Object,
        tag: Option<&str>,
        table: Table,
    ) -> (Table, bool) {
        let known: Vec<(&str, &'a Object)> = properties(of)
            .filter(|(name, _)| Some(*name) != tag)
            .collect();
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let has: Vec<String> = table.keys().cloned().collect();
        let mut mended = Table::new();
        // The keys that are there, under their right names.
        let mut given = Vec::new();
        for (name, value) in table {
            if Some(name.as_str()) == tag {
                mended.insert(name, value);
                continue;
            }
            let at = [path, &[At::Key(name.clone())]].concat();
            let meant = if names.contains(&name.as_str()) {
                Some(name)
            } else {
                let near = suggest::nearest(&name, &names).map(str::to_owned);
                let all = names.join(", ");
                let did_you = suggest::near(&name, &names);
                self.found.push((
                    at.clone(),
                    format!("there is no such key{did_you}; the keys here are {all}"),
                ));
                near.filter(|near| !has.contains(near))
            };
            let found = known
                .iter()
                .find(|(name, _)| Some(*name) == meant.as_deref());
            given.extend(meant.clone());
            if let Some((name, of)) = found
                && let Some(value) = self.value(&at, of, value)
            {
                mended.insert((*name).to_owned(), value);
            }
        }
        let needed = required(of);
        let missing = needed
            .iter()
            .filter(|name| Some(**name) != tag && !given.iter().any(|given| given == **name));
        for name in missing {
            let at = [path, &[At::Key((*name).to_owned())]].concat();
            self.found
                .push((at, format!("is missing; {}", self.about(of, name))));
        }
        let complete = needed.iter().all(|name| mended.contains_key(*name));
        (mended, complete)
    }

    /// What a key is for, for a message about a missing one.
    fn about(&self, table: &'a Object, name: &str) -> String {
        let Some((_, of)) = properties(table).find(|(key, _)| *key == name) else {
            return String::new();
        };
        let text = of.get("description").and_then(|text| text.as_str());
        let first = text
            .unwrap_or_default()
            .split(". ")
            .next()
            .unwrap_or_default();
        format!(
            "expected {}: {}",
            article(&self.schema.words(of).one),
            first.trim_end_matches('.').replace('\n', " ")
        )
    }

    /// Checks a value. Returns it with its mistakes mended, or `None` if there is no guess.
    fn value(&mut self, path: &[At], of: &'a Object, value: Value) -> Option<Value> {
        match (self.schema.shape(of), value) {
            (Shape::Table(of), Value::Table(table)) => {
                let (mended, complete) = self.table(path, of, None, table);
                complete.then_some(Value::Table(mended))
            }
            (Shape::Tagged(tag, variants), Value::Table(table)) => {
                self.tagged(path, tag, &variants, table)
            }
            (Shape::Choice(choices), Value::String(text)) => {
                let names: Vec<&str> = choices.iter().map(|c| c.name.as_str()).collect();
                self.one_of(path, &text, &names).map(Value::String)
            }
            (Shape::Named(of), Value::Table(table)) => {
                let mut mended = Table::new();
                for (name, value) in table {
                    let at = [path, &[At::Key(name.clone())]].concat();
                    mended.extend(self.value(&at, of, value).map(|value| (name, value)));
                }
                Some(Value::Table(mended))
            }
            (Shape::List(of, length), Value::Array(items))
                if length.is_none_or(|n| n == items.len() as u64) =>
            {
                let mended = items.into_iter().enumerate().map(|(i, item)| {
                    let at = [path, &[At::Entry(i)]].concat();
                    self.value(&at, of, item)
                });
                let mended: Vec<Option<Value>> = mended.collect();
                mended
                    .into_iter()
                    .collect::<Option<Vec<_>>>()
                    .map(Value::Array)
            }
            (Shape::Either(types), value) => self.either(path, of, &types, value),
            (Shape::Plain(plain), value) if fits(plain, &value) => Some(value),
            (shape, value) => {
                self.wrong(path, of, &value);
                match shape {
                    Shape::Plain(plain) => guess(plain, &value),
                    _ => None,
                }
            }
        }
    }

    fn wrong(&mut self, path: &[At], of: &'a Object, value: &Value) {
        let expected = article(&self.schema.words(of).one);
        self.found.push((
            path.to_vec(),
            format!("expected {expected}, got {}", shown(value)),
        ));
    }

    fn tagged(
        &mut self,
        path: &[At],
        tag: &'a str,
        variants: &[&'a Object],
        mut table: Table,
    ) -> Option<Value> {
        let names: Vec<&str> = variants.iter().filter_map(|v| constant(v, tag)).collect();
        let at = [path, &[At::Key(tag.to_owned())]].concat();
        let name = match table.get(tag) {
            Some(Value::String(name)) => self.one_of(&at, &name.clone(), &names)?,
            Some(other) => {
                let what = format!("expected {}, got {}", names.join(", "), shown(other));
                self.found.push((at, what));
                return None;
            }
            None => {
                let what = format!("is missing; expected one of {}", names.join(", "));
                self.found.push((at, what));
                return None;
            }
        };
        let of = variants
            .iter()
            .find(|v| constant(v, tag) == Some(name.as_str()))?;
        table.insert(tag.to_owned(), Value::String(name));
        let (mended, complete) = self.table(path, of, Some(tag), table);
        complete.then_some(Value::Table(mended))
    }

    /// Checks a text that must be one of `names`, and returns the one that is meant.
    fn one_of(&mut self, path: &[At], text: &str, names: &[&str]) -> Option<String> {
        if names.contains(&text) {
            return Some(text.to_owned());
        }
        let near = suggest::near(text, names);
        let all = names.join(", ");
        self.found.push((
            path.to_vec(),
            format!("there is no {text:?}{near}; the values here are {all}"),
        ));
        suggest::nearest(text, names).map(str::to_owned)
    }

    /// Checks a value that can be of several types.
    fn either(
        &mut self,
        path: &[At],
        of: &'a Object,
        types: &[&'a Object],
        value: Value,
    ) -> Option<Value> {
        let mut of_table = None;
        for each in types {
            let mut search = Search {
                schema: self.schema,
                found: Vec::new(),
            };
            let mended = search.value(path, each, value.clone());
            if search.found.is_empty() {
                return mended;
            }
            if matches!(self.schema.shape(each), Shape::Table(_)) && value.is_table() {
                of_table = Some((search.found, mended));
            }
        }
        let choices = self.schema.choices(of);
        if let (Value::String(text), false) = (&value, choices.is_empty()) {
            let names: Vec<&str> = choices.iter().map(|c| c.name.as_str()).collect();
            return self.one_of(path, text, &names).map(Value::String);
        }
        match of_table {
            Some((found, mended)) => {
                self.found.extend(found);
                mended
            }
            None => {
                self.wrong(path, of, &value);
                None
            }
        }
    }
}

/// The name of a type with its article.
fn article(words: &str) -> String {
    if words.starts_with("true") || words.starts_with("one ") {
        words.to_owned()
    } else {
        format!("a {words}")
    }
}

fn fits(plain: Plain, value: &Value) -> bool {
    match (plain, value) {
        (Plain::Text, Value::String(_))
        | (Plain::Number, Value::Integer(_) | Value::Float(_))
        | (Plain::Signed, Value::Integer(_))
        | (Plain::Truth, Value::Boolean(_)) => true,
        (Plain::Character, Value::String(text)) => text.chars().count() == 1,
        (Plain::Whole, Value::Integer(n)) => *n >= 0,
        _ => false,
    }
}

/// A value that lets the other keys be checked.
fn guess(plain: Plain, value: &Value) -> Option<Value> {
    let text = value.as_str().unwrap_or_default().trim();
    Some(match plain {
        Plain::Whole | Plain::Signed => {
            Value::Integer(text.parse().ok().filter(|n| *n > 0).unwrap_or(1))
        }
        Plain::Number => Value::Float(text.parse().unwrap_or(0.1)),
        Plain::Truth => Value::Boolean(text == "true"),
        Plain::Text | Plain::Character => return None,
    })
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {text:?}"),
        Value::Integer(_) | Value::Float(_) => format!("the number {value}"),
        Value::Boolean(truth) => truth.to_string(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Table(_) => "a table".to_owned(),
        Value::Datetime(time) => format!("the time {time}"),
    }
}

/// The path as errors write it: `model.layers[3].out`.
fn written(path: &[At]) -> String {
    let mut text = String::new();
    for at in path {
        match at {
            At::Key(name) if text.is_empty() => text.push_str(name),
            At::Key(name) => text = format!("{text}.{name}"),
            At::Entry(i) => text = format!("{text}[{i}]"),
        }
    }
    text
}

/// The place of a key in the text, or that of the innermost table that is there.
fn offset(table: &DeTable<'_>, path: &[At]) -> Option<usize> {
    let (At::Key(name), rest) = path.split_first()? else {
        return None;
    };
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    within(value, rest).or(Some(key.span().start))
}

fn within(value: &Spanned<DeValue<'_>>, path: &[At]) -> Option<usize> {
    match (value.get_ref(), path.first()?) {
        (DeValue::Table(table), At::Key(_)) => offset(table, path),
        (DeValue::Array(items), At::Entry(i)) => {
            let item = items.get(*i)?;
            within(item, path.get(1..)?).or(Some(item.span().start))
        }
        _ => None,
    }
}

/// The line of a byte, from 1.
fn line(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    1 + before.matches('\n').count()
}

#[cfg(test)]
mod tests;
