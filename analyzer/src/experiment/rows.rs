//! An experiment's CSV file: rows that are there are not computed again.

mod columns;

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
    check_header::<R>(&bytes).with_context(|| {
        format!(
            "{} is no table of this experiment: name another --out",
            path.display()
        )
    })?;
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

/// Refuses a file that doesn't begin with the columns of these rows, or with the beginning of them where the file was cut off:
/// its last line would be taken for an unfinished row, and rows would be appended to it.
fn check_header<R: DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<()> {
    let columns = columns::of::<R>().join(",");
    let (line, whole) = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => (&bytes[..end], true),
        None => (bytes, false),
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let fits = match whole {
        true => line == columns.as_bytes(),
        false => columns.as_bytes().starts_with(line),
    };
    anyhow::ensure!(fits, "its columns aren't {columns}");
    Ok(())
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
        // Without rows, with more columns, and without a line's end.
        for text in [
            "index,score\n",
            "method,seed,tau,more\n",
            "method,seed,tau,more\nsgd,1,0.5,x\n",
            "a line without an end",
            "method,seed,tau,mor",
        ] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", read_rows::<Row>(Some(&path)).unwrap_err());
            assert!(error.contains("aren't method,seed,tau"), "{text}: {error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        // A header that was cut off is an experiment's that was killed.
        for text in ["", "method,se"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_rows::<Row>(Some(&path)).unwrap(), []);
            append_row(Some(&path), &row(0)).unwrap();
            assert_eq!(read_rows::<Row>(Some(&path)).unwrap(), [row(0)]);
        }
    }
}
