//! A sweep that was stopped goes on to the bits that it would have come to, and to no others' sweep.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_analyzer::{
    AutodiffEngine, Query, RecordedRun, SweepCheckpoint, SweepCost, SweepIdentity, SweepOptions,
    SweepState, TableOrigin, resume, sweep,
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

/// What is swept: the parts of its identity that a user chooses.
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
                window: 1..9,
                per_epoch: true,
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

    /// Sweeps from the beginning or from `from`; with `stop` it is saved there, and stopped.
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
        state
            .table(&self.run(), &TableOrigin::default())
            .write_csv(&mut text)
            .unwrap();
        text
    }
}

#[test]
fn a_sweep_stopped_at_any_step_goes_on_to_the_same_bits() {
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
                "{optimizer}: stopped before step {stop}, it came to other bits"
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

#[test]
fn the_checkpoint_of_another_sweep_is_refused_by_name() {
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
            ["an epoch", "expected false, got true"],
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
            // A run whose manifest is lost has no digest; its end tells it apart.
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

/// One bit of every byte, and every length.
#[test]
fn a_damaged_checkpoint_is_refused_and_never_gone_on_from() {
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
            // White space in the header may say the same in other bytes.
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
fn what_a_sweep_takes_is_known_beforehand() {
    let recorded = record("kind = \"sgd\"\nmomentum = 0.9", 3);
    let asked = Asked::of(&["validation", "validation:3"]);
    let run = recorded.run();
    let cost = SweepCost::of(&run, &asked.options, 2, 4, None).unwrap();
    assert_eq!((cost.steps, cost.examples, cost.queries), (9, 48, 2));
    // The state's estimate is what the finished state holds.
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
    assert!(cost.certain() < cost.about());
    let known = SweepCost::of(&run, &asked.options, 2, 4, Some(100)).unwrap();
    assert!(known.about() > cost.about());
}
