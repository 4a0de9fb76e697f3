//! Compares the scores of an own model with central differences of repeated training with candle_nn.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{
    BatchNormConfig, Conv2d, Linear, Module, ModuleT, VarBuilder, VarMap, conv2d, linear,
};
use hindcast_analyzer::run::RecordedEnd;
use hindcast_analyzer::{
    AutodiffEngine, Query, RecordedRun, ReplayCheckOptions, SweepOptions, replay_check, sweep,
};
use hindcast_format::MemStorage;
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::{BatchNorm, OwnModel, batch_norm};
use hindcast_recorder::{Builder, LoadInto};

use super::training::{error_of_scores, scaled, trace, train_by_sgd};
use super::{CLASSES, SIDE, TRAIN, data, initialise, state};

const STEPS: u64 = 9;
const RATE: f64 = 0.3;

/// A convolution and a linear layer, each with a batch norm, generic over the implementation of batch norm.
struct Net<B> {
    conv: Conv2d,
    norm: B,
    hidden: Linear,
    norm2: B,
    out: Linear,
}

impl<B: ModuleT> Net<B> {
    fn build(
        vb: VarBuilder,
        norm: fn(usize, BatchNormConfig, VarBuilder) -> Result<B>,
    ) -> Result<Self> {
        let quick = BatchNormConfig {
            momentum: 0.3,
            ..Default::default()
        };
        Ok(Self {
            conv: conv2d(1, 3, 3, Default::default(), vb.pp("conv"))?,
            norm: norm(3, 1e-5.into(), vb.pp("norm"))?,
            hidden: linear(3 * (SIDE - 2) * (SIDE - 2), 5, vb.pp("hidden"))?,
            norm2: norm(5, quick, vb.pp("norm2"))?,
            out: linear(5, CLASSES, vb.pp("out"))?,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.norm.forward_t(&self.conv.forward(x)?, train)?.tanh()?;
        let x = self.hidden.forward(&x.flatten_from(1)?)?;
        self.out.forward(&self.norm2.forward_t(&x, train)?.tanh()?)
    }
}

fn ours(vb: VarBuilder) -> Result<Net<BatchNorm>> {
    Net::build(vb, batch_norm)
}

fn candles(vb: VarBuilder) -> Result<Net<candle_nn::BatchNorm>> {
    Net::build(vb, candle_nn::batch_norm)
}

fn objective() -> Arc<OwnModel> {
    Arc::new(OwnModel::new(ours, Net::forward, ops::cross_entropy).unwrap())
}

/// Examples of a step: some batches repeat an index, and one batch is short.
fn indices(step: u64) -> Vec<u64> {
    let mut out: Vec<u64> = (0..5)
        .map(|k| (step * 5 + k * 3 + step / 3) % TRAIN as u64)
        .collect();
    if step % 3 == 1 {
        out[4] = out[0];
    }
    if step == 5 {
        out.truncate(3);
    }
    out
}

/// Trains in an ordinary loop, with either batch norm. `changed` is an example and its factor in every batch.
fn train<B: ModuleT>(
    build: fn(VarBuilder) -> Result<Net<B>>,
    dtype: DType,
    changed: Option<(u64, f64)>,
    record: Option<&Arc<MemStorage>>,
) -> RecordedEnd {
    let data = data();
    let variables = VarMap::new();
    let net = build(VarBuilder::from_varmap(&variables, dtype, &Device::Cpu)).unwrap();
    initialise(&variables, 0.6);
    let options = |builder: Builder| builder.segment_steps(4).fingerprint(data.fingerprint());
    train_by_sgd(&variables, (RATE, STEPS), record, options, |step| {
        let indices = indices(step);
        let batch = data
            .batch(Split::Train, &indices, None, dtype, &Device::Cpu)
            .unwrap();
        let losses =
            ops::cross_entropy(&net.forward(&batch.inputs, true).unwrap(), &batch.targets).unwrap();
        let loss = match changed {
            None => losses.mean_all().unwrap(),
            Some(changed) => scaled(&losses, &indices, changed),
        };
        (step / 3, indices, loss)
    });
    state(&variables, objective().as_ref())
}

#[test]
fn scores_equal_the_differences_of_repeated_training() {
    let storage = Arc::new(MemStorage::new());
    train(ours, DType::F64, None, Some(&storage));
    let (trace, data) = (trace(&storage), data());
    let run = RecordedRun::from_trace(&trace, objective(), data.as_ref(), None).unwrap();
    let trained = |example, factor| train(ours, DType::F64, Some((example, factor)), None);
    for text in ["validation", "train:2,5"] {
        let query: Query = text.parse().unwrap();
        let sizes = (STEPS, TRAIN as u64);
        let error = error_of_scores(&run, objective(), &query, sizes, &trained);
        println!("own model with two batch norms, {text}: {error:.1e}");
        assert!(error < 1e-6, "{text}: {error:e}");
    }
}

#[test]
fn training_with_candles_batch_norm_has_the_same_bits_and_is_replayed_by_ours() {
    for dtype in [DType::F32, DType::F64] {
        let storage = Arc::new(MemStorage::new());
        let theirs = train(candles, dtype, None, Some(&storage));
        assert_eq!(train(ours, dtype, None, None), theirs, "{dtype:?}");
        let (trace, data) = (trace(&storage), data());
        let run = RecordedRun::from_trace(&trace, objective(), data.as_ref(), None).unwrap();
        let options = ReplayCheckOptions {
            samples: 0,
            ..ReplayCheckOptions::new(&run)
        };
        let report = replay_check(&run, &options, &mut |_, _| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(report.steps.len() as u64, STEPS);
        assert!(report.bit_identical(), "{dtype:?}: {:?}", report.worst());
    }
}

/// candle_nn's batch norm writes its statistics outside of the graph: it can be replayed, but not swept.
#[test]
fn candles_batch_norm_replays_and_a_sweep_refuses_it_by_name() {
    let storage = Arc::new(MemStorage::new());
    train(candles, DType::F64, None, Some(&storage));
    let (trace, data) = (trace(&storage), data());
    let theirs = Arc::new(OwnModel::new(candles, Net::forward, ops::cross_entropy).unwrap());
    let run = RecordedRun::from_trace(&trace, theirs.clone(), data.as_ref(), None).unwrap();
    let report = replay_check(&run, &ReplayCheckOptions::new(&run), &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert!(report.passed() && report.bit_identical());
    let mut engine = AutodiffEngine::new(theirs, DType::F64, &Device::Cpu).unwrap();
    let gradient = Query::default()
        .gradient(&trace, &mut engine, data.as_ref())
        .unwrap();
    let options = SweepOptions::new(0..STEPS);
    let refused = sweep(&run, &mut engine, &[gradient], &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap_err()
    .to_string();
    assert!(
        refused.contains("`norm.running_mean`") && refused.contains("own::batch_norm"),
        "{refused}"
    );
}

#[test]
fn every_step_is_a_checkpoint() {
    let storage = Arc::new(MemStorage::new());
    let end = train(ours, DType::F32, None, Some(&storage));
    let trace = trace(&storage);
    let variables = VarMap::new();
    ours(VarBuilder::from_varmap(
        &variables,
        DType::F32,
        &Device::Cpu,
    ))
    .unwrap();
    let loaded = trace.load_into(&variables, STEPS).unwrap();
    assert_eq!(
        (loaded.step, loaded.epoch, loaded.optimizer_step),
        (STEPS, Some(2), STEPS)
    );
    assert_eq!(state(&variables, objective().as_ref()), end);
    // Each step loads its own parameters and buffers.
    let mut previous: Option<RecordedEnd> = None;
    for step in 0..STEPS {
        trace.load_into(&variables, step).unwrap();
        let here = state(&variables, objective().as_ref());
        let recorded = trace.read(step).unwrap();
        let mut parameters = Vec::new();
        recorded.state.parameters_f64(&mut parameters);
        assert_eq!(here.parameters, parameters, "step {step}");
        assert_ne!(
            Some(&here.buffers),
            previous.as_ref().map(|p| &p.buffers),
            "step {step}"
        );
        previous = Some(here);
    }
    let error = trace
        .load_into(&variables, STEPS + 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot load step 10")
            && error.contains("the run keeps steps 0 to 8; training ended before step 9"),
        "{error}"
    );
    assert_eq!(
        Some(state(&variables, objective().as_ref())),
        previous,
        "a refused load changes nothing"
    );
    // Different variables.
    let other = VarMap::new();
    linear(
        3,
        2,
        VarBuilder::from_varmap(&other, DType::F32, &Device::Cpu),
    )
    .unwrap();
    let error = trace.load_into(&other, 1).unwrap_err().to_string();
    assert!(
        error.contains("the variables have \"bias\", which the trace doesn't hold"),
        "{error}"
    );
    let wide = VarMap::new();
    ours(VarBuilder::from_varmap(&wide, DType::F64, &Device::Cpu)).unwrap();
    let error = trace.load_into(&wide, 1).unwrap_err().to_string();
    assert!(
        error.contains("\"conv.bias\" was recorded as f32 of shape [3], but the variable is F64"),
        "{error}"
    );
}
