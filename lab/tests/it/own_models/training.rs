//! What the tests of scores share: an ordinary training loop, and the differences of repeated training.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Optimizer, SGD, VarMap};
use hindcast_analyzer::run::RecordedEnd;
use hindcast_analyzer::{AutodiffEngine, Query, RecordedRun, SweepOptions, sweep};
use hindcast_format::{MemStorage, Trace};
use hindcast_model::objective::Objective;
use hindcast_recorder::{Builder, Recorder, UpdateRule};

use crate::numbers::relative_error;

/// Relative size of the change of an example's weight.
pub(super) const STEP: f64 = 2e-5;

/// The epoch, the examples and the loss of a step.
pub(super) type Step = (u64, Vec<u64>, Tensor);

/// Trains by SGD, and records the run if there is a storage for it. `options` are those of the recorder.
pub(super) fn train_by_sgd(
    variables: &VarMap,
    (rate, steps): (f64, u64),
    record: Option<&Arc<MemStorage>>,
    options: impl FnOnce(Builder) -> Builder,
    mut step: impl FnMut(u64) -> Step,
) {
    let run = record.map(|storage| {
        let builder = Recorder::builder_on(Arc::clone(storage) as _, "a run in memory");
        options(builder.rule(UpdateRule::sgd()))
            .create(variables)
            .unwrap()
    });
    let sgd = || SGD::new(variables.all_vars(), rate).unwrap();
    let mut recorded = run.as_ref().map(|run| run.wrap(sgd()));
    let mut plain = sgd();
    for number in 0..steps {
        let (epoch, indices, loss) = step(number);
        match (&run, &mut recorded) {
            (Some(run), Some(sgd)) => {
                run.batch(epoch, &indices).unwrap();
                sgd.backward_step(&loss).unwrap();
            }
            _ => plain.backward_step(&loss).unwrap(),
        }
    }
    if let Some(run) = run {
        run.finish().unwrap();
    }
}

/// The mean loss of a batch, with one example's weight multiplied by a factor.
pub(super) fn scaled(losses: &Tensor, indices: &[u64], (example, factor): (u64, f64)) -> Tensor {
    let n = indices.len() as f64;
    let share = |&i: &u64| if i == example { factor / n } else { 1.0 / n };
    let weights = Tensor::from_iter(indices.iter().map(share), &Device::Cpu).unwrap();
    let weights = weights.to_dtype(losses.dtype()).unwrap();
    losses.mul(&weights).unwrap().sum_all().unwrap()
}

/// The trace of a recorded run.
pub(super) fn trace(storage: &Arc<MemStorage>) -> Trace {
    Trace::open_storage(Arc::clone(storage) as _).unwrap()
}

/// The derivative of the query's value after training with one weight multiplied by a factor, negated like a score.
pub(super) fn difference(
    run: &RecordedRun<'_>,
    query: &Query,
    trained: &dyn Fn(f64) -> RecordedEnd,
) -> f64 {
    let at = |factor| {
        let end = trained(factor);
        query
            .value(run, &end.parameters, &end.buffers, &Device::Cpu)
            .unwrap()
    };
    (at(1.0 - STEP) - at(1.0 + STEP)) / (2.0 * STEP)
}

/// The relative error of a sweep's scores over all steps, against differences. `trained` trains with the weight of an example
/// multiplied by a factor.
pub(super) fn error_of_scores(
    run: &RecordedRun<'_>,
    objective: Arc<dyn Objective>,
    query: &Query,
    (steps, examples): (u64, u64),
    trained: &dyn Fn(u64, f64) -> RecordedEnd,
) -> f64 {
    let mut engine = AutodiffEngine::new(objective, DType::F64, &Device::Cpu).unwrap();
    let gradient = query
        .gradient(run.source(), &mut engine, run.data())
        .unwrap();
    let options = SweepOptions::new(0..steps);
    let swept = sweep(run, &mut engine, &[gradient], &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let differences: Vec<f64> = (0..examples)
        .map(|example| difference(run, query, &|factor| trained(example, factor)))
        .collect();
    relative_error(&swept.queries[0].influence, &differences)
}
