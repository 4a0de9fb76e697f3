//! Files that appear whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::output::places::{Kind, replaceable};

/// Writes a result of this kind. Refuses a path inside a run's folder and a file of another kind.
pub fn replace(
    path: &Path,
    kind: Kind,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    replaceable(path, kind)?;
    replace_checked(path, write)
}

/// Lets `write` fill a temporary file next to `path`, syncs it to disk, and renames it. The caller has checked that
/// the path is [`replaceable`].
pub fn replace_checked(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    sweep(path);
    let temporary = temporary(path);
    // The lock shows that this process is running, even to other machines, where its id means nothing.
    let _claimed = claim(&temporary)?;
    let done = write(&temporary)
        .and_then(|()| OpenOptions::new().write(true).open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if done.is_err() {
        // The temporary file is ours. If it can't be removed, the error is still the same.
        let _ = std::fs::remove_file(&temporary);
    }
    done
}

/// Refuses a path where a result of this kind can't be written later. Called before a computation that may take hours.
pub fn try_folder(path: &Path, kind: Kind) -> io::Result<()> {
    folder_of(path)?;
    replaceable(path, kind)?;
    sweep(path);
    let temporary = temporary(path);
    File::create(&temporary)?;
    std::fs::remove_file(&temporary)
}

/// Refuses a path whose folder doesn't exist.
///
/// # Errors
/// The text names the folder.
pub fn folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if folder.is_dir() {
        return Ok(());
    }
    let shown = folder.display();
    let said = if folder.exists() {
        format!("{shown} is a file, not a folder")
    } else {
        format!("there is no folder {shown}")
    };
    Err(io::Error::new(io::ErrorKind::NotFound, said))
}

/// Creates the temporary file and locks it for as long as it is open. On file systems without locks it is only
/// created.
fn claim(temporary: &Path) -> io::Result<File> {
    let file = File::create(temporary)?;
    let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    Ok(file)
}

/// Removes temporary files that killed writers of the same file left next to it: those with exactly such a name whose
/// process has ended and which aren't locked. Failures are ignored, since a leftover file only takes space.
fn sweep(path: &Path) {
    let Some(name) = path.file_name() else {
        return;
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let left = entry.file_name();
        let pid = left
            .as_encoded_bytes()
            .strip_prefix(name.as_encoded_bytes())
            .and_then(|rest| rest.strip_prefix(b"."))
            .and_then(|rest| rest.strip_suffix(b".tmp"))
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse::<i32>().ok())
            .and_then(rustix::process::Pid::from_raw);
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && pid.is_some_and(has_ended) && unlocked(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn has_ended(pid: rustix::process::Pid) -> bool {
    rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

fn unlocked(path: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    File::open(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace_checked(&path, |to| std::fs::write(to, "old")).unwrap();
        let error = replace_checked(&path, |to| {
            std::fs::write(to, "half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(error.is_err());
        try_folder(&path, Kind::Page).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(try_folder(&folder.path().join("no/such/folder"), Kind::Page).is_err());
    }

    #[test]
    fn the_next_writer_removes_only_what_a_killed_writer_left() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // The id of a process that has ended is free for now.
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (gone, ours) = (ended.id(), std::process::id());
        let left = [format!("a.csv.{gone}.tmp")];
        let not_left = [
            format!("b.csv.{gone}.tmp"),
            format!("a.csv.{ours}.tmp"),
            "a.csv.tmp".to_owned(),
            "a.csv.x1.tmp".to_owned(),
            "a.csv.-1.tmp".to_owned(),
            format!("a.csv.{gone}.tmp.bak"),
        ];
        for name in left.iter().chain(&not_left) {
            std::fs::write(at(name), "half").unwrap();
        }
        // Another writer's file, locked as if by a process on another machine.
        let mut other = std::process::Command::new("true").spawn().unwrap();
        other.wait().unwrap();
        let locked = format!("a.csv.{}.tmp", other.id());
        let _held = claim(&at(&locked)).unwrap();
        try_folder(&at("a.csv"), Kind::Page).unwrap();
        assert!(left.iter().all(|name| !at(name).exists()));
        let kept = not_left
            .iter()
            .filter(|name| !name.contains(&ours.to_string()));
        for name in kept.chain([&locked]) {
            assert!(at(name).exists(), "{name}");
        }
        std::fs::write(at(&left[0]), "half").unwrap();
        replace_checked(&at("a.csv"), |to| std::fs::write(to, "whole")).unwrap();
        assert!(!at(&left[0]).exists());
        assert_eq!(std::fs::read_to_string(at("a.csv")).unwrap(), "whole");
    }
}
