//! A reader may open a run while it is being recorded, and sees a growing valid prefix.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hindcast_format::{FsStorage, MemStorage, RunWriter, Storage, Trace, verify, verify_with};

use crate::common::*;
use crate::damage::small_plan;

/// Opens a run again and again while another thread writes it.
fn read_while_writing(storage: impl Fn() -> Arc<dyn Storage>) {
    let plan = Plan {
        steps: 600,
        ..Plan::new(600)
    };
    let truth = truth(&plan);
    let done = AtomicBool::new(false);
    let writer = RunWriter::create(storage(), info(&plan.layout), plan.durability).unwrap();
    let looks = std::thread::scope(|scope| {
        scope.spawn(|| {
            record_from(writer, &plan, &truth, 0, |_, _| {}).unwrap();
            done.store(true, Ordering::Release);
        });
        let (mut seen, mut looks) = (0, 0);
        loop {
            let last_look = done.load(Ordering::Acquire);
            let trace = Trace::open_storage(storage()).unwrap();
            assert!(trace.problems().is_empty(), "{:?}", trace.problems());
            let ranges = trace.ranges().unwrap();
            let steps = ranges.first().map_or(0, |r| r.end);
            assert!(
                ranges.len() <= 1 && steps >= seen,
                "{ranges:?} after {seen}"
            );
            let newest = steps.saturating_sub(40)..steps;
            let mut iterator = trace.reverse(newest.clone());
            let mut expected = newest.end;
            while let Some(step) = iterator.next().unwrap() {
                expected -= 1;
                assert_eq!(step.meta.step, expected);
                assert!(step.state == &truth.states[expected as usize]);
            }
            assert_eq!(expected, newest.start);
            (seen, looks) = (steps, looks + 1);
            if last_look {
                assert_eq!(seen, plan.steps);
                return looks;
            }
        }
    });
    println!("{looks} looks at a run of 600 steps while it was recorded");
}

#[test]
fn a_reader_sees_a_growing_prefix_of_a_mapped_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    read_while_writing(|| Arc::new(FsStorage::new(&path).through_maps()));
}

#[test]
fn a_reader_sees_a_growing_prefix_of_a_plain_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    read_while_writing(|| Arc::new(FsStorage::new(&path)));
}

#[test]
fn a_reader_sees_a_growing_prefix_of_a_writer_in_memory() {
    let memory = MemStorage::new();
    read_while_writing(|| Arc::new(memory.clone()));
}

#[test]
fn verification_reports_its_progress() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    record(Arc::new(FsStorage::new(&path)), &small_plan()).unwrap();
    let mut seen = Vec::new();
    let report = verify_with(&path, &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(report, verify(&path).unwrap());
    let (done, total) = *seen.last().unwrap();
    assert_eq!(done, total);
    assert!(seen.len() as u64 > report.steps, "at least once per step");
    assert!(seen.iter().all(|s| s.1 == total) && seen.is_sorted());
}
