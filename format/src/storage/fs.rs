//! A run as a folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, open};

use super::file::{SegmentFile, largest_file};
use super::interface::{Claim, FileEntry, ReadFile, Reserve, Storage, WriteFile};
use super::map::Mapped;
use super::{names, regular};

/// A run as a folder of files.
#[derive(Debug, Clone)]
pub struct FsStorage {
    folder: PathBuf,
    map: bool,
    memory: Option<u64>,
}

impl FsStorage {
    /// The storage for that folder. Nothing is accessed yet.
    pub fn new(folder: impl Into<PathBuf>) -> FsStorage {
        FsStorage {
            folder: folder.into(),
            map: false,
            memory: None,
        }
    }

    /// Writes through memory maps of reserved blocks, if the file system honours the reservation. By default, segments are written by
    /// positioned writes (`pwrite`). These are usually faster, because every page of a map must be faulted in and cleared. Maps are faster
    /// where system calls are slow, as in a sandbox that inspects each of them. Sealed segments are read through maps in both cases.
    pub fn through_maps(mut self) -> FsStorage {
        self.map = true;
        self
    }

    /// Limits readers of the run to `bytes` of memory. Work that may need more is refused with
    /// [`FormatError::Memory`](crate::FormatError::Memory) before it begins. [`Work::bound`](crate::Work::bound) gives
    /// the bound for a run.
    pub fn within(mut self, bytes: Option<u64>) -> FsStorage {
        self.memory = bytes;
        self
    }

    /// Permissions of a new file. In a folder that only its owner can use, as that of an encrypted run, a file is the owner's alone, too.
    fn mode(&self) -> u32 {
        match fs::metadata(&self.folder) {
            Ok(folder) if folder.permissions().mode() & 0o077 == 0 => OWNER_FILE,
            _ => ANY_FILE,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(names::decode(name))
    }

    /// The parent folder, which is synced after changes to the run's own name.
    fn parent(&self) -> &Path {
        match self.folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

/// Permissions of files and folders, before those that the process never gives (umask).
const ANY_FILE: u32 = 0o666;
const OWNER_FILE: u32 = 0o600;
const ANY_FOLDER: u32 = 0o777;
const OWNER_FOLDER: u32 = 0o700;

fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some file systems can't sync a folder. There is nothing else to do.
        Err(e)
            if e.kind() == io::ErrorKind::InvalidInput
                || e.kind() == io::ErrorKind::Unsupported =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Removes the temporary folders of recorders that were killed while they created the same run. Such a folder contains
/// no recorded step. A folder is removed only if its process has ended, it isn't locked, and it is empty or contains
/// only a manifest. Errors are ignored.
fn remove_half_created(parent: &Path, hidden: &std::ffi::OsStr) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let left = crate::process::pid_of_name(&entry.file_name(), hidden);
        if left.is_some_and(|pid| crate::process::is_abandoned(pid, &entry.path())) {
            // The manifest is removed first. The folder is then removed only if it is empty.
            let _ = fs::remove_file(entry.path().join(crate::manifest::MANIFEST));
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl FsStorage {
    /// Creates the run, with these permissions of its folder and of its manifest.
    fn create_with(&self, manifest: &[u8], folder_mode: u32, file_mode: u32) -> io::Result<()> {
        // An empty folder isn't a run; rename replaces it.
        if self.folder.exists() && fs::read_dir(&self.folder)?.next().is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = self.folder.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        // A file in place of a folder isn't an existing run.
        fs::create_dir_all(self.parent()).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => io::Error::from(rustix::io::Errno::NOTDIR),
            _ => e,
        })?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(".new-");
        remove_half_created(self.parent(), &temporary);
        temporary.push(std::process::id().to_string());
        let temporary = self.parent().join(temporary);
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        let build = || {
            fs::DirBuilder::new().mode(folder_mode).create(&temporary)?;
            // The lock shows other processes that this folder isn't abandoned.
            let folder = File::open(&temporary)?;
            let _ = flock(&folder, FlockOperation::NonBlockingLockExclusive);
            let file = temporary.join(crate::manifest::MANIFEST);
            write_whole(&file, manifest, file_mode)?;
            sync_folder(&temporary)?;
            fs::rename(&temporary, &self.folder)?;
            // Closing the file isn't enough. A child that another thread has just forked still holds it, and the run would look claimed.
            let _ = flock(&folder, FlockOperation::Unlock);
            sync_folder(self.parent())
        };
        let built: io::Result<()> = build();
        if built.is_err() {
            let _ = fs::remove_dir_all(&temporary);
        }
        built.map_err(|e| {
            if e.kind() == io::ErrorKind::DirectoryNotEmpty {
                io::ErrorKind::AlreadyExists.into()
            } else {
                e
            }
        })
    }
}

impl Storage for FsStorage {
    fn location(&self) -> String {
        self.folder.display().to_string()
    }

    fn create_run(&self, manifest: &[u8]) -> io::Result<()> {
        self.create_with(manifest, ANY_FOLDER, ANY_FILE)
    }

    fn create_private_run(&self, manifest: &[u8]) -> io::Result<()> {
        self.create_with(manifest, OWNER_FOLDER, OWNER_FILE)
    }

    fn remove_run(&self) -> io::Result<()> {
        fs::remove_file(self.path(crate::manifest::MANIFEST))?;
        fs::remove_dir(&self.folder)?;
        sync_folder(self.parent())
    }

    /// Locks the folder itself, because a lock file could be left behind, copied or forgotten.
    fn claim(&self) -> io::Result<Option<Claim>> {
        let folder = File::open(&self.folder)?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Claim { folder })),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(io::ErrorKind::WouldBlock.into()),
            // Some network file systems have no locks.
            Err(_) => Ok(None),
        }
    }

    fn reserve(&self, bytes: u64) -> io::Result<Option<Reserve>> {
        // A request over the process's file-size limit would raise a signal that kills the process.
        if bytes > largest_file() {
            return Ok(None);
        }
        let file = open(
            &self.folder,
            OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        );
        // Not every file system supports files without names.
        let Ok(file) = file else { return Ok(None) };
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        Ok(Some(Reserve {
            _file: file.into(),
            bytes,
        }))
    }

    fn memory(&self) -> Option<u64> {
        self.memory
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let mut name = names::encode(&entry.file_name());
            // If the entry is a link, the size is that of its target.
            let length = match fs::metadata(entry.path()) {
                Ok(kind) => {
                    if kind.is_dir() {
                        name.push('/');
                    }
                    kind.len()
                }
                // A recorder has replaced or dropped the file in the meantime.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                // Opening the file reports the error. One bad entry must not hide the others.
                Err(_) => 0,
            };
            entries.push(FileEntry { name, length });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(self.mode())
            .open(self.path(name))?;
        Ok(Box::new(SegmentFile::new(file, 0, self.map)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(Positioned(regular::open(&self.path(name))?)))
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        Mapped::sealed(&regular::open(&self.path(name))?, u64::MAX)
    }

    fn map_first(&self, name: &str, length: u64) -> io::Result<Mapped> {
        Mapped::sealed(&regular::open(&self.path(name))?, length)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path(&format!("{name}.tmp"));
        let replaced = write_whole(&temporary, bytes, self.mode())
            .and_then(|()| fs::rename(&temporary, self.path(name)));
        if replaced.is_err() {
            // The old file is unchanged, and the incomplete new one is useless.
            let _ = fs::remove_file(&temporary);
        }
        replaced?;
        sync_folder(&self.folder)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        regular::open(&self.path(name))?.sync_data()
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }
}

