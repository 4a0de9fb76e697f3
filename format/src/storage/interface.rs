//! The interface between the rest of the crate and the place where a run's files are.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::map::Mapped;
use crate::secret::Keys;

/// A file in a run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Name inside the folder; that of a subfolder ends with `/`. In a folder on disk, each byte of the name that isn't UTF-8 is written as
    /// `\xNN`, and each backslash is doubled. All functions of [`Storage`] take names in this form.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
}

/// One run's folder. Names are plain file names, never paths.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The name in messages: the folder's path.
    fn location(&self) -> String;

    /// Creates the run with this manifest. It appears complete or not at all, and is durable when this returns.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something exists there.
    fn create_run(&self, manifest: &[u8]) -> io::Result<()>;

    /// Like [`create_run`](Storage::create_run), for an encrypted run: its files are for their owner only, where the storage has owners.
    ///
    /// # Errors
    /// As [`create_run`](Storage::create_run).
    fn create_private_run(&self, manifest: &[u8]) -> io::Result<()> {
        self.create_run(manifest)
    }

    /// Removes a run that contains only a manifest, so that another can be created in its place.
    ///
    /// # Errors
    /// The storage can't remove it, or there are other files.
    fn remove_run(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Claims the run for one writer as long as the returned value exists. If the process dies, the claim ends. Readers claim nothing.
    /// Storage without locks returns `None`.
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

    /// The keys of the run's readers, for a run that is encrypted.
    fn keys(&self) -> Option<Arc<dyn Keys>> {
        None
    }

    /// All files, by name.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no run.
    fn list(&self) -> io::Result<Vec<FileEntry>>;

    /// Opens a new file for appending. It replaces an older file of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for positioned reads. The file may be growing.
    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>>;

    /// The whole file in memory. Only for files that no longer change.
    fn map(&self, name: &str) -> io::Result<Mapped>;

    /// The first `length` bytes of the file in memory, or all of it if it is shorter. Otherwise like [`map`](Storage::map).
    fn map_first(&self, name: &str, length: u64) -> io::Result<Mapped> {
        self.map(name).map(|map| map.shortened(length))
    }

    /// Replaces a small file. Readers see the old content or the new, never a mixture. Durable when this returns.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes a closed file's content durable.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// A run that a writer has claimed. Dropping it ends the claim.
#[derive(Debug)]
pub struct Claim {
    pub(super) folder: std::fs::File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing the file isn't enough: a child that another thread has just forked still holds it, and until the child starts its program
        // the run would look claimed.
        let _ = rustix::fs::flock(&self.folder, rustix::fs::FlockOperation::Unlock);
    }
}

/// Reserved disk space. Dropping the value frees it.
#[derive(Debug)]
pub struct Reserve {
    /// A file without a name. The system frees its blocks when it is closed, even if the process is killed.
    pub(super) _file: std::fs::File,
    pub(super) bytes: u64,
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

    /// Frees space after the position that was reserved or written by a failed write.
    fn trim(&mut self) -> io::Result<()>;
}

/// A file that is read at positions.
pub trait ReadFile: Send + Sync {
    /// Current length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file is too short.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The position of the first byte from `offset` on that may be nonzero, as far as this is known without reading.
    /// Files can have holes of any size.
    fn data_from(&self, offset: u64) -> u64 {
        offset
    }
}
