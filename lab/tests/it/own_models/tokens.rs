//! A model of token sequences with padding: it is checked, replayed bit for bit, and its scores equal differences of repeated
//! training.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, Optimizer, SGD, VarBuilder, VarMap, embedding, linear};
use hindcast_analyzer::check::{CheckOptions, check_run};
use hindcast_analyzer::run::RecordedEnd;
use hindcast_analyzer::{
    AutodiffEngine, Query, RecordedRun, ReplayCheckOptions, SweepOptions, replay_check, sweep,
};
use hindcast_format::{MemStorage, Trace};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::{self, OwnModel, RmsNorm};
use hindcast_recorder::{Recorder, UpdateRule};

use super::{initialise, state};
use crate::numbers::relative_error;

const VOCABULARY: usize = 7;
const WIDTH: usize = 4;
const SEQUENCES: u64 = 8;
const TOKENS: usize = 5;
const PADDING: i64 = -100;
const STEPS: u64 = 6;
const STEP: f64 = 2e-5;

/// Embedding, causal attention, RMS norm, and logits of the next token.
struct Net {
    embed: Embedding,
    qkv: Linear,
    norm: RmsNorm,
    out: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            embed: embedding(VOCABULARY, WIDTH, vb.pp("embed"))?,
            qkv: linear(WIDTH, 3 * WIDTH, vb.pp("qkv"))?,
            norm: own::rms_norm(WIDTH, 1e-6, vb.pp("norm"))?,
            out: linear(WIDTH, VOCABULARY, vb.pp("out"))?,
        })
    }

    fn forward(&self, ids: &Tensor, _: bool) -> Result<Tensor> {
        let x = self.embed.forward(ids)?;
        let qkv = self.qkv.forward(&x)?.chunk(3, 2)?;
        let scores = qkv[0].contiguous()?.matmul(&qkv[1].t()?.contiguous()?)?;
        let mask = Tensor::triu2(TOKENS, DType::F64, ids.device())?.broadcast_sub(&Tensor::eye(
            TOKENS,
            DType::F64,
            ids.device(),
        )?)?;
        let scores = scores.broadcast_sub(&(mask * 1e4)?.to_dtype(scores.dtype())?)?;
        let mixed = own::ops::softmax_last_dim(&scores)?.matmul(&qkv[2].contiguous()?)?;
        self.out.forward(&self.norm.forward(&(x + mixed)?)?)
    }
}

fn loss(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    ops::sequence_cross_entropy(logits, targets, Some(PADDING))
}

fn objective() -> Arc<OwnModel> {
    Arc::new(OwnModel::new(Net::new, Net::forward, loss).unwrap())
}

/// Sequences of different lengths, padded with 0; the targets are the next tokens.
fn data() -> Box<dyn DataSet> {
    let pair = |seed: usize, n: usize| {
        let mut inputs = Vec::new();
        let mut targets = Vec::new();
        for row in 0..n {
            let token = |at: usize| ((seed + row * 5 + at * at * (row + 2)) % VOCABULARY) as i64;
            let length = 2 + (row + seed) % (TOKENS - 1);
            for at in 0..TOKENS {
                inputs.push(if at < length { token(at) } else { 0 });
                targets.push(if at < length { token(at + 1) } else { PADDING });
            }
        }
        let tensor = |ids| Tensor::from_vec(ids, (n, TOKENS), &Device::Cpu).unwrap();
        (tensor(inputs), tensor(targets))
    };
    let (train, validation) = (pair(1, SEQUENCES as usize), pair(3, 5));
    let validation = Some((&validation.0, &validation.1));
    from_tensors((&train.0, &train.1), validation, None, &[], None).unwrap()
}

