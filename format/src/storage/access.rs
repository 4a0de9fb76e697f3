//! How runs in folders are read.

use std::path::Path;
use std::sync::Arc;

use super::fs::FsStorage;
use super::interface::Storage;
use super::keyed::Keyed;
use crate::secret::Keys;

/// How runs in folders are read: within which memory, and with which keys. By default without a limit, and with no key.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Largest number of bytes that reading a run may take.
    pub memory: Option<u64>,
    /// The keys of encrypted runs.
    pub keys: Option<Arc<dyn Keys>>,
}

impl Access {
    /// The run in that folder.
    pub fn folder(&self, run: impl AsRef<Path>) -> Arc<dyn Storage> {
        let storage = Arc::new(FsStorage::new(run.as_ref()).within(self.memory));
        match &self.keys {
            Some(keys) => Arc::new(Keyed::new(storage, Arc::clone(keys))),
            None => storage,
        }
    }
}
