//! How a run ends: finished, dropped, panicked, failed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_nn::{Optimizer, SGD};
use hindcast_format::Status;
use hindcast_recorder::Recorder;

use crate::common::*;

#[test]
fn a_run_dropped_without_finish_is_sealed_as_unfinished() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let seen = train(&run, &mut sgd(&run, &net), &net, 0..5, 3).unwrap();
    drop(run);
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Unfinished);
    assert_eq!(states(&trace), (0..).zip(seen).collect::<Vec<_>>());
    assert!(trace.final_state().unwrap().is_none());
    assert!(trace.verify().unwrap().findings.is_empty());
}

#[test]
fn a_panic_in_the_loop_seals_the_run_too() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut sgd = sgd(&run, &net);
        train(&run, &mut sgd, &net, 0..4, 3).unwrap();
        let run = run;
        let _ = &run;
        panic!("the loop is broken");
    }));
    assert!(panicked.is_err());
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Unfinished);
    assert_eq!(kept(&trace), [0, 1, 2, 3]);
}

#[test]
fn a_panic_while_the_user_reads_its_optimizer_leaves_the_run_usable() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut wrapped = run
        .wrap(SGD::new(net.map.all_vars(), RATE).unwrap())
        .hyper(|_, _| panic!("no rates"));
    run.batch(0, &[1]).unwrap();
    let loss = net.loss(&[1]).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| wrapped.backward_step(&loss))).is_err());
    sgd(&run, &net).backward_step(&loss).unwrap();
    run.finish().unwrap();
    assert_eq!(open(&storage).status(), Status::Finished);
}

#[test]
fn an_optimizer_that_outlives_its_run_returns_an_error() {
    let (_, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    train(&run, &mut sgd, &net, 0..2, 3).unwrap();
    run.finish().unwrap();
    let before = net.bytes();
    let error = sgd
        .backward_step(&net.loss(&[0]).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the run the run is over") && error.contains("before step 2"),
        "{error}"
    );
    assert_eq!(net.bytes(), before, "an unrecorded step is not taken");
}

/// An optimizer that fails after it has changed a variable.
struct Broken(SGD);

impl Optimizer for Broken {
    type Config = f64;
    fn new(vars: Vec<candle_core::Var>, rate: f64) -> candle_core::Result<Self> {
        Ok(Self(SGD::new(vars, rate)?))
    }
    fn step(&mut self, gradients: &candle_core::backprop::GradStore) -> candle_core::Result<()> {
        self.0.step(gradients)?;
        candle_core::bail!("half way")
    }
    fn learning_rate(&self) -> f64 {
        self.0.learning_rate()
    }
    fn set_learning_rate(&mut self, rate: f64) {
        self.0.set_learning_rate(rate);
    }
}

#[test]
fn after_a_failed_update_nothing_more_is_recorded() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    train(&run, &mut sgd(&run, &net), &net, 0..2, 3).unwrap();
    let mut broken = run.wrap(Broken::new(net.map.all_vars(), RATE).unwrap());
    run.batch(0, &[0]).unwrap();
    let error = broken
        .backward_step(&net.loss(&[0]).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("step 2 of the run: the optimizer's step failed")
            && error.contains("half way"),
        "{error}"
    );
    assert_eq!(run.batch(0, &[1]).unwrap_err().to_string(), error);
    assert_eq!(run.finish().unwrap_err().to_string(), error);
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Unfinished);
    assert_eq!(kept(&trace), [0, 1, 2]);
}

#[test]
fn a_run_without_steps_can_be_finished() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let summary = builder.create(&net.map).unwrap().finish().unwrap();
    assert_eq!(summary.steps, 0);
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Finished);
    assert_eq!(trace.final_state().unwrap().unwrap().0.bytes(), net.bytes());
}

/// A run that fails before its first step leaves nothing that blocks the next attempt.
#[test]
fn a_run_that_is_dropped_before_its_first_step_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/run");
    let net = Linear::new();
    for encoders in [1, 3] {
        let builder = Recorder::builder(&path).encoders(encoders);
        drop(builder.create(&net.map).unwrap());
        assert!(!path.exists());
        let run = Recorder::builder(&path).create(&net.map).unwrap();
        run.batch(0, &[1]).unwrap();
        let unfit = run.batch(0, &[2]);
        assert!(unfit.is_err());
        drop(run);
        assert!(!path.exists());
    }
    // A run with a step stays, and so does a folder with a foreign file.
    let run = Recorder::builder(&path).create(&net.map).unwrap();
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    drop(run);
    assert!(path.join("notes.txt").exists() && path.join("manifest.json").exists());
    std::fs::remove_file(path.join("notes.txt")).unwrap();
    // This recorder must not remove a run that it did not create.
    let (run, _) = Recorder::builder(&path).create_or_resume(&net.map).unwrap();
    drop(run);
    assert!(path.exists());
    let (run, at) = Recorder::builder(&path).create_or_resume(&net.map).unwrap();
    assert_eq!(at.step, 0);
    train(&run, &mut sgd(&run, &net), &net, 0..1, 3).unwrap();
    drop(run);
    assert_eq!(kept(&hindcast_format::Trace::open(&path).unwrap()), [0]);
}

#[test]
fn a_run_whose_first_step_could_not_be_written_is_removed() {
    // The failing call creates the manifest, creates the segment, writes its header, or writes the frame.
    for nth in 0..4 {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.create(&net.map).unwrap();
        storage.fail_nth(
            storage.calls() + nth,
            false,
            std::io::ErrorKind::StorageFull,
        );
        let trained = train(&run, &mut sgd(&run, &net), &net, 0..1, 3).and_then(|_| run.flush());
        let error = run.finish().unwrap_err().to_string();
        assert!(trained.is_err(), "call {nth}");
        assert!(error.contains("nothing was recorded"), "{error}");
        let again = on(&storage).create(&net.map);
        again.unwrap().finish().unwrap();
    }
}

#[test]
fn a_run_in_a_folder_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/run");
    let net = Linear::new();
    let run = Recorder::builder(&path).create(&net.map).unwrap();
    train(&run, &mut sgd(&run, &net), &net, 0..3, 3).unwrap();
    let summary = run.finish().unwrap();
    assert!(summary.to_string().contains("head "), "{summary}");
    let error = Recorder::builder(&path)
        .create(&net.map)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("deep/run") && error.contains("exists already"),
        "{error}"
    );
    let trace = hindcast_format::Trace::open(&path).unwrap();
    assert_eq!(kept(&trace), [0, 1, 2]);
}
