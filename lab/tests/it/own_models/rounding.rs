//! Attention trained with candle's AdamW, which keeps its moments to itself: every step is replayed, and rounding that
//! Adam turns into whole steps isn't called an error.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, linear};
use hindcast_analyzer::check::ReplayCheckReport;
use hindcast_analyzer::{
    MemoryRun, RecordedRun, ReplayCheckOptions, RuleCheckOptions, StepSource, replay_check,
    rule_check,
};
use hindcast_format::{MemStorage, Trace};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::OwnModel;
use hindcast_model::update::UpdateRule;
use hindcast_recorder::{Recorder, UpdateRule as Recorded};

use super::{CLASSES, SIDE, TRAIN, data, initialise};

const STEPS: u64 = 40;

/// The rows of an image attend to each other. The gradients of the keys' biases are 0 except for rounding, because a
/// softmax doesn't change if a number is added to all of its inputs.
struct Net {
    qkv: Linear,
    out: Linear,
}

fn build(vb: VarBuilder) -> Result<Net> {
    Ok(Net {
        qkv: linear(SIDE, 3 * SIDE, vb.pp("qkv"))?,
        out: linear(SIDE, CLASSES, vb.pp("out"))?,
    })
}

impl Net {
    fn forward(&self, x: &Tensor, _train: bool) -> Result<Tensor> {
        let qkv = self.qkv.forward(&x.squeeze(1)?)?;
        let part = |i: usize| qkv.narrow(2, i * SIDE, SIDE)?.contiguous();
        let scores = part(0)?.matmul(&part(1)?.t()?)?;
        let weights = candle_nn::ops::softmax(&scores, 2)?;
        self.out.forward(&weights.matmul(&part(2)?)?.mean(1)?)
    }
}

/// Trains with candle's loss and optimizer. With `fresh`, a new optimizer with moments of zero takes over at that step.
fn train(fresh: Option<u64>) -> Trace {
    let data = data();
    let storage = Arc::new(MemStorage::new());
    let variables = VarMap::new();
    let net = build(VarBuilder::from_varmap(
        &variables,
        DType::F32,
        &Device::Cpu,
    ))
    .unwrap();
    initialise(&variables, 0.6);
    let params = || ParamsAdamW {
        lr: 0.01,
        ..Default::default()
    };
    let adamw = || AdamW::new(variables.all_vars(), params()).unwrap();
    let run = Recorder::builder_on(Arc::clone(&storage) as _, "a run in memory")
        .rule(Recorded::adam_w().weight_decay(0.01))
        .segment_steps(7)
        .fingerprint(data.fingerprint())
        .create(&variables)
        .unwrap();
    let mut optimizer = run.wrap(adamw());
    for step in 0..STEPS {
        if fresh == Some(step) {
            *optimizer.optimizer_mut() = adamw();
        }
        let indices: Vec<u64> = (0..5).map(|k| (step * 5 + k) % TRAIN as u64).collect();
        let batch = data
            .batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)
            .unwrap();
        let logits = net.forward(&batch.inputs, true).unwrap();
        let loss = candle_nn::loss::cross_entropy(&logits, &batch.targets).unwrap();
        run.batch(step / 3, &indices).unwrap();
        optimizer.backward_step(&loss).unwrap();
    }
    run.finish().unwrap();
    Trace::open_storage(storage).unwrap()
}

fn replayed(trace: &Trace, rule: Option<&str>) -> ReplayCheckReport {
    let model = Arc::new(OwnModel::new(build, Net::forward, ops::cross_entropy).unwrap());
    let data = data();
    // The trace states its own rule, so another one needs a copy.
    let copy = MemoryRun {
        parameters: StepSource::parameters(trace).to_vec(),
        buffers: Vec::new(),
        optimizer_state: Vec::new(),
        steps: StepSource::forward(trace, 0..STEPS)
            .unwrap()
            .map(|step| step.unwrap())
            .collect(),
        end: Some(StepSource::end(trace).unwrap()),
    };
    let run = match rule {
        None => RecordedRun::from_trace(trace, model, data.as_ref(), None),
        Some(text) => {
            let rule = UpdateRule::from_toml(text).unwrap();
            RecordedRun::new(&copy, model, data.as_ref(), rule, 0)
        }
    };
    let run = run.unwrap();
    let options = ReplayCheckOptions {
        samples: 0,
        ..ReplayCheckOptions::new(&run)
    };
    let seen = rule_check(&run, &RuleCheckOptions::new(0..STEPS, 3)).unwrap();
    let report = replay_check(&run, &options, &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    println!(
        "{rule:?}: rule check {:?}, largest error {:.1e}, of the update {:.1e}, median {:.1e}, by rounding {}",
        seen.passed(),
        report.worst().unwrap().comparison.max_relative_error,
        report.worst_update().unwrap().update_error,
        report.median_update_error(),
        report.by_rounding()
    );
    report
}

#[test]
fn every_step_is_replayed_and_rounding_is_no_error() {
    let trace = train(None);
    assert!(StepSource::optimizer_state(&trace).is_empty());
    let report = replayed(&trace, None);
    assert_eq!(report.steps.len() as u64, STEPS);
    assert!(report.passed(), "{:#?}", report.worst_update());
    assert!(report.by_rounding() > 0);
    // The bound excuses the keys' biases, and nothing else.
    let keys = STEPS * SIDE as u64;
    assert!(report.by_rounding() <= keys, "{}", report.by_rounding());
}

#[test]
fn another_rule_is_not_reproduced() {
    let trace = train(None);
    for rule in [
        "kind = \"adamw\"\nbeta1 = 0.85",
        "kind = \"adamw\"\nbeta2 = 0.99",
        "kind = \"adamw\"\neps = 0.0001",
        "kind = \"adam\"\nweight_decay = 0.01",
        "kind = \"adamw\"\nclip_norm = 0.1",
        "kind = \"sgd\"\nmomentum = 0.9",
    ] {
        assert!(!replayed(&trace, Some(rule)).passed(), "{rule}");
    }
}

#[test]
fn moments_that_restarted_are_found_where_they_did() {
    let report = replayed(&train(Some(25)), None);
    let failed: Vec<u64> = report
        .steps
        .iter()
        .filter(|s| !s.passed)
        .map(|s| s.step)
        .collect();
    assert_eq!(failed.first(), Some(&25), "{failed:?}");
}
