//! Reads, writes and digests the files of shards.

use std::path::Path;

use hindcast_model::files;
use serde::{Deserialize, Serialize};

use crate::error::{AnalysisError, Result};

/// BLAKE3 of a file, hexadecimal: what a request states about a file that its result depends on.
///
/// # Errors
/// If the file can't be read.
pub fn digest(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let open = files::open(path, files::TABLE)?;
    hasher
        .update_reader(open)
        .map_err(|e| problem(path, &e.to_string()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

pub(super) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let bytes = files::read(path, files::METADATA)?;
    serde_json::from_slice(&bytes).map_err(|e| problem(path, &e.to_string()))
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| problem(path, &e.to_string()))?;
    json.push(b'\n');
    crate::output::replace_checked(path, |to| std::fs::write(to, &json))
        .map_err(|e| problem(path, &format!("cannot be written: {e}")))
}

pub(super) fn problem(path: &Path, problem: &str) -> AnalysisError {
    AnalysisError::File {
        path: path.to_path_buf(),
        problem: problem.to_owned(),
    }
}