struct Positioned(File);

impl ReadFile for Positioned {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn data_from(&self, offset: u64) -> u64 {
        use rustix::fs::{SeekFrom, seek};
        match seek(&self.0, SeekFrom::Data(offset)) {
            Ok(data) => data.max(offset),
            // The rest of the file is a hole.
            Err(rustix::io::Errno::NXIO) => self.length().unwrap_or(offset).max(offset),
            // Not every file system reports holes.
            Err(_) => offset,
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A forked child shares the open file until its program starts. `try_clone` stands for such a child.
    #[test]
    fn dropping_a_claim_frees_the_run_even_if_another_process_shares_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FsStorage::new(folder.path());
        let claim = storage.claim().unwrap().unwrap();
        let shared = claim.folder.try_clone().unwrap();
        let taken = storage.claim().unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::WouldBlock);
        drop(claim);
        assert!(storage.claim().unwrap().is_some());
        drop(shared);
    }

    /// A child that another thread forks shares the open files until its program starts.
    #[test]
    fn a_new_run_can_be_claimed_while_other_threads_start_processes() {
        let parent = tempfile::tempdir().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = std::process::Command::new("true").status();
                    }
                });
            }
            let claims: Vec<bool> = (0..100)
                .map(|i| {
                    let storage = FsStorage::new(parent.path().join(i.to_string()));
                    storage.create_run(b"{}").unwrap();
                    storage.claim().is_ok()
                })
                .collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(claims.iter().all(|free| *free));
        });
    }

    #[test]
    fn a_linked_file_has_the_size_of_its_target() {
        let (elsewhere, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = elsewhere.path().join("segment");
        fs::write(&file, vec![7; 5000]).unwrap();
        std::os::unix::fs::symlink(&file, run.path().join("seg-00000000.hcs")).unwrap();
        std::os::unix::fs::symlink("nowhere", run.path().join("seg-00000001.hcs")).unwrap();
        let listed = FsStorage::new(run.path()).list().unwrap();
        let linked = FileEntry {
            name: "seg-00000000.hcs".to_owned(),
            length: 5000,
        };
        assert_eq!(listed, [linked]);
    }
}
