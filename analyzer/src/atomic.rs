//! Files that appear whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Lets `write` make a temporary file beside `path`, brings it to the disk, and gives it its name.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary(path);
    let done = write(&temporary)
        .and_then(|()| OpenOptions::new().write(true).open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    if done.is_err() {
        // The temporary file is ours; whether it can be removed changes nothing about the error.
        let _ = std::fs::remove_file(&temporary);
    }
    done
}

/// Can a file be made beside `path`? Better known before hours of work than after them.
pub(crate) fn try_folder(path: &Path) -> io::Result<()> {
    let temporary = temporary(path);
    File::create(&temporary)?;
    std::fs::remove_file(&temporary)
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
    fn what_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, |to| std::fs::write(to, "old")).unwrap();
        let error = replace(&path, |to| {
            std::fs::write(to, "half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(error.is_err());
        try_folder(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(try_folder(&folder.path().join("no/such/folder")).is_err());
    }
}
