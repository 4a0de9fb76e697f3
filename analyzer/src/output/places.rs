//! Where results may be written: not inside a run's folder, and not over a file of another kind.

mod kind;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use hindcast_format::MANIFEST;

#[cfg(any(test, feature = "parquet"))]
pub(crate) use kind::EXAMPLE_DYNAMICS;
pub use kind::FIGURE;
pub use kind::{AFTER_PNG_HEADER, Kind, PICTURE, apart, is_same, replaceable, sidecar_path};
pub(crate) use kind::{DYNAMICS, EVENTS_VERSION, EVENTS_WRITER, HISTORY, PREDICTIONS};
#[cfg(feature = "parquet")]
pub(crate) use kind::{DYNAMICS_KEY, HISTORY_KEY, PREDICTIONS_KEY};
pub(crate) use kind::{ISSUES, ISSUES_FORMAT};

/// Refuses a path inside a run's folder, even if it is reached through links or `..`. Recorded data is never
/// overwritten, and a foreign file in a run's folder counts as damage.
///
/// # Errors
/// One of the folders above `path` contains a run.
pub fn outside_of_runs(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // A link may itself be inside a run, or may lead into one.
    let places = [resolved(parent)?, resolved(path)?];
    let run = places
        .iter()
        .flat_map(|place| place.ancestors())
        .find(|folder| is_run(folder));
    match run {
        None => Ok(()),
        Some(run) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is the folder of a recorded run, where no other files may be written: choose a path outside of it",
                run.display()
            ),
        )),
    }
}

/// A path without links and `..`. Its last components needn't exist.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut known = absolute.as_path();
    let mut rest = Vec::new();
    let mut out = loop {
        match (known.canonicalize(), known.parent()) {
            (Ok(found), _) => break found,
            (Err(_), Some(parent)) => {
                rest.extend(known.components().next_back());
                known = parent;
            }
            (Err(e), None) => return Err(e),
        }
    };
    for part in rest.into_iter().rev() {
        match part {
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    Ok(out)
}

/// Whether a folder contains a run: a run's manifest, or segments.
fn is_run(folder: &Path) -> bool {
    /// A run's manifest is an in-toto statement, and names that type at its beginning.
    const KIND: &[u8] = b"in-toto.io/Statement";
    const HEAD: u64 = 256;
    let manifest = folder.join(MANIFEST);
    let regular = std::fs::metadata(&manifest).is_ok_and(|m| m.is_file());
    if regular && let Ok(file) = File::open(&manifest) {
        let mut head = Vec::new();
        let read = file.take(HEAD).read_to_end(&mut head).is_ok();
        if read && head.windows(KIND.len()).any(|bytes| bytes == KIND) {
            return true;
        }
    }
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| hindcast_format::is_segment_name(&entry.file_name().to_string_lossy()))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::output::replace;

    #[test]
    fn no_path_leads_into_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for run in ["whole", "headless"] {
            std::fs::create_dir_all(at(run).join("inner")).unwrap();
        }
        std::fs::write(
            at("whole/manifest.json"),
            "{\n  \"_type\": \"https://in-toto.io/Statement/v1\",",
        )
        .unwrap();
        std::fs::write(at("headless/seg-00000002.f1.hcs"), "x").unwrap();
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(at("other/manifest.json"), "{\"name\": \"an extension\"}").unwrap();
        std::fs::write(at("other/seg-notes.hcs"), "").unwrap();
        std::os::unix::fs::symlink("whole", at("link")).unwrap();
        std::os::unix::fs::symlink(at("whole/manifest.json"), at("file.csv")).unwrap();
        std::os::unix::fs::symlink("../other/x.csv", at("whole/out.csv")).unwrap();
        for into in [
            "whole/a.csv",
            "whole/inner/a.csv",
            "headless/a.csv",
            "link/a.csv",
            "link/inner/../a.csv",
            "other/../whole/a.csv",
            "none/../whole/a.csv",
            "file.csv",
            "whole/out.csv",
            "whole",
        ] {
            let error = outside_of_runs(&at(into)).unwrap_err().to_string();
            assert!(
                error.contains("folder of a recorded run"),
                "{into}: {error}"
            );
            assert!(replace::replace(&at(into), Kind::Page, |to| std::fs::write(to, "")).is_err());
            assert!(replace::try_folder(&at(into), Kind::Page).is_err());
        }
        for outside in [
            "a.csv",
            "other/a.csv",
            "none/a.csv",
            "whole/../a.csv",
            "link.csv",
        ] {
            outside_of_runs(&at(outside)).unwrap();
        }
        assert_eq!(std::fs::read_dir(at("whole")).unwrap().count(), 3);
    }
}
