//! A folder whose writes are as slow as a test wants.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hindcast_format::{FileEntry, FsStorage, Mapped, ReadFile, Storage, WriteFile};

/// How long the writes of a [`SlowStorage`] take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the file system.
    Fast,
    /// Slower by this time per write.
    Delayed(Duration),
    /// Writes wait until the pace changes.
    Stopped,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// Number of writes done.
    writes: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let mut state = self.lock();
        while state.pace == Pace::Stopped {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let pace = state.pace;
        drop(state);
        if let Pace::Delayed(time) = pace {
            std::thread::sleep(time);
        }
        self.lock().writes += 1;
    }
}

/// A run's folder on storage that is slower than training. Clones share the pace.
#[derive(Debug, Clone)]
pub struct SlowStorage {
    folder: FsStorage,
    shared: Arc<Shared>,
}

impl SlowStorage {
    /// A folder with [`Pace::Fast`].
    pub fn new(folder: FsStorage) -> Self {
        let state = State {
            pace: Pace::Fast,
            writes: 0,
        };
        Self {
            folder,
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
        }
    }

    /// Sets the pace of the writes from now on.
    pub fn set(&self, pace: Pace) {
        self.shared.lock().pace = pace;
        self.shared.changed.notify_all();
    }

    /// Waits until nothing has been written for `quiet`.
    pub fn settle(&self, quiet: Duration) {
        let mut before = None;
        loop {
            let now = self.shared.lock().writes;
            if before == Some(now) {
                return;
            }
            before = Some(now);
            std::thread::sleep(quiet);
        }
    }
}

impl Storage for SlowStorage {
    fn location(&self) -> String {
        self.folder.location()
    }

    fn create_run(&self, manifest: &[u8]) -> io::Result<()> {
        self.folder.create_run(manifest)
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.folder.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(SlowFile {
            file: self.folder.create(name)?,
            shared: Arc::clone(&self.shared),
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        self.folder.open(name)
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.folder.map(name)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.replace(name, bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.folder.sync(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_dir()
    }
}

struct SlowFile {
    file: Box<dyn WriteFile>,
    shared: Arc<Shared>,
}

impl WriteFile for SlowFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.shared.wait();
        self.file.write(bytes)
    }

    fn position(&self) -> u64 {
        self.file.position()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn trim(&mut self) -> io::Result<()> {
        self.file.trim()
    }
}
