//! Changes the keys of a Task by `path=value`.

use toml::{Table, Value};

use super::error::TaskError;
use super::spec::Task;
use super::suggest;

/// Keys whose value determines which other keys a table has.
const TAGS: [&str; 2] = ["kind", "source"];

impl Task {
    /// Sets one key, as in `set("train.epochs", "1")`. See [`Task::set_all`].
    ///
    /// # Errors
    /// As [`Task::set_all`].
    pub fn set(&mut self, path: &str, value: &str) -> Result<(), TaskError> {
        self.set_all(&[(path, value)])
    }

    /// Sets several keys, as `--set train.epochs=1` does. A path names tables by key and list entries by number, as in
    /// `model.layers.0.out`. A value is parsed as TOML. A value that isn't TOML is taken as plain text, so that
    /// `schedule.kind=cosine` needs no quotes. If a table's `kind` or `source` changes, the keys that only the old kind
    /// has are removed, and so are those that hold the old kind's default: the new kind has its own. Keys that the same call
    /// sets stay.
    ///
    /// The Task is validated after all keys are set. If an error is returned, the Task is unchanged.
    ///
    /// # Errors
    /// [`TaskError::Set`] for a path that doesn't exist, with the most similar keys, or for a value of the wrong type.
    /// Otherwise as [`Task::validate`].
    pub fn set_all(&mut self, assignments: &[(&str, &str)]) -> Result<(), TaskError> {
        let mut tree = Table::try_from(&*self).map_err(|e| TaskError::Text(e.to_string()))?;
        let mut problems = Vec::new();
        let mut result = Ok(self.clone());
        for (path, text) in assignments {
            let keys: Vec<&str> = path.split('.').collect();
            let of_old_kind = defaults(&tree, &keys, assignments);
            place(&mut tree, &keys, read(text)).map_err(|problem| TaskError::Set {
                path: (*path).to_string(),
                problem,
            })?;
            for key in of_old_kind {
                let mut without = tree.clone();
                remove(&mut without, &keys, &key);
                let parsed = Task::deserialize_value(without.clone());
                // The new kind may have no default.
                let required = format!("missing field `{key}`");
                if !parsed.is_err_and(|problem| problem.contains(&required)) {
                    tree = without;
                }
            }
            result = parse(&mut tree, &keys, assignments);
            if matches!(&result, Err(problem) if problem.contains("expected a string")) {
                // The key takes a text, and the text looks like a number, as a class name can.
                let name = Value::String((*text).to_string());
                if place(&mut tree, &keys, name).is_ok() {
                    result = parse(&mut tree, &keys, assignments);
                }
            }
            // A change of kind may need keys that are set later, so only the last result counts.
            if let Err(problem) = &result {
                problems.push((path, text, keys, problem.clone()));
            }
        }
        let task = match result {
            Ok(task) => task,
            Err(last) => {
                // Report the assignment that contains the unknown key, or otherwise the first one that failed.
                let unknown = suggest::unknown(&last).map(|(name, _)| name);
                let blamed = problems
                    .iter()
                    .find(|(_, _, keys, _)| keys.last().copied() == unknown.as_deref())
                    .or(problems.first());
                return Err(match blamed {
                    Some((path, text, keys, problem)) => TaskError::Set {
                        path: (**path).to_string(),
                        problem: explain(problem, keys, text),
                    },
                    None => TaskError::Text(last),
                });
            }
        };
        task.validate()?;
        *self = task;
        Ok(())
    }
}

/// Largest number of names in a path. No task is nested that deeply, and parsing a deeply nested table overflows the
/// stack.
const MAX_NAMES: usize = 128;

/// The value parsed as TOML, or the text itself.
fn read(text: &str) -> Value {
    toml::from_str::<Table>(&format!("x = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("x"))
        .unwrap_or_else(|| Value::String(text.to_string()))
}

fn place(tree: &mut Table, keys: &[&str], value: Value) -> Result<(), String> {
    let Some((last, parents)) = keys.split_last() else {
        return Err("the path is empty".into());
    };
    if keys.iter().any(|key| key.is_empty()) {
        return Err(
            "a name is empty: expected names with dots between them, as in train.epochs".into(),
        );
    }
    if keys.len() > MAX_NAMES {
        return Err(format!(
            "expected a path of at most {MAX_NAMES} names, got {} names",
            keys.len()
        ));
    }
    match parent(tree, parents)? {
        Parent::Table(table) => {
            table.insert((*last).to_string(), value);
        }
        Parent::List(list) => *entry(list, last)? = value,
    }
    Ok(())
}

enum Parent<'a> {
    Table(&'a mut Table),
    List(&'a mut Vec<Value>),
}

fn parent<'a>(tree: &'a mut Table, keys: &[&str]) -> Result<Parent<'a>, String> {
    let mut at = Parent::Table(tree);
    for key in keys {
        let next = match at {
            // A missing table may be an optional one. If there is no such table, parsing the result reports it.
            Parent::Table(table) => table
                .entry((*key).to_string())
                .or_insert_with(|| Value::Table(Table::new())),
            Parent::List(list) => entry(list, key)?,
        };
        at = match next {
            Value::Table(table) => Parent::Table(table),
            Value::Array(list) => Parent::List(list),
            other => return Err(format!("{key} is {other}, which has no keys")),
        };
    }
    Ok(at)
}

fn entry<'a>(list: &'a mut [Value], key: &str) -> Result<&'a mut Value, String> {
    let len = list.len();
    key.parse::<usize>()
        .ok()
        .and_then(|i| list.get_mut(i))
        .ok_or_else(|| format!("expected a number below {len} in a list, got {key:?}"))
}