fn train(
    dtype: DType,
    changed: Option<(u64, f64)>,
    record: Option<&Arc<MemStorage>>,
) -> RecordedEnd {
    let data = data();
    let variables = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(&variables, dtype, &Device::Cpu)).unwrap();
    initialise(&variables, 0.8);
    let run = record.map(|storage| {
        Recorder::builder_on(Arc::clone(storage) as _, "a run in memory")
            .rule(UpdateRule::sgd())
            .fingerprint(data.fingerprint())
            .create(&variables)
            .unwrap()
    });
    let sgd = || SGD::new(variables.all_vars(), 0.3).unwrap();
    let mut recorded = run.as_ref().map(|run| run.wrap(sgd()));
    let mut plain = sgd();
    for step in 0..STEPS {
        let indices: Vec<u64> = (0..3).map(|k| (step * 3 + k * 2) % SEQUENCES).collect();
        let batch = data
            .batch(Split::Train, &indices, None, dtype, &Device::Cpu)
            .unwrap();
        let losses = loss(&net.forward(&batch.inputs, true).unwrap(), &batch.targets).unwrap();
        let n = indices.len() as f64;
        let loss = match changed {
            None => losses.mean_all().unwrap(),
            Some((example, factor)) => {
                let share = |&i: &u64| if i == example { factor / n } else { 1.0 / n };
                let w = Tensor::from_iter(indices.iter().map(share), &Device::Cpu).unwrap();
                losses.mul(&w).unwrap().sum_all().unwrap()
            }
        };
        match (&run, &mut recorded) {
            (Some(run), Some(sgd)) => {
                run.batch(0, &indices).unwrap();
                sgd.backward_step(&loss).unwrap();
            }
            _ => plain.backward_step(&loss).unwrap(),
        }
    }
    if let Some(run) = run {
        run.finish().unwrap();
    }
    state(&variables, objective().as_ref())
}

#[test]
fn a_run_of_sequences_is_checked_and_replayed() {
    for dtype in [DType::F32, DType::F64] {
        let storage = Arc::new(MemStorage::new());
        train(dtype, None, Some(&storage));
        let trace = Trace::open_storage(Arc::clone(&storage) as _).unwrap();
        let data = data();
        let run = RecordedRun::from_trace(&trace, objective(), data.as_ref(), None).unwrap();
        let report = check_run(&run, &CheckOptions::default()).unwrap();
        assert!(report.passed(), "{report}");
        let options = ReplayCheckOptions {
            samples: 0,
            ..ReplayCheckOptions::new(&run)
        };
        let report = replay_check(&run, &options, &mut |_, _| {}).unwrap();
        assert_eq!(report.steps.len() as u64, STEPS);
        assert!(report.bit_identical(), "{dtype:?}: {:?}", report.worst());
    }
}

#[test]
fn scores_of_sequences_equal_the_differences_of_repeated_training() {
    let storage = Arc::new(MemStorage::new());
    train(DType::F64, None, Some(&storage));
    let trace = Trace::open_storage(Arc::clone(&storage) as _).unwrap();
    let data = data();
    let run = RecordedRun::from_trace(&trace, objective(), data.as_ref(), None).unwrap();
    let mut engine = AutodiffEngine::new(objective(), DType::F64, &Device::Cpu).unwrap();
    let query: Query = "validation".parse().unwrap();
    let gradient = query.gradient(&trace, &mut engine, data.as_ref()).unwrap();
    let options = SweepOptions::new(0..STEPS);
    let swept = sweep(&run, &mut engine, &[gradient], &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let differences: Vec<f64> = (0..SEQUENCES)
        .map(|example| {
            let at = |factor| {
                let end = train(DType::F64, Some((example, factor)), None);
                query
                    .value(&run, &end.parameters, &end.buffers, &Device::Cpu)
                    .unwrap()
            };
            (at(1.0 - STEP) - at(1.0 + STEP)) / (2.0 * STEP)
        })
        .collect();
    let error = relative_error(&swept.queries[0].influence, &differences);
    println!("token sequences with padding: {error:.1e}");
    assert!(error < 1e-6, "{error:e}");
}
