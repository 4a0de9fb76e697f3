//! Training continues after a storage failure: lost steps are counted and named in the trace, and recording resumes
//! when it can.

use std::io::ErrorKind;
use std::ops::Range;
use std::time::Duration;

use hindcast_format::{Severity, Status, Trace};
use hindcast_recorder::{OnError, Recorder, RecorderError, Statistics};

use crate::common::*;

/// Longer than the recorder waits before it tries storage again.
const LATER: Duration = Duration::from_millis(1_100);
const NEVER: u64 = u64::MAX;

/// Takes steps, each written or lost before the next. Returns the variables before each.
fn steps(run: &Recorder, net: &Linear, range: Range<u64>) -> Vec<Vec<u8>> {
    let mut sgd = sgd(run, net);
    let mut seen = Vec::new();
    for step in range {
        seen.extend(train(run, &mut sgd, net, step..step + 1, 10).unwrap());
        let _ = run.flush();
    }
    seen
}

fn counter(trace: &Trace, name: &str) -> u64 {
    let counters = &trace.manifest().unwrap().counters;
    counters.get(name).copied().unwrap_or(0)
}

/// Checks that the trace holds every step bit for bit, except those that the statistics call lost, and that its
/// manifest has the same counts.
fn agrees(trace: &Trace, statistics: &Statistics, seen: &[Vec<u8>]) {
    let lost: Vec<u64> = statistics.lost_steps.iter().cloned().flatten().collect();
    let expected: Vec<(u64, Vec<u8>)> = (0..)
        .zip(seen.iter().cloned())
        .filter(|(step, _)| !lost.contains(step))
        .collect();
    assert_eq!(states(trace), expected, "{statistics}");
    assert_eq!(statistics.lost, lost.len() as u64);
    assert_eq!(statistics.written + statistics.lost, seen.len() as u64);
    assert_eq!(counter(trace, "lost"), statistics.lost);
    assert_eq!(
        counter(trace, "lost-from"),
        lost.first().copied().unwrap_or(0)
    );
    assert_eq!(
        counter(trace, "lost-to"),
        lost.last().map_or(0, |step| step + 1)
    );
    let report = trace.verify().unwrap();
    assert!(report.worst() <= Some(Severity::Note), "{report:#?}");
}

#[test]
fn recording_resumes_after_a_gap_when_storage_works_again() {
    for segment_steps in [4, 64] {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder
            .on_error(OnError::TrainOn)
            .segment_steps(segment_steps)
            .create(&net.map)
            .unwrap();
        let mut seen = steps(&run, &net, 0..10);
        storage.fail_nth(storage.calls(), true, ErrorKind::StorageFull);
        seen.extend(steps(&run, &net, 10..25));
        storage.fail_nth(NEVER, false, ErrorKind::Other);
        std::thread::sleep(LATER);
        seen.extend(steps(&run, &net, 25..40));
        let statistics = run.statistics();
        assert!(statistics.written > 20, "{statistics}");
        let summary = run.finish().unwrap();
        assert!(summary.head.is_some() && summary.steps == 40);
        let statistics = &summary.statistics;
        // The step at which storage is tried again is the last lost one.
        assert_eq!(
            statistics.lost_steps,
            std::slice::from_ref(&(10..26)),
            "{statistics}"
        );
        assert!(matches!(
            statistics.failure,
            Some(RecorderError::Storage { step: 10, .. })
        ));
        let trace = open(&storage);
        assert_eq!(trace.status(), Status::Finished);
        assert_eq!(trace.ranges().unwrap(), [0..10, 26..40]);
        agrees(&trace, statistics, &seen);
        assert_eq!(trace.final_state().unwrap().unwrap().0.bytes(), net.bytes());
    }
}

#[test]
fn a_run_whose_storage_works_again_before_its_end_gets_its_final_state() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.on_error(OnError::TrainOn).create(&net.map).unwrap();
    let mut seen = steps(&run, &net, 0..10);
    storage.fail_nth(storage.calls(), true, ErrorKind::StorageFull);
    seen.extend(steps(&run, &net, 10..20));
    storage.fail_nth(NEVER, false, ErrorKind::Other);
    let summary = run.finish().unwrap();
    assert_eq!(
        summary.statistics.lost_steps,
        std::slice::from_ref(&(10..20))
    );
    assert!(summary.head.is_some());
    let trace = open(&storage);
    assert_eq!(
        (trace.status(), trace.final_step()),
        (Status::Finished, Some(20))
    );
    agrees(&trace, &summary.statistics, &seen);
}

