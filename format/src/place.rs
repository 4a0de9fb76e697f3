//! Where a run that is made from another one is written, and how it gets its name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use crate::FormatError;

/// Where the new run is written until it has been checked: a hidden folder next to its final place.
pub(crate) struct Place {
    new: PathBuf,
    pub temporary: PathBuf,
    published: bool,
}

impl Place {
    /// The place of a new run at `new`, made from the run in `run`. The hidden folder's name contains `doing`, such as `recovering`.
    ///
    /// # Errors
    /// Something is there already, or it lies inside the run that is read.
    pub fn beside(run: &Path, new: &Path, doing: &str) -> Result<Place, FormatError> {
        let refuse = |kind: io::ErrorKind, why: &str| {
            FormatError::io(
                new.display().to_string(),
                "make the new run",
                io::Error::new(kind, why.to_owned()),
            )
        };
        // As for a recorder, an empty folder isn't a run.
        let taken = match std::fs::read_dir(new) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(_) => new.exists(),
        };
        if taken {
            return Err(FormatError::AlreadyExists {
                path: new.display().to_string(),
            });
        }
        let name = new
            .file_name()
            .ok_or_else(|| refuse(io::ErrorKind::InvalidInput, "the path names no folder"))?;
        let parent = match new.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if let (Ok(run), Some(inside)) = (run.canonicalize(), existing(parent))
            && inside.starts_with(&run)
        {
            return Err(refuse(
                io::ErrorKind::InvalidInput,
                "it lies inside the run that is read, which is never written to",
            ));
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{doing}-"));
        remove_abandoned(parent, &hidden);
        hidden.push(std::process::id().to_string());
        let temporary = parent.join(hidden);
        if temporary.exists() {
            return Err(FormatError::AlreadyExists {
                path: temporary.display().to_string(),
            });
        }
        Ok(Place {
            new: new.to_owned(),
            temporary,
            published: false,
        })
    }

    /// Names the new run, which the user chose, in place of the hidden folder in which it is written.
    pub fn named(&self, mut error: FormatError) -> FormatError {
        if let FormatError::Io { path, .. } = &mut error
            && let Some(inside) = path.strip_prefix(&self.temporary.display().to_string())
        {
            *path = format!("{}{inside}", self.new.display());
        }
        error
    }

    /// Gives the run its name, once it is complete, synced and checked.
    pub fn publish(mut self) -> Result<(), FormatError> {
        std::fs::rename(&self.temporary, &self.new).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                FormatError::AlreadyExists {
                    path: self.new.display().to_string(),
                }
            }
            _ => FormatError::io(
                self.new.display().to_string(),
                "giving the new run its name",
                e,
            ),
        })?;
        self.published = true;
        if let Some(parent) = self.temporary.parent() {
            // Best effort. If the folder can't be synced, a power cut may undo the renaming.
            let _ = std::fs::File::open(parent).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // This process made the folder: the folder's name contains the process number, and `beside` refused a name that was taken.
        if !self.published && self.temporary.exists() {
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Removes the folders that killed processes with the same task and the same place left behind. Such a folder is an unchecked copy; the original run is
/// unchanged. A folder is removed only if its process has ended and it isn't locked.
fn remove_abandoned(parent: &Path, hidden: &OsStr) {
    let folder = or_here(parent);
    // Best effort: a folder that stays only takes space.
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let pid = crate::process::pid_of_name(&entry.file_name(), hidden);
        if pid.is_some_and(|pid| crate::process::is_abandoned(pid, &entry.path())) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The nearest ancestor that exists, with links resolved.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find_map(|p| or_here(p).canonicalize().ok())
}

/// The path, or `.` for an empty one.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}
