//! The in-memory twin of a folder. It logs all operations, so that any crash can be staged, and fails on demand.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::crash::{Crash, Files, Op, apply, killed, power_lost};
use super::interface::{FileEntry, ReadFile, Storage, WriteFile};
use super::map::Mapped;
use crate::secret::Keys;

/// A run in memory. Clones share the files.
#[derive(Debug, Clone, Default)]
pub struct MemStorage {
    inner: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    exists: bool,
    files: Files,
    log: Option<Vec<Op>>,
    calls: u64,
    fail: Option<Fail>,
    /// Delay of every write. Slow or failing reads are not modelled.
    delay: std::time::Duration,
    memory: Option<u64>,
    keys: Option<Arc<dyn Keys>>,
}

#[derive(Debug, Clone, Copy)]
struct Fail {
    at: u64,
    for_good: bool,
    /// Whether a failing replacement has taken place.
    replaces: bool,
    kind: io::ErrorKind,
}

impl MemStorage {
    /// An empty storage without a run.
    pub fn new() -> MemStorage {
        MemStorage::default()
    }

    /// Like [`new`](MemStorage::new), with a log of all operations, from which crashes can be staged.
    pub fn logged() -> MemStorage {
        let storage = MemStorage::new();
        storage.lock().log = Some(Vec::new());
        storage
    }

    /// A run with these files.
    pub fn from_files(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> MemStorage {
        let storage = MemStorage::new();
        {
            let mut inner = storage.lock();
            inner.exists = true;
            inner.files = files
                .into_iter()
                .map(|(name, bytes)| (name, Arc::new(bytes)))
                .collect();
        }
        storage
    }

    /// All files, by name.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.lock()
            .files
            .iter()
            .map(|(name, bytes)| (name.clone(), bytes.to_vec()))
            .collect()
    }

    /// Changes one file.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.lock().files.get_mut(name) {
            change(Arc::make_mut(bytes));
        }
    }

    /// Number of storage calls so far that change or sync something.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Makes call number `nth` (from 0, counted since creation) fail with `kind`: only that one, or also all later ones. A failing write
    /// has written half of its bytes.
    pub fn fail_nth(&self, nth: u64, for_good: bool, kind: io::ErrorKind) {
        self.lock().fail = Some(Fail {
            at: nth,
            for_good,
            replaces: false,
            kind,
        });
    }

    /// As [`fail_nth`](MemStorage::fail_nth), for a disk on which a replaced file is in place, and the sync of its folder fails.
    pub fn fail_after_replacing(&self, nth: u64, for_good: bool, kind: io::ErrorKind) {
        self.lock().fail = Some(Fail {
            at: nth,
            for_good,
            replaces: true,
            kind,
        });
    }

    /// Makes every write take this long.
    pub fn slow_down(&self, delay: std::time::Duration) {
        self.lock().delay = delay;
    }

    /// Gives readers of an encrypted run these keys.
    pub fn give_keys(&self, keys: Arc<dyn Keys>) {
        self.lock().keys = Some(keys);
    }

    /// Limits readers to `bytes` of memory.
    pub fn limit_memory(&self, bytes: u64) {
        self.lock().memory = Some(bytes);
    }

    /// Number of logged operations.
    pub fn operations(&self) -> usize {
        self.lock().log.as_ref().map_or(0, Vec::len)
    }

    /// Bytes that logged operation `index` writes; 0 if it isn't a write.
    pub fn operation_bytes(&self, index: usize) -> usize {
        match self.lock().log.as_ref().and_then(|log| log.get(index)) {
            Some(Op::Write { bytes, .. }) => bytes.len(),
            _ => 0,
        }
    }

    /// The content of the disk after that crash. Requires [`MemStorage::logged`].
    pub fn crash_image(&self, crash: Crash<'_>) -> MemStorage {
        let inner = self.lock();
        let log = inner.log.as_deref().unwrap_or(&[]);
        let (exists, files) = match crash {
            Crash::Kill { operations, bytes } => killed(log, operations, bytes),
            Crash::PowerLoss { operations, keep } => {
                power_lost(&log[..operations.min(log.len())], keep)
            }
        };
        let image = MemStorage::from_files(files);
        image.lock().exists = exists;
        image
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic elsewhere leaves the files unchanged, as a crash does.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, op: Op) -> io::Result<()> {
        let mut inner = self.lock();
        let delay = inner.delay;
        let call = inner.calls;
        inner.calls += 1;
        let failure = inner
            .fail
            .filter(|f| call == f.at || f.for_good && call > f.at);
        let op = match (failure, op) {
            (None, op) => op,
            (
                Some(fail),
                Op::Write {
                    name,
                    at,
                    mut bytes,
                },
            ) => {
                bytes.truncate(bytes.len() / 2);
                inner.run(Op::Write { name, at, bytes });
                return Err(io::Error::new(fail.kind, "injected failure"));
            }
            (Some(fail), op @ Op::Replace { .. }) if fail.replaces => {
                inner.run(op);
                return Err(io::Error::new(fail.kind, "injected failure"));
            }
            (Some(fail), _) => return Err(io::Error::new(fail.kind, "injected failure")),
        };
        inner.run(op);
        drop(inner);
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        Ok(())
    }
}

