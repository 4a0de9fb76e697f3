//! The user's own names of examples: ids, file names, texts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::{Path, PathBuf};

use hindcast_model::files;
use serde_json::Value;

use super::ScoreTable;
use crate::error::{AnalysisError, Result};

/// What a name's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKey {
    /// The example's row in the original file: a table's column `row`.
    Row,
    /// Its position in the training split: a table's column `index`.
    Index,
}

impl NameKey {
    fn column(self) -> &'static str {
        match self {
            NameKey::Row => "row",
            NameKey::Index => "index",
        }
    }
}

/// Names of examples, read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    path: PathBuf,
    key: NameKey,
    /// Whether each name came with its number; otherwise it's the position in the file.
    keyed: bool,
    names: BTreeMap<u64, String>,
}

impl Names {
    /// Reads names.
    ///
    /// A `.csv` has a header, a `.jsonl` or `.ndjson` an object a line (or a plain string); every other file is text, a
    /// name a line. In CSV and JSON lines a column `index` or `row` says which example a line is about; without one,
    /// and in text files, lines are counted from 0 as rows of the original file, or as `by` says. The name is in the
    /// column `column`, else in `name`, else in the only other one.
    ///
    /// # Errors
    /// Where the file can't be read or understood, or a number comes twice; the text names the line.
    pub fn read(path: &Path, by: Option<NameKey>, column: Option<&str>) -> Result<Names> {
        let ending = path
            .extension()
            .map(|e| e.to_string_lossy().to_ascii_lowercase());
        let open = || files::open_text(path, files::NAMES).map_err(|e| e.problem.to_string());
        let lines = match ending.as_deref() {
            Some("csv") => open().and_then(|from| csv_lines(from, by, column)),
            Some("jsonl" | "ndjson") => open().and_then(|from| json_lines(from, by, column)),
            _ => open().and_then(text_lines),
        };
        lines
            .and_then(|lines| lines.into_names(path, by))
            .map_err(|problem| file(path, problem))
    }
}

impl Names {
    /// Does every example have a name, and every name an example? `examples` are pairs (index, row).
    ///
    /// # Errors
    /// Where not; the text names the first one.
    pub(crate) fn check(&self, examples: &[(u64, u64)]) -> Result<()> {
        let fail = |problem: String| Err(file(&self.path, problem));
        if self.key == NameKey::Row
            && examples.len() > 1
            && examples.iter().all(|(_, row)| *row == 0)
        {
            return fail("the table has no column `row`: name the examples by index".to_owned());
        }
        let mut nameless = examples
            .iter()
            .map(|pair| self.number(pair))
            .filter(|number| !self.names.contains_key(number));
        let (count, all) = (self.names.len(), examples.len());
        if let Some(first) = nameless.next() {
            let hint = match (self.keyed, self.key) {
                (true, _) => "give every example a line".to_owned(),
                (false, NameKey::Row) if count == all => format!(
                    "the file has {count} lines, as many as there are examples: if they follow the training split, say so (--names-by index)"
                ),
                (false, _) => format!("the file has {count} lines, counted from 0"),
            };
            return fail(format!(
                "no name for {} {first} ({} of {all} examples have none); {hint}",
                self.key.column(),
                1 + nameless.count()
            ));
        }
        // Indices count the training split, so that a complete table knows how many names there can be.
        let indices: BTreeSet<u64> = examples.iter().map(|(index, _)| *index).collect();
        let last = self.names.last_key_value().map_or(0, |(last, _)| *last);
        if self.key == NameKey::Index && indices.into_iter().eq(0..all as u64) && last >= all as u64
        {
            return fail(format!(
                "a name for index {last}, but the training split has {all} examples, 0..{all}"
            ));
        }
        Ok(())
    }

    fn number(&self, (index, row): &(u64, u64)) -> u64 {
        match self.key {
            NameKey::Row => *row,
            NameKey::Index => *index,
        }
    }
}

impl ScoreTable {
    /// Gives every row its name, replacing names that were there.
    ///
    /// # Errors
    /// Where an example has no name, or there are names for examples that don't exist.
    pub fn join(&mut self, names: &Names) -> Result<()> {
        let pairs: Vec<(u64, u64)> = self.rows.iter().map(|r| (r.index, r.row)).collect();
        names.check(&pairs)?;
        for (row, pair) in self.rows.iter_mut().zip(&pairs) {
            row.name = names.names.get(&names.number(pair)).cloned();
        }
        Ok(())
    }
}

/// Names in the order of the file, with their numbers where it gives them.
struct Lines {
    key: Option<NameKey>,
    /// Line in the file, number, name.
    lines: Vec<(u64, Option<u64>, String)>,
}

