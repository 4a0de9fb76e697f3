//! Reads the data of a draft, to see what a task would get.

use anyhow::Context as _;
use hindcast_model::data::{DataSet, DataSpec, load};

use super::draft::{Line, aligned};
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
    Ok(load(&spec, None, Some(&places.folder), 0)?)
}

/// The text of the tables of the data.
pub(super) fn written(data: &[Line], tables: &[(String, String, Vec<Line>)]) -> String {
    let mut text = format!("[data]\n{}", aligned(data));
    for (name, about, lines) in tables {
        text += &format!("\n# {about}\n[{name}]\n{}", aligned(lines));
    }
    text
}
