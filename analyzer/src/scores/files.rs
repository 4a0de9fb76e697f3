//! Tables in files, with their metadata beside them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use hindcast_model::files::{self, Problem};

use super::text::{metadata_of, read_csv, read_json_lines};
use super::{ScoreMetadata, ScoreTable};
use crate::atomic;
use crate::error::{AnalysisError, Result};
use crate::places::{Kind, replaceable};

/// A table's file format, known by the file's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    JsonLines,
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Result<Format> {
        let ending = path
            .extension()
            .map(|e| e.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("csv") => Ok(Format::Csv),
            Some("jsonl" | "ndjson") => Ok(Format::JsonLines),
            #[cfg(feature = "parquet")]
            Some("parquet") => Ok(Format::Parquet),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => Err(file(
                path,
                "this build can't read or write Parquet: build with --features parquet, or use .csv or .jsonl",
            )),
            _ => Err(file(
                path,
                "a table of scores ends in .csv, .jsonl or .parquet",
            )),
        }
    }
}

/// Where the metadata of the table at `path` is: `scores.csv.meta.json` beside `scores.csv`.
pub fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".meta.json");
    PathBuf::from(name)
}

impl ScoreTable {
    /// Writes the table as CSV, JSON lines or Parquet (by the file's ending), and its metadata to
    /// [`sidecar_path`]. Each file appears whole or not at all.
    ///
    /// # Errors
    /// Where the ending is unknown, a file can't be written, or one is there that isn't a table of scores.
    pub fn write(&self, path: &Path) -> Result<()> {
        let format = Format::of(path)?;
        let metadata = serde_json::to_vec_pretty(&self.metadata)
            .map_err(|e| file(path, &format!("metadata: {e}")))?;
        // A program that is killed between the two files leaves a table without metadata, not with the metadata of
        // another table.
        replaceable(path, Kind::Scores).map_err(|e| file(path, &e.to_string()))?;
        let sidecar = sidecar_path(path);
        match std::fs::remove_file(&sidecar) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(file(&sidecar, &e.to_string()));
            }
            _ => {}
        }
        replace(path, |to| match format {
            Format::Csv => self.write_csv(to),
            Format::JsonLines => self.write_json_lines(to),
            #[cfg(feature = "parquet")]
            Format::Parquet => self.write_parquet(to).map_err(std::io::Error::other),
        })?;
        replace(&sidecar, |to| {
            to.write_all(&metadata)?;
            to.write_all(b"\n")
        })
    }

    /// Reads a table back. A table without its sidecar (made or copied by hand) is fine as long as it has the columns
    /// `index` and `influence`; its metadata then has version 0 and knows only what the columns say.
    ///
    /// # Errors
    /// The file can't be read or parsed, or contains an example twice. The text names the line.
    pub fn read(path: &Path) -> Result<ScoreTable> {
        let format = Format::of(path)?;
        let sidecar = sidecar_path(path);
        let told: Option<ScoreMetadata> = match files::read(&sidecar, files::METADATA) {
            Err(e) if is_missing(&e.problem) => None,
            Err(e) => return Err(file(&sidecar, &e.problem.to_string())),
            Ok(bytes) => Some(
                serde_json::from_slice(&bytes)
                    .map_err(|e| file(&sidecar, &format!("not a table's metadata: {e}")))?,
            ),
        };
        if let Some(told) = &told {
            told.check().map_err(|e| file(&sidecar, &e))?;
        }
        let open =
            || files::open_text(path, files::TABLE).map_err(|e| file(path, &unopened(&e.problem)));
        let (header, rows) = match format {
            Format::Csv => read_csv(open()?, told.as_ref()),
            Format::JsonLines => read_json_lines(open()?, told.as_ref()),
            #[cfg(feature = "parquet")]
            Format::Parquet => super::columnar::read(path, told.as_ref()),
        }
        .map_err(|e| file(path, &e))?;
        let metadata = told.unwrap_or_else(|| metadata_of(&header));
        let table = ScoreTable { metadata, rows };
        table.check_unique().map_err(|e| file(path, &e))?;
        Ok(table)
    }
}

/// The file appears whole or not at all.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    atomic::replace_checked(path, |temporary| {
        let mut to = BufWriter::new(File::create(temporary)?);
        write(&mut to)?;
        to.flush()
    })
    .map_err(|e| file(path, &e.to_string()))
}

/// Why a table can't be opened; the usual reason in more words than the system has.
pub(super) fn unopened(problem: &Problem) -> String {
    if is_missing(problem) {
        return "there is no such table; `influence RUN --out TABLE` writes one".to_owned();
    }
    problem.to_string()
}

fn is_missing(problem: &Problem) -> bool {
    matches!(problem, Problem::Io(e) if e.kind() == std::io::ErrorKind::NotFound)
}

fn file(path: &Path, problem: &str) -> AnalysisError {
    AnalysisError::File {
        path: path.to_path_buf(),
        problem: problem.to_owned(),
    }
}
