//! What a table of label issues was made with, in a file next to it.

use std::path::Path;

use hindcast_model::files::{self, METADATA, Problem};
use serde::{Deserialize, Serialize};

use crate::error::{AnalysisError, Result};
use crate::output::{ISSUES_FORMAT, Kind, WRITER, replace, sidecar_path};

/// What a table of label issues was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuesMetadata {
    /// Head digest of the run.
    pub run_digest: String,
    /// The steps [start, end) whose forward passes were looked at.
    pub start: u64,
    /// Their end.
    pub end: u64,
    /// Which part of the training that is, and why: a sentence without its end.
    pub evidence: String,
    /// The method, or the table, by which the issues are ranked.
    pub ranked_by: String,
    /// The options that were given, without those that name files to write: words of a command line.
    pub options: Vec<String>,
}

/// The file's content: the mark of its kind, the metadata, and the digest of the table that it belongs to.
#[derive(Serialize, Deserialize)]
struct Content {
    format: String,
    writer: String,
    #[serde(flatten)]
    metadata: IssuesMetadata,
    table_digest: String,
}

fn failed(path: &Path, problem: &str) -> AnalysisError {
    AnalysisError::File {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

fn digest_of(table: &Path) -> Result<String> {
    let bytes = files::read(table, files::DECISIONS)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// Writes the metadata of a table next to it.
pub(super) fn write(metadata: &IssuesMetadata, table: &Path) -> Result<()> {
    let path = sidecar_path(table);
    let content = Content {
        format: ISSUES_FORMAT.to_owned(),
        writer: WRITER.to_owned(),
        metadata: metadata.clone(),
        table_digest: digest_of(table)?,
    };
    let text = serde_json::to_string_pretty(&content).map_err(|e| failed(&path, &e.to_string()))?;
    replace(&path, Kind::IssuesMetadata, |to| {
        std::fs::write(to, format!("{text}\n"))
    })
    .map_err(|e| failed(&path, &e.to_string()))
}

/// Reads the metadata of a table of label issues. `None` if there is none, or if the table was changed since.
///
/// # Errors
/// The file next to the table can't be read, or isn't such metadata.
pub fn read_issues_metadata(table: &Path) -> Result<Option<IssuesMetadata>> {
    let path = sidecar_path(table);
    let bytes = match files::read(&path, METADATA) {
        Ok(bytes) => bytes,
        Err(e) => match &e.problem {
            Problem::Io(io) if io.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            _ => return Err(e.into()),
        },
    };
    let content: Content = serde_json::from_slice(&bytes)
        .map_err(|e| failed(&path, &format!("not the metadata of label issues: {e}")))?;
    let same = digest_of(table)? == content.table_digest;
    Ok(Some(content.metadata).filter(|_| same))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::replaceable;

    #[test]
    fn metadata_belongs_to_the_table_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("issues.csv");
        assert_eq!(read_issues_metadata(&table).unwrap(), None);
        std::fs::write(&table, "a\n").unwrap();
        let metadata = IssuesMetadata {
            run_digest: "ab".to_owned(),
            start: 3,
            end: 9,
            evidence: "evidence from epochs 1 to 3".to_owned(),
            ranked_by: "margin".to_owned(),
            options: vec!["--window".to_owned(), "3..9".to_owned()],
        };
        write(&metadata, &table).unwrap();
        assert_eq!(
            read_issues_metadata(&table).unwrap().as_ref(),
            Some(&metadata)
        );
        // It may be replaced, and other files may not.
        write(&metadata, &table).unwrap();
        let sidecar = sidecar_path(&table);
        assert!(replaceable(&sidecar, Kind::Metadata).is_err());
        std::fs::write(&table, "b\n").unwrap();
        assert_eq!(read_issues_metadata(&table).unwrap(), None);
        std::fs::write(&sidecar, "{}").unwrap();
        assert!(write(&metadata, &table).is_err());
        assert!(read_issues_metadata(&table).is_err());
    }
}
