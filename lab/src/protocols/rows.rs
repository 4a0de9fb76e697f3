//! An experiment's CSV file, whose rows are not computed again.
//!
//! A row has digests of the settings and data that it was computed from. Rows of different settings or data are
//! refused, and so is a row that occurs twice, because it would count as an additional seed.

mod columns;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use hindcast_model::data::DataSet;
use hindcast_model::files;
use hindcast_model::task::Task;
use serde::Serialize;
use serde::de::DeserializeOwned;

use hindcast_analyzer::output;

/// A row of an experiment's file.
pub trait Row: Serialize + DeserializeOwned {
    /// The identity of the row, in words. A file has at most one row with the same key.
    fn key(&self) -> String;
    /// What the row was computed from.
    fn origin(&self) -> Origin<'_>;
}

/// What a row was computed from. A row is only valid for the same settings and data.
pub struct Origin<'a> {
    /// The name of the task or of the setting.
    pub task: String,
    /// The seed of the training.
    pub seed: u64,
    /// [`settings_digest`] as 16 hexadecimal digits.
    pub settings: &'a str,
    /// [`data_digest`] as 16 hexadecimal digits.
    pub fingerprint: &'a str,
}

/// Number of hexadecimal digits of a digest in a row.
const DIGITS: usize = 16;

/// What the rows of one task and seed are computed from, as 16 hexadecimal digits each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// [`settings_digest`] of the task.
    pub settings: String,
    /// [`data_digest`] of the data.
    pub fingerprint: String,
}

impl Digests {
    /// Digests a task's settings, a description of whatever else the numbers depend on, and the data.
    ///
    /// # Errors
    /// If the task can't be written as text.
    pub fn of(task: &Task, protocol: &str, data: &dyn DataSet) -> anyhow::Result<Self> {
        Ok(Self {
            settings: settings_digest(task, protocol)?,
            fingerprint: data_digest(data),
        })
    }
}

/// Digest of all settings of a task except the seed, and of a description of whatever else the numbers depend on.
///
/// # Errors
/// If the task can't be written as text.
pub fn settings_digest(task: &Task, protocol: &str) -> anyhow::Result<String> {
    let mut task = task.clone();
    task.set("train.seed", "0")?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(task.to_toml()?.as_bytes());
    hasher.update(b"\0");
    hasher.update(protocol.as_bytes());
    Ok(digits(&hasher))
}

/// Digest of the examples of all splits.
pub fn data_digest(data: &dyn DataSet) -> String {
    let mut hasher = blake3::Hasher::new();
    for split in data.fingerprint() {
        hasher.update(split.name.as_bytes());
        hasher.update(&split.examples.to_le_bytes());
        hasher.update(&split.root);
    }
    digits(&hasher)
}

fn digits(hasher: &blake3::Hasher) -> String {
    let mut hex = hasher.finalize().to_hex().to_string();
    hex.truncate(DIGITS);
    hex
}

/// Refuses rows of `task` that were computed with different settings, for any seed, because a file has rows of one
/// setting only.
///
/// # Errors
/// Names the first such row, and says what to do.
pub fn check_settings<R: Row>(
    path: Option<&Path>,
    rows: &[R],
    task: &str,
    settings: &str,
) -> anyhow::Result<()> {
    let mut of_task = rows.iter().filter(|row| row.origin().task == task);
    match of_task.find(|row| row.origin().settings != settings) {
        None => Ok(()),
        Some(row) => refuse(path, row, row.origin().settings, settings, "settings"),
    }
}

/// Refuses rows of `task` and `seed` that were computed on different data.
///
/// # Errors
/// Names the first such row, and says what to do.
pub fn check_data<R: Row>(
    path: Option<&Path>,
    rows: &[R],
    task: &str,
    seed: u64,
    fingerprint: &str,
) -> anyhow::Result<()> {
    let mut of_seed = rows
        .iter()
        .filter(|row| row.origin().task == task && row.origin().seed == seed);
    match of_seed.find(|row| row.origin().fingerprint != fingerprint) {
        None => Ok(()),
        Some(row) => refuse(path, row, row.origin().fingerprint, fingerprint, "data"),
    }
}

fn refuse(
    path: Option<&Path>,
    row: &impl Row,
    found: &str,
    wanted: &str,
    what: &str,
) -> anyhow::Result<()> {
    let path = path.unwrap_or_else(|| Path::new("the rows")).display();
    let row = row.key();
    bail!(
        "{path}: the row of {row} was computed with different {what} (digest {found}, not {wanted}); name another --out, or use the same {what}"
    )
}

