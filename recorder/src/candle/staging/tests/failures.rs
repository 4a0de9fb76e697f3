//! Copies that fail, and memory that can't be allocated. Nothing is lost without a message.

use std::slice::from_ref;
use std::time::Duration;

use hindcast_format::{Severity, Status};

use super::*;
use crate::OnError;

/// Longer than the recorder waits before it tries to record again.
const LATER: Duration = Duration::from_millis(1_100);
const WHY: &str = "an illegal memory access was encountered";

/// The number of copies that a new run has made.
fn begun(fake: &Fake) -> u64 {
    fake.see(|copies| copies.begun)
}

#[track_caller]
fn is_failure_of(error: &RecorderError, step: u64) {
    let RecorderError::Device { step: at, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(*at, step);
    let text = error.to_string();
    assert!(text.contains(WHY) && text.contains("the run"), "{text}");
}

/// The next recording call returns the error of a failed copy, and so does every later one. The steps before it stay.
#[test]
fn a_failed_copy_ends_the_recording_and_the_steps_before_it_stay() {
    for (failing, segment_steps) in [(0u64, 4), (3, 4), (4, 4), (6, 64)] {
        for fake in [
            Fake::new(Ends::AtOnce),
            Fake::of(Ends::Shuffled, two_devices),
        ] {
            let net = Net::new();
            let (storage, builder) = in_memory(&fake);
            let run = builder
                .segment_steps(segment_steps)
                .create(&net.map)
                .unwrap();
            // Each step makes as many copies as there are devices.
            let devices = begun(&fake);
            fake.fail(devices * (failing + 2) - 1, WHY);
            net.steps(&run, 0..failing + 1);
            let error = run.drain().unwrap_err();
            is_failure_of(&error, failing);
            for _ in 0..2 {
                let error = net.step(&run, failing + 1).unwrap_err();
                is_failure_of(&error, failing);
            }
            is_failure_of(&run.finish().unwrap_err(), failing);
            assert_eq!(fake.see(|copies| copies.stages), 0);
            if failing == 0 {
                continue;
            }
            let trace = open(&storage);
            assert_eq!(trace.status(), Status::Unfinished);
            assert_eq!(kept(&trace), (0..failing).collect::<Vec<_>>());
            assert!(trace.verify().unwrap().worst() <= Some(Severity::Note));
            drop(trace);
            resume_after_failure(&storage, failing);
        }
    }
}

/// Resumes the run at its last step, in a program whose device works, and finishes it.
fn resume_after_failure(storage: &Arc<MemStorage>, end: u64) {
    let net = Net::new();
    let fake = Fake::new(Ends::Shuffled);
    let builder = on(storage, Some(&fake));
    let (run, resumed) = builder.create_or_resume(&net.map).unwrap();
    assert_eq!(resumed.step, end - 1);
    net.steps(&run, resumed.step..end + 3);
    run.finish().unwrap();
    let trace = open(storage);
    assert_eq!(trace.status(), Status::Finished);
    assert_eq!(kept(&trace), (0..end + 3).collect::<Vec<_>>());
}

#[test]
fn a_failed_copy_of_the_last_step_or_of_the_final_state_fails_the_finish() {
    for (copy, step, steps) in [(3, 2, 2), (4, 3, 3)] {
        let net = Net::new();
        let fake = Fake::new(Ends::AtOnce);
        let (storage, builder) = in_memory(&fake);
        let run = builder.create(&net.map).unwrap();
        fake.set(Ends::Shuffled);
        fake.fail(copy, WHY);
        net.steps(&run, 0..3);
        is_failure_of(&run.finish().unwrap_err(), step);
        let trace = open(&storage);
        assert_eq!(trace.status(), Status::Unfinished);
        assert_eq!(kept(&trace), (0..steps).collect::<Vec<_>>());
    }
}

/// Under [`OnError::TrainOn`], a failed copy loses steps as failed storage does: they are counted, and recording resumes.
#[test]
fn training_continues_after_a_failed_copy_if_it_was_told_to() {
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, builder) = in_memory(&fake);
    let run = builder.on_error(OnError::TrainOn).create(&net.map).unwrap();
    fake.fail(begun(&fake) + 5, WHY);
    for step in 0..9 {
        net.step(&run, step).unwrap();
        let _ = run.drain();
    }
    std::thread::sleep(LATER);
    for step in 9..14 {
        net.step(&run, step).unwrap();
        let _ = run.drain();
    }
    let summary = run.finish().unwrap();
    assert!(summary.head.is_some());
    is_failure_of(&summary.statistics.failure.unwrap(), 5);
    // The step at which recording is tried again is the last lost one.
    assert_eq!(summary.statistics.lost_steps, from_ref(&(5..10)));
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Finished);
    assert_eq!(trace.ranges().unwrap(), [0..5, 10..14]);
    let key = trace.read(10).unwrap().key.unwrap();
    let buffers: Vec<u8> = [9.5f32, -9.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(key.buffers_before(), buffers);
    assert!(trace.verify().unwrap().worst() <= Some(Severity::Note));
}

