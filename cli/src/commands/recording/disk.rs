//! The warning about runs that probably don't fit on the disk.

use std::path::Path;

use hindcast_recorder::Estimate;

use crate::words::bytes;

/// The warning for `runs` runs of this expected size below `path`, if they probably don't fit on its disk.
pub(super) fn warning(estimate: &Estimate, runs: u64, path: &Path) -> Option<String> {
    let needed = estimate.disk_peak.or(estimate.stored_run)?;
    short_of_disk(needed.saturating_mul(runs), free_space(path)?, path)
}

/// Bytes that this user can still write on the file system of `path`, which needn't exist yet. `None` if the system doesn't
/// say.
pub(super) fn free_space(path: &Path) -> Option<u64> {
    let space = path
        .ancestors()
        .map(|p| {
            if p.as_os_str().is_empty() {
                Path::new(".")
            } else {
                p
            }
        })
        .find_map(|p| rustix::fs::statvfs(p).ok())?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// The warning before the first step of a run that probably doesn't fit on the disk. It isn't an error: the size is an
/// estimate, and space may be freed during training.
fn short_of_disk(needed: u64, free: u64, run: &Path) -> Option<String> {
    (needed > free).then(|| {
        format!(
            "warning: the run probably doesn't fit on the disk: about {} are needed and {} are free for {}. Free space, choose another disk \
             (--out), or keep less (--keep last-epoch, last-steps=N or budget=SIZE); on a full disk recording fails, and the steps \
             written until then are kept",
            bytes(needed),
            bytes(free),
            run.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_warning_names_the_need_the_free_space_and_a_remedy() {
        let run = Path::new("runs/mine");
        assert_eq!(short_of_disk(1_000, 1_000, run), None);
        let said = short_of_disk(2_000_000_000, 1_500_000_000, run).unwrap();
        for part in [
            "2.00 GB are needed",
            "1.50 GB are free",
            "runs/mine",
            "--keep last-epoch",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn free_space_is_that_of_the_nearest_existing_folder() {
        let dir = tempfile::tempdir().unwrap();
        let here = rustix::fs::statvfs(dir.path()).unwrap();
        let total = here.f_blocks.saturating_mul(here.f_frsize);
        let free = free_space(&dir.path().join("not/there/yet")).unwrap();
        assert!(free > 0 && free <= total, "{free} of {total}");
        assert!(free_space(Path::new("relative-and-not-there")).is_some());
    }
}
