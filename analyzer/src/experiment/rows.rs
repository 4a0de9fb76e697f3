//! An experiment's CSV file: rows that are there are not computed again.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The rows of a file; none where there is no file yet.
pub(crate) fn read_rows<R: DeserializeOwned>(path: Option<&Path>) -> anyhow::Result<Vec<R>> {
    let Some(path) = path.filter(|path| path.exists()) else {
        return Ok(Vec::new());
    };
    let mut reader =
        csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
    reader
        .deserialize()
        .collect::<Result<_, _>>()
        .with_context(|| {
            format!(
                "{} is no table of this experiment: name another --out",
                path.display()
            )
        })
}

/// One row, written and closed at once, so that a killed experiment goes on where it was.
pub(crate) fn append_row(path: Option<&Path>, row: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let begun = path.exists();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = csv::WriterBuilder::new()
        .has_headers(!begun)
        .from_writer(file);
    writer.serialize(row)?;
    writer
        .flush()
        .with_context(|| format!("cannot write {}", path.display()))
}
