//! A log of what was done to an in-memory run, and the state of the disk after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Size of a disk sector in bytes. Disks write a sector completely or not at all.
const SECTOR: usize = 512;

/// One logged change.
#[derive(Debug, Clone)]
pub(super) enum Op {
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
    /// The process is killed after `operations`. If the next operation is a write, `bytes` of it are done.
    Kill {
        /// Operations done; see [`MemStorage::operations`](crate::MemStorage::operations).
        operations: usize,
        /// Bytes of the next one.
        bytes: usize,
    },
    /// The power fails after `operations`. Whether an unsynced sector or name is kept or lost is up to `keep`.
    PowerLoss {
        /// Operations done.
        operations: usize,
        /// Called once for every unsynced sector and every unsynced creation or removal; true keeps it.
        keep: &'a mut dyn FnMut() -> bool,
    },
}

pub(super) type Files = BTreeMap<String, Arc<Vec<u8>>>;

pub(super) fn apply(op: &Op, exists: &mut bool, files: &mut Files) {
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

pub(super) fn killed(
    log: &[Op],
    operations: usize,
    bytes: usize,
) -> (bool, Vec<(String, Vec<u8>)>) {
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
        // A killed replacement leaves its temporary file.
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

/// A file's content on the disk, synced and current.
#[derive(Default, Clone)]
struct Disk {
    synced: Vec<u8>,
    /// The content as the operating system shows it to readers.
    now: Vec<u8>,
}

impl Disk {
    fn settle(&self, keep: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let longest = self.now.len().max(self.synced.len());
        // The length is separate metadata: the old or the new one.
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

pub(super) fn power_lost(
    log: &[Op],
    keep: &mut dyn FnMut() -> bool,
) -> (bool, Vec<(String, Vec<u8>)>) {
    // An inode lives as long as a name leads to it, on the disk or in memory.
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