/// The keys that hold the default of their table's kind, if `keys` is the path of a kind. Keys that are set stay.
fn defaults(tree: &Table, keys: &[&str], assignments: &[(&str, &str)]) -> Vec<String> {
    let Some((tag, parents)) = keys.split_last().filter(|(tag, _)| TAGS.contains(tag)) else {
        return Vec::new();
    };
    let Ok(task) = Task::deserialize_value(tree.clone()) else {
        return Vec::new();
    };
    let mut probe = tree.clone();
    let names: Vec<String> = match parent(&mut probe, parents) {
        Ok(Parent::Table(table)) => table.keys().cloned().collect(),
        _ => return Vec::new(),
    };
    let is_default = |name: &String| {
        let mut without = tree.clone();
        remove(&mut without, keys, name);
        Task::deserialize_value(without).is_ok_and(|same| same == task)
    };
    names
        .into_iter()
        .filter(|name| name != tag && !is_set(parents, name, assignments) && is_default(name))
        .collect()
}

/// Removes a key of the table that has the kind with the path `keys`.
fn remove(tree: &mut Table, keys: &[&str], name: &str) {
    if let Some((_, parents)) = keys.split_last()
        && let Ok(Parent::Table(table)) = parent(tree, parents)
    {
        table.remove(name);
    }
}

/// Whether one of the assignments sets this key of a table.
fn is_set(parents: &[&str], name: &str, assignments: &[(&str, &str)]) -> bool {
    let path = parents.iter().copied().chain([name]);
    let path = path.collect::<Vec<_>>().join(".");
    assignments.iter().any(|(set, _)| *set == path)
}

/// Parses the tree. If a tag was just changed, keys that the new kind doesn't have are removed first.
fn parse(tree: &mut Table, keys: &[&str], assignments: &[(&str, &str)]) -> Result<Task, String> {
    let (tag, parents) = match keys.split_last() {
        Some((last, parents)) if TAGS.contains(last) => (true, parents),
        _ => (false, keys),
    };
    loop {
        let problem = match Task::deserialize_value(tree.clone()) {
            Ok(task) => return Ok(task),
            Err(problem) => problem,
        };
        let stale = suggest::unknown(&problem)
            .map(|(name, _)| name)
            .filter(|name| tag && !is_set(parents, name, assignments));
        let dropped = match (stale, parent(tree, parents)) {
            (Some(name), Ok(Parent::Table(table))) => table.remove(&name).is_some(),
            _ => false,
        };
        if !dropped {
            return Err(problem);
        }
    }
}

/// The deserializer's words for types, in those that users know.
fn in_plain_words(problem: &str) -> String {
    const WORDS: [(&str, &str); 15] = [
        ("invalid type: string ", "got the text "),
        ("invalid type: integer ", "got the number "),
        ("invalid type: floating point ", "got the number "),
        ("invalid type: ", "got "),
        ("invalid value: integer ", "got the number "),
        ("invalid value: floating point ", "got the number "),
        ("invalid value: ", "got "),
        ("unknown variant ", "there is no "),
        (
            "expected a nonzero usize",
            "expected a whole number, 1 or more",
        ),
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
    ];
    let replaced = |text: String, (from, to): (&str, &str)| text.replace(from, to);
    WORDS.into_iter().fold(problem.to_owned(), replaced)
}

fn explain(problem: &str, keys: &[&str], text: &str) -> String {
    let problem = problem.trim_end();
    let Some((name, known)) = suggest::unknown(problem) else {
        let problem = in_plain_words(problem);
        return format!("{text:?} is not a value of this key: {problem}");
    };
    let near = suggest::near(&name, &known);
    let known = known.join(", ");
    if keys.last() == Some(&name.as_str()) {
        format!("there is no such key{near}; the keys here are {known}")
    } else if keys.contains(&name.as_str()) {
        format!("there is no table {name:?}{near}; the keys here are {known}")
    } else if name == text {
        format!("there is no {name:?}{near}; the values here are {known}")
    } else {
        format!("it does not have the key {name:?}{near}; the keys here are {known}")
    }
}
