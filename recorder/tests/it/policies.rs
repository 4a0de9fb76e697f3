//! Storage that is too slow, and storage that fails.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use hindcast_format::Status;
use hindcast_recorder::{OnError, RecorderError, WhenFull};

use crate::common::*;

const SLOW: Duration = Duration::from_millis(8);
/// Room for about three steps, in bytes.
const TIGHT: u64 = 2_000;

#[test]
fn block_waits_loses_nothing_and_reports_the_time_waited() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.queue_bytes(TIGHT).create(&net.map).unwrap();
    storage.slow_down(SLOW);
    let start = Instant::now();
    let seen = train(&run, &mut sgd(&run, &net), &net, 0..20, 10).unwrap();
    let training = start.elapsed();
    storage.slow_down(Duration::ZERO);
    let summary = run.finish().unwrap();
    let statistics = summary.statistics;
    assert!(
        statistics.stalls > 0 && statistics.stalled > SLOW && statistics.stalled <= training,
        "{statistics}"
    );
    assert!(
        statistics.queue_peak_bytes <= TIGHT && statistics.queue_peak_steps <= 4,
        "{statistics:?}"
    );
    assert_eq!(states(&open(&storage)), (0..).zip(seen).collect::<Vec<_>>());
}

#[test]
fn stop_ends_the_recording_with_an_error_that_stays() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder
        .queue_bytes(TIGHT)
        .when_full(WhenFull::Stop)
        .create(&net.map)
        .unwrap();
    storage.slow_down(SLOW);
    let mut sgd = sgd(&run, &net);
    let error = train(&run, &mut sgd, &net, 0..200, 10).unwrap_err();
    let RecorderError::QueueFull {
        step, held, limit, ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(step > 0 && step < 200 && held <= limit && limit == TIGHT);
    assert!(
        error
            .to_string()
            .contains("storage is slower than training"),
        "{error}"
    );
    let before = net.bytes();
    assert_eq!(
        run.batch(0, &[1]).unwrap_err().to_string(),
        error.to_string()
    );
    assert_eq!(net.bytes(), before);
    storage.slow_down(Duration::ZERO);
    assert_eq!(run.finish().unwrap_err().to_string(), error.to_string());
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Unfinished);
    assert_eq!(
        kept(&trace),
        (0..step).collect::<Vec<_>>(),
        "all accepted steps are in the trace"
    );
}

#[test]
fn skip_keeps_metadata_and_digest_and_counts() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder
        .queue_bytes(TIGHT)
        .when_full(WhenFull::Skip)
        .segment_steps(6)
        .create(&net.map)
        .unwrap();
    storage.slow_down(SLOW);
    let mut sgd = sgd(&run, &net);
    let mut seen = train(&run, &mut sgd, &net, 0..30, 10).unwrap();
    storage.slow_down(Duration::ZERO);
    run.flush().unwrap();
    seen.extend(train(&run, &mut sgd, &net, 30..32, 10).unwrap());
    let statistics = run.finish().unwrap().statistics;
    assert!(
        statistics.skipped > 0 && statistics.written > 2,
        "{statistics}"
    );
    assert_eq!(statistics.skipped + statistics.written, 32);
    assert!(
        statistics
            .to_string()
            .contains("skipped because the queue was full"),
        "{statistics}"
    );
    let trace = open(&storage);
    let kept = kept(&trace);
    assert_eq!(kept.len() as u64, statistics.written);
    assert_eq!((kept[0], *kept.last().unwrap()), (0, 31));
    for (step, bytes) in (0u64..).zip(seen) {
        let state = hindcast_format::State::new(trace.layout(), bytes).unwrap();
        assert_eq!(
            trace.meta(step).unwrap().indices,
            indices(step),
            "the metadata of every step is recorded"
        );
        if kept.contains(&step) {
            assert_eq!(trace.read(step).unwrap().state, state);
        } else {
            assert_eq!(trace.gap_digest(step).unwrap(), Some(state.digest()));
        }
    }
    let report = trace.verify().unwrap();
    assert!(
        report.worst() <= Some(hindcast_format::Severity::Note),
        "{:?}",
        report.findings
    );
}

#[test]
fn a_step_larger_than_the_queue_passes_alone() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.queue_bytes(1).create(&net.map).unwrap();
    train(&run, &mut sgd(&run, &net), &net, 0..5, 10).unwrap();
    run.finish().unwrap();
    assert_eq!(kept(&open(&storage)), [0, 1, 2, 3, 4]);
}