impl Lines {
    fn into_names(self, path: &Path, by: Option<NameKey>) -> Result<Names, String> {
        let mut names = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for (position, (line, number, name)) in (0..).zip(self.lines) {
            let number = number.unwrap_or(position);
            if let Some(before) = seen.insert(number, line) {
                let what = self.key.unwrap_or(NameKey::Row).column();
                return Err(format!(
                    "line {line}: {what} {number} was named in line {before} already"
                ));
            }
            names.insert(number, name);
        }
        if names.is_empty() {
            return Err("the file holds no names".to_owned());
        }
        Ok(Names {
            path: path.to_path_buf(),
            key: self.key.or(by).unwrap_or(NameKey::Row),
            keyed: self.key.is_some(),
            names,
        })
    }
}

fn text_lines(from: impl BufRead) -> Result<Lines, String> {
    let lines = (1..)
        .zip(from.lines())
        .map(|(line, name)| {
            let name = name.map_err(|e| format!("line {line}: {e}"))?;
            Ok((line, None, name))
        })
        .collect::<Result<_, String>>()?;
    Ok(Lines { key: None, lines })
}

/// The column of the numbers and the one of the names.
fn choose(
    columns: &[String],
    by: Option<NameKey>,
    wanted: Option<&str>,
) -> Result<(Option<NameKey>, String), String> {
    let there = |name: &str| columns.iter().any(|c| c == name);
    let key = [NameKey::Index, NameKey::Row]
        .into_iter()
        .find(|k| by.is_none_or(|by| by == *k) && there(k.column()));
    let list = || columns.join(", ");
    if let Some(wanted) = wanted {
        return match there(wanted) {
            true => Ok((key, wanted.to_owned())),
            false => Err(format!(
                "there is no column `{wanted}`; there are: {}",
                list()
            )),
        };
    }
    let mut others = columns
        .iter()
        .filter(|c| !["index", "row"].contains(&c.as_str()));
    match (there("name"), others.next(), others.next()) {
        (true, _, _) => Ok((key, "name".to_owned())),
        (false, Some(only), None) => Ok((key, only.clone())),
        _ => Err(format!(
            "which column holds the names? Choose one (--name-column): {}",
            list()
        )),
    }
}

fn csv_lines(
    from: impl BufRead,
    by: Option<NameKey>,
    wanted: Option<&str>,
) -> Result<Lines, String> {
    let mut csv = csv::Reader::from_reader(from);
    let columns: Vec<String> = csv
        .headers()
        .map_err(|e| e.to_string())?
        .iter()
        .map(|c| c.trim().to_owned())
        .collect();
    let (key, name) = choose(&columns, by, wanted)?;
    let at = |name: &str| columns.iter().position(|c| c == name);
    let (key_at, name_at) = (key.and_then(|k| at(k.column())), at(&name));
    let mut lines = Vec::new();
    for record in csv.records() {
        let record = record.map_err(|e| e.to_string())?;
        let line = record.position().map_or(0, |p| p.line());
        let cell = |at: Option<usize>| at.and_then(|at| record.get(at)).unwrap_or_default();
        let number = match key_at {
            None => None,
            some => Some(
                cell(some)
                    .trim()
                    .parse()
                    .map_err(|_| format!("line {line}: `{}` is not a whole number", cell(some)))?,
            ),
        };
        lines.push((line, number, cell(name_at).to_owned()));
    }
    Ok(Lines { key, lines })
}

fn json_lines(
    from: impl BufRead,
    by: Option<NameKey>,
    wanted: Option<&str>,
) -> Result<Lines, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut chosen: Option<(Option<NameKey>, String)> = None;
    let mut lines = Vec::new();
    for (line, content) in (1..).zip(from.lines()) {
        let content = content.map_err(|e| format!("line {line}: {e}"))?;
        if content.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(&content).map_err(|e| format!("line {line}: {e}"))?;
        let Value::Object(object) = value else {
            lines.push((line, None, text(&value)));
            continue;
        };
        let (key, name) = match &chosen {
            Some(chosen) => chosen.clone(),
            None => {
                let columns: Vec<String> = object.keys().cloned().collect();
                chosen.insert(choose(&columns, by, wanted)?).clone()
            }
        };
        let get = |column: &str| {
            object
                .get(column)
                .ok_or_else(|| format!("line {line}: `{column}` is missing"))
        };
        let number =
            match key {
                None => None,
                Some(key) => Some(get(key.column())?.as_u64().ok_or_else(|| {
                    format!("line {line}: `{}` is not a whole number", key.column())
                })?),
            };
        lines.push((line, number, text(get(&name)?)));
    }
    let key = chosen.and_then(|(key, _)| key);
    if key.is_some() && lines.iter().any(|(_, number, _)| number.is_none()) {
        return Err("some lines are objects with a number, others are not".to_owned());
    }
    Ok(Lines { key, lines })
}

fn file(path: &Path, problem: String) -> AnalysisError {
    AnalysisError::File {
        path: path.to_path_buf(),
        problem,
    }
}
