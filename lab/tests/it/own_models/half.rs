//! Runs in bf16 and f16, alone and with float32 master weights: they are replayed bit for bit, and their scores agree with
//! retraining in the recorded type as far as its rounding allows.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, SGD, VarBuilder, VarMap, linear};
use hindcast_analyzer::check::{CheckOptions, check_run};
use hindcast_analyzer::{
    AutodiffEngine, CounterfactualOptions, Query, RecordedRun, ReplayCheckOptions,
    RuleCheckOptions, SweepOptions, counterfactuals, replay_check, rule_check, sweep,
};
use hindcast_format::{MemStorage, Trace};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::{self, OwnModel};
use hindcast_recorder::{Describe, Recorder};

use super::{SIDE, TRAIN, data, initialise};
use crate::numbers::relative_error;

const STEPS: u64 = 24;
const BATCH: u64 = 4;

struct Net {
    first: Linear,
    second: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            first: linear(SIDE * SIDE, 8, vb.pp("first"))?,
            second: linear(8, 3, vb.pp("second"))?,
        })
    }

    fn forward(&self, x: &Tensor, _: bool) -> Result<Tensor> {
        let x = self.first.forward(&x.flatten_from(1)?)?.tanh()?;
        self.second.forward(&x)
    }
}

/// The type of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Parameters and arithmetic in this type.
    Pure(DType),
    /// Parameters in float32, forward and backward pass in this type, the loss in float32.
    Masters(DType),
}

fn loss(logits: &Tensor, classes: &Tensor) -> Result<Tensor> {
    ops::cross_entropy(&own::cast(logits, DType::F32)?, classes)
}

impl Kind {
    fn objective(self) -> Arc<OwnModel> {
        Arc::new(match self {
            Kind::Pure(_) => OwnModel::new(Net::new, Net::forward, ops::cross_entropy).unwrap(),
            Kind::Masters(dtype) => OwnModel::new(Net::new, Net::forward, loss)
                .unwrap()
                .rounded_to(dtype),
        })
    }
}

/// The mean loss of pure training in the model's own words, or in candle_nn's, whose gradients round otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Words {
    Ours,
    Candles,
}

/// A loop as people write it.
fn record<O: Optimizer + Describe + 'static>(
    kind: Kind,
    words: Words,
    optimizer: impl Fn(&VarMap) -> O,
) -> Arc<MemStorage> {
    let (data, device) = (data(), Device::Cpu);
    let variables = VarMap::new();
    let dtype = match kind {
        Kind::Pure(dtype) => dtype,
        Kind::Masters(_) => DType::F32,
    };
    Net::new(VarBuilder::from_varmap(&variables, dtype, &device)).unwrap();
    initialise(&variables, 0.3);
    let storage = Arc::new(MemStorage::new());
    let run = Recorder::builder_on(Arc::clone(&storage) as _, "a run in memory")
        .fingerprint(data.fingerprint())
        .create(&variables)
        .unwrap();
    let mut recorded = run.wrap(optimizer(&variables));
    for step in 0..STEPS {
        let indices: Vec<u64> = (0..BATCH)
            .map(|k| (step * 5 + k * 2) % TRAIN as u64)
            .collect();
        let batch = data
            .batch(Split::Train, &indices, None, dtype, &device)
            .unwrap();
        let loss = match kind {
            Kind::Pure(dtype) => {
                let net = Net::new(VarBuilder::from_varmap(&variables, dtype, &device)).unwrap();
                let logits = net.forward(&batch.inputs, true).unwrap();
                match words {
                    Words::Ours => {
                        let losses = ops::cross_entropy(&logits, &batch.targets).unwrap();
                        losses.mean_all().unwrap()
                    }
                    Words::Candles => {
                        candle_nn::loss::cross_entropy(&logits, &batch.targets).unwrap()
                    }
                }
            }
            Kind::Masters(dtype) => {
                let net = Net::new(own::rounded(&variables, dtype, &device)).unwrap();
                let inputs = batch.inputs.to_dtype(dtype).unwrap();
                let logits = net.forward(&inputs, true).unwrap();
                assert_eq!(logits.dtype(), dtype);
                loss(&logits, &batch.targets).unwrap().mean_all().unwrap()
            }
        };
        run.batch(0, &indices).unwrap();
        recorded.backward_step(&loss).unwrap();
    }
    run.finish().unwrap();
    storage
}

fn sgd(variables: &VarMap) -> SGD {
    SGD::new(variables.all_vars(), 0.25).unwrap()
}

fn adamw(variables: &VarMap) -> AdamW {
    AdamW::new_lr(variables.all_vars(), 0.02).unwrap()
}

fn runs() -> Vec<(&'static str, Kind, Arc<MemStorage>)> {
    let kinds = [
        Kind::Pure(DType::BF16),
        Kind::Pure(DType::F16),
        Kind::Masters(DType::BF16),
        Kind::Masters(DType::F16),
    ];
    let mut out: Vec<_> = kinds
        .map(|kind| ("SGD", kind, record(kind, Words::Ours, sgd)))
        .into();
    for kind in [Kind::Pure(DType::BF16), Kind::Masters(DType::BF16)] {
        out.push(("AdamW", kind, record(kind, Words::Ours, adamw)));
    }
    out
}

