//! Files of names, line by line.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use hindcast_model::csv_rows::CsvRows;
use serde_json::Value;

use super::{NameKey, Names};
use crate::scores::spreadsheet;

/// A name as it stands in the file.
struct Line {
    /// Line in the file.
    line: u64,
    file: Option<String>,
    number: Option<u64>,
    name: String,
}

/// Names in the order of the file, with their numbers where it gives them.
pub(super) struct Lines {
    key: Option<NameKey>,
    lines: Vec<Line>,
}

impl Lines {
    pub(super) fn into_names(self, path: &Path, by: Option<NameKey>) -> Result<Names, String> {
        let mut names = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for (position, line) in (0..).zip(self.lines) {
            let key = (line.file, line.number.unwrap_or(position));
            if let Some(before) = seen.insert(key.clone(), line.line) {
                let what = self.key.unwrap_or(NameKey::Row).column();
                let of = key.0.map_or(String::new(), |file| format!(" of {file}"));
                return Err(format!(
                    "line {}: {what} {}{of} was named in line {before} already",
                    line.line, key.1
                ));
            }
            names.insert(key, line.name);
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

pub(super) fn text_lines(from: impl BufRead) -> Result<Lines, String> {
    let lines = (1..)
        .zip(from.lines())
        .map(|(line, name)| {
            let name = name.map_err(|e| format!("line {line}: {e}"))?;
            Ok(Line {
                line,
                file: None,
                number: None,
                name,
            })
        })
        .collect::<Result<_, String>>()?;
    Ok(Lines { key: None, lines })
}

/// Which columns hold what.
#[derive(Debug, Clone)]
struct Chosen {
    /// The column of the numbers.
    key: Option<NameKey>,
    /// Whether the column `file` says which file a row is in.
    filed: bool,
    /// The column of the names.
    name: String,
}

fn choose(columns: &[String], by: Option<NameKey>, wanted: Option<&str>) -> Result<Chosen, String> {
    let there = |name: &str| columns.iter().any(|c| c == name);
    let key = [NameKey::Index, NameKey::Row]
        .into_iter()
        .find(|k| by.is_none_or(|by| by == *k) && there(k.column()));
    let list = || columns.join(", ");
    let by_file = key == Some(NameKey::Row) && there("file");
    let chosen = |name: &str| Chosen {
        key,
        filed: by_file && name != "file",
        name: name.to_owned(),
    };
    if let Some(wanted) = wanted {
        return if there(wanted) {
            Ok(chosen(wanted))
        } else {
            Err(format!(
                "there is no column `{wanted}`; there are: {}",
                list()
            ))
        };
    }
    if there("name") {
        return Ok(chosen("name"));
    }
    let others: Vec<&String> = columns
        .iter()
        .filter(|c| !["index", "row"].contains(&c.as_str()))
        .collect();
    let names = others.iter().filter(|c| !(by_file && c.as_str() == "file"));
    match (others.as_slice(), names.collect::<Vec<_>>().as_slice()) {
        ([only], _) => Ok(chosen(only)),
        (_, [only]) => Ok(chosen(only)),
        _ => Err(format!(
            "which column holds the names? Choose one (--name-column): {}",
            list()
        )),
    }
}

pub(super) fn csv_lines(
    from: impl BufRead,
    by: Option<NameKey>,
    wanted: Option<&str>,
) -> Result<Lines, String> {
    let mut rows = CsvRows::new(from);
    let header = rows.read().map_err(|e| e.to_string())?;
    let header = header.map(|row| row.cells()).transpose();
    let columns: Vec<String> = header
        .map_err(|e| e.to_string())?
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    let Chosen { key, filed, name } = choose(&columns, by, wanted)?;
    let at = |name: &str| columns.iter().position(|c| c == name);
    let (key_at, name_at) = (key.and_then(|k| at(k.column())), at(&name));
    let file_at = at("file").filter(|_| filed);
    // A table of scores may be a file of names, too: its texts are written for spreadsheets.
    let ours = at("index").is_some() && columns.iter().any(|c| c.starts_with("influence"));
    let text = |cell: &str| match ours {
        true => spreadsheet::unquoted(cell).to_owned(),
        false => cell.to_owned(),
    };
    let mut lines = Vec::new();
    while let Some(row) = rows.read().map_err(|e| e.to_string())? {
        row.check_length(columns.len()).map_err(|e| e.to_string())?;
        let (line, cells) = (row.line(), row.texts().map_err(|e| e.to_string())?);
        let cell = |at: Option<usize>| {
            let cell = at.and_then(|at| cells.get(at));
            cell.copied().unwrap_or_default()
        };
        let number = match key_at {
            None => None,
            some => Some(
                cell(some)
                    .trim()
                    .parse()
                    .map_err(|_| format!("line {line}: `{}` is not a whole number", cell(some)))?,
            ),
        };
        lines.push(Line {
            line,
            file: file_at.map(|at| text(cell(Some(at)))),
            number,
            name: text(cell(name_at)),
        });
    }
    Ok(Lines { key, lines })
}

pub(super) fn json_lines(
    from: impl BufRead,
    by: Option<NameKey>,
    wanted: Option<&str>,
) -> Result<Lines, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut chosen: Option<Chosen> = None;
    let mut lines = Vec::new();
    for (line, content) in (1..).zip(from.lines()) {
        let content = content.map_err(|e| format!("line {line}: {e}"))?;
        if content.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(&content).map_err(|e| format!("line {line}: {e}"))?;
        let Value::Object(object) = value else {
            lines.push(Line {
                line,
                file: None,
                number: None,
                name: text(&value),
            });
            continue;
        };
        let Chosen { key, filed, name } = match &chosen {
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
        lines.push(Line {
            line,
            file: match filed {
                true => Some(text(get("file")?)),
                false => None,
            },
            number,
            name: text(get(&name)?),
        });
    }
    let key = chosen.and_then(|chosen| chosen.key);
    if key.is_some() && lines.iter().any(|line| line.number.is_none()) {
        return Err("some lines are objects with a number, others are not".to_owned());
    }
    Ok(Lines { key, lines })
}
