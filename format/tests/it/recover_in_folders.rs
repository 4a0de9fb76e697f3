//! Recovery in real folders and on failing disks: the new run appears complete or not at all, and the original is unchanged.

use std::sync::Arc;

use hindcast_format::{
    Access, Derive, FormatError, MemStorage, Storage, Trace, derive, derive_storage, recover,
    recover_storage,
};

use crate::common::*;
use crate::damage::small_plan;

#[test]
fn in_folders_the_new_run_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (run, new) = (dir.path().join("run"), dir.path().join("out/new"));
    let plan = Plan::new(24);
    let truth = record(Arc::new(hindcast_format::FsStorage::new(&run)), &plan).unwrap();
    let before = snapshot(&run);
    let report = recover(&run, &new, &mut |_, _| {}).unwrap();
    assert!(report.is_lossless());
    assert_eq!(report.recovered, new.display().to_string());
    assert_eq!(
        snapshot(&run),
        before,
        "bytes, lengths and times of the original"
    );
    let trace = Trace::open(&new).unwrap();
    assert_eq!(check_forward(&trace, &truth).len(), 24);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("out")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing else stays behind: {left:?}");

    // Never over existing files, never inside the original.
    let error = recover(&run, &new, &mut |_, _| {}).unwrap_err();
    assert!(
        matches!(error, FormatError::AlreadyExists { .. }),
        "{error}"
    );
    let error = recover(&run, &run, &mut |_, _| {}).unwrap_err();
    assert!(
        matches!(error, FormatError::AlreadyExists { .. }),
        "{error}"
    );
    let error = recover(&run, run.join("deep/inside"), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("inside the run"), "{error}");
    let file = dir.path().join("file");
    std::fs::write(&file, b"mine").unwrap();
    let error = recover(&run, &file, &mut |_, _| {}).unwrap_err();
    assert!(
        matches!(error, FormatError::AlreadyExists { .. }),
        "{error}"
    );
    let error = recover(
        dir.path().join("nowhere"),
        dir.path().join("x"),
        &mut |_, _| {},
    );
    assert!(matches!(error, Err(FormatError::NotARun { .. })));
    assert_eq!(snapshot(&run), before);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    assert!(!dir.path().join("x").exists());
}

/// Names, times and bytes of all files.
fn snapshot(folder: &std::path::Path) -> Vec<(String, std::time::SystemTime, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| {
            let path = e.unwrap().path();
            let time = std::fs::metadata(&path).unwrap().modified().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            (path.display().to_string(), time, bytes)
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_failing_disk_leaves_the_original_as_it_was() {
    let (storage, _) = recorded(&small_plan());
    let before = storage.files();
    for nth in 0.. {
        let target = MemStorage::new();
        target.fail_nth(nth, true, std::io::ErrorKind::StorageFull);
        let result = recover_storage(
            &(Arc::new(storage.clone()) as Arc<dyn Storage>),
            &(Arc::new(target) as Arc<dyn Storage>),
            &mut |_, _| {},
        );
        assert_eq!(storage.files(), before);
        match result {
            Err(FormatError::Io { .. }) => {}
            Err(e) => panic!("call {nth}: {e}"),
            Ok(report) => {
                assert!(report.is_lossless() && nth > 10);
                break;
            }
        }
    }
}

#[test]
fn a_failing_disk_leaves_the_original_of_a_pruned_run_as_it_was() {
    let (storage, _) = recorded(&small_plan());
    let before = storage.files();
    let what = Derive::Prune("every=2".parse().unwrap());
    for nth in 0.. {
        let target = MemStorage::new();
        target.fail_nth(nth, true, std::io::ErrorKind::StorageFull);
        let result = derive_storage(
            &(Arc::new(storage.clone()) as Arc<dyn Storage>),
            &(Arc::new(target) as Arc<dyn Storage>),
            &what,
            None,
            &mut |_, _| {},
        );
        assert_eq!(storage.files(), before);
        match result {
            Err(FormatError::Io { .. }) => {}
            Err(e) => panic!("call {nth}: {e}"),
            Ok(_) => {
                assert!(nth > 10);
                break;
            }
        }
    }
}

/// As for a recovery: whole or not at all, never over existing files, never inside the original, and leftovers of killed processes are
/// removed.
#[test]
fn a_pruned_run_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (run, new) = (dir.path().join("run"), dir.path().join("out/new"));
    let storage = Arc::new(hindcast_format::FsStorage::new(&run));
    record(storage, &Plan::new(24)).unwrap();
    let before = snapshot(&run);
    let what = Derive::Prune("last-epoch".parse().unwrap());
    let left = dir
        .path()
        .join(format!("out/.new.pruning-{}", number_of_an_ended_process()));
    std::fs::create_dir_all(&left).unwrap();
    let pruned =
        |new: &std::path::Path| derive(&run, new, &what, None, &Access::default(), &mut |_, _| {});
    let report = pruned(&new).unwrap();
    assert_eq!(report.written, new.display().to_string());
    let there: Vec<_> = std::fs::read_dir(dir.path().join("out")).unwrap().collect();
    assert_eq!(there.len(), 1, "nothing else stays behind: {there:?}");
    for place in [new, run.clone()] {
        let error = pruned(&place).unwrap_err();
        assert!(
            matches!(error, FormatError::AlreadyExists { .. }),
            "{error}"
        );
    }
    let error = pruned(&run.join("deep/inside")).unwrap_err();
    assert!(error.to_string().contains("inside the run"), "{error}");
    let what = Derive::Prune("90..95".parse().unwrap());
    let other = dir.path().join("out/other");
    derive(
        &run,
        &other,
        &what,
        None,
        &Access::default(),
        &mut |_, _| {},
    )
    .unwrap_err();
    assert_eq!(
        std::fs::read_dir(dir.path().join("out")).unwrap().count(),
        1
    );
    assert_eq!(snapshot(&run), before);
}

/// The process number of a process that has ended.
fn number_of_an_ended_process() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[test]
fn the_leftovers_of_a_killed_recovery_are_removed_by_the_next_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    record(
        Arc::new(hindcast_format::FsStorage::new(&run)),
        &Plan::new(12),
    )
    .unwrap();
    let ended = number_of_an_ended_process();
    let alive = std::os::unix::process::parent_id();
    let folder = |name: String| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("seg-00000000.hcs"), b"half").unwrap();
        path
    };
    let left = folder(format!(".new.recovering-{ended}"));
    let kept = [
        folder(format!(".new.recovering-{alive}")), // still running
        folder(format!(".other.recovering-{ended}")), // another run's
        folder(".new.recovering-".to_owned()),
        folder(".new.recovering-12x".to_owned()),
    ];
    recover(&run, dir.path().join("new"), &mut |_, _| {}).unwrap();
    assert!(!left.exists(), "the leftover is still there");
    for path in &kept {
        assert!(path.join("seg-00000000.hcs").exists(), "{}", path.display());
    }

    // A locked folder is in use, whatever process number its name has.
    let left = folder(format!(".again.recovering-{ended}"));
    let lock = std::fs::File::open(&left).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    recover(&run, dir.path().join("again"), &mut |_, _| {}).unwrap();
    assert!(left.exists());
    drop(lock);
    std::fs::remove_dir_all(dir.path().join("again")).unwrap();
    recover(&run, dir.path().join("again"), &mut |_, _| {}).unwrap();
    assert!(!left.exists());
}
