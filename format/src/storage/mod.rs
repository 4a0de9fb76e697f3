//! Where a run's files live: a small trait, a folder, and a twin in memory on which faults can be injected.

mod crash;
mod file;
mod fs;
mod map;
mod mem;
mod names;
mod regular;

use std::fmt;
use std::io;

pub use crash::Crash;
pub use fs::FsStorage;
pub use map::Mapped;
pub use mem::MemStorage;
pub(crate) use regular::not_regular;

/// A file in a run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name inside the folder; a folder in the folder ends with `/`. In a folder on disk, each byte of the name that isn't UTF-8 is written as
    /// `\xNN`, and each backslash is doubled. All functions of [`Storage`] take the name in this form.
    pub name: String,
    /// Bytes.
    pub length: u64,
}

/// One run's folder. Names are plain file names, never paths.
pub trait Storage: Send + Sync + fmt::Debug {
    /// What to call it in messages: the folder's path.
    fn location(&self) -> String;

    /// Makes the run appear with this manifest in it, whole or not at all. Durable when it returns.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if there is something already.
    fn create_run(&self, manifest: &[u8]) -> io::Result<()>;

    /// Removes a run that contains only a manifest, so that another can be created in its place.
    ///
    /// # Errors
    /// The storage can't remove it, or there are other files.
    fn remove_run(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Claims the run for one writer, for as long as the claim is held; a process that dies gives it back. Readers claim nothing.
    /// Nothing is claimed where the storage knows no locks.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another writer holds it.
    fn claim(&self) -> io::Result<Option<Claim>> {
        Ok(None)
    }

    /// Reserves `bytes` of space until the reserve is dropped, without a visible file. A storage without such reserves
    /// returns `None`.
    ///
    /// # Errors
    /// There isn't enough space.
    fn reserve(&self, bytes: u64) -> io::Result<Option<Reserve>> {
        let _ = bytes;
        Ok(None)
    }

    /// Limit in bytes on the memory of the run's readers, if there is one.
    fn memory(&self) -> Option<u64> {
        None
    }

    /// All files, by name.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no run.
    fn list(&self) -> io::Result<Vec<Entry>>;

    /// Opens a new file for appending; an older one of that name is replaced.
    fn create(&self, name: &str) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for positioned reads; it may be growing.
    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>>;

    /// The whole file in memory; only for files that no longer change.
    fn map(&self, name: &str) -> io::Result<Mapped>;

    /// The first `length` bytes of the file in memory, or all of it where it is shorter. As [`map`](Storage::map) otherwise.
    fn map_first(&self, name: &str, length: u64) -> io::Result<Mapped> {
        self.map(name).map(|map| map.shortened(length))
    }

    /// Replaces a small file: the old content or the new, never a mixture. Durable when it returns.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes a closed file's content durable.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// A run claimed by its writer; dropping it gives the run back.
#[derive(Debug)]
pub struct Claim {
    folder: std::fs::File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing alone would leave the lock with a child that another thread has just forked and that has yet to start its
        // program: whoever opens the run at that moment would be told that it is being written.
        let _ = rustix::fs::flock(&self.folder, rustix::fs::FlockOperation::Unlock);
    }
}

/// Reserved disk space. Dropping the value frees it.
#[derive(Debug)]
pub struct Reserve {
    /// A file without a name. The system frees its blocks when it is closed, even if the process is killed.
    _file: std::fs::File,
    bytes: u64,
}

impl Reserve {
    /// Number of reserved bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A file that is being appended to.
pub trait WriteFile: Send {
    /// Appends all of `bytes`. Until this returns, another reader may see a prefix of them. An error leaves the
    /// position unchanged. The part that was written is overwritten by the next write, or freed by
    /// [`trim`](WriteFile::trim).
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Bytes written so far.
    fn position(&self) -> u64;

    /// Makes everything written so far durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Frees space behind the position that was reserved or was written by a failed write.
    fn trim(&mut self) -> io::Result<()>;
}

/// A file that is read at positions.
pub trait ReadFile: Send + Sync {
    /// Bytes at this moment.
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The position of the first byte from `offset` on that may be nonzero, as far as this is known without reading.
    /// Files can have holes of any size.
    fn data_from(&self, offset: u64) -> u64 {
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a child holds between its fork and its program: the same open file.
    #[test]
    fn a_claim_that_is_dropped_is_free_whoever_shares_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FsStorage::new(folder.path());
        let claim = storage.claim().unwrap().unwrap();
        let shared = claim.folder.try_clone().unwrap();
        let taken = storage.claim().unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::WouldBlock);
        drop(claim);
        assert!(storage.claim().unwrap().is_some());
        drop(shared);
    }
}