#[test]
fn a_run_that_is_dropped_counts_its_loss_too() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.on_error(OnError::TrainOn).create(&net.map).unwrap();
    steps(&run, &net, 0..10);
    storage.fail_nth(storage.calls(), true, ErrorKind::StorageFull);
    steps(&run, &net, 10..20);
    storage.fail_nth(NEVER, false, ErrorKind::Other);
    drop(run);
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Unfinished);
    assert_eq!((counter(&trace, "lost"), kept(&trace).len()), (10, 10));
}

/// A resumed run counts the steps that the session before it lost.
#[test]
fn a_resumed_run_still_counts_what_was_lost() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.on_error(OnError::TrainOn).create(&net.map).unwrap();
    let mut seen = steps(&run, &net, 0..10);
    storage.fail_nth(storage.calls(), true, ErrorKind::StorageFull);
    seen.extend(steps(&run, &net, 10..20));
    storage.fail_nth(NEVER, false, ErrorKind::Other);
    std::thread::sleep(LATER);
    seen.extend(steps(&run, &net, 20..30));
    drop(run);
    let (run, at) = on(&storage).create_or_resume(&net.map).unwrap();
    assert_eq!(at.step, 29);
    steps(&run, &net, 29..35);
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(trace.ranges().unwrap(), [0..10, 21..35]);
    assert_eq!(
        ["lost", "lost-from", "lost-to"].map(|name| counter(&trace, name)),
        [11, 10, 21]
    );
}

/// The first step after a gap has the right buffers before its forward pass, although the step before it is lost.
#[test]
fn a_batch_norms_statistics_are_right_after_a_gap() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let mean =
        candle_core::Var::zeros(1, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    net.map
        .data()
        .lock()
        .unwrap()
        .insert("norm.running_mean".to_owned(), mean.clone());
    let run = builder.on_error(OnError::TrainOn).create(&net.map).unwrap();
    let forward = |step: u64| {
        let value = candle_core::Tensor::new(&[step as f32], &candle_core::Device::Cpu).unwrap();
        mean.set(&value).unwrap();
    };
    let train = |range: Range<u64>| {
        for step in range {
            forward(step);
            steps(&run, &net, step..step + 1);
        }
    };
    train(0..5);
    storage.fail_nth(storage.calls(), true, ErrorKind::StorageFull);
    train(5..8);
    storage.fail_nth(NEVER, false, ErrorKind::Other);
    std::thread::sleep(LATER);
    train(8..12);
    run.finish().unwrap();
    let trace = open(&storage);
    let first = trace.ranges().unwrap().last().unwrap().start;
    assert_eq!(first, 9);
    let key = trace.read(first).unwrap().key.unwrap();
    assert_eq!(key.buffers_before(), 8f32.to_le_bytes());
}

/// Every storage call fails, once or until the end of the run. Training is never disturbed, and everything that is
/// missing is reported.
#[test]
fn whichever_storage_call_fails_all_missing_steps_are_reported() {
    let calls = {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.segment_steps(3).create(&net.map).unwrap();
        steps(&run, &net, 0..9);
        run.finish().unwrap();
        storage.calls()
    };
    for nth in 0..calls {
        for for_good in [false, true] {
            let (storage, builder) = in_memory();
            let net = Linear::new();
            storage.fail_nth(nth, for_good, ErrorKind::Other);
            let builder = builder.segment_steps(3).on_error(OnError::TrainOn);
            let Ok(run) = builder.create(&net.map) else {
                continue;
            };
            let seen = steps(&run, &net, 0..9);
            let summary = run.finish().unwrap();
            let statistics = &summary.statistics;
            assert!(
                statistics.failure.is_some(),
                "call {nth} failed, but the statistics have no failure"
            );
            let trace = open(&storage);
            if for_good {
                // Storage accepts no more writes, so the manifest can't hold the number of lost steps.
                let held = kept(&trace).len() as u64;
                assert_eq!(kept(&trace), (0..held).collect::<Vec<_>>());
                assert!(held >= 9 - statistics.lost, "call {nth}: {statistics}");
            } else {
                assert_eq!(trace.status(), Status::Finished, "call {nth}: {statistics}");
                agrees(&trace, statistics, &seen);
            }
        }
    }
}
