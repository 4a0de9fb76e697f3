//! Which steps stay on disk, for every `Keep`.

use hindcast_recorder::{Keep, Recorder};

use crate::common::*;

/// Records `steps` steps, ten per epoch. Compares each step that the trace holds with what the loop saw, and returns
/// their numbers.
fn record(
    keep: Keep,
    steps: u64,
    segment: Option<u32>,
) -> (Vec<u64>, hindcast_recorder::Summary, hindcast_format::Trace) {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let builder = builder.keep(keep).expected_steps(steps, 10);
    let run = match segment {
        Some(segment) => builder.segment_steps(segment),
        None => builder,
    };
    let run = run.create(&net.map).unwrap();
    let seen = train(&run, &mut sgd(&run, &net), &net, 0..steps, 10).unwrap();
    let summary = run.finish().unwrap();
    let trace = open(&storage);
    for (step, bytes) in states(&trace) {
        assert_eq!(bytes, seen[step as usize], "{keep}: step {step}");
    }
    assert_eq!(trace.final_state().unwrap().unwrap().0.bytes(), net.bytes());
    assert_eq!(trace.info().keep, keep.to_string());
    let report = trace.verify().unwrap();
    assert!(
        report.worst() <= Some(hindcast_format::Severity::Note),
        "{keep}: {:?}",
        report.findings
    );
    let kept = states(&trace).into_iter().map(|(step, _)| step).collect();
    (kept, summary, trace)
}

fn range(steps: std::ops::Range<u64>) -> Vec<u64> {
    steps.collect()
}

#[test]
fn all() {
    assert_eq!(record(Keep::All, 25, Some(4)).0, range(0..25));
}

#[test]
fn the_last_epoch() {
    // Whole epochs: only the last one stays.
    let (kept, summary, _) = record(Keep::LastEpoch, 40, Some(4));
    assert_eq!(kept, range(30..40));
    assert_eq!(summary.statistics.dropped_segments, 9);
    // Half an epoch at the end: the last complete epoch stays as well.
    assert_eq!(record(Keep::LastEpoch, 35, Some(4)).0, range(20..35));
    // One epoch, or less.
    assert_eq!(record(Keep::LastEpoch, 10, None).0, range(0..10));
    assert_eq!(record(Keep::LastEpoch, 3, None).0, range(0..3));
}

#[test]
fn the_disk_never_holds_more_than_two_epochs() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.keep(Keep::LastEpoch).create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    for step in 0..50 {
        train(&run, &mut sgd, &net, step..step + 1, 10).unwrap();
        run.flush().unwrap();
        let on_disk = kept(&open(&storage));
        let first = (step / 10).saturating_sub(1) * 10;
        assert_eq!(on_disk, range(first..step + 1), "after step {step}");
    }
    run.finish().unwrap();
}

#[test]
fn the_last_steps() {
    let (kept, ..) = record(Keep::LastSteps(8), 50, None);
    assert!(kept.len() >= 8 && kept.len() <= 12, "{kept:?}");
    assert_eq!(kept, range(50 - kept.len() as u64..50));
    assert_eq!(record(Keep::LastSteps(100), 50, None).0, range(0..50));
    assert_eq!(record(Keep::LastSteps(1), 5, None).0.last(), Some(&4));
}

#[test]
fn every_nth_step_and_the_metadata_of_all() {
    let (kept, summary, trace) = record(Keep::EveryNth(3), 20, Some(8));
    assert_eq!(kept, [0, 3, 6, 9, 12, 15, 18]);
    assert_eq!(
        (
            summary.statistics.written,
            summary.statistics.thinned,
            summary.steps
        ),
        (7, 13, 20)
    );
    for step in 0..20 {
        assert_eq!(trace.meta(step).unwrap().indices, indices(step));
    }
    // The digest stored for a step without tensors equals the digest of its recomputed tensors.
    let net = Linear::new();
    let (_, builder) = in_memory();
    let run = builder.create(&net.map).unwrap();
    let seen = train(&run, &mut sgd(&run, &net), &net, 0..5, 10).unwrap();
    let state = hindcast_format::State::new(trace.layout(), seen[4].clone()).unwrap();
    assert_eq!(trace.gap_digest(4).unwrap(), Some(state.digest()));
    assert_eq!(trace.gap_digest(3).unwrap(), None);
}

#[test]
fn a_budget() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder
        .keep(Keep::Budget(30_000))
        .segment_steps(4)
        .create(&net.map)
        .unwrap();
    let mut sgd = sgd(&run, &net);
    for step in 0..200 {
        train(&run, &mut sgd, &net, step..step + 1, 10).unwrap();
        run.flush().unwrap();
        let segments = || {
            storage
                .files()
                .into_iter()
                .filter(|(name, _)| name != hindcast_format::MANIFEST)
        };
        let total: usize = segments().map(|(_, bytes)| bytes.len()).sum();
        assert!(total <= 30_000, "{total} bytes after step {step}");
    }
    let summary = run.finish().unwrap();
    assert!(summary.statistics.dropped_segments > 0);
    let kept = kept(&open(&storage));
    assert_eq!(*kept.last().unwrap(), 199);
    assert!(kept.len() >= 8, "{kept:?}");
}

#[test]
fn the_estimate_is_available_before_the_first_step() {
    let net = Linear::new();
    let builder = Recorder::builder("nowhere").expected_steps(1000, 100);
    let estimate = builder.keep(Keep::LastEpoch).estimate(&net.map).unwrap();
    assert_eq!((estimate.raw_step, estimate.steps), (16, Some(1000)));
    assert_eq!(
        estimate.disk_peak,
        estimate.stored_run.map(|bytes| 2 * bytes)
    );
    assert!(
        estimate
            .to_string()
            .starts_with("keeping last-epoch: 16 B per step"),
        "{estimate}"
    );
    let (_, builder) = in_memory();
    let run = builder.create(&net.map).unwrap();
    assert!(
        run.estimate()
            .to_string()
            .contains("depends on the number of steps"),
        "{}",
        run.estimate()
    );
}

#[test]
fn a_keep_of_zero_is_refused_at_creation() {
    for keep in [Keep::LastSteps(0), Keep::EveryNth(0), Keep::Budget(0)] {
        let (_, builder) = in_memory();
        let error = builder
            .keep(keep)
            .create(&Linear::new().map)
            .unwrap_err()
            .to_string();
        assert!(error.contains("must not be zero"), "{error}");
    }
}

#[test]
fn drained_steps_are_visible_to_a_reader_at_once() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    for step in 0..20 {
        train(&run, &mut sgd, &net, step..step + 1, 10).unwrap();
        run.drain().unwrap();
        assert_eq!(kept(&open(&storage)), range(0..step + 1));
    }
    run.finish().unwrap();
}
