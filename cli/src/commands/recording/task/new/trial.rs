//! Reads the data of a draft, to see what a task would get.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use hindcast_model::data::{DataError, DataSet, DataSpec, Expected, Given, check, load};
use hindcast_model::objective::Split;

use super::draft::{Line, aligned};
use super::look::PER_TYPO;
use super::places::Places;

/// Reads the data of a draft, all of it as training examples.
pub(super) fn trial(
    data: &[Line],
    tables: &[(String, String, Vec<Line>)],
    places: &Places,
) -> anyhow::Result<Box<dyn DataSet>> {
    let text = written(data, tables);
    let whole: toml::Table = text.parse().context("the draft of the task")?;
    let table = whole
        .get("data")
        .cloned()
        .context("the draft has no data")?;
    let spec: DataSpec = table.try_into().context("the draft of the task")?;
    match load(&spec, None, Some(&places.folder), 0) {
        Ok(data) => Ok(data),
        Err(error) => match with_typos(&spec, &error, &places.folder) {
            Some(data) => Ok(data),
            None => Err(named(error)),
        },
    }
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
