//! A storage with the keys of an encrypted run.

use std::io;
use std::sync::Arc;

use super::interface::{Claim, FileEntry, ReadFile, Reserve, Storage, WriteFile};
use super::map::Mapped;
use crate::info::RunInfo;
use crate::secret::Keys;

/// A storage whose readers have the keys of an encrypted run.
#[derive(Debug)]
pub struct Keyed {
    storage: Arc<dyn Storage>,
    keys: Arc<dyn Keys>,
}

impl Keyed {
    /// The same storage, with these keys in place of those that it has.
    pub fn new(storage: Arc<dyn Storage>, keys: Arc<dyn Keys>) -> Keyed {
        Keyed { storage, keys }
    }

    /// The storage of a run that is being written, with the run's own key if it is encrypted, so that the writer can read it back.
    pub fn own(storage: &Arc<dyn Storage>, info: &RunInfo) -> Arc<dyn Storage> {
        let storage = Arc::clone(storage);
        match &info.encryption {
            Some(encryption) => Arc::new(Keyed::new(storage, Arc::new(encryption.clone()))),
            None => storage,
        }
    }
}

impl Storage for Keyed {
    fn keys(&self) -> Option<Arc<dyn Keys>> {
        Some(Arc::clone(&self.keys))
    }

    fn location(&self) -> String {
        self.storage.location()
    }

    fn create_run(&self, manifest: &[u8]) -> io::Result<()> {
        self.storage.create_run(manifest)
    }

    fn create_private_run(&self, manifest: &[u8]) -> io::Result<()> {
        self.storage.create_private_run(manifest)
    }

    fn remove_run(&self) -> io::Result<()> {
        self.storage.remove_run()
    }

    fn claim(&self) -> io::Result<Option<Claim>> {
        self.storage.claim()
    }

    fn reserve(&self, bytes: u64) -> io::Result<Option<Reserve>> {
        self.storage.reserve(bytes)
    }

    fn memory(&self) -> Option<u64> {
        self.storage.memory()
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.storage.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn WriteFile>> {
        self.storage.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        self.storage.open(name)
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.storage.map(name)
    }

    fn map_first(&self, name: &str, length: u64) -> io::Result<Mapped> {
        self.storage.map_first(name, length)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.storage.replace(name, bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.storage.remove(name)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.storage.sync(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.storage.sync_dir()
    }
}
