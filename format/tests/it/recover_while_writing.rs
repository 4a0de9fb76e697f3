//! A run that changes while `recover` reads it is refused, and never taken for a damaged one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hindcast_format::{
    Durability, FileEntry, FormatError, Mapped, MemStorage, ReadFile, RecoverReport, RunWriter,
    Status, Storage, WriteFile, recover_storage, verify_storage,
};

use crate::common::*;

/// A run that is in one state for the first `at` reads, and in a later state from then on.
#[derive(Debug)]
struct Meanwhile {
    before: MemStorage,
    after: MemStorage,
    reads: AtomicU64,
    at: u64,
}

impl Meanwhile {
    fn now(&self) -> &MemStorage {
        if self.reads.fetch_add(1, Ordering::SeqCst) < self.at {
            &self.before
        } else {
            &self.after
        }
    }
}

/// `recover` must not write to the original.
fn refused<T>() -> io::Result<T> {
    Err(io::Error::other("the original was written to"))
}

impl Storage for Meanwhile {
    fn location(&self) -> String {
        "a run in use".to_owned()
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.now().list()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        self.now().open(name)
    }
    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.now().map(name)
    }
    fn create_run(&self, _: &[u8]) -> io::Result<()> {
        refused()
    }
    fn create(&self, _: &str) -> io::Result<Box<dyn WriteFile>> {
        refused()
    }
    fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
        refused()
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }
    fn sync(&self, _: &str) -> io::Result<()> {
        refused()
    }
    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }
}

/// Recovers once for every read before which the change can happen, and once with the change after the last read.
fn at_every_read(
    before: &MemStorage,
    after: &MemStorage,
) -> Vec<Result<(RecoverReport, MemStorage), FormatError>> {
    let mut outcomes = Vec::new();
    for at in 0.. {
        let run = Arc::new(Meanwhile {
            before: before.clone(),
            after: after.clone(),
            reads: AtomicU64::new(0),
            at,
        });
        let target = MemStorage::new();
        let (source, new): (Arc<dyn Storage>, Arc<dyn Storage>) =
            (run.clone(), Arc::new(target.clone()));
        let outcome = recover_storage(&source, &new, &mut |_, _| {});
        if outcome.is_ok() {
            assert!(verify_storage(&new).unwrap().is_ok(), "change at read {at}");
        }
        outcomes.push(outcome.map(|report| (report, target)));
        if run.reads.load(Ordering::SeqCst) <= at {
            return outcomes;
        }
    }
    unreachable!()
}

/// The number of recoveries that were refused because the run changed. Each refusal names the run, the reason, and what to do.
fn refusals(outcomes: &[Result<(RecoverReport, MemStorage), FormatError>]) -> usize {
    let errors = outcomes.iter().filter_map(|o| o.as_ref().err());
    errors
        .inspect(|e| {
            assert!(matches!(e, FormatError::Changed { .. }), "{e}");
            assert_eq!(
                e.to_string(),
                "a run in use: the run changed while it was read: a recorder is writing it, or it is being damaged or replaced; repeat this when nothing writes to it any more"
            );
        })
        .count()
}

#[test]
fn segments_that_a_ring_drops_meanwhile_are_not_reported_as_lost() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(60)
    };
    let (storage, truth) = recorded(&plan);
    let (mut writer, _) =
        RunWriter::resume(Arc::new(storage.clone()), 40, Durability::Seals).unwrap();
    writer.open_segment(40).unwrap();
    let before = MemStorage::from_files(storage.files());
    assert_eq!(open(&before).unwrap().status(), Status::Open);
    writer.drop_oldest(1).unwrap();
    let after = MemStorage::from_files(storage.files());
    assert!(after.files().len() < before.files().len());

    let outcomes = at_every_read(&before, &after);
    assert!(refusals(&outcomes) > 0, "no read met the change");
    for (report, new) in outcomes.iter().filter_map(|o| o.as_ref().ok()) {
        assert!(report.is_lossless(), "{:?}", report.losses);
        let steps = check_forward(&open(new).unwrap(), &truth);
        assert_eq!(steps.len() as u64, report.steps);
        assert_eq!(steps.last(), Some(&39));
    }
    // A reader before the change gets everything; a reader after it gets what the ring keeps.
    let (first, last) = (
        outcomes[0].as_ref().unwrap(),
        outcomes.last().unwrap().as_ref().unwrap(),
    );
    assert_eq!(last.0.steps, 40);
    assert!(first.0.steps < 40);
}

#[test]
fn damage_between_the_survey_and_the_writing_is_never_missed() {
    let (before, truth) = recorded(&Plan::new(40));
    let after = MemStorage::from_files(before.files());
    let length = after
        .files()
        .iter()
        .find(|f| f.0 == "seg-00000001.hcs")
        .map(|f| f.1.len());
    let middle = length.unwrap() / 2;
    after.edit("seg-00000001.hcs", |b| b[middle] ^= 1);

    let outcomes = at_every_read(&before, &after);
    assert!(refusals(&outcomes) > 0, "no read met the change");
    for (report, new) in outcomes.iter().filter_map(|o| o.as_ref().ok()) {
        let steps = check_forward(&open(new).unwrap(), &truth);
        assert_eq!(steps.len() as u64, report.steps);
        assert!(report.is_lossless() == (steps.len() == 40), "{report:#?}");
    }
    assert!(outcomes.last().unwrap().as_ref().unwrap().0.is_lossless());
}
