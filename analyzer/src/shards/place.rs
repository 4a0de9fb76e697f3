//! Where a part is computed until it is complete.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Shard;
use super::files::problem;
use super::record::{ShardRecord, Sitting, digests, sit_down, stand_up};
use crate::error::Result;

/// Name of the file that the computing process locks.
const LOCK: &str = "lock";

/// The hidden folder of a part that is being computed. If its process is killed, the next process of the same part continues
/// in it, so that saved work isn't lost. It becomes the folder of the part when it is complete.
#[derive(Debug)]
pub struct ShardPlace {
    path: PathBuf,
    whole: PathBuf,
    shard: Shard,
    sittings: Vec<Sitting>,
    _lock: Option<File>,
}

/// How a part became complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// By this process.
    Here,
    /// By another process that computed the same part meanwhile, on a file system without locks. This process's copy is
    /// removed.
    Elsewhere,
}

impl ShardPlace {
    /// Takes the place of a part in `folder`, which becomes `whole` when the part is complete.
    pub(super) fn take(folder: &Path, whole: PathBuf, shard: Shard) -> Result<Self> {
        let path = folder.join(format!(".shard-{}", shard.index));
        std::fs::create_dir_all(&path)
            .map_err(|e| problem(&path, &format!("cannot be made: {e}")))?;
        let lock = lock(&path)?;
        let sittings = sit_down(&path)?;
        Ok(ShardPlace {
            path,
            whole,
            shard,
            sittings,
            _lock: lock,
        })
    }

    /// The path of a file of the part.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Which part it is.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Whether an earlier process began the part and was stopped.
    pub fn is_continued(&self) -> bool {
        self.sittings.len() > 1
    }

    /// Where the complete part will be.
    pub fn whole(&self) -> &Path {
        &self.whole
    }

    /// Gives the part its name. Its files are written, and `units` is the number of its units of work.
    ///
    /// # Errors
    /// If a file can't be read or written.
    pub fn publish(self, units: usize) -> Result<Published> {
        stand_up(&self.path)?;
        let lock = self.path.join(LOCK);
        match std::fs::remove_file(&lock) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(problem(&lock, &e.to_string()));
            }
            _ => {}
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        ShardRecord {
            index: self.shard.index,
            of: self.shard.of,
            units,
            sittings: self.sittings,
            ended: now.map_or(0, |since| since.as_secs()),
            files: digests(&self.path)?,
        }
        .write(&self.path)?;
        match std::fs::rename(&self.path, &self.whole) {
            Ok(()) => Ok(Published::Here),
            // Both are the same, since everything that a part depends on is in the request.
            Err(_) if self.whole.exists() => {
                let removed = std::fs::remove_dir_all(&self.path);
                removed.map_err(|e| problem(&self.path, &e.to_string()))?;
                Ok(Published::Elsewhere)
            }
            Err(e) => Err(problem(&self.whole, &format!("cannot be made: {e}"))),
        }
    }
}

/// Locks a part for this process. The lock ends with the process. `None` on file systems without locks: two processes then may
/// compute the same part, with the same result.
fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    // NFS locks only files that are open for writing.
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| problem(&path, &format!("cannot be written: {e}")))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Err(problem(
            folder,
            "another process computes this shard at the moment: wait for its end, or stop it and start this command again",
        )),
        Err(_) => Ok(None),
    }
}
