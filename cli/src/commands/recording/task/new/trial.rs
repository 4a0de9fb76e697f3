//! Reads the data of a draft, to see what a task would get.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use hindcast_model::data::{DataError, DataSet, DataSpec, Expected, Given, check, load};
use hindcast_model::objective::Split;

use super::draft::{Line, aligned};
use super::look::PER_TYPO;
use super::places::Places;
use crate::terminal::{field, say};

/// Reads the data of a draft, all of it as training examples.
pub(super) fn trial(
    data: &[Line],
    tables: &[(String, String, Vec<Line>)],
    places: &Places,
) -> anyhow::Result<Box<dyn DataSet>> {
    let spec = spec_of(data, tables)?;
    match load(&spec, None, Some(&places.folder), 0) {
        Ok(data) => Ok(data),
        Err(error) => match with_typos(&spec, &error, &places.folder) {
            Some(data) => Ok(data),
            None => Err(named(error)),
        },
    }
}

/// As [`trial`], and prints a line for each file that can't be read.
pub(super) fn trial_of_all(
    data: &[Line],
    tables: &[(String, String, Vec<Line>)],
    places: &Places,
) -> anyhow::Result<Box<dyn DataSet>> {
    /// Most files that are named.
    const MOST: usize = 20;
    let error = match trial(data, tables, places) {
        Err(error) => error,
        read => return read,
    };
    if !matches!(error.downcast_ref(), Some(DataError::Malformed { .. })) {
        return Err(error);
    }
    let given = Given::from(Some(places.folder.as_path()));
    let (_, problems) = check(&spec_of(data, tables)?, None, given, 0, MOST);
    if problems.len() < 2 {
        return Err(error);
    }
    for problem in &problems {
        say!("- {}", field(problem));
    }
    let more = if problems.len() < MOST {
        ""
    } else {
        " or more"
    };
    bail!("{}{more} files can't be read: see above", problems.len())
}

/// The table `[data]` of a draft.
fn spec_of(data: &[Line], tables: &[(String, String, Vec<Line>)]) -> anyhow::Result<DataSpec> {
    let text = written(data, tables);
    let whole: toml::Table = text.parse().context("the draft of the task")?;
    let table = whole
        .get("data")
        .cloned()
        .context("the draft has no data")?;
    table.try_into().context("the draft of the task")
}

/// The data with other numbers in the place of typos, which `hindcast task check` refuses. `None` if there are other problems,
/// or too many.
fn with_typos(spec: &DataSpec, error: &DataError, folder: &Path) -> Option<Box<dyn DataSet>> {
    /// Most typos that are read.
    const MOST: usize = 100_000;
    let typo = |e: &DataError| {
        matches!(
            e,
            DataError::Cell {
                expected: Expected::Number,
                ..
            }
        )
    };
    if !typo(error) {
        return None;
    }
    let (data, problems) = check(spec, None, Given::from(Some(folder)), 0, MOST);
    let data = data.filter(|_| problems.iter().all(typo))?;
    let rows: u64 = Split::ALL.into_iter().map(|split| data.len(split)).sum();
    let columns = data.feature_names().len().max(1) as u64;
    (problems.len() as u64 * PER_TYPO <= rows * columns).then_some(data)
}

/// The error, with the flag in place of the key, because the task isn't written yet.
fn named(error: DataError) -> anyhow::Error {
    match error {
        DataError::NotClasses { .. } => anyhow!("{error} (here: --target value)"),
        error => error.into(),
    }
}

/// The text of the tables of the data.
pub(super) fn written(data: &[Line], tables: &[(String, String, Vec<Line>)]) -> String {
    let mut text = format!("[data]\n{}", aligned(data));
    for (name, about, lines) in tables {
        text += &format!("\n# {about}\n[{name}]\n{}", aligned(lines));
    }
    text
}
