//! Runs that were cut off and resumed.

use std::sync::Arc;

use candle_core::Tensor;
use hindcast_format::{MemStorage, Processor, Status, StepMeta, session_of};
use hindcast_recorder::{BatchInfo, Keep, LoadInto, OptimizerState, RecorderError, StepInfo};

use crate::common::*;

/// A run of `steps` steps, dropped without `finish`, in segments of four steps.
fn cut_off(steps: u64) -> (Arc<MemStorage>, Vec<Vec<u8>>) {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.segment_steps(4).create(&net.map).unwrap();
    let seen = train(&run, &mut sgd(&run, &net), &net, 0..steps, 6).unwrap();
    drop(run);
    (storage, seen)
}

#[test]
fn a_resumed_run_ends_like_one_that_was_never_cut_off() {
    let whole = {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.create(&net.map).unwrap();
        train(&run, &mut sgd(&run, &net), &net, 0..20, 6).unwrap();
        run.finish().unwrap();
        let trace = open(&storage);
        (
            states(&trace),
            (0..20)
                .map(|step| trace.meta(step).unwrap())
                .collect::<Vec<_>>(),
            trace.final_state().unwrap(),
        )
    };
    for at in [0, 1, 3, 4, 5, 8, 12] {
        let (storage, _) = cut_off(13);
        let net = Linear::new();
        let (run, resumed) = on(&storage)
            .segment_steps(4)
            .restore_variables()
            .resume(&net.map, at)
            .unwrap();
        assert_eq!(
            (resumed.step, resumed.optimizer_step, resumed.end),
            (at, at, 13)
        );
        assert_eq!(resumed.epoch, at.checked_sub(1).map(|last| last / 6));
        assert_eq!(run.next_step(), at);
        train(&run, &mut sgd(&run, &net), &net, at..20, 6).unwrap();
        let summary = run.finish().unwrap();
        assert_eq!(summary.steps, 20);
        let trace = open(&storage);
        assert_eq!(trace.status(), Status::Finished);
        let metas = (0..20).map(|step| trace.meta(step).unwrap());
        // The resumed session says how it was made.
        let session = session_of(&trace.meta(at).unwrap()).unwrap();
        assert_eq!(Processor::of(&session), Some(Processor::here()));
        let metas: Vec<_> = metas.map(StepMeta::without_session).collect();
        assert!(
            (states(&trace), metas, trace.final_state().unwrap()) == whole,
            "resumed at {at}"
        );
        assert_eq!(
            trace.manifest().unwrap().forks.len(),
            1,
            "the fork is logged"
        );
        let report = trace.verify().unwrap();
        assert!(
            report.findings.is_empty(),
            "resumed at {at}: {:?}",
            report.findings
        );
    }
}

#[test]
fn variables_from_the_right_checkpoint_pass_and_others_do_not() {
    let (storage, seen) = cut_off(13);
    let net = Linear::new();
    let error = on(&storage).resume(&net.map, 7).unwrap_err().to_string();
    assert!(
        error.contains("at step 7: \"b\" differs from the trace")
            && error.contains("restore_variables()"),
        "{error}"
    );
    assert_eq!(
        kept(&open(&storage)).len(),
        13,
        "a refused resume cuts nothing away"
    );
    // A checkpoint of step 7 that the user saved.
    let (copy, _) = cut_off(13);
    drop(on(&copy).restore_variables().resume(&net.map, 7).unwrap());
    assert_eq!(net.bytes(), seen[7]);
    let (run, _) = on(&storage).resume(&net.map, 7).unwrap();
    run.finish().unwrap();
    assert_eq!(kept(&open(&storage)), (0..7).collect::<Vec<_>>());
}

#[test]
fn a_run_can_be_resumed_after_its_last_step_and_after_its_end() {
    let (storage, _) = cut_off(5);
    let net = Linear::new();
    let error = on(&storage)
        .restore_variables()
        .resume(&net.map, 5)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("step 5 cannot be restored: the trace has no tensors of that step"),
        "{error}"
    );
    let error = on(&storage).resume(&net.map, 6).unwrap_err().to_string();
    assert!(
        error.contains(
            "its trace ends after 5 steps, so it cannot continue at step 6: resume at step 5 or before"
        ),
        "{error}"
    );
    let (run, _) = on(&storage).resume(&net.map, 5).unwrap();
    train(&run, &mut sgd(&run, &net), &net, 5..7, 6).unwrap();
    run.finish().unwrap();
    // A finished run has the state after its last step.
    let other = Linear::new();
    let (run, resumed) = on(&storage)
        .restore_variables()
        .resume(&other.map, 7)
        .unwrap();
    assert_eq!((resumed.step, other.bytes()), (7, net.bytes()));
    train(&run, &mut sgd(&run, &other), &other, 7..9, 6).unwrap();
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(kept(&trace), (0..9).collect::<Vec<_>>());
    assert_eq!(trace.manifest().unwrap().forks.len(), 2);
}

