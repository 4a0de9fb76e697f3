//! A resumed sweep gives the same bits as an uninterrupted one, and a checkpoint of a different sweep is refused.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use hindcast_analyzer::estimators::{Estimate, TableOrigin};
use hindcast_analyzer::sweep::{
    Observer, Propagation, Saving, Stage, SweepCheckpoint, SweepCost, SweepIdentity, resume,
};
use hindcast_analyzer::{
    AnalysisError, AutodiffEngine, Query, RecordedRun, Session, SessionOptions, SweepOptions,
    SweepState, sweep,
};
use hindcast_format::Trace;
use hindcast_lab::record_task;
use hindcast_model::data::DataSet;
use hindcast_model::net::Net;
use hindcast_model::task::Task;
use hindcast_recorder::Recorder;

struct Recorded {
    folder: tempfile::TempDir,
    net: Arc<Net>,
    data: Box<dyn DataSet>,
    trace: Trace,
}

/// Digits with batch norm for two epochs of five batches, in segments of four steps.
fn record(optimizer: &str, seed: u64) -> Recorded {
    let task = Task::from_toml(&format!(
        "name = \"again\"\n[data]\nsource = \"digits\"\ntrain = 48\nvalidation = 30\n[model]\ninput = [1, 28, 28]\n\
         layers = [{{ kind = \"flatten\" }}, {{ kind = \"linear\", out = 6 }}, {{ kind = \"batch_norm\" }}, {{ kind = \"tanh\" }}, \
         {{ kind = \"linear\", out = 10 }}]\n[loss]\nkind = \"cross-entropy\"\n[optimizer]\n{optimizer}\n\
         [schedule]\nkind = \"constant\"\nlearning_rate = 0.02\n[train]\nepochs = 2\nbatch = 10\nseed = {seed}\n"
    ))
    .unwrap();
    let data = task.load_data(None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    record_task(
        &task,
        data.as_ref(),
        &Device::Cpu,
        Recorder::builder(&path).segment_steps(4),
        &mut |_, _, _| {},
    )
    .unwrap();
    Recorded {
        trace: Trace::open(&path).unwrap(),
        net: Arc::new(Net::new(&task.model, &task.loss).unwrap()),
        data,
        folder,
    }
}

/// The parts of a sweep's identity that a user chooses.
#[derive(Clone)]
struct Asked {
    queries: Vec<Query>,
    options: SweepOptions,
    engine: &'static str,
}

impl Asked {
    fn of(queries: &[&str]) -> Self {
        Asked {
            queries: queries.iter().map(|q| q.parse().unwrap()).collect(),
            options: SweepOptions {
                per_epoch: true,
                ..SweepOptions::new(1..9)
            },
            engine: "f32 cpu",
        }
    }
}

impl Recorded {
    fn run(&self) -> RecordedRun<'_> {
        RecordedRun::from_trace(&self.trace, self.net.clone(), self.data.as_ref(), None).unwrap()
    }

    fn identity(&self, asked: &Asked) -> SweepIdentity {
        let head = hindcast_format::hex(&self.trace.head_digest().unwrap());
        SweepIdentity::of(
            &self.run(),
            &asked.queries,
            &asked.options,
            &head,
            asked.engine,
        )
        .unwrap()
    }

    /// Sweeps from the beginning or from `from`. With `stop`, the sweep is saved and stopped there.
    fn sweep(
        &self,
        asked: &Asked,
        from: Option<SweepState>,
        stop: Option<(u64, &Path)>,
    ) -> Option<SweepState> {
        let run = self.run();
        let mut engine = AutodiffEngine::new(self.net.clone(), DType::F32, &Device::Cpu).unwrap();
        let identity = self.identity(asked);
        let mut watch = |state: &SweepState| match stop {
            Some((step, path)) if state.next <= step => {
                SweepCheckpoint::write(path, &identity, state).unwrap();
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        };
        let swept = match from {
            Some(state) => resume(
                &run,
                &mut engine,
                state,
                asked.options.per_epoch,
                &mut watch,
            ),
            None => {
                let gradients: Vec<_> = asked
                    .queries
                    .iter()
                    .map(|q| {
                        q.gradient(&self.trace, &mut engine, self.data.as_ref())
                            .unwrap()
                    })
                    .collect();
                sweep(&run, &mut engine, &gradients, &asked.options, &mut watch)
            }
        };
        match swept {
            Ok(state) => Some(state),
            Err(e) => {
                assert!(stop.is_some(), "{e}");
                None
            }
        }
    }

    fn csv(&self, state: &SweepState) -> Vec<u8> {
        let mut text = Vec::new();
        Estimate::from(state.clone())
            .table(&self.run(), &TableOrigin::default())
            .write_csv(&mut text)
            .unwrap();
        text
    }
}

#[test]
fn a_sweep_stopped_at_any_step_resumes_to_the_same_bits() {
    for optimizer in [
        "kind = \"sgd\"\nmomentum = 0.9",
        "kind = \"adam\"",
        "kind = \"sgd\"\nclip_norm = 0.5",
    ] {
        let recorded = record(optimizer, 3);
        let asked = Asked::of(&["validation", "validation:3,17"]);
        let whole = recorded.csv(&recorded.sweep(&asked, None, None).unwrap());
        let path = recorded.folder.path().join("sweep.safetensors");
        for stop in 2..10 {
            assert!(recorded.sweep(&asked, None, Some((stop, &path))).is_none());
            let read = || {
                SweepCheckpoint::read(&path)
                    .unwrap()
                    .state_of(&path, &recorded.identity(&asked))
                    .unwrap()
            };
            assert_eq!(read().next, stop);
            let state = recorded.sweep(&asked, Some(read()), None).unwrap();
            assert!(
                recorded.csv(&state) == whole,
                "{optimizer}: resumed after a stop before step {stop}, the result differs"
            );
        }
        // Stopped after every single step.
        let mut state = None;
        for stop in (2..10).rev() {
            assert!(recorded.sweep(&asked, state, Some((stop, &path))).is_none());
            state = Some(SweepCheckpoint::read(&path).unwrap().state);
        }
        let state = recorded.sweep(&asked, state, None).unwrap();
        assert!(recorded.csv(&state) == whole, "{optimizer}");
    }
}

/// Stops a session after a number of steps, and counts the checkpoints that it saves.
struct StopAfter {
    steps: u64,
    saved: usize,
}

impl Observer for StopAfter {
    fn step(&mut self, _: Stage) -> ControlFlow<()> {
        self.steps = self.steps.saturating_sub(1);
        if self.steps > 0 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    fn saved(&mut self, _: &Path, outcome: Result<(), AnalysisError>) {
        outcome.unwrap();
        self.saved += 1;
    }
}

#[test]
fn a_session_in_two_passes_that_is_stopped_and_resumed_gives_the_same_table() {
    let recorded = record("kind = \"sgd\"\nmomentum = 0.9", 3);
    let asked = Asked::of(&["validation", "validation:3", "validation:7,8"]);
    let run = recorded.run();
    let mut engine = AutodiffEngine::new(recorded.net.clone(), DType::F32, &Device::Cpu).unwrap();
    let whole = recorded.csv(&recorded.sweep(&asked, None, None).unwrap());
    let path = recorded.folder.path().join("session.safetensors");
    let options = SessionOptions {
        engine: "f32 cpu",
        saving: Some(Saving {
            path: path.clone(),
            every: Duration::from_secs(3600),
            resume: true,
        }),
        ..SessionOptions::new(asked.options.clone())
    };
    let plan =
        |engine: &AutodiffEngine, options| Session::new(&run, engine, &asked.queries, options);
    // Enough memory for two of the three queries.
    let all = plan(&engine, options.clone()).unwrap();
    assert_eq!((all.passes(), all.queries_at_once()), (1, 3));
    let two = all.cost().in_passes_of(2).memory();
    let options = SessionOptions {
        memory: Some(two.about),
        ..options
    };
    let session = plan(&engine, options.clone()).unwrap();
    assert_eq!((session.passes(), session.queries_at_once()), (2, 2));

    // Nine steps twice, stopped after every step or every fifth step, also at the end of the first pass.
    for steps in [1, 5, 9] {
        let (mut stops, mut in_second_pass) = (0, 0);
        let swept = loop {
            let session = plan(&engine, options.clone()).unwrap();
            assert_eq!(session.resumed().is_some(), stops > 0);
            let finished = session.resumed().map_or(0, |c| c.finished.len());
            in_second_pass += usize::from(finished == 2);
            let mut observer = StopAfter { steps, saved: 0 };
            match session.run(&mut engine, &mut observer) {
                Ok(swept) => break swept,
                Err(AnalysisError::Cancelled { .. }) => assert_eq!(observer.saved, 1),
                Err(e) => panic!("{e}"),
            }
            stops += 1;
        };
        assert!(stops >= 18 / steps - 1, "{stops} stops");
        assert!(
            steps == 9 || in_second_pass > 0,
            "stopped in the first pass only"
        );
        assert!(
            recorded.csv(&swept.state) == whole,
            "stopped after every {steps} steps, the result differs"
        );
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_discounted_session_resumes_to_the_same_bits_and_no_other_discount_continues_it() {
    let recorded = record("kind = \"sgd\"\nmomentum = 0.9", 3);
    let asked = Asked::of(&["validation"]);
    let run = recorded.run();
    let mut engine = AutodiffEngine::new(recorded.net.clone(), DType::F32, &Device::Cpu).unwrap();
    let path = recorded.folder.path().join("session.safetensors");
    let options = |discount: f64| SessionOptions {
        engine: "f32 cpu",
        propagation: Propagation {
            discount,
            ..Propagation::default()
        },
        saving: Some(Saving {
            path: path.clone(),
            every: Duration::from_secs(3600),
            resume: true,
        }),
        ..SessionOptions::new(asked.options.clone())
    };
    let mut table = |discount: f64, steps: u64| {
        let session = Session::new(&run, &engine, &asked.queries, options(discount)).unwrap();
        let swept = session.run(&mut engine, &mut StopAfter { steps, saved: 0 });
        swept.map(|swept| recorded.csv(&swept.state))
    };
    let whole = table(0.9, 100).unwrap();
    assert_ne!(whole, table(1.0, 100).unwrap());
    assert!(matches!(
        table(0.9, 4),
        Err(AnalysisError::Cancelled { .. })
    ));
    for other in [1.0, 0.8] {
        let refused = Session::new(&run, &engine, &asked.queries, options(other));
        let Err(error) = refused else {
            panic!("continued with the discount {other}")
        };
        assert!(error.to_string().contains("discount 0.9"), "{error}");
    }
    let session = Session::new(&run, &engine, &asked.queries, options(0.9)).unwrap();
    assert!(session.resumed().is_some());
    let mut observer = StopAfter {
        steps: 100,
        saved: 0,
    };
    let swept = session.run(&mut engine, &mut observer).unwrap();
    assert!(recorded.csv(&swept.state) == whole);
}

#[test]
fn a_session_replaces_no_checkpoint_and_needs_memory_for_one_query() {
    let recorded = record("kind = \"sgd\"", 3);
    let asked = Asked::of(&["validation"]);
    let run = recorded.run();
    let mut engine = AutodiffEngine::new(recorded.net.clone(), DType::F32, &Device::Cpu).unwrap();
    let path = recorded.folder.path().join("session.safetensors");
    let mut options = SessionOptions {
        saving: Some(Saving {
            path: path.clone(),
            every: Duration::ZERO,
            resume: false,
        }),
        ..SessionOptions::new(asked.options.clone())
    };
    let mut observer = StopAfter { steps: 3, saved: 0 };
    let session = Session::new(&run, &engine, &asked.queries, options.clone()).unwrap();
    assert!(session.run(&mut engine, &mut observer).is_err());
    assert_eq!(observer.saved, 3, "one checkpoint per step");
    let kept = std::fs::read(&path).unwrap();
    let again = Session::new(&run, &engine, &asked.queries, options.clone());
    assert!(matches!(again.err(), Some(AnalysisError::SweepUnderWay { path: p }) if p == path));
    assert_eq!(std::fs::read(&path).unwrap(), kept);

    options.saving = None;
    options.memory = Some(1000);
    let session = Session::new(&run, &engine, &asked.queries, options).unwrap();
    let refused = session.run(&mut engine, &mut observer);
    assert!(matches!(
        refused,
        Err(AnalysisError::Memory { limit: 1000, certain, .. }) if certain > 1000
    ));
}

#[test]
fn the_checkpoint_of_another_sweep_is_refused_with_the_difference() {
    let recorded = record("kind = \"sgd\"", 3);
    let asked = Asked::of(&["validation"]);
    let path = recorded.folder.path().join("sweep.safetensors");
    recorded.sweep(&asked, None, Some((5, &path)));
    let refused = |identity: &SweepIdentity| {
        SweepCheckpoint::read(&path)
            .unwrap()
            .state_of(&path, identity)
            .map_err(|e| e.to_string())
    };
    assert!(refused(&recorded.identity(&asked)).is_ok());
    let change = |change: &dyn Fn(&mut Asked)| {
        let mut other = asked.clone();
        change(&mut other);
        refused(&recorded.identity(&other)).unwrap_err()
    };
    for (message, hints) in [
        (
            change(&|a| a.queries = vec!["validation:4".parse().unwrap()]),
            ["its query", "expected validation:4, got validation"],
        ),
        (
            change(&|a| a.options.window = 0..9),
            ["its window", "expected 0..9, got 1..9"],
        ),
        (
            change(&|a| a.options.per_epoch = false),
            ["one column per epoch", "expected false, got true"],
        ),
        (
            change(&|a| a.engine = "f64 cpu"),
            ["its engine", "expected f64 cpu, got f32 cpu"],
        ),
        (
            refused(&record("kind = \"sgd\"", 4).identity(&asked)).unwrap_err(),
            ["its run", "another sweep"],
        ),
        (
            // A run whose manifest is lost has no digest; it is identified by its end.
            {
                let mut other = record("kind = \"sgd\"", 4).identity(&asked);
                other.run_digest = recorded.identity(&asked).run_digest;
                refused(&other).unwrap_err()
            },
            ["its end of the run", "another sweep"],
        ),
    ] {
        for hint in hints {
            assert!(message.contains(hint), "no {hint:?} in: {message}");
        }
    }
}

#[test]
fn the_state_of_one_of_several_passes_is_not_taken_for_that_of_the_sweep() {
    let recorded = record("kind = \"sgd\"", 3);
    let asked = Asked::of(&["validation", "validation:3,17"]);
    let path = recorded.folder.path().join("sweep.safetensors");
    recorded.sweep(&asked, None, Some((5, &path)));
    let mut state = SweepCheckpoint::read(&path).unwrap().state;
    let second = state.queries.split_off(1);
    let finished = std::mem::replace(&mut state.queries, second);
    let identity = recorded.identity(&asked);
    SweepCheckpoint::write_pass(&path, &identity, &finished, &state).unwrap();
    let read = SweepCheckpoint::read(&path).unwrap();
    assert_eq!((&read.finished, &read.state), (&finished, &state));
    let refused = read.state_of(&path, &identity).unwrap_err().to_string();
    assert!(refused.contains("has 1 of its 2 queries"), "{refused}");
}

/// Flips one bit of every seventh byte, and cuts the file at every 97th length.
#[test]
fn a_damaged_checkpoint_is_refused_and_never_resumed() {
    let recorded = record("kind = \"sgd\"", 3);
    let asked = Asked::of(&["validation"]);
    let path = recorded.folder.path().join("sweep.safetensors");
    recorded.sweep(&asked, None, Some((5, &path)));
    let whole = std::fs::read(&path).unwrap();
    let good = SweepCheckpoint::read(&path).unwrap();
    let broken = recorded.folder.path().join("broken.safetensors");
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&broken, &bytes).unwrap();
        if let Ok(read) = SweepCheckpoint::read(&broken) {
            // White space in the header may change without a change of meaning.
            assert_eq!(read, good, "byte {at} of {}", whole.len());
        }
    }
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(&broken, &whole[..length]).unwrap();
        let message = SweepCheckpoint::read(&broken).unwrap_err().to_string();
        assert!(message.contains("broken.safetensors"), "{message}");
    }
}

#[test]
fn the_cost_of_a_sweep_is_known_beforehand() {
    let recorded = record("kind = \"sgd\"\nmomentum = 0.9", 3);
    let asked = Asked::of(&["validation", "validation:3"]);
    let run = recorded.run();
    let cost = SweepCost::of(&run, &asked.options, 2, 4, None).unwrap();
    assert_eq!((cost.steps, cost.examples, cost.queries), (9, 48, 2));
    // The estimated size of the state is that of the finished state.
    let state = recorded.sweep(&asked, None, None).unwrap();
    let held: usize = state.occurrences.len()
        + state
            .queries
            .iter()
            .map(|q| {
                q.parameters.len()
                    + q.optimizer.len()
                    + q.buffers.len()
                    + q.influence.len()
                    + q.renormalised.len()
                    + q.epochs.values().map(Vec::len).sum::<usize>()
                    + 2 * q.growth.len()
            })
            .sum::<usize>();
    assert_eq!(cost.state, 8 * held as u64);
    assert!(cost.memory().certain < cost.memory().about);
    let known = SweepCost::of(&run, &asked.options, 2, 4, Some(100)).unwrap();
    assert!(known.memory().about > cost.memory().about);
}
