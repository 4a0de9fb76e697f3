//! The in-memory twin: keeps a log of what was done to it, so that any crash can be staged from it, and fails on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, Mapped, ReadFile, Storage, WriteFile};

/// Disks write sectors of this size whole or not at all.
const SECTOR: usize = 512;

/// A run in memory. Clones share the files.
#[derive(Debug, Clone, Default)]
pub struct MemStorage {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    exists: bool,
    files: BTreeMap<String, Arc<Vec<u8>>>,
    log: Option<Vec<Op>>,
    calls: u64,
    fail: Option<Fail>,
    /// Files whose reads wait or fail are not modelled; writes can be slowed down.
    delay: std::time::Duration,
}

#[derive(Debug, Clone, Copy)]
struct Fail {
    at: u64,
    for_good: bool,
    kind: io::ErrorKind,
}

/// One change, as logged.
#[derive(Debug, Clone)]
enum Op {
    CreateRun {
        manifest: Vec<u8>,
    },
    Create {
        name: String,
    },
    Write {
        name: String,
        at: u64,
        bytes: Vec<u8>,
    },
    Sync {
        name: String,
    },
    Replace {
        name: String,
        bytes: Vec<u8>,
    },
    Remove {
        name: String,
    },
    SyncDir,
}

/// How a crash ends a run.
pub enum Crash<'a> {
    /// The process is killed: `operations` were done, and so many bytes of the next if it is a write.
    Kill {
        /// Operations done; see [`MemStorage::operations`].
        operations: usize,
        /// Bytes of the next one.
        bytes: usize,
    },
    /// The power fails after `operations`: what was not synced is kept or lost, sector by sector and name by name, as `keep` says.
    PowerLoss {
        /// Operations done.
        operations: usize,
        /// Asked once for every unsynced sector and every unsynced creation or removal.
        keep: &'a mut dyn FnMut() -> bool,
    },
}

impl MemStorage {
    /// No run yet.
    pub fn new() -> MemStorage {
        MemStorage::default()
    }

    /// No run yet; everything done is logged, so that crashes can be staged.
    pub fn logged() -> MemStorage {
        let storage = MemStorage::new();
        storage.lock().log = Some(Vec::new());
        storage
    }

    /// A run of these files.
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

    /// Storage calls that change or sync something, so far.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Makes call number `nth` (from 0, counted since creation) fail with `kind`: once, or that one and all after it. A write that
    /// fails has written half of its bytes.
    pub fn fail_nth(&self, nth: u64, for_good: bool, kind: io::ErrorKind) {
        self.lock().fail = Some(Fail {
            at: nth,
            for_good,
            kind,
        });
    }

    /// Lets every write take this long.
    pub fn slow_down(&self, delay: std::time::Duration) {
        self.lock().delay = delay;
    }

    /// Logged operations so far.
    pub fn operations(&self) -> usize {
        self.lock().log.as_ref().map_or(0, Vec::len)
    }

    /// Bytes that logged operation `index` writes; 0 where it is no write.
    pub fn operation_bytes(&self, index: usize) -> usize {
        match self.lock().log.as_ref().and_then(|log| log.get(index)) {
            Some(Op::Write { bytes, .. }) => bytes.len(),
            _ => 0,
        }
    }