/// A failed copy of the last step doesn't prevent the final state.
#[test]
fn the_final_state_is_recorded_after_a_failed_copy_if_training_continues() {
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, builder) = in_memory(&fake);
    let run = builder.on_error(OnError::TrainOn).create(&net.map).unwrap();
    fake.set(Ends::Shuffled);
    fake.fail(begun(&fake) + 3, WHY);
    net.steps(&run, 0..4);
    let summary = run.finish().unwrap();
    assert!(summary.head.is_some());
    assert_eq!(summary.statistics.lost_steps, from_ref(&(3..4)));
    let trace = open(&storage);
    assert_eq!(
        (trace.status(), kept(&trace)),
        (Status::Finished, vec![0, 1, 2])
    );
    assert!(trace.checkpoint(4).is_ok());
}

/// A step whose tensors can't be gathered is not recorded. The call can be repeated.
#[test]
fn a_failed_gathering_fails_the_call_and_the_call_can_be_repeated() {
    let net = Net::new();
    let fake = Fake::new(Ends::Shuffled);
    let (storage, builder) = in_memory(&fake);
    let run = builder.segment_steps(2).create(&net.map).unwrap();
    for step in 0..6 {
        fake.fail_gathering(WHY);
        let error = net.step(&run, step).unwrap_err();
        assert!(matches!(error, RecorderError::Candle { .. }), "{error}");
        assert!(error.to_string().contains(WHY), "{error}");
        net.step(&run, step).unwrap();
    }
    run.finish().unwrap();
    assert_eq!(kept(&open(&storage)), (0..6).collect::<Vec<_>>());
}

/// A step that fails after its copy has begun gives its stage back, although nobody waits for that copy.
#[test]
fn a_refused_step_gives_its_stage_back() {
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, mut builder) = in_memory(&fake);
    builder.options.rule = None;
    let state = || {
        Ok(vec![(
            "m".to_owned(),
            Tensor::zeros(2, DType::F32, &Device::Cpu)?,
        )])
    };
    let builder = builder
        .optimizer_state(&state)
        .segment_steps(2)
        .rule_later();
    let run = builder.create(&net.map).unwrap();
    for step in 0..8 {
        net.forward(step);
        let indices = [step];
        let info = StepInfo::new(BatchInfo::new(0, &indices), 0.1);
        if step % 2 == 0 {
            let error = run.step(&info).unwrap_err();
            assert!(matches!(error, RecorderError::Step { .. }), "{error}");
        }
        run.step(&info.optimizer(&state)).unwrap();
        net.update(step);
    }
    run.finish_with(&state).unwrap();
    assert_eq!(kept(&open(&storage)), (0..8).collect::<Vec<_>>());
}

/// Without memory for the stages, tensors are copied while the recording call waits. The summary says so.
#[test]
fn without_memory_for_stages_the_run_is_recorded_without_them() {
    let choose = |builder: Builder| builder.segment_steps(4);
    let program = |run: &Recorder, net: &Net| net.steps(run, 0..9);
    let net = Net::new();
    let files = new_run(&net.map, choose);
    let (expected, _) = record(&files, None, &net.map, choose, |run| program(run, &net));
    let fake = Fake::new(Ends::Held);
    fake.refuse("out of memory");
    let net = Net::new();
    let (got, statistics) = record(&files, Some(&fake), &net.map, choose, |run| {
        assert_eq!(run.estimate().device_memory, 0);
        program(run, &net);
    });
    assert!(segments(&got) == segments(&expected));
    let text = statistics.to_string();
    // With RUST_BACKTRACE, candle's errors end with a backtrace.
    let why = statistics.not_staged.unwrap();
    assert!(why.starts_with("out of memory"), "{why}");
    assert!(text.contains("training waited for every copy") && text.contains("out of memory"));
    let net = Net::new();
    let quiet = |builder: Builder| builder.segment_steps(4).without_staging();
    let (got, statistics) = record(&files, Some(&fake), &net.map, quiet, |run| {
        program(run, &net)
    });
    assert!(segments(&got) == segments(&expected));
    assert_eq!((statistics.not_staged, begun(&fake)), (None, 0));
}