#[test]
fn the_fixed_settings_of_a_run_cannot_change() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder
        .keep(Keep::LastEpoch)
        .seed(3)
        .task("a")
        .create(&net.map)
        .unwrap();
    train(&run, &mut sgd(&run, &net), &net, 0..14, 6).unwrap();
    drop(run);
    let refused = |builder: hindcast_recorder::Builder| {
        builder
            .restore_variables()
            .resume(&net.map, 13)
            .unwrap_err()
            .to_string()
    };
    let error = refused(on(&storage).keep(Keep::All));
    assert!(error.contains("choice of steps to keep cannot change when it is resumed: the trace has \"last-epoch\", the builder was given \"all\""), "{error}");
    assert!(refused(on(&storage).seed(4)).contains("seed cannot change"));
    assert!(refused(on(&storage).task("b")).contains("task cannot change"));
    let other = Linear::of(candle_core::DType::F64);
    let error = on(&storage).resume(&other.map, 13).unwrap_err().to_string();
    assert!(error.contains("the trace has \"b\" (Parameter, f32 of shape [1], group 0), and the program gives \"b\" (Parameter, f64"), "{error}");
    let (_, builder) = in_memory();
    assert!(
        builder
            .resume(&net.map, 0)
            .unwrap_err()
            .to_string()
            .starts_with("cannot open the run the run"),
        "no run"
    );
    // The resumed run still keeps only the last epoch.
    let (run, _) = on(&storage)
        .restore_variables()
        .resume(&net.map, 13)
        .unwrap();
    train(&run, &mut sgd(&run, &net), &net, 13..30, 6).unwrap();
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(
        (trace.info().seed, kept(&trace)),
        (3, (24..30).collect::<Vec<_>>())
    );
}

#[test]
fn the_optimizers_state_is_restored_at_a_keyframe() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let state = |value: f32| {
        move || {
            Ok(vec![(
                "velocity".to_owned(),
                Tensor::new(&[value, -value], &candle_core::Device::Cpu)?,
            )])
        }
    };
    let run = builder
        .optimizer_state(&state(0.0))
        .segment_steps(3)
        .create(&net.map)
        .unwrap();
    for step in 0..8u16 {
        let now = state(f32::from(step));
        run.step(
            &StepInfo::new(BatchInfo::new(0, &[0]), 0.1)
                .optimizer_step(100 + u64::from(step))
                .optimizer(&now as &dyn OptimizerState),
        )
        .unwrap();
    }
    drop(run);
    let (run, resumed) = on(&storage)
        .optimizer_state(&state(0.0))
        .resume(&net.map, 6)
        .unwrap();
    assert_eq!(resumed.optimizer_step, 106);
    assert_eq!(
        resumed.optimizer_state.unwrap()["velocity"]
            .to_vec1::<f32>()
            .unwrap(),
        [6.0, -6.0]
    );
    drop(run);
    let (_run, resumed) = on(&storage)
        .optimizer_state(&state(0.0))
        .resume(&net.map, 5)
        .unwrap();
    assert!(
        resumed.optimizer_state.is_none(),
        "between keyframes the trace has no optimizer state"
    );
}

#[test]
fn a_run_that_keeps_every_nth_step_can_be_resumed_between_them() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.keep(Keep::EveryNth(4)).create(&net.map).unwrap();
    train(&run, &mut sgd(&run, &net), &net, 0..6, 6).unwrap();
    run.finish().unwrap();
    let error = on(&storage)
        .restore_variables()
        .resume(&net.map, 5)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the trace has no tensors of that step"),
        "{error}"
    );
    let (run, _) = on(&storage).resume(&net.map, 6).unwrap();
    train(&run, &mut sgd(&run, &net), &net, 6..14, 6).unwrap();
    run.finish().unwrap();
    // The first step after the cut opens a segment, so it is recorded with its tensors.
    let trace = open(&storage);
    assert_eq!(kept(&trace), [0, 4, 6, 8, 12]);
    assert!((0..14).all(|step| trace.meta(step).unwrap().indices == indices(step)));
    assert!(trace.verify().unwrap().is_ok());
}

