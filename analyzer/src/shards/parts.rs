//! All parts of a request, complete and checked.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::files::{digest, problem};
use super::folder::{Request, ShardFolder};
use super::record::{AGAIN, ShardRecord};
use crate::error::{AnalysisError, Result};

/// A complete part, whose files are those that it was published with.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it says about itself.
    pub record: ShardRecord,
    folder: PathBuf,
}

impl Part {
    /// The path of a file of the part.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// All parts of a request, in order.
#[derive(Debug, Clone)]
pub struct Parts {
    /// What they answer.
    pub request: Request,
    /// The parts, from the first to the last.
    pub parts: Vec<Part>,
}

impl Parts {
    /// Reads the records of all parts and compares their files with them.
    ///
    /// # Errors
    /// [`AnalysisError::ShardsMissing`] if some parts aren't complete. Also if a record can't be read or a file was changed.
    pub fn read(folder: &ShardFolder) -> Result<Self> {
        let (request, complete) = folder.complete()?;
        let there: BTreeSet<u32> = complete.iter().copied().collect();
        let missing: Vec<u32> = (0..request.of).filter(|k| !there.contains(k)).collect();
        if !missing.is_empty() {
            return Err(AnalysisError::ShardsMissing {
                folder: folder.path().to_path_buf(),
                missing,
                of: request.of,
            });
        }
        let parts = complete.into_iter().map(|k| part(folder, &request, k));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok(Parts { request, parts })
    }

    /// The kinds of processors that computed parts, each with the numbers of its parts. A part that was continued on another
    /// kind counts for both.
    pub fn processors(&self) -> Vec<(String, Vec<u32>)> {
        let mut kinds: Vec<(String, Vec<u32>)> = Vec::new();
        for part in &self.parts {
            for sitting in &part.record.sittings {
                let at = kinds
                    .iter()
                    .position(|(kind, _)| *kind == sitting.processor);
                let at = at.unwrap_or_else(|| {
                    kinds.push((sitting.processor.clone(), Vec::new()));
                    kinds.len() - 1
                });
                if kinds[at].1.last() != Some(&part.record.index) {
                    kinds[at].1.push(part.record.index);
                }
            }
        }
        kinds
    }
}

fn part(folder: &ShardFolder, request: &Request, index: u32) -> Result<Part> {
    let place = folder.of(index);
    let record = ShardRecord::read(&place)?;
    let shard = record
        .shard()
        .filter(|shard| (shard.index, shard.of) == (index, request.of));
    let shard = shard.ok_or_else(|| {
        problem(
            &place,
            &format!(
                "its record says shard {} of {}, expected {index} of {}: {AGAIN}",
                record.index, record.of, request.of
            ),
        )
    })?;
    let units = shard.units(request.units.len()).len();
    if record.units != units {
        return Err(problem(
            &place,
            &format!(
                "its record says {} {}, expected {units}: {AGAIN}",
                record.units, request.unit
            ),
        ));
    }
    for (name, recorded) in &record.files {
        let found = digest(&place.join(name));
        let found = found.map_err(|e| problem(&place, &format!("{e}: {AGAIN}")))?;
        if found != *recorded {
            let text = format!("{name} was changed after the shard was complete: {AGAIN}");
            return Err(problem(&place, &text));
        }
    }
    Ok(Part {
        record,
        folder: place,
    })
}
