//! The file of decisions, which people edit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hindcast_model::csv_rows::{CsvError, CsvRows};
use hindcast_model::data::{DataSet, GivenLabel};
use hindcast_model::files;
use hindcast_model::objective::Split;

use super::decisions::{Action, Decided, Decisions};
use super::issues::{Issues, LabelIssue};
use super::issues_table::class_name;
use crate::error::{AnalysisError, BadRow, Result};
use crate::output::{Kind, replace};
use crate::scores::spreadsheet::{quoted, unquoted};

/// Columns that decide, in the order in which they are written.
const COLUMNS: [&str; 6] = ["index", "row", "file", "given", "suggested", "decision"];
/// Columns that help to decide. They aren't read.
const SHOWN: [&str; 4] = ["given_probability", "suggested_probability", "name", "text"];

/// What a person reads about an example.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShownExample {
    /// The user's own name for it. Empty if it has none.
    pub name: String,
    /// Its text, or the cells of its row. Empty for images.
    pub text: String,
}

/// Writes the decisions as CSV, one row per example, with the mean probabilities of the given and the suggested class from `issues`
/// and what `shown` says about the example. The file must not exist, because it may have been edited, unless `may_replace` and it is
/// such a file.
///
/// # Errors
/// The file exists or can't be written, or an example can't be shown.
pub fn write_decisions(
    decisions: &Decisions,
    issues: &Issues,
    data: &dyn DataSet,
    shown: &dyn Fn(u64) -> Result<ShownExample>,
    path: &Path,
    may_replace: bool,
) -> Result<()> {
    let judged: BTreeMap<u64, &LabelIssue> = issues
        .examples
        .iter()
        .map(|issue| (issue.example as u64, issue))
        .collect();
    let mut rows = Vec::with_capacity(decisions.examples.len());
    for decided in &decisions.examples {
        let index = decided.example;
        let probability = |of: fn(&LabelIssue) -> f64| {
            let issue = judged.get(&index);
            issue.map_or_else(String::new, |issue| format!("{:.4}", of(issue)))
        };
        let ShownExample { name, text } = shown(index)?;
        rows.push([
            index.to_string(),
            data.origin(Split::Train, index).to_string(),
            quoted(&data.file(Split::Train, index)).into_owned(),
            quoted(&class_name(data, decided.given)).into_owned(),
            quoted(&class_name(data, decided.suggested)).into_owned(),
            decided.action.to_string(),
            probability(|issue| issue.given_probability),
            probability(|issue| issue.suggested_probability),
            quoted(&name).into_owned(),
            quoted(&text).into_owned(),
        ]);
    }
    let write = |to: &Path| -> std::io::Result<()> {
        let mut csv = csv::Writer::from_path(to)?;
        csv.write_record(COLUMNS.iter().chain(&SHOWN))?;
        for row in &rows {
            csv.write_record(row)?;
        }
        csv.flush()
    };
    let kind = Kind::Decisions.or_new(may_replace);
    replace(path, kind, write).map_err(|e| failed(path, e.to_string()))
}

/// Writes the new labels as a file of labels for a recording: CSV with the columns row, file and label. It has the labels that the
/// run's own file of labels gave ([`DataSet::given_labels`]), and one row per example that is relabelled, whose new label takes the
/// place of an earlier one. Dropped examples aren't relabelled, because such a file can't leave out examples. Returns the number of
/// earlier labels that are kept. The file must not exist, unless `may_replace` and it is such a file.
///
/// # Errors
/// The file exists or can't be written.
pub fn write_labels(
    decisions: &Decisions,
    data: &dyn DataSet,
    path: &Path,
    may_replace: bool,
) -> Result<usize> {
    let relabelled = decisions.examples.iter();
    let relabelled = relabelled.filter(|decided| decided.action == Action::Relabel);
    let new: Vec<GivenLabel> = relabelled
        .map(|decided| GivenLabel {
            row: data.origin(Split::Train, decided.example),
            file: data.file(Split::Train, decided.example),
            place: data.origin_path(Split::Train, decided.example),
            label: class_name(data, decided.suggested),
        })
        .collect();
    let places: BTreeSet<(&str, u64)> = new.iter().map(|l| (l.file.as_str(), l.row)).collect();
    let mut earlier = data.given_labels();
    earlier.retain(|label| !places.contains(&(label.file.as_str(), label.row)));
    let write = |to: &Path| -> std::io::Result<()> {
        let mut csv = csv::Writer::from_path(to)?;
        csv.write_record(["row", "file", "label"])?;
        for GivenLabel {
            row, file, label, ..
        } in earlier.iter().chain(&new)
        {
            csv.write_record([&row.to_string(), file, label])?;
        }
        csv.flush()
    };
    replace(path, Kind::Labels.or_new(may_replace), write)
        .map_err(|e| failed(path, e.to_string()))?;
    Ok(earlier.len())
}