impl Shared {
    fn run(&mut self, op: Op) {
        apply(&op, &mut self.exists, &mut self.files);
        if let Some(log) = &mut self.log {
            log.push(op);
        }
    }
}

impl Storage for MemStorage {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn create_run(&self, manifest: &[u8]) -> io::Result<()> {
        if self.lock().exists {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.step(Op::CreateRun {
            manifest: manifest.to_vec(),
        })
    }

    fn memory(&self) -> Option<u64> {
        self.lock().memory
    }

    fn keys(&self) -> Option<Arc<dyn Keys>> {
        self.lock().keys.clone()
    }

    fn remove_run(&self) -> io::Result<()> {
        self.step(Op::Remove {
            name: crate::MANIFEST.to_owned(),
        })?;
        let mut inner = self.lock();
        if !inner.files.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        inner.exists = false;
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let inner = self.lock();
        if !inner.exists {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(inner
            .files
            .iter()
            .map(|(name, bytes)| FileEntry {
                name: name.clone(),
                length: bytes.len() as u64,
            })
            .collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn WriteFile>> {
        self.step(Op::Create {
            name: name.to_owned(),
        })?;
        Ok(Box::new(MemFile {
            storage: self.clone(),
            name: name.to_owned(),
            position: 0,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        let content = self.content(name)?;
        Ok(Box::new(MemReader {
            storage: self.clone(),
            name: name.to_owned(),
            pinned: (name == crate::MANIFEST).then_some(content),
        }))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        Ok(Mapped::from_bytes(self.content(name)?))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.step(Op::Replace {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.content(name)?;
        self.step(Op::Remove {
            name: name.to_owned(),
        })
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.content(name)?;
        self.step(Op::Sync {
            name: name.to_owned(),
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.step(Op::SyncDir)
    }
}

impl MemStorage {
    fn content(&self, name: &str) -> io::Result<Arc<Vec<u8>>> {
        self.lock()
            .files
            .get(name)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct MemFile {
    storage: MemStorage,
    name: String,
    position: u64,
}

impl WriteFile for MemFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.storage.step(Op::Write {
            name: self.name.clone(),
            at: self.position,
            bytes: bytes.to_vec(),
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn sync(&mut self) -> io::Result<()> {
        self.storage.step(Op::Sync {
            name: self.name.clone(),
        })
    }

    fn trim(&mut self) -> io::Result<()> {
        // Bytes after the position come from a failed write.
        let position = usize::try_from(self.position).unwrap_or(usize::MAX);
        if self.storage.content(&self.name)?.len() > position {
            self.storage
                .edit(&self.name, |bytes| bytes.truncate(position));
        }
        Ok(())
    }
}

struct MemReader {
    storage: MemStorage,
    name: String,
    /// The content of the manifest when it was opened. The file is replaced as a whole, and an open file stays the same.
    pinned: Option<Arc<Vec<u8>>>,
}

impl MemReader {
    fn content(&self) -> io::Result<Arc<Vec<u8>>> {
        match &self.pinned {
            Some(content) => Ok(Arc::clone(content)),
            None => self.storage.content(&self.name),
        }
    }
}

impl ReadFile for MemReader {
    fn length(&self) -> io::Result<u64> {
        Ok(self.content()?.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.content()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = start
            .checked_add(buffer.len())
            .and_then(|end| content.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}
