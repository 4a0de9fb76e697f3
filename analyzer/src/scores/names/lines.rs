//! Files of names, line by line.

use std::collections::BTreeMap;
use std::io::BufRead;

use hindcast_model::csv_rows::CsvRows;
use serde_json::Value;

use super::choice::{NameColumns, choose, find};
use super::key::NameKey;
use crate::error::BadNames;
use crate::scores::spreadsheet;

/// One name of the file.
struct Line {
    /// Line in the file, counted from 1.
    line: u64,
    file: Option<String>,
    number: Option<u64>,
    name: String,
}

/// Names in the order of the file, with their numbers if it has them.
pub(super) struct Lines {
    pub key: Option<NameKey>,
    lines: Vec<Line>,
}

impl Lines {
    /// The names by file and number.
    pub(super) fn into_names(self) -> Result<BTreeMap<(Option<String>, u64), String>, BadNames> {
        let mut names = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for (position, line) in (0..).zip(self.lines) {
            let key = (line.file, line.number.unwrap_or(position));
            if let Some(before) = seen.insert(key.clone(), line.line) {
                let what = self.key.unwrap_or(NameKey::Row).column();
                let of = key.0.map_or(String::new(), |file| format!(" of {file}"));
                return Err(BadNames::Text(format!(
                    "line {}: {what} {}{of} was already named in line {before}",
                    line.line, key.1
                )));
            }
            names.insert(key, line.name);
        }
        if names.is_empty() {
            return Err(BadNames::Text("the file contains no names".to_owned()));
        }
        Ok(names)
    }
}

pub(super) fn text_lines(from: impl BufRead) -> Result<Lines, BadNames> {
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

pub(super) fn csv_lines(
    from: impl BufRead,
    by: Option<NameKey>,
    wanted: Option<&str>,
) -> Result<Lines, BadNames> {
    let mut rows = CsvRows::new(from);
    let header = rows.header().and_then(|row| row.cells());
    let header = header.map_err(|e| e.to_string())?;
    let columns: Vec<String> = header.into_iter().map(str::to_owned).collect();
    let NameColumns {
        key,
        number: key_at,
        file: file_at,
        name: name_at,
    } = choose(&columns, by, wanted)?;
    // A table of scores can also serve as a file of names. Its texts are quoted for spreadsheets.
    let is_score_table =
        find(&columns, "index")?.is_some() && columns.iter().any(|c| c.starts_with("influence"));
    let text = |cell: &str| {
        if is_score_table {
            spreadsheet::unquoted(cell).to_owned()
        } else {
            cell.to_owned()
        }
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
            name: text(cell(Some(name_at))),
        });
    }
    Ok(Lines { key, lines })
}

pub(super) fn json_lines(
    from: impl BufRead,
    by: Option<NameKey>,
    wanted: Option<&str>,
) -> Result<Lines, BadNames> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut chosen: Option<(Vec<String>, NameColumns)> = None;
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
        if chosen.is_none() {
            let columns: Vec<String> = object.keys().cloned().collect();
            let choice = choose(&columns, by, wanted).map_err(|problem| match problem {
                BadNames::Text(text) => BadNames::Text(format!("line {line}: {text}")),
                other => other,
            })?;
            chosen = Some((columns, choice));
        }
        let Some((columns, choice)) = &chosen else {
            continue;
        };
        // A key that the first object doesn't have could identify this line's example.
        if let Some(new) = object.keys().find(|key| !columns.contains(key)) {
            return Err(BadNames::Text(format!(
                "line {line}: `{new}` is not in the first object: give every object the same keys"
            )));
        }
        let get = |at: usize| {
            let column = columns.get(at).map_or("", String::as_str);
            let value = object.get(column);
            value.ok_or_else(|| format!("line {line}: `{column}` is missing"))
        };
        let number =
            match choice.number {
                None => None,
                Some(at) => Some(get(at)?.as_u64().ok_or_else(|| {
                    format!("line {line}: `{}` is not a whole number", columns[at])
                })?),
            };
        lines.push(Line {
            line,
            file: match choice.file {
                Some(at) => Some(text(get(at)?)),
                None => None,
            },
            number,
            name: text(get(choice.name)?),
        });
    }
    let key = chosen.and_then(|(_, choice)| choice.key);
    if key.is_some() && lines.iter().any(|line| line.number.is_none()) {
        let problem = "some lines are objects that identify the example by a number, others are plain values: use one form";
        return Err(BadNames::Text(problem.to_owned()));
    }
    Ok(Lines { key, lines })
}
