//! A run's folder with other file names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crate::secret::Keys;
use crate::storage::{Claim, FileEntry, Mapped, ReadFile, Storage, WriteFile};

/// A folder whose files have other names. It is read-only.
#[derive(Debug)]
pub(super) struct View {
    source: Arc<dyn Storage>,
    /// Maps each name that is shown to the real file name.
    pub shown: BTreeMap<String, String>,
    /// Files that are hidden.
    pub hidden: BTreeSet<String>,
}

impl View {
    /// The folder with its real names.
    pub fn of(source: &Arc<dyn Storage>) -> View {
        View {
            source: Arc::clone(source),
            shown: BTreeMap::new(),
            hidden: BTreeSet::new(),
        }
    }

    /// Whether the view differs from the folder.
    pub fn differs(&self) -> bool {
        self.shown.iter().any(|(name, file)| name != file) || !self.hidden.is_empty()
    }

    fn file<'a>(&'a self, name: &'a str) -> io::Result<&'a str> {
        match self.shown.get(name) {
            Some(file) => Ok(file),
            None if self.hidden.contains(name) || self.shown.values().any(|f| f == name) => {
                Err(io::ErrorKind::NotFound.into())
            }
            None => Ok(name),
        }
    }

    fn read_only<T>() -> io::Result<T> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Storage for View {
    fn location(&self) -> String {
        self.source.location()
    }

    fn memory(&self) -> Option<u64> {
        self.source.memory()
    }

    fn keys(&self) -> Option<Arc<dyn Keys>> {
        self.source.keys()
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let names: BTreeMap<&str, &str> = self
            .shown
            .iter()
            .map(|(name, file)| (file.as_str(), name.as_str()))
            .collect();
        let mut entries: Vec<FileEntry> = self
            .source
            .list()?
            .into_iter()
            .filter_map(|entry| match names.get(entry.name.as_str()) {
                Some(name) => Some(FileEntry {
                    name: (*name).to_owned(),
                    ..entry
                }),
                None => (!self.hidden.contains(&entry.name)).then_some(entry),
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        self.source.open(self.file(name)?)
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.source.map(self.file(name)?)
    }

    fn map_first(&self, name: &str, length: u64) -> io::Result<Mapped> {
        self.source.map_first(self.file(name)?, length)
    }

    fn create_run(&self, _: &[u8]) -> io::Result<()> {
        View::read_only()
    }

    fn claim(&self) -> io::Result<Option<Claim>> {
        View::read_only()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn WriteFile>> {
        View::read_only()
    }

    fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
        View::read_only()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        View::read_only()
    }

    fn sync(&self, _: &str) -> io::Result<()> {
        View::read_only()
    }

    fn sync_dir(&self) -> io::Result<()> {
        View::read_only()
    }
}
