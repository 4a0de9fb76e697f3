//! End to end on disk: a training on digits is recorded, the run is closed, opened and swept, and its scores are
//! compared with training with changed weights.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_analyzer::estimators::{Estimate, TableOrigin};
use hindcast_analyzer::run::weights_of;
use hindcast_analyzer::{
    AutodiffEngine, CounterfactualOptions, Query, RecordedRun, ReplayCheckOptions, ReplayEngine,
    ScoreTable, StepSource, SweepOptions, SweepState, Window, counterfactuals, replay_check, sweep,
};
use hindcast_format::Trace;
use hindcast_lab::record_task;
use hindcast_model::data::DataSet;
use hindcast_model::net::Net;
use hindcast_model::objective::Split;
use hindcast_model::task::Task;
use hindcast_model::train::{ModelState, Stepper, WeightedBatch, evaluate};
use hindcast_recorder::{Keep, Recorder};

use crate::numbers::relative_error;

struct Recorded {
    _folder: tempfile::TempDir,
    task: Task,
    net: Arc<Net>,
    data: Box<dyn DataSet>,
    trace: Trace,
}

/// One linear layer on 48 digits for two epochs of batches of ten, the last one of eight.
fn record(dtype: &str, keep: Keep) -> Recorded {
    let task = Task::from_toml(&format!(
        "name = \"end-to-end\"\n[data]\nsource = \"digits\"\ntrain = 48\nvalidation = 30\n[model]\ninput = [1, 28, 28]\n\
         layers = [{{ kind = \"flatten\" }}, {{ kind = \"linear\", out = 10 }}]\n[loss]\nkind = \"cross-entropy\"\n\
         [schedule]\nkind = \"constant\"\nlearning_rate = 0.02\n[train]\nepochs = 2\nbatch = 10\nseed = 3\n\
         dtype = \"{dtype}\"\n"
    ))
    .unwrap();
    let data = task.load_data(None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let builder = Recorder::builder(&path).keep(keep);
    record_task(
        &task,
        data.as_ref(),
        &Device::Cpu,
        builder,
        &mut |_, _, _| {},
    )
    .unwrap();
    Recorded {
        trace: Trace::open(&path).unwrap(),
        net: Arc::new(Net::new(&task.model, &task.loss).unwrap()),
        task,
        data,
        _folder: folder,
    }
}

impl Recorded {
    fn run(&self) -> RecordedRun<'_> {
        RecordedRun::from_trace(&self.trace, self.net.clone(), self.data.as_ref(), None).unwrap()
    }

    fn sweep(&self, dtype: DType, window: &Window) -> SweepState {
        let mut engine = AutodiffEngine::new(self.net.clone(), dtype, &Device::Cpu).unwrap();
        let query = Query::default()
            .gradient(&self.trace, &mut engine, self.data.as_ref())
            .unwrap();
        let options = SweepOptions {
            per_epoch: true,
            ..SweepOptions::new(window.resolve(&self.trace).unwrap())
        };
        sweep(&self.run(), &mut engine, &[query], &options, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap()
    }

    /// Validation loss after training with one example's weight changed.
    fn retrained(&self, example: u64, factor: f64) -> f64 {
        let run = self.run();
        let stepper = Stepper::new(self.net.as_ref(), run.rule());
        let mut state = ModelState {
            parameters: self.net.initial_parameters::<f64>(self.task.train.seed),
            buffers: Vec::new(),
            optimizer: Vec::new(),
        };
        for meta in StepSource::metas(&self.trace, 0..10).unwrap() {
            let mut weights = weights_of(&meta).unwrap();
            for (w, &i) in weights.iter_mut().zip(&meta.indices) {
                *w *= if i == example { factor } else { 1.0 };
            }
            let batch = run
                .train_batch(&meta.indices, meta.step, DType::F64, &Device::Cpu)
                .unwrap();
            let parts = [WeightedBatch { batch, weights }];
            let gradient = stepper
                .gradient(&state, &parts, run.draws(meta.step))
                .unwrap();
            stepper
                .update(&run.settings(&meta), gradient, &mut state)
                .unwrap();
        }
        let (net, data) = (self.net.as_ref(), self.data.as_ref());
        evaluate(
            net,
            &state.parameters,
            &state.buffers,
            data,
            Split::Validation,
            &Device::Cpu,
        )
        .unwrap()
        .loss
    }
}

#[test]
fn the_scores_of_a_reopened_run_equal_retraining() {
    let recorded = record("f64", Keep::All);
    let state = recorded.sweep(DType::F64, &Window::All);
    assert_eq!((state.window.clone(), state.end), (0..10, 10));
    assert!(state.occurrences.iter().all(|&n| n == 2));
    let examples: Vec<u64> = (0..48).step_by(6).collect();
    let differences: Vec<f64> = examples
        .iter()
        .map(|&j| (recorded.retrained(j, 1.0 - 1e-4) - recorded.retrained(j, 1.0 + 1e-4)) / 2e-4)
        .collect();
    let scores: Vec<f64> = examples
        .iter()
        .map(|&j| state.queries[0].influence[j as usize])
        .collect();
    let error = relative_error(&scores, &differences);
    println!("one linear layer on digits, from disk: {error:.1e}");
    assert!(error < 1e-7, "{error:e}");
    // The table has metadata and can be read back.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.csv");
    let origin = TableOrigin {
        run_digest: hindcast_format::hex(&recorded.trace.head_digest().unwrap()),
        engine: "f64 cpu".to_owned(),
        ..TableOrigin::default()
    };
    let table = Estimate::from(state).table(&recorded.run(), &origin);
    table.write(&path).unwrap();
    let back = ScoreTable::read(&path).unwrap();
    assert_eq!(back, table);
    assert_eq!(back.metadata.epochs, [0, 1]);
    assert_eq!(back.metadata.run_digest.len(), 64);
}

#[test]
fn single_precision_runs_replay_bit_for_bit_and_give_similar_scores() {
    let recorded = record("f32", Keep::All);
    let run = recorded.run();
    let check = replay_check(&run, &ReplayCheckOptions::new(&run), &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert!(check.passed() && check.bit_identical(), "{check:#?}");
    let options = CounterfactualOptions::new(0..10);
    let query = [Query::default()];
    let report = counterfactuals(&run, &options, &query, &[vec![7]], &|_, _| {
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(
        report.reproduction.bit_identical,
        "{:?}",
        report.reproduction
    );
    let (wide, narrow) = (
        recorded.sweep(DType::F64, &Window::All),
        recorded.sweep(DType::F32, &Window::All),
    );
    let error = relative_error(&narrow.queries[0].influence, &wide.queries[0].influence);
    assert!(error < 1e-4, "{error:e}");
    assert!((report.change(0, 0).unwrap() / wide.queries[0].influence[7] - 1.0).abs() < 0.2);
    // A new engine gives the same bits.
    assert_eq!(recorded.sweep(DType::F32, &Window::All), narrow);
}

#[test]
fn a_run_that_kept_its_last_epoch_gives_the_same_scores_there() {
    let all = record("f64", Keep::All);
    let last = record("f64", Keep::LastEpoch);
    let (a, b) = (
        all.sweep(DType::F64, &Window::LastEpoch),
        last.sweep(DType::F64, &Window::LastEpoch),
    );
    assert_eq!((a.window.clone(), b.window.clone()), (5..10, 5..10));
    assert_eq!(a.queries[0].influence, b.queries[0].influence);
    let every = record("f64", "every=3".parse().unwrap());
    let message = Window::All.resolve(&every.trace).unwrap_err().to_string();
    assert!(
        message.contains("not in the trace: 1..3, 4..6, 7..9"),
        "{message}"
    );
}

#[test]
fn a_damaged_step_stops_the_sweep_and_says_where() {
    let recorded = record("f64", Keep::All);
    let path = recorded._folder.path().join("run");
    let segment = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|file| std::fs::metadata(file).unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&segment, bytes).unwrap();
    let trace = Trace::open(&path).unwrap();
    let walk = || -> hindcast_analyzer::Result<()> {
        let mut steps = StepSource::reverse(&trace, 0..10)?;
        steps.try_for_each(|step| step.map(drop))
    };
    let error = walk().unwrap_err();
    let cause = std::error::Error::source(&error)
        .and_then(|cause| cause.downcast_ref::<hindcast_format::FormatError>())
        .unwrap();
    assert!(cause.is_damage(), "{cause}");
}

#[test]
fn queries_for_missing_examples_are_refused() {
    let recorded = record("f64", Keep::All);
    let mut engine = AutodiffEngine::new(recorded.net.clone(), DType::F64, &Device::Cpu).unwrap();
    let mut ask = |text: &str| {
        text.parse::<Query>()
            .unwrap()
            .gradient(&recorded.trace, &mut engine, recorded.data.as_ref())
            .map_err(|e| e.to_string())
    };
    let message = ask("validation:3,30").unwrap_err();
    assert!(
        message.contains("validation split has 30 examples") && message.contains("no example 30"),
        "{message}"
    );
    let one = ask("validation:3").unwrap();
    let twice = ask("validation:3,3..4").unwrap();
    assert!(relative_error(&one.parameters, &twice.parameters) < 1e-14);
    // The gradient of a vector query is the vector itself.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("u.safetensors");
    let message = ask(&format!("vector:{}", path.display())).unwrap_err();
    assert!(message.contains("u.safetensors"), "{message}");
    let mut tensors = std::collections::HashMap::new();
    let mut rest = one.parameters.as_slice();
    for spec in recorded.trace.layout().parameters() {
        let (here, after) = rest.split_at(spec.elements());
        rest = after;
        let tensor =
            candle_core::Tensor::from_slice(here, spec.shape.as_slice(), &Device::Cpu).unwrap();
        tensors.insert(spec.name.clone(), tensor);
    }
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let vector = ask(&format!("vector:{}", path.display())).unwrap();
    assert_eq!(vector.parameters, one.parameters);
    tensors.insert("other".to_owned(), tensors.values().next().unwrap().clone());
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let message = ask(&format!("vector:{}", path.display())).unwrap_err();
    assert!(message.contains("`other` is neither"), "{message}");
    assert_eq!(ReplayEngine::parameter_count(&engine), one.parameters.len());
}
