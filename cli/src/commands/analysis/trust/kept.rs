//! Results of derivative checks, kept in the user's cache folder.
//!
//! They can't be kept in the run's folder, where a foreign file counts as damage, nor next to it, where `influence runs/*`
//! would take them for runs. Only checks that passed are kept. The file's name is a digest of all that the result depends on, so
//! another run, another model or another version finds nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hindcast_analyzer::RecordedRun;
use hindcast_analyzer::check::{CheckOptions, signature};

/// Largest file that is read.
const MAX_BYTES: u64 = 4096;
/// Age from which a result is removed. A run that is analysed again later is checked again.
const MAX_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Where the result for this run and model is kept. `None` if the run has no digest, the model can't be run, or there is no
/// cache folder: then the check runs and says what is wrong.
pub(super) fn place(run: &RecordedRun<'_>, options: &CheckOptions) -> Option<PathBuf> {
    let folder = folder()?;
    let signature = signature(run, options).ok()??;
    Some(folder.join(signature))
}

/// The result that was kept.
pub(super) fn read(place: &Path) -> Option<String> {
    let metadata = fs::metadata(place).ok()?;
    // Reading a pipe would wait for a writer.
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return None;
    }
    let text = fs::read_to_string(place).ok()?;
    (!text.is_empty()).then_some(text)
}

/// Keeps a result. If that fails, the next analysis checks again; nothing is lost, so nothing is said.
pub(super) fn write(place: &Path, report: &str) {
    let write = || -> io::Result<()> {
        let folder = place.parent().ok_or(io::ErrorKind::NotFound)?;
        fs::create_dir_all(folder)?;
        // Renamed when it is whole, so that another process never reads a part of it.
        let part = place.with_extension(format!("{}.part", std::process::id()));
        fs::write(&part, report)?;
        fs::rename(&part, place)?;
        remove_old(folder)
    };
    let _ = write();
}

/// Removes results that are older than [`MAX_AGE`], and parts of results that a killed process left.
fn remove_old(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let age = SystemTime::now().duration_since(metadata.modified()?);
        if metadata.is_file() && age.is_ok_and(|age| age > MAX_AGE) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The folder for derivative checks: in `XDG_CACHE_HOME`, `LOCALAPPDATA` (Windows) or `.cache` in the home folder.
fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| {
            cfg!(windows)
                .then(|| set("LOCALAPPDATA").map(PathBuf::from))
                .flatten()
        })
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))
        // A relative one would be in the current folder, which may be a run.
        .filter(|path| path.is_absolute())?;
    Some(cache.join("hindcast").join("derivatives"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("some").join("folder").join("digest");
        assert_eq!(read(&place), None);
        write(&place, "33 tensors agree");
        assert_eq!(read(&place).as_deref(), Some("33 tensors agree"));
        assert_eq!(fs::read_dir(place.parent().unwrap()).unwrap().count(), 1);
        write(&place, &"x".repeat(5000));
        assert_eq!(read(&place), None, "not a result of ours");
    }

    #[test]
    fn old_results_are_removed_when_one_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        write(&old, "agree");
        let long_ago = SystemTime::now() - MAX_AGE - Duration::from_secs(60);
        let file = fs::File::options().write(true).open(&old).unwrap();
        file.set_modified(long_ago).unwrap();
        write(&new, "agree");
        assert_eq!(read(&old), None);
        assert_eq!(read(&new).as_deref(), Some("agree"));
    }

    #[test]
    fn a_folder_in_the_place_of_a_result_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        write(&file.join("digest"), "text");
        assert_eq!(read(&file.join("digest")), None);
    }
}
