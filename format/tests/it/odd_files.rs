//! Entries that aren't regular files, and files with holes of a terabyte, under the names of a run's files.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hindcast_format::{
    FsStorage, LossKind, MANIFEST, RunWriter, Storage, Trace, recover, verify, verify_storage,
};

use crate::common::*;

const QUICK: Duration = Duration::from_secs(20);
const TERABYTE: u64 = 1 << 40;

fn run(folder: &Path, end: End) -> Truth {
    let plan = Plan {
        end,
        ..Plan::new(40)
    };
    record(Arc::new(FsStorage::new(folder)), &plan).unwrap()
}

fn kinds_of(folder: &Path) -> Vec<LossKind> {
    let new = folder.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    let report = recover(folder, &new, &mut |_, _| {}).unwrap();
    report.losses.iter().map(|l| l.kind).collect()
}

#[test]
fn a_pipe_folder_or_device_in_place_of_a_file_is_damage_and_never_blocks() {
    let begun = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    let segment = at.join("seg-00000001.hcs");
    let put: [(&str, Put); 3] = [
        ("a pipe", |path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        ("a folder", |path| fs::create_dir(path).unwrap()),
        ("a device", |path| {
            std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        }),
    ];
    for (what, put) in put {
        let _ = fs::remove_dir_all(&at);
        let truth = run(&at, End::Finish);
        let whole = fs::read(&segment).unwrap();
        fs::remove_file(&segment).unwrap();
        put(&segment);
        let report = verify(&at).unwrap();
        assert_eq!((report.steps_ok, report.steps), (30, 40), "{what}");
        let error = Trace::open(&at).unwrap().read(15).unwrap_err();
        // A folder is listed under another name, so the file is missing.
        let told = error.to_string();
        assert!(
            error.is_damage() && (told.contains(what) || told.contains("missing")),
            "{told}"
        );
        assert_eq!(kinds_of(&at), [LossKind::Step], "{what}");
        // The manifest.
        let _ = fs::remove_file(&segment);
        let _ = fs::remove_dir(&segment);
        fs::write(&segment, whole).unwrap();
        fs::remove_file(at.join(MANIFEST)).unwrap();
        put(&at.join(MANIFEST));
        let report = verify(&at).unwrap();
        assert!(!report.is_ok(), "{what}");
        assert_eq!((report.steps_ok, report.steps), (40, 40), "{what}");
        let trace = Trace::open(&at).unwrap();
        assert_eq!(check_forward(&trace, &truth).len(), 40);
        assert_eq!(kinds_of(&at), [LossKind::Manifest], "{what}");
    }
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
}

#[test]
fn a_link_to_a_segment_is_read_as_the_segment() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    run(&at, End::Finish);
    let segment = at.join("seg-00000001.hcs");
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&segment, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &segment).unwrap();
    let report = verify(&at).unwrap();
    assert!(report.is_ok(), "{report:#?}");
}

/// Creates something at a path.
type Put = fn(&Path);

fn stretch(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(TERABYTE).unwrap();
}

#[test]
fn a_listed_segment_is_read_only_up_to_its_listed_length() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    let truth = run(&at, End::Finish);
    stretch(&at.join("seg-00000001.hcs"));
    let begun = Instant::now();
    let report = verify(&at).unwrap();
    assert!(!report.is_ok(), "the excess is reported");
    assert_eq!((report.steps_ok, report.steps), (40, 40));
    let trace = Trace::open(&at).unwrap();
    assert!(trace.problems()[0].to_string().contains("1099511627776"));
    assert_eq!(check_forward(&trace, &truth).len(), 40);
    assert_eq!(kinds_of(&at), []);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
}

#[test]
fn holes_at_the_end_of_an_open_segment_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    let truth = run(&at, End::Leave);
    let last = fs::read_dir(&at)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "hcs"))
        .max()
        .unwrap();
    stretch(&last);
    let begun = Instant::now();
    let report = verify(&at).unwrap();
    assert!(report.is_ok(), "zeros are reserved space: {report:#?}");
    let trace = Trace::open(&at).unwrap();
    assert_eq!(check_forward(&trace, &truth).len(), 40);
    assert_eq!(kinds_of(&at), []);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
}