/// The rows of a file; empty if there is no file yet. An incomplete last line, left by a killed process, is removed.
///
/// # Errors
/// If the file can't be read, is a different table, or has a row twice.
pub fn read_rows<R: Row>(path: Option<&Path>) -> anyhow::Result<Vec<R>> {
    // Checked now, before hours of work.
    if let Some(path) = path {
        output::outside_of_runs(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let Some(path) = path.filter(|path| path.exists()) else {
        return Ok(Vec::new());
    };
    let foreign = || {
        format!(
            "{} is not a table of this experiment: name another --out",
            path.display()
        )
    };
    let mut bytes = files::read(path, files::RESULTS)?;
    check_header::<R>(&bytes).with_context(foreign)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let torn = whole < bytes.len();
    bytes.truncate(whole);
    let rows = parse::<R>(&bytes).with_context(foreign)?;
    let mut lines = BTreeMap::new();
    for (line, row) in &rows {
        if let Some(before) = lines.insert(row.key(), line) {
            bail!(
                "{}: line {line} repeats the row of {} in line {before}; each row counts once: remove one of them",
                path.display(),
                row.key()
            );
        }
    }
    if torn {
        let file = OpenOptions::new().write(true).open(path);
        file.and_then(|f| f.set_len(whole as u64))
            .with_context(|| format!("cannot remove an incomplete line from {}", path.display()))?;
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// The rows with their line numbers.
fn parse<R: Row>(bytes: &[u8]) -> anyhow::Result<Vec<(u64, R)>> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers()?.clone();
    let rows = reader.records().map(|record| {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        Ok((line, record.deserialize(Some(&header))?))
    });
    rows.collect()
}

/// Refuses a file whose first line isn't the header of these rows, or the start of it if the file was cut off. Its last
/// line would be removed as an incomplete row, and rows would be appended to it.
fn check_header<R: DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<()> {
    let columns = columns::of::<R>().join(",");
    let (line, whole) = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => (&bytes[..end], true),
        None => (bytes, false),
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let fits = if whole {
        line == columns.as_bytes()
    } else {
        columns.as_bytes().starts_with(line)
    };
    let older = columns.replace("settings,fingerprint,", "");
    anyhow::ensure!(
        line != older.as_bytes(),
        "an earlier version wrote it: it doesn't say from which settings and data its rows were computed"
    );
    anyhow::ensure!(fits, "its columns aren't {columns}");
    Ok(())
}

/// Appends one row and closes the file, so that a killed experiment resumes where it was.
pub fn append_row(path: Option<&Path>, row: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let cannot = || format!("cannot write {}", path.display());
    output::outside_of_runs(path).with_context(cannot)?;
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
        settings: String,
        fingerprint: String,
        tau: f64,
    }

    impl super::Row for Row {
        fn key(&self) -> String {
            format!("seed {}, method {}", self.seed, self.method)
        }
        fn origin(&self) -> Origin<'_> {
            Origin {
                task: "digits".to_owned(),
                seed: self.seed,
                settings: &self.settings,
                fingerprint: &self.fingerprint,
            }
        }
    }

    fn row(seed: u64) -> Row {
        Row {
            method: "sgd".into(),
            seed,
            tau: 1.0 / 3.0,
            settings: "aa".into(),
            fingerprint: format!("d{seed}"),
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
        torn.extend(b"sgd,2,aa,d2,0.3");
        std::fs::write(&path, torn).unwrap();
        assert_eq!(read(), [row(0), row(1)]);
        append_row(Some(&path), &row(2)).unwrap();
        assert_eq!(read(), [row(0), row(1), row(2)]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("method,seed,settings,fingerprint,tau\n"),
            "{text}"
        );
    }

    #[test]
    fn another_table_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.csv");
        let text = "index,score\n0,1.5\n1,2";
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", read_rows::<Row>(Some(&path)).unwrap_err());
        assert!(error.contains("not a table of this experiment"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        // Without rows, with additional columns, and without an end of line.
        for text in [
            "index,score\n",
            "method,seed,tau,more\n",
            "method,seed,tau,more\nsgd,1,0.5,x\n",
            "a line without an end",
            "method,seed,tau,mor",
        ] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", read_rows::<Row>(Some(&path)).unwrap_err());
            assert!(
                error.contains("aren't method,seed,settings"),
                "{text}: {error}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        // An incomplete header is left by an experiment that was killed.
        for text in ["", "method,se"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_rows::<Row>(Some(&path)).unwrap(), []);
            append_row(Some(&path), &row(0)).unwrap();
            assert_eq!(read_rows::<Row>(Some(&path)).unwrap(), [row(0)]);
        }
    }

    #[test]
    fn a_repeated_row_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        for seed in [0, 1, 0] {
            append_row(Some(&path), &row(seed)).unwrap();
        }
        let error = format!("{:#}", read_rows::<Row>(Some(&path)).unwrap_err());
        assert!(
            error.contains("line 4 repeats the row of seed 0, method sgd in line 2"),
            "{error}"
        );
    }

    #[test]
    fn rows_of_other_settings_or_data_are_refused_whatever_the_seed() {
        let rows = [row(0), row(1)];
        let path = Some(Path::new("rows.csv"));
        let said = |result: anyhow::Result<()>| result.unwrap_err().to_string();
        check_settings(path, &rows, "digits", "aa").unwrap();
        check_settings(path, &rows, "another task", "bb").unwrap();
        let error = said(check_settings(path, &rows, "digits", "bb"));
        assert!(error.contains("rows.csv: the row of seed 0"), "{error}");
        assert!(
            error.contains("different settings (digest aa, not bb)"),
            "{error}"
        );
        check_data(path, &rows, "digits", 1, "d1").unwrap();
        check_data(path, &rows, "digits", 2, "d2").unwrap();
        let error = said(check_data(path, &rows, "digits", 1, "d0"));
        assert!(
            error.contains("seed 1") && error.contains("different data"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_does_not_say_its_settings_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.csv");
        let text = "method,seed,tau\nsgd,0,0.5\n";
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", read_rows::<Row>(Some(&path)).unwrap_err());
        assert!(error.contains("an earlier version wrote it"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn the_digest_of_the_settings_covers_all_but_the_seed() {
        let with = |set: &[(&str, &str)], protocol: &str| {
            let mut task = Task::builtin("digits").unwrap();
            task.set_all(set).unwrap();
            settings_digest(&task, protocol).unwrap()
        };
        let plain = with(&[], "");
        assert_eq!(plain.len(), DIGITS);
        assert_eq!(with(&[("train.seed", "7")], ""), plain);
        assert_ne!(with(&[("train.epochs", "2")], ""), plain);
        assert_ne!(with(&[], "penalty by cross-validation"), plain);
    }
}
