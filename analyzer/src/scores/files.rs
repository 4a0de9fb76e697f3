//! Tables in files, with their metadata next to them.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use hindcast_model::files::{self, FileError, Problem};
use serde::{Deserialize, Serialize};

use super::columns::{Column, Optional, ReadRows};
use super::layout::Layout;
use super::text::{CsvSink, JsonSink, RowSink, read_csv, read_json_lines};
use super::{ScoreMetadata, ScoreRow, ScoreTable};
use crate::error::{AnalysisError, Result};
use crate::output::{Kind, replace_checked, replaceable, sidecar_path};

/// A table's file format. The file's extension determines it.
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
                "this build can't read or write Parquet: build it with the feature `parquet`, or use .csv or .jsonl",
            )),
            _ => Err(file(
                path,
                "a table of scores ends in .csv, .jsonl or .parquet",
            )),
        }
    }

    fn sink<'a>(
        self,
        to: impl Write + Send + 'a,
        columns: Vec<(String, Column)>,
    ) -> std::io::Result<Box<dyn RowSink + 'a>> {
        Ok(match self {
            Format::Csv => Box::new(CsvSink::new(to, columns)?),
            Format::JsonLines => Box::new(JsonSink::new(to, columns)),
            #[cfg(feature = "parquet")]
            Format::Parquet => Box::new(super::columnar::ParquetSink::new(to, columns)?),
        })
    }
}

impl ScoreTable {
    /// Writes the table as CSV, JSON lines or Parquet (by the file's extension), and its metadata to [`sidecar_path`].
    /// Each file appears whole or not at all.
    ///
    /// # Errors
    /// The extension is unknown, a file can't be written, or it exists and isn't a table of scores.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_laid_out(path, self.layout(), self.rows.iter().map(Ok)).map(drop)
    }
}

/// Writes a table row by row, as [`ScoreTable::write`] does, so that the rows needn't be in memory at the same time. The table
/// has the optional columns of the first row. Returns the number of rows.
///
/// # Errors
/// As [`ScoreTable::write`], and if a row needs a column that the first doesn't have. In that case, the old files stay.
pub fn write_rows(
    path: &Path,
    metadata: &ScoreMetadata,
    rows: impl IntoIterator<Item = ScoreRow>,
) -> Result<u64> {
    let mut rows = rows.into_iter().peekable();
    let mut has = Optional::of(metadata);
    if let Some(row) = rows.peek() {
        has.observe(row);
    }
    let checked = rows.map(|row| {
        let mut needed = has;
        needed.observe(&row);
        if needed == has {
            return Ok(row);
        }
        let index = row.index;
        Err(file(
            path,
            &format!("example {index} has a name, file, prediction or true label, and the first row has none"),
        ))
    });
    write_laid_out(path, Layout::new(metadata, has), checked)
}

/// Writes a table with these columns row by row. Returns the number of rows.
///
/// # Errors
/// As [`ScoreTable::write`], and the error of a row that can't be had. In that case, the old files stay.
pub(super) fn write_laid_out<R: Borrow<ScoreRow>>(
    path: &Path,
    layout: Layout<'_>,
    rows: impl Iterator<Item = Result<R>>,
) -> Result<u64> {
    let format = Format::of(path)?;
    replaceable(path, Kind::Scores).map_err(|e| file(path, &e.to_string()))?;
    let sidecar = sidecar_path(path);
    let mut digest = blake3::Hasher::new();
    let mut count = 0;
    let mut missing = None;
    let written = write_whole(path, |to| {
        let mut sink = format.sink(Hashed(to, &mut digest), layout.columns())?;
        for row in rows {
            match row {
                Ok(row) => sink.push(row.borrow())?,
                Err(e) => {
                    missing = Some(e);
                    return Err(std::io::Error::other("a row is missing"));
                }
            }
            count += 1;
        }
        sink.finish()?;
        // If the program is killed between the two files, the table has no metadata rather than another table's.
        // If writing fails before that, both old files stay.
        match std::fs::remove_file(&sidecar) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(std::io::Error::new(
                e.kind(),
                format!("{}: {e}", sidecar.display()),
            )),
            _ => Ok(()),
        }
    });
    if let Some(e) = missing {
        return Err(e);
    }
    written?;
    let metadata = serde_json::to_vec_pretty(&Sidecar {
        metadata: layout.metadata(),
        table_digest: digest.finalize().to_hex().as_str(),
    })
    .map_err(|e| file(path, &format!("metadata: {e}")))?;
    write_whole(&sidecar, |to| {
        to.write_all(&metadata)?;
        to.write_all(b"\n")
    })?;
    Ok(count)
}