/// Trains until the recorder refuses a step. Waits for the threads after every step.
fn train_until_refused(run: &hindcast_recorder::Recorder, net: &Linear) -> (u64, RecorderError) {
    let mut sgd = sgd(run, net);
    for step in 0..200 {
        let refused = train(run, &mut sgd, net, step..step + 1, 10)
            .err()
            .or_else(|| run.flush().err());
        if let Some(error) = refused {
            return (step, error);
        }
    }
    panic!("nothing was refused");
}

#[test]
fn a_failing_disk_ends_the_recording_and_what_was_written_stays() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.segment_steps(4).create(&net.map).unwrap();
    storage.fail_nth(30, true, ErrorKind::StorageFull);
    let (step, error) = train_until_refused(&run, &net);
    let text = error.to_string();
    // The step itself, or the next one if the sync after it failed.
    let RecorderError::Storage { step: missing, .. } = &error else {
        panic!("{text}")
    };
    assert!(
        *missing == step || *missing == step + 1,
        "{text} after step {step}"
    );
    assert!(
        text.starts_with("recording the run failed at step") && text.contains("can be resumed"),
        "{text}"
    );
    // Every later call fails in the same way, and the variables stay as they are.
    let before = net.bytes();
    assert_eq!(run.batch(0, &[1]).unwrap_err().to_string(), text);
    assert_eq!(run.flush().unwrap_err().to_string(), text);
    assert_eq!(net.bytes(), before);
    assert_eq!(run.statistics().failure.unwrap().to_string(), text);
    assert_eq!(run.finish().unwrap_err().to_string(), text);
    let kept = kept(&open(&storage));
    assert!(
        kept.len() as u64 >= step,
        "{kept:?} after a failure at step {step}"
    );
    assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>());
}

#[test]
fn training_continues_after_a_storage_failure_if_chosen() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.on_error(OnError::TrainOn).create(&net.map).unwrap();
    storage.fail_nth(20, true, ErrorKind::StorageFull);
    let mut sgd = sgd(&run, &net);
    for step in 0..60 {
        train(&run, &mut sgd, &net, step..step + 1, 10).unwrap();
        let _ = run.flush();
    }
    let trained = net.bytes();
    let summary = run.finish().unwrap();
    assert_eq!((summary.head, summary.steps), (None, 60));
    let statistics = summary.statistics;
    assert!(
        matches!(statistics.failure, Some(RecorderError::Storage { .. })),
        "{statistics}"
    );
    assert_eq!(statistics.written + statistics.lost, 60, "{statistics:?}");
    assert!(
        statistics
            .to_string()
            .contains(" to 59); recording the run failed at step"),
        "{statistics}"
    );
    let lost = 60 - statistics.lost..60;
    assert_eq!(statistics.lost_steps, std::slice::from_ref(&lost));
    let kept = kept(&open(&storage));
    assert!(kept.len() as u64 >= statistics.written);
    // Without a recorder, the same net trains to the same end.
    let (_, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    train(&run, &mut crate::common::sgd(&run, &net), &net, 0..60, 10).unwrap();
    assert_eq!(net.bytes(), trained);
}

/// Every storage call of a run fails once. There is no panic and no hang, the steps before the failure can be read
/// without gaps, and the error names the step.
#[test]
fn whichever_storage_call_fails_the_steps_before_it_can_be_read() {
    let calls = {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.segment_steps(3).create(&net.map).unwrap();
        train(&run, &mut sgd(&run, &net), &net, 0..9, 10).unwrap();
        run.finish().unwrap();
        storage.calls()
    };
    assert!(calls > 20);
    for nth in 0..calls {
        for for_good in [false, true] {
            let (storage, builder) = in_memory();
            let net = Linear::new();
            storage.fail_nth(nth, for_good, ErrorKind::Other);
            let run = match builder.segment_steps(3).create(&net.map) {
                Ok(run) => run,
                Err(error) => {
                    assert!(
                        error.to_string().starts_with("cannot open the run the run"),
                        "{error}"
                    );
                    continue;
                }
            };
            let mut sgd = sgd(&run, &net);
            let mut recorded = 0;
            let trained = (0..9).try_for_each(|step| {
                train(&run, &mut sgd, &net, step..step + 1, 10)?;
                run.flush()?;
                recorded = step + 1;
                Ok::<_, RecorderError>(())
            });
            let finished = run.finish();
            assert!(
                trained.is_err() || finished.is_err(),
                "call {nth} failed, but no error was returned"
            );
            if let Ok(trace) = hindcast_format::Trace::open_storage(
                storage.clone() as std::sync::Arc<dyn hindcast_format::Storage>
            ) {
                let kept = kept(&trace);
                assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>());
                assert!(
                    kept.len() as u64 >= recorded,
                    "call {nth}: {kept:?} of {recorded} flushed steps"
                );
            } else {
                assert_eq!(recorded, 0, "call {nth}: the trace does not open");
            }
        }
    }
}
