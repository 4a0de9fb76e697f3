//! Opens regular files only. A pipe, a device or a socket under the name of a file must not make a reader hang or read
//! without end.
//!
//! `model/src/files.rs` opens the input files that a user names by the same rule. The two crates don't depend on each
//! other, so a change here belongs there, too.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The kind of a directory entry that isn't a regular file.
#[derive(Debug, thiserror::Error)]
#[error("expected a regular file, got {0}")]
struct NotRegular(&'static str);

/// Opens a regular file, or a link to one, for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Checked before opening, because opening has effects on some devices. Checked again afterwards, because the name
    // may lead elsewhere by then.
    let kind = std::fs::metadata(path).map_err(|e| match e.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
            not("a link that leads to itself")
        }
        _ => e,
    })?;
    check(kind.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits() as i32)
        .open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

fn check(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        Ok(())
    } else {
        Err(not(named(kind)))
    }
}

fn not(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, NotRegular(what))
}

fn named(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe (FIFO)"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "something else"
    }
}

/// The kind of the entry, if opening failed because it isn't a regular file.
pub(crate) fn not_regular(error: &io::Error) -> Option<&'static str> {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<NotRegular>())
        .map(|NotRegular(kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_a_regular_file_is_refused_with_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        open(&at("file")).unwrap();
        open(&at("link")).unwrap();
        let fifo = at("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink(&fifo, at("link to fifo")).unwrap();
        std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, kind) in [
            (fifo, "pipe"),
            (at("link to fifo"), "pipe"),
            (at("loop"), "leads to itself"),
            (at("socket"), "socket"),
            (dir.path().to_owned(), "folder"),
            ("/dev/zero".into(), "device"),
        ] {
            let error = open(&path).unwrap_err();
            assert!(not_regular(&error).unwrap().contains(kind), "{error}");
            assert!(error.to_string().contains(kind), "{error}");
        }
        let missing = open(&at("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(not_regular(&missing).is_none());
    }
}