/// A program that is started repeatedly, each time with a later last step.
#[test]
fn create_or_resume_continues_where_the_trace_ends() {
    let whole = {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.create(&net.map).unwrap();
        train(&run, &mut sgd(&run, &net), &net, 0..20, 6).unwrap();
        run.finish().unwrap();
        (
            states(&open(&storage)),
            open(&storage).final_state().unwrap(),
        )
    };
    let (storage, _) = in_memory();
    let again = || on(&storage).segment_steps(4);
    let mut starts = Vec::new();
    for until in [0, 5, 5, 9, 20] {
        let net = Linear::new();
        let (run, at) = again().create_or_resume(&net.map).unwrap();
        starts.push((at.step, at.end));
        train(
            &run,
            &mut sgd(&run, &net),
            &net,
            at.step..until.max(at.step),
            6,
        )
        .unwrap();
        match until {
            20 => drop(run.finish().unwrap()),
            _ => drop(run),
        }
    }
    // The last recorded step is taken again, because the newest state in the trace is the one before that step.
    assert_eq!(starts, [(0, 0), (0, 0), (4, 5), (4, 5), (8, 9)]);
    assert!(
        (
            states(&open(&storage)),
            open(&storage).final_state().unwrap()
        ) == whole
    );
    let error = again().create_or_resume(&Linear::new().map).unwrap_err();
    assert!(matches!(error, RecorderError::Finished { end: 20, .. }));
    let said = error.to_string();
    assert!(said.contains("it is finished, after 20 steps"), "{said}");
    assert_eq!(
        kept(&open(&storage)).len(),
        20,
        "a finished run is left alone"
    );
}

#[test]
fn with_optimizer_state_a_run_is_resumed_at_the_newest_keyframe() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let state = || {
        Ok(vec![(
            "velocity".to_owned(),
            Tensor::new(&[1f32, 2.0], &candle_core::Device::Cpu)?,
        )])
    };
    let run = builder
        .optimizer_state(&state)
        .segment_steps(3)
        .create(&net.map)
        .unwrap();
    for step in 0..8u16 {
        let info =
            StepInfo::new(BatchInfo::new(0, &[0]), 0.1).optimizer(&state as &dyn OptimizerState);
        run.step(&info.optimizer_step(u64::from(step))).unwrap();
    }
    drop(run);
    let (run, at) = on(&storage)
        .optimizer_state(&state)
        .create_or_resume(&net.map)
        .unwrap();
    assert_eq!((at.step, at.end), (6, 8));
    assert!(at.optimizer_state.is_some());
    drop(run);
}

#[test]
fn loading_a_step_that_is_not_kept_names_the_kept_steps() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.keep(Keep::EveryNth(4)).create(&net.map).unwrap();
    let seen = train(&run, &mut sgd(&run, &net), &net, 0..10, 6).unwrap();
    run.finish().unwrap();
    let end = net.bytes();
    let trace = open(&storage);
    for step in [0, 4, 8] {
        trace.load_into(&net.map, step).unwrap();
        assert_eq!(net.bytes(), seen[step as usize]);
    }
    let error = trace.load_into(&net.map, 5).unwrap_err().to_string();
    assert!(
        error.contains(
            "its tensors are not kept; the run keeps steps 0, 4, 8; training ended before step 10"
        ),
        "{error}"
    );
    let loaded = trace.load_into(&net.map, 10).unwrap();
    assert_eq!((net.bytes(), loaded.optimizer_step), (end, 10));
}

#[test]
fn a_data_sets_fingerprint_is_recorded() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let splits = [("train".to_owned(), 64u64, [3u8; 32])];
    let run = builder.fingerprint(splits).create(&net.map).unwrap();
    assert!(run.batch(0, &[64]).is_err(), "outside of the data");
    run.finish().unwrap();
    let hindcast_format::DataIdentity::Fingerprint { splits } = &open(&storage).info().data.clone()
    else {
        panic!("no fingerprint");
    };
    assert_eq!((splits[0].examples, splits[0].root), (64, [3; 32]));
}