/// Reads the metadata next to a table, and refuses metadata that was written with another table. `None` if there is none.
pub(super) fn checked_metadata(path: &Path) -> Result<Option<ScoreMetadata>> {
    let sidecar = sidecar_path(path);
    let bytes = match files::read(&sidecar, files::METADATA) {
        Err(e) if is_missing(&e.problem) => return Ok(None),
        read => read?,
    };
    let unread = |e: serde_json::Error| file(&sidecar, &format!("not a table's metadata: {e}"));
    let metadata: ScoreMetadata = serde_json::from_slice(&bytes).map_err(unread)?;
    let digest = serde_json::from_slice(&bytes).map_err(unread)?;
    check_digest(path, &sidecar, &digest)?;
    metadata.check().map_err(|e| file(&sidecar, &e))?;
    Ok(Some(metadata))
}

/// Opens a table of at most `most` bytes, and reads its header.
pub(super) fn open_rows(
    path: &Path,
    metadata: Option<&ScoreMetadata>,
    most: u64,
) -> Result<ReadRows> {
    let kind = files::TABLE.at_most(most);
    let open = || files::open_text(path, kind).map_err(unopened);
    match Format::of(path)? {
        Format::Csv => read_csv(open()?, metadata),
        Format::JsonLines => read_json_lines(open()?, metadata),
        #[cfg(feature = "parquet")]
        Format::Parquet => {
            let open = files::open(path, kind).map_err(unopened)?;
            super::columnar::read(open, metadata)
        }
    }
    .map_err(|e| file(path, &e))
}

impl ScoreMetadata {
    /// Reads the metadata of the table at `table`, without the table. `None` if there is none.
    ///
    /// # Errors
    /// The file can't be read or isn't a table's metadata.
    pub fn beside(table: &Path) -> Result<Option<ScoreMetadata>> {
        let path = sidecar_path(table);
        match files::read(&path, files::METADATA) {
            Err(e) if is_missing(&e.problem) => Ok(None),
            Err(e) => Err(e.into()),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| file(&path, &format!("not a table's metadata: {e}"))),
        }
    }
}

/// Content of the file next to a table: the metadata, and the digest of the table that it belongs to.
#[derive(Serialize)]
struct Sidecar<'a> {
    #[serde(flatten)]
    metadata: &'a ScoreMetadata,
    /// BLAKE3 of the table's file, hexadecimal.
    table_digest: &'a str,
}

/// The digest alone. Earlier versions didn't write it.
#[derive(Deserialize)]
struct TableDigest {
    table_digest: Option<String>,
}

/// Refuses metadata that was written with another table, or with this one before it was changed. Otherwise its run,
/// window, query and method would be attributed to numbers that it doesn't describe.
fn check_digest(path: &Path, sidecar: &Path, recorded: &TableDigest) -> Result<()> {
    let Some(recorded) = &recorded.table_digest else {
        return Ok(());
    };
    let mut hasher = blake3::Hasher::new();
    let open = files::open(path, files::TABLE).map_err(unopened)?;
    hasher
        .update_reader(open)
        .map_err(|e| file(path, &e.to_string()))?;
    if hasher.finalize().to_hex().as_str() == recorded {
        return Ok(());
    }
    Err(file(
        path,
        &format!(
            "it isn't the table that {} was written with: it was changed by hand or by another program, or copied here without its own metadata. \
             Put the matching files next to each other again, or remove {} to read the table without metadata",
            sidecar.display(),
            sidecar.display()
        ),
    ))
}

/// Hashes all bytes that are written.
struct Hashed<'a, W>(&'a mut W, &'a mut blake3::Hasher);

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Writes a file that appears whole or not at all.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    replace_checked(path, |temporary| {
        let mut to = BufWriter::new(File::create(temporary)?);
        write(&mut to)?;
        to.flush()
    })
    .map_err(|e| file(path, &e.to_string()))
}

/// Why a table can't be opened.
fn unopened(error: FileError) -> AnalysisError {
    if is_missing(&error.problem) {
        return AnalysisError::NoTable { path: error.path };
    }
    error.into()
}

fn is_missing(problem: &Problem) -> bool {
    matches!(problem, Problem::Io(e) if e.kind() == std::io::ErrorKind::NotFound)
}

pub(super) fn file(path: &Path, problem: &str) -> AnalysisError {
    AnalysisError::File {
        path: path.to_path_buf(),
        problem: problem.to_owned(),
    }
}