/// Reads decisions. The columns `index` and `decision` are required, and `suggested` for a row that is relabelled; `row`,
/// `file` and `given` are compared with the data if they are there, and other columns are ignored. Cells may have been
/// edited: `suggested` can name any class.
///
/// # Errors
/// The file can't be read, or lacks a column. All rows that can't be applied are named together.
pub fn read_decisions(path: &Path, data: &dyn DataSet) -> Result<Decisions> {
    let problem = |e: CsvError| failed(path, e.to_string());
    let text = files::open_text(path, files::DECISIONS)?;
    let mut rows = CsvRows::new(text);
    let header = rows.header().and_then(|row| row.cells()).map_err(problem)?;
    let columns = Columns::of(&header).map_err(|e| failed(path, e))?;
    let mut reading = Reading {
        data,
        columns,
        seen: BTreeMap::new(),
        decisions: Decisions::default(),
        bad: Vec::new(),
    };
    while let Some(row) = rows.read().map_err(problem)? {
        let line = row.line();
        let read = row
            .check_length(reading.columns.count)
            .and_then(|()| row.cells());
        match read {
            Ok(cells) => reading.row(line, &cells),
            Err(e) => reading.bad.push(BadRow {
                line,
                problem: without_line(&e.to_string(), line),
            }),
        }
    }
    if reading.bad.is_empty() {
        return Ok(reading.decisions);
    }
    Err(AnalysisError::BadDecisions {
        path: path.to_owned(),
        rows: reading.bad,
    })
}

/// The error's own line number is that of the list.
fn without_line(text: &str, line: u64) -> String {
    let rest = text.strip_prefix(&format!("line {line}"));
    rest.map_or(text, |rest| rest.trim_start_matches([':', ',', ' ']))
        .to_owned()
}

/// Places of the columns in the file.
struct Columns {
    count: usize,
    index: usize,
    decision: usize,
    others: BTreeMap<&'static str, usize>,
}

impl Columns {
    fn of(header: &[&str]) -> std::result::Result<Self, String> {
        let at = |name: &str| {
            header
                .iter()
                .position(|cell| cell.eq_ignore_ascii_case(name))
        };
        let needed = |name: &str| {
            at(name).ok_or_else(|| {
                let hint = match header {
                    [one] if one.contains([';', '\t']) => {
                        "; save it with commas between its cells"
                    }
                    _ => "",
                };
                format!(
                    "a file of decisions has the columns {}; this one has no column {name:?}, but {}{hint}",
                    COLUMNS.join(", "),
                    header.join(", ")
                )
            })
        };
        let others = ["row", "given", "suggested", "file"];
        let others = others
            .into_iter()
            .filter_map(|name| Some((name, at(name)?)));
        Ok(Columns {
            count: header.len(),
            index: needed("index")?,
            decision: needed("decision")?,
            others: others.collect(),
        })
    }
}

struct Reading<'a> {
    data: &'a dyn DataSet,
    columns: Columns,
    /// The line of each example that has a decision.
    seen: BTreeMap<u64, u64>,
    decisions: Decisions,
    bad: Vec<BadRow>,
}

impl Reading<'_> {
    fn row(&mut self, line: u64, cells: &[&str]) {
        match self.decided(cells) {
            Err(problem) => self.bad.push(BadRow { line, problem }),
            Ok(decided) => match self.seen.insert(decided.example, line) {
                None => self.decisions.examples.push(decided),
                Some(before) => self.bad.push(BadRow {
                    line,
                    problem: format!(
                        "example {} has a decision in line {before} already; keep one of them",
                        decided.example
                    ),
                }),
            },
        }
    }

    fn decided(&self, cells: &[&str]) -> std::result::Result<Decided, String> {
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let of = |name: &str| self.columns.others.get(name).map(|&at| unquoted(cell(at)));
        let examples = self.data.len(Split::Train);
        let text = cell(self.columns.index);
        let example = text.parse().ok().filter(|&i: &u64| i < examples);
        let example = example.ok_or_else(|| {
            format!(
                "index: expected a training example, 0 to {}, got {text:?}",
                examples.saturating_sub(1)
            )
        })?;
        let given = self
            .data
            .class(Split::Train, example)
            .ok_or_else(|| format!("index: the label of example {example} isn't a class"))?;
        let name = class_name(self.data, given);
        let compared = [
            ("given", name),
            ("row", self.data.origin(Split::Train, example).to_string()),
            ("file", self.data.file(Split::Train, example)),
        ];
        for (column, is) in compared {
            if let Some(said) = of(column).filter(|said| !said.is_empty() && *said != is) {
                return Err(format!(
                    "{column}: example {example} has {is:?}, and the row says {said:?}: is the file about another run?"
                ));
            }
        }
        let action: Action = cell(self.columns.decision)
            .parse()
            .map_err(|e: AnalysisError| e.to_string())?;
        let suggested = if action == Action::Relabel {
            let said = of("suggested").unwrap_or_default();
            self.class(said).ok_or_else(|| {
                let names = listed(self.data.class_names());
                format!("suggested: expected one of the classes {names}, got {said:?}")
            })?
        } else {
            // A suggestion that isn't used needn't be a class.
            given
        };
        if action == Action::Relabel && suggested == given {
            return Err(format!(
                "suggested: example {example} already has the label {:?}: write another class, or keep or drop it",
                class_name(self.data, given)
            ));
        }
        Ok(Decided {
            example,
            given,
            suggested,
            action,
        })
    }

    fn class(&self, text: &str) -> Option<usize> {
        let names = self.data.class_names();
        let exactly = names.iter().position(|name| name == text);
        exactly.or_else(|| names.iter().position(|name| name.trim() == text.trim()))
    }
}

/// The first names of a list.
fn listed(names: &[String]) -> String {
    const MOST: usize = 12;
    let first: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    let more = if names.len() > MOST { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

fn failed(path: &Path, problem: String) -> AnalysisError {
    AnalysisError::File {
        path: path.to_owned(),
        problem,
    }
}
