//! What a complete part says about itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use hindcast_format::Processor;
use serde::{Deserialize, Serialize};

use super::Shard;
use super::files::{digest, problem, read_json, write_json};
use crate::error::Result;

/// Name of the record in a part's folder.
pub(super) const RECORD: &str = "shard.json";
/// What to do about a part that can't be used.
pub(super) const AGAIN: &str = "remove this folder and compute the shard again";
/// Name of the list of sittings in a part's folder, while it is computed.
const SITTINGS: &str = "sittings.json";

/// One process that computed a part, or some of it before it was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sitting {
    /// Name of the machine.
    pub host: String,
    /// Its processor, with the width of its vectors.
    pub processor: String,
    /// Number of threads that computed.
    pub threads: usize,
    /// When it began, in seconds since 1970.
    pub began: u64,
}

impl Sitting {
    /// This process, on this machine.
    pub fn here() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Sitting {
            host: host(),
            processor: Processor::here().to_string(),
            threads: rayon::current_num_threads(),
            began: now.map_or(0, |since| since.as_secs()),
        }
    }
}

/// Name of this machine.
fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// A complete part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Which part, from 0.
    pub index: u32,
    /// Number of parts.
    pub of: u32,
    /// Number of units of work in it.
    pub units: usize,
    /// The processes that computed it, in order. More than one if some were killed.
    pub sittings: Vec<Sitting>,
    /// When it was complete, in seconds since 1970.
    pub ended: u64,
    /// BLAKE3 of each of its files, hexadecimal, by name.
    pub files: BTreeMap<String, String>,
}

impl ShardRecord {
    /// The part.
    pub fn shard(&self) -> Option<Shard> {
        Shard::new(self.index, self.of)
    }

    /// Seconds from the beginning of the first sitting to the end, waiting between sittings included.
    pub fn seconds(&self) -> u64 {
        let began = self
            .sittings
            .first()
            .map_or(self.ended, |first| first.began);
        self.ended.saturating_sub(began)
    }

    /// Reads the record in a part's folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        read_json(&folder.join(RECORD)).map_err(|e| {
            problem(
                folder,
                &format!("the shard has no readable record ({e}): {AGAIN}"),
            )
        })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(RECORD), self)
    }
}

/// Adds this process to the list of a part that is being computed, and returns the list.
pub(super) fn sit_down(folder: &Path) -> Result<Vec<Sitting>> {
    let path = folder.join(SITTINGS);
    // A list that a crash cut off only says less about where the part was computed.
    let mut sittings: Vec<Sitting> = read_json(&path).unwrap_or_default();
    sittings.push(Sitting::here());
    write_json(&path, &sittings)?;
    Ok(sittings)
}

/// Removes the list, whose content is in the record of the complete part.
pub(super) fn stand_up(folder: &Path) -> Result<()> {
    let path = folder.join(SITTINGS);
    std::fs::remove_file(&path).map_err(|e| problem(&path, &e.to_string()))
}

/// Digests of the files of a part, by name. Folders in it (kept work of an experiment) and temporary files aren't results.
pub(super) fn digests(folder: &Path) -> Result<BTreeMap<String, String>> {
    let cannot = |e: std::io::Error| problem(folder, &format!("cannot be read: {e}"));
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if entry.file_type().map_err(cannot)?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != RECORD && !name.ends_with(".tmp") {
                out.insert(name, digest(&entry.path())?);
            }
        }
    }
    Ok(out)
}