#[test]
fn steps_in_half_precision_are_replayed_bit_for_bit() {
    for (rule, kind, storage) in runs() {
        let trace = Trace::open_storage(Arc::clone(&storage) as _).unwrap();
        let data = data();
        let run = RecordedRun::from_trace(&trace, kind.objective(), data.as_ref(), None).unwrap();
        let (trained, computed) = match kind {
            Kind::Pure(dtype) => (dtype, DType::F32),
            Kind::Masters(_) => (DType::F32, DType::F32),
        };
        assert_eq!((run.trained_dtype(), run.dtype()), (trained, computed));
        let options = ReplayCheckOptions {
            samples: 0,
            ..ReplayCheckOptions::new(&run)
        };
        let report = replay_check(&run, &options, &mut |_, _| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(report.steps.len() as u64, STEPS, "{rule} {kind:?}");
        assert!(
            report.bit_identical(),
            "{rule} {kind:?}: {:?}",
            report.worst()
        );
        let checked = rule_check(&run, &RuleCheckOptions::new(0..STEPS, 3)).unwrap();
        assert!(
            checked.passed() && checked.bit_identical(),
            "{rule} {kind:?}: {checked}"
        );
        let derivatives = check_run(&run, &CheckOptions::default(), &mut |_| {}).unwrap();
        assert!(derivatives.passed(), "{rule} {kind:?}: {derivatives}");
    }
}

/// candle_nn's mean loss has other rounding errors, which a check of a bf16 run must allow.
#[test]
fn another_implementation_of_the_loss_is_within_the_tolerance_of_its_type() {
    for dtype in [DType::BF16, DType::F16] {
        let kind = Kind::Pure(dtype);
        let trace = Trace::open_storage(record(kind, Words::Candles, sgd) as _).unwrap();
        let data = data();
        let run = RecordedRun::from_trace(&trace, kind.objective(), data.as_ref(), None).unwrap();
        let options = ReplayCheckOptions {
            samples: 0,
            ..ReplayCheckOptions::new(&run)
        };
        let report = replay_check(&run, &options, &mut |_, _| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        println!(
            "{dtype:?}: median error of updates {:.1e}, worst {:?}",
            report.median_update_error(),
            report.worst_update()
        );
        assert!(report.passed(), "{dtype:?}: {:?}", report.worst());
    }
}

/// A run that was trained in another way than its model says doesn't pass.
#[test]
fn a_run_that_was_trained_in_another_type_is_not_reproduced() {
    let storage = record(Kind::Masters(DType::BF16), Words::Ours, sgd);
    let trace = Trace::open_storage(storage as _).unwrap();
    let data = data();
    let plain = Arc::new(OwnModel::new(Net::new, Net::forward, ops::cross_entropy).unwrap());
    let run = RecordedRun::from_trace(&trace, plain, data.as_ref(), None).unwrap();
    let report = replay_check(&run, &ReplayCheckOptions::new(&run), &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert!(!report.passed() && !report.bit_identical());
}

#[test]
fn scores_agree_with_retraining_in_the_recorded_type() {
    for (rule, kind, storage) in runs() {
        let trace = Trace::open_storage(Arc::clone(&storage) as _).unwrap();
        let data = data();
        let run = RecordedRun::from_trace(&trace, kind.objective(), data.as_ref(), None).unwrap();
        let mut engine = AutodiffEngine::new(kind.objective(), DType::F32, &Device::Cpu).unwrap();
        let query: Query = "validation".parse().unwrap();
        let gradient = query.gradient(&trace, &mut engine, data.as_ref()).unwrap();
        let options = SweepOptions::new(0..STEPS);
        let swept = sweep(&run, &mut engine, &[gradient], &options, &mut |_| {
            ControlFlow::Continue(())
        });
        let scores = swept.unwrap().queries[0].influence.clone();
        let sets: Vec<Vec<u64>> = (0..TRAIN as u64).map(|example| vec![example]).collect();
        let options = CounterfactualOptions::new(0..STEPS);
        let real = counterfactuals(&run, &options, &[query], &sets, &|_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
        // Retraining with all examples gives the recorded bits.
        assert_eq!(real.drift.of_movement, 0.0, "{rule} {kind:?}");
        let changes: Vec<f64> = (0..TRAIN).map(|set| real.change(set, 0).unwrap()).collect();
        let error = relative_error(&scores, &changes);
        let tau = hindcast_analyzer::measures::kendall_tau(&scores, &changes).unwrap();
        println!("{rule} {kind:?}: relative error {error:.3}, tau {tau:.2}");
        // One of 12 examples is a large change, so most of the error is that of the first order. It is the same in all types.
        assert!(error < 0.75 && tau > 0.55, "{rule} {kind:?}: {error} {tau}");
    }
}
