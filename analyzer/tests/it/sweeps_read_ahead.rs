//! A sweep reads ahead on a separate thread. Order, errors and stops must be those of a sweep without that thread.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hindcast_analyzer::run::{RecordedEnd, RecordedStep, StepWalk};
use hindcast_analyzer::sweep::{SweepTimes, begin, resume_timed};
use hindcast_analyzer::{
    AnalysisError, MemoryRun, Query, RecordedRun, Result, StepSource, SweepOptions, SweepState,
};
use hindcast_format::layout::TensorSpec;
use hindcast_format::meta::StepMeta;
use hindcast_model::update::UpdateRule;

use crate::tiny::{Recipe, TinyData, TinyNet, engine, train};

/// A run that counts the steps that are read. It may have a step that can't be read.
struct Flawed {
    run: MemoryRun,
    flaw: Option<u64>,
    /// Whether reading the flaw panics.
    panics: bool,
    pause: Duration,
    /// How long reading has paused, in nanoseconds. On a busy machine this is longer than requested.
    paused: AtomicU64,
    read: AtomicU64,
}

impl Flawed {
    fn walk<'a>(&'a self, mut steps: StepWalk<'a>) -> StepWalk<'a> {
        Box::new(std::iter::from_fn(move || {
            self.read(&mut steps).transpose()
        }))
    }

    fn read(&self, steps: &mut StepWalk<'_>) -> Result<Option<RecordedStep>> {
        let begun = Instant::now();
        std::thread::sleep(self.pause);
        let paused = u64::try_from(begun.elapsed().as_nanos()).expect("a test is short");
        self.paused.fetch_add(paused, Ordering::SeqCst);
        let step = steps.next().transpose()?;
        if step.as_ref().map(|s| s.meta.step) == self.flaw && self.flaw.is_some() {
            assert!(!self.panics, "the flaw was read");
            return Err(AnalysisError::other("the flaw"));
        }
        self.read.fetch_add(1, Ordering::SeqCst);
        Ok(step)
    }
}

impl StepSource for Flawed {
    fn parameters(&self) -> &[TensorSpec] {
        self.run.parameters()
    }
    fn buffers(&self) -> &[TensorSpec] {
        self.run.buffers()
    }
    fn optimizer_state(&self) -> &[TensorSpec] {
        self.run.optimizer_state()
    }
    fn ranges(&self) -> Result<Vec<Range<u64>>> {
        self.run.ranges()
    }
    fn epochs(&self) -> Result<Vec<(u64, Range<u64>)>> {
        self.run.epochs()
    }
    fn forward(&self, range: Range<u64>) -> Result<StepWalk<'_>> {
        Ok(self.walk(self.run.forward(range)?))
    }
    fn reverse(&self, range: Range<u64>) -> Result<StepWalk<'_>> {
        Ok(self.walk(self.run.reverse(range)?))
    }
    fn keyframe(&self, step: u64) -> Result<u64> {
        self.run.keyframe(step)
    }
    fn metas(&self, range: Range<u64>) -> Result<Vec<StepMeta>> {
        self.run.metas(range)
    }
    fn end(&self) -> Result<RecordedEnd> {
        self.run.end()
    }
}

const STEPS: u64 = 24;

fn flawed(flaw: Option<u64>) -> Flawed {
    let recipe = Recipe {
        steps: STEPS,
        ..Recipe::new(UpdateRule::from_toml("kind = \"sgd\"").unwrap(), 0.1)
    };
    Flawed {
        run: train(&recipe, &TinyNet::new(0.0), None),
        flaw,
        panics: false,
        pause: Duration::ZERO,
        paused: AtomicU64::new(0),
        read: AtomicU64::new(0),
    }
}

/// Sweeps, calling `after` with the step that was replayed last.
fn sweep(
    source: &Flawed,
    after: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> (Result<SweepState>, SweepTimes) {
    let net = TinyNet::new(0.0);
    let rule = UpdateRule::from_toml("kind = \"sgd\"").unwrap();
    let run = RecordedRun::new(source, net.clone(), &TinyData, rule, 7).unwrap();
    let mut engine = engine(&net);
    let query = Query::default()
        .gradient(source, &mut engine, &TinyData)
        .unwrap();
    let options = SweepOptions::new(0..STEPS);
    let state = begin(&run, &engine, &[query], &options).unwrap();
    let mut times = SweepTimes::default();
    let swept = resume_timed(
        &run,
        &mut engine,
        state,
        false,
        &mut |state| after(state.next),
        &mut times,
    );
    (swept, times)
}

#[test]
fn an_error_is_returned_after_all_newer_steps() {
    for flaw in [STEPS - 1, 11, 0] {
        let source = flawed(Some(flaw));
        let mut seen = Vec::new();
        let (swept, _) = sweep(&source, &mut |step| {
            seen.push(step);
            ControlFlow::Continue(())
        });
        assert_eq!(swept.unwrap_err().to_string(), "the flaw");
        // The buffers before a step are in the previous frame, unless a keyframe has them; every fourth step is one.
        let oldest = match (flaw + 1) % 4 {
            0 => flaw + 1,
            _ => flaw + 2,
        };
        assert_eq!(seen, (oldest.min(STEPS)..STEPS).rev().collect::<Vec<_>>());
    }
}

#[test]
fn a_stopped_sweep_stops_reading() {
    let source = flawed(None);
    let (swept, _) = sweep(&source, &mut |step| match step {
        20 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(swept, Err(AnalysisError::Cancelled { step: 20 })));
    // Four steps were replayed, two wait, one is being decoded, one is read for its buffers, and one place became
    // free at the last step.
    let read = source.read.load(Ordering::SeqCst);
    assert!((4..=9).contains(&read), "{read} steps were read");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(source.read.load(Ordering::SeqCst), read);
}

#[test]
#[should_panic(expected = "the flaw was read")]
fn a_panic_of_the_reader_is_not_swallowed() {
    let mut source = flawed(Some(9));
    source.panics = true;
    let _ = sweep(&source, &mut |_| ControlFlow::Continue(()));
}

#[test]
fn reading_overlaps_the_replay_and_waiting_is_counted() {
    let mut source = flawed(None);
    source.pause = Duration::from_millis(4);
    let begun = Instant::now();
    let read_for = |source: &Flawed| Duration::from_nanos(source.paused.load(Ordering::SeqCst));
    // The progress callback takes 8 ms per step, like a replay.
    let (swept, times) = sweep(&source, &mut |_| {
        std::thread::sleep(Duration::from_millis(8));
        ControlFlow::Continue(())
    });
    let whole = begun.elapsed();
    assert!(swept.unwrap().is_done());
    assert!(times.total() <= whole, "{times:?} of {whole:?}");
    // If reading didn't run during the replay, the sweep would wait for all steps. It waits only for the first ones.
    assert!(times.waiting < read_for(&source) / 2, "{times:?}");
    assert!(times.rest >= Duration::from_millis(8 * STEPS), "{times:?}");

    source.pause = Duration::from_millis(8);
    let (_, times) = sweep(&source, &mut |_| ControlFlow::Continue(()));
    assert!(times.waiting > Duration::from_millis(90), "{times:?}");
}
