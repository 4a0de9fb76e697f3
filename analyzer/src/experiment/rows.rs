//! An experiment's CSV file: rows that are there are not computed again.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use hindcast_model::files;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::places;

/// The rows of a file; none where there is no file yet. A last line that a killed process left unfinished is cut off.
pub(crate) fn read_rows<R: DeserializeOwned>(path: Option<&Path>) -> anyhow::Result<Vec<R>> {
    // Better known before hours of work than after them.
    if let Some(path) = path {
        places::outside_of_runs(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let Some(path) = path.filter(|path| path.exists()) else {
        return Ok(Vec::new());
    };
    let mut bytes = files::read(path, files::RESULTS)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let torn = whole < bytes.len();
    bytes.truncate(whole);
    let rows = csv::Reader::from_reader(bytes.as_slice())
        .deserialize()
        .collect::<Result<_, _>>()
        .with_context(|| {
            format!(
                "{} is no table of this experiment: name another --out",
                path.display()
            )
        })?;
    if torn {
        let file = OpenOptions::new().write(true).open(path);
        file.and_then(|f| f.set_len(whole as u64))
            .with_context(|| format!("cannot cut an unfinished line off {}", path.display()))?;
    }
    Ok(rows)
}

/// One row, written at once and closed, so that a killed experiment goes on where it was.
pub(crate) fn append_row(path: Option<&Path>, row: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let cannot = || format!("cannot write {}", path.display());
    places::outside_of_runs(path).with_context(cannot)?;
    let begun = std::fs::metadata(path).is_ok_and(|m| m.len() > 0);
    let mut writer = csv::WriterBuilder::new()
        .has_headers(!begun)
        .from_writer(Vec::new());
    writer.serialize(row)?;
    let line = writer.into_inner().map_err(|e| e.into_error())?;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(cannot)?;
    file.write_all(&line).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        method: String,
        seed: u64,
        tau: f64,
    }

    fn row(seed: u64) -> Row {
        Row {
            method: "sgd".into(),
            seed,
            tau: 1.0 / 3.0,
        }
    }

    #[test]
    fn a_table_grows_row_by_row_and_survives_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        let read = || read_rows::<Row>(Some(&path)).unwrap();
        assert_eq!(read(), []);
        append_row(Some(&path), &row(0)).unwrap();
        append_row(Some(&path), &row(1)).unwrap();
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(b"sgd,2,0.3");
        std::fs::write(&path, torn).unwrap();
        assert_eq!(read(), [row(0), row(1)]);
        append_row(Some(&path), &row(2)).unwrap();
        assert_eq!(read(), [row(0), row(1), row(2)]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("method,seed,tau\n"), "{text}");
    }

    #[test]
    fn another_table_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.csv");
        let text = "index,score\n0,1.5\n1,2";
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", read_rows::<Row>(Some(&path)).unwrap_err());
        assert!(error.contains("no table of this experiment"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