    /// What the disk holds after that crash. Needs [`MemStorage::logged`].
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves the files as they are, which is what a crash does, too.
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

impl Inner {
    fn run(&mut self, op: Op) {
        apply(&op, &mut self.exists, &mut self.files);
        if let Some(log) = &mut self.log {
            log.push(op);
        }
    }
}

type Files = BTreeMap<String, Arc<Vec<u8>>>;

fn apply(op: &Op, exists: &mut bool, files: &mut Files) {
    match op {
        Op::CreateRun { manifest } => {
            *exists = true;
            files.insert(
                crate::manifest::MANIFEST.to_owned(),
                Arc::new(manifest.clone()),
            );
        }
        Op::Create { name } => {
            files.insert(name.clone(), Arc::default());
        }
        Op::Write { name, at, bytes } => {
            if let Some(file) = files.get_mut(name) {
                write(Arc::make_mut(file), *at as usize, bytes);
            }
        }
        Op::Replace { name, bytes } => {
            files.insert(name.clone(), Arc::new(bytes.clone()));
        }
        Op::Remove { name } => {
            files.remove(name);
        }
        Op::Sync { .. } | Op::SyncDir => {}
    }
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn plain(files: Files) -> Vec<(String, Vec<u8>)> {
    files
        .into_iter()
        .map(|(name, bytes)| (name, bytes.to_vec()))
        .collect()
}

fn killed(log: &[Op], operations: usize, bytes: usize) -> (bool, Vec<(String, Vec<u8>)>) {
    let (mut exists, mut files) = (false, Files::new());
    for op in log.iter().take(operations) {
        apply(op, &mut exists, &mut files);
    }
    match log.get(operations) {
        Some(Op::Write {
            name,
            at,
            bytes: all,
        }) => {
            let part = Op::Write {
                name: name.clone(),
                at: *at,
                bytes: all[..bytes.min(all.len())].to_vec(),
            };
            apply(&part, &mut exists, &mut files);
        }
        // A replacement that was killed leaves its temporary file.
        Some(Op::Replace { name, bytes: all }) if bytes > 0 => {
            files.insert(
                format!("{name}.tmp"),
                Arc::new(all[..bytes.min(all.len())].to_vec()),
            );
        }
        _ => {}
    }
    (exists, plain(files))
}

/// A file's content on the disk: what was synced, and what is under way.
#[derive(Default, Clone)]
struct Disk {
    synced: Vec<u8>,
    /// Content as the system shows it.
    now: Vec<u8>,
}

impl Disk {
    fn settle(&self, keep: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let longest = self.now.len().max(self.synced.len());
        // The length is metadata of its own: old or new.
        let length = if self.now.len() == self.synced.len() || keep() {
            self.now.len()
        } else {
            self.synced.len()
        };
        let mut out = vec![0; longest];
        for start in (0..longest).step_by(SECTOR) {
            let end = (start + SECTOR).min(longest);
            let sector = |bytes: &[u8]| {
                let mut s = bytes
                    .get(start..end.min(bytes.len()))
                    .unwrap_or(&[])
                    .to_vec();
                s.resize(end - start, 0);
                s
            };
            let (old, new) = (sector(&self.synced), sector(&self.now));
            out[start..end].copy_from_slice(if old == new || keep() { &new } else { &old });
        }
        out.truncate(length);
        out
    }
}

fn power_lost(log: &[Op], keep: &mut dyn FnMut() -> bool) -> (bool, Vec<(String, Vec<u8>)>) {
    // Inodes live on while a name on the disk or in memory leads to them.
    let mut inodes: Vec<Disk> = Vec::new();
    let (mut now, mut synced): (BTreeMap<String, usize>, BTreeMap<String, usize>) =
        Default::default();
    let mut exists = false;
    for op in log {
        match op {
            Op::CreateRun { manifest } => {
                exists = true;
                inodes.push(Disk {
                    synced: manifest.clone(),
                    now: manifest.clone(),
                });
                now.insert(crate::manifest::MANIFEST.to_owned(), inodes.len() - 1);
                synced.clone_from(&now);
            }
            Op::Create { name } => {
                inodes.push(Disk::default());
                now.insert(name.clone(), inodes.len() - 1);
            }
            Op::Write { name, at, bytes } => {
                if let Some(&i) = now.get(name) {
                    write(&mut inodes[i].now, *at as usize, bytes);
                }
            }
            Op::Sync { name } => {
                if let Some(&i) = now.get(name) {
                    inodes[i].synced = inodes[i].now.clone();
                }
            }
            Op::Replace { name, bytes } => {
                inodes.push(Disk {
                    synced: bytes.clone(),
                    now: bytes.clone(),
                });
                now.insert(name.clone(), inodes.len() - 1);
                synced.clone_from(&now);
            }
            Op::Remove { name } => {
                now.remove(name);
            }
            Op::SyncDir => synced.clone_from(&now),
        }
    }
    let mut names: Vec<&String> = now.keys().chain(synced.keys()).collect();
    names.sort();
    names.dedup();
    let mut files = Vec::new();
    for name in names {
        let (new, old) = (now.get(name), synced.get(name));
        let entry = if new == old || keep() { new } else { old };
        if let Some(&i) = entry {
            files.push((name.clone(), inodes[i].settle(keep)));
        }
    }
    (exists, files)
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

    fn list(&self) -> io::Result<Vec<Entry>> {
        let inner = self.lock();
        if !inner.exists {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(inner
            .files
            .iter()
            .map(|(name, bytes)| Entry {
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
        self.content(name)?;
        Ok(Box::new(MemReader {
            storage: self.clone(),
            name: name.to_owned(),
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
        Ok(())
    }
}

struct MemReader {
    storage: MemStorage,
    name: String,
}

impl ReadFile for MemReader {
    fn length(&self) -> io::Result<u64> {
        Ok(self.storage.content(&self.name)?.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.storage.content(&self.name)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = start
            .checked_add(buffer.len())
            .and_then(|end| content.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}
