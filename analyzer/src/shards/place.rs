//! Where a part is computed until it is complete.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Shard;
use super::files::problem;
use super::record::{RECORD, ShardRecord, Sitting, digests, sit_down, stand_up};
use crate::error::Result;

/// The hidden folder of a part that is being computed. If its process is killed, the next process of the same part continues
/// in it, so that saved work isn't lost. It becomes the folder of the part when it is complete.
#[derive(Debug)]
pub struct ShardPlace {
    path: PathBuf,
    whole: PathBuf,
    shard: Shard,
    sittings: Vec<Sitting>,
    lock: Lock,
}

/// The lock of a part. It lies beside the part's folders, so that it is held while the part gets its name.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    /// `None` on file systems without locks: two processes then may compute the same part, with the same result.
    held: Option<File>,
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
    /// Takes the place of a part in `folder`, which becomes `whole` when the part is complete. `None` if it became complete
    /// meanwhile.
    pub(super) fn take(folder: &Path, whole: PathBuf, shard: Shard) -> Result<Option<Self>> {
        let lock = Lock::take(folder, shard)?;
        // Another process may have completed the part before this one got the lock.
        if whole.exists() {
            return Ok(None);
        }
        let path = folder.join(format!(".shard-{}", shard.index));
        std::fs::create_dir_all(&path)
            .map_err(|e| problem(&path, &format!("cannot be made: {e}")))?;
        if lock.held.is_some() {
            discard_leftovers(&path)?;
        }
        let sittings = sit_down(&path)?;
        Ok(Some(ShardPlace {
            path,
            whole,
            shard,
            sittings,
            lock,
        }))
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
            Ok(()) => {
                // Best effort: an empty file that stays does no harm. It is removed while it is locked.
                let _ = std::fs::remove_file(&self.lock.path);
                Ok(Published::Here)
            }
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

/// Removes what a process left that was killed while it wrote a file or gave the part its name. The caller holds the lock, so no
/// other process writes here.
fn discard_leftovers(folder: &Path) -> Result<()> {
    let cannot = |e: io::Error| problem(folder, &format!("cannot be read: {e}"));
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == RECORD || name.ends_with(".tmp") {
            std::fs::remove_file(&path).map_err(|e| problem(&path, &e.to_string()))?;
        }
    }
    Ok(())
}

impl Lock {
    /// Locks a part for this process. The lock ends with the process.
    fn take(folder: &Path, shard: Shard) -> Result<Self> {
        let path = folder.join(format!(".lock-{}", shard.index));
        // NFS locks only files that are open for writing.
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| problem(&path, &format!("cannot be written: {e}")))?;
        let held = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Some(file),
            Err(Errno::WOULDBLOCK) => {
                return Err(problem(
                    folder,
                    &format!(
                        "another process computes shard {} at the moment: wait for its end, or stop it and start this command again",
                        shard.index
                    ),
                ));
            }
            Err(_) => None,
        };
        Ok(Lock { path, held })
    }
}