/// A manifest of a terabyte exceeds the limit. The segments give the run's description.
#[test]
fn a_manifest_beyond_the_limit_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    let truth = run(&at, End::Finish);
    stretch(&at.join(MANIFEST));
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(&at));
    let report = verify_storage(&storage).unwrap();
    assert!(!report.is_ok());
    let trace = Trace::open(&at).unwrap();
    assert_eq!(check_forward(&trace, &truth).len(), 40);
}

#[test]
fn a_segment_whose_name_is_not_utf8_is_found_by_its_content() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    run(&at, End::Finish);
    let strange = at.join(std::ffi::OsStr::from_bytes(b"seg-\xff.hcs"));
    if fs::rename(at.join("seg-00000001.hcs"), strange).is_err() {
        return; // The file system accepts text only.
    }
    let new = dir.path().join("new");
    let report = recover(&at, &new, &mut |_, _| {}).unwrap();
    assert!(report.is_lossless(), "{report:#?}");
    assert!(report.remarks.iter().any(|r| r.contains("seg-\\xff.hcs")));
    assert_eq!(Trace::open(&new).unwrap().span(), 0..40);
}

/// A bad entry of the folder hides nothing else.
#[test]
fn a_link_to_itself_is_damage_of_that_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    run(&at, End::Finish);
    let segment = at.join("seg-00000001.hcs");
    fs::remove_file(&segment).unwrap();
    std::os::unix::fs::symlink(&segment, &segment).unwrap();
    let report = verify(&at).unwrap();
    assert_eq!((report.steps_ok, report.steps), (30, 40));
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.text.contains("leads to itself")),
        "{report:#?}"
    );
    assert_eq!(kinds_of(&at), [LossKind::Step]);
    fs::remove_file(at.join(MANIFEST)).unwrap();
    std::os::unix::fs::symlink(MANIFEST, at.join(MANIFEST)).unwrap();
    let report = verify(&at).unwrap();
    assert_eq!(
        (report.is_ok(), report.steps_ok),
        (false, 30),
        "{report:#?}"
    );
    let lost = [LossKind::Step, LossKind::Manifest, LossKind::Segment];
    assert_eq!(kinds_of(&at), lost);
}

#[test]
fn files_that_are_not_part_of_the_run_are_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    run(&at, End::Finish);
    let before = verify(&at).unwrap().bytes;
    for name in ["seg-00000009.hcs", "blob"] {
        fs::write(at.join(name), "").unwrap();
        stretch(&at.join(name));
    }
    let begun = Instant::now();
    let report = verify(&at).unwrap();
    assert_eq!((report.is_ok(), report.bytes), (true, before));
    assert_eq!(kinds_of(&at), []);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
}

/// The next recorder removes what a killed recorder left next to the run that it was creating, and nothing else.
#[test]
fn half_created_runs_of_killed_recorders_are_removed_by_the_next_recorder() {
    let dir = tempfile::tempdir().unwrap();
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let beside = |name: String| dir.path().join(name);
    let left = beside(format!(".run.new-{}", ended.id()));
    fs::create_dir(&left).unwrap();
    fs::write(left.join(MANIFEST), "{}").unwrap();
    // A folder whose name doesn't end in a number, that of another run, and that of a living process.
    let kept = [
        beside(format!(".run.new-{}x", ended.id())),
        beside(format!(".other.new-{}", ended.id())),
        beside(format!(".run.new-{}", std::os::unix::process::parent_id())),
    ];
    for folder in &kept {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("file"), "").unwrap();
    }
    let writer = RunWriter::create(
        Arc::new(FsStorage::new(beside("run".to_owned()))),
        info(&layout()),
        hindcast_format::Durability::Os,
    );
    drop(writer.unwrap());
    assert!(!left.exists());
    for folder in &kept {
        assert!(folder.join("file").exists(), "{}", folder.display());
    }
}
