//! Models of `own`'s layers with dropout and noise: they are replayed bit for bit, and their scores equal differences of
//! repeated training.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2d, Linear, Module, VarBuilder, VarMap, conv2d, linear};
use hindcast_analyzer::run::RecordedEnd;
use hindcast_analyzer::{Query, RecordedRun, ReplayCheckOptions, replay_check};
use hindcast_format::MemStorage;
use hindcast_model::objective::{Draws, Split};
use hindcast_model::ops;
use hindcast_model::own::{self, Dropout, LayerNorm, OwnModel, RmsNorm, with_draws};
use hindcast_recorder::Builder;

use super::training::{error_of_scores, scaled, trace, train_by_sgd};
use super::{CLASSES, SIDE, TRAIN, data, initialise, state};

const SEED: u64 = 5;
const STEPS: u64 = 7;
const RATE: f64 = 0.2;

/// What both models have in common: a way to build them and to run them.
trait Model: Sized + 'static {
    fn new(vb: VarBuilder) -> Result<Self>;
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor>;
}

/// One block of attention over the rows of an image, with every layer that candle can't differentiate.
struct Transformer {
    first: LayerNorm,
    qkv: Linear,
    dropout: Dropout,
    second: RmsNorm,
    out: Linear,
}

impl Model for Transformer {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            first: own::layer_norm(SIDE, 1e-5, vb.pp("first"))?,
            qkv: linear(SIDE, 3 * SIDE, vb.pp("qkv"))?,
            dropout: Dropout::new(0.25),
            second: own::rms_norm(SIDE, 1e-6, vb.pp("second"))?,
            out: linear(SIDE, CLASSES, vb.pp("out"))?,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = x.squeeze(1)?;
        let (b, t, d) = x.dims3()?;
        let qkv = self.qkv.forward(&self.first.forward(&x)?)?.chunk(3, 2)?;
        // f32 constants, also when the model runs in float64.
        let angles = Tensor::arange(0f32, (t * d / 2) as f32, x.device())?.reshape((t, d / 2))?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        let q = own::rotary_emb::rope(&qkv[0].unsqueeze(1)?, &cos, &sin)?;
        let k = own::rotary_emb::rope_i(&qkv[1].unsqueeze(1)?, &cos, &sin)?;
        let scores = own::ops::softmax_last_dim(&(q.matmul(&k.t()?)? / (d as f64).sqrt())?)?;
        let scores = self.dropout.forward(&scores, train)?;
        let mixed = scores.matmul(&qkv[2].unsqueeze(1)?)?.squeeze(1)?;
        let x = (x + self.dropout.forward(&mixed, train)?)?;
        // Rows of all examples together, as many programs write it.
        let x = self.second.forward(&x)?.reshape((b * t, d))?;
        let noisy = (&x + own::randn_like(&x, 0.0, 0.1)?)?;
        let x = self.dropout.forward(&noisy, train)?.reshape((b, t, d))?;
        self.out.forward(&x.mean(1)?.tanh()?)
    }
}

/// A convolution with pooling and dropout, as most programs for images have it.
struct Cnn {
    conv: Conv2d,
    dropout: Dropout,
    out: Linear,
}

impl Model for Cnn {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            conv: conv2d(1, 4, 3, Default::default(), vb.pp("conv"))?,
            dropout: Dropout::new(0.5),
            out: linear(4 * 2 * 2, CLASSES, vb.pp("out"))?,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.conv.forward(x)?.tanh()?;
        let x = ops::max_pool2d(&x, (2, 2), (2, 2), (0, 0))?.flatten_from(1)?;
        self.out.forward(&self.dropout.forward(&x, train)?)
    }
}

fn objective<M: Model>() -> Arc<OwnModel> {
    Arc::new(OwnModel::new(M::new, M::forward, ops::cross_entropy).unwrap())
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

/// Trains in an ordinary loop. `changed` is an example and its factor in every batch; without it, the loss is the mean of
/// `own::loss`.
fn train<M: Model>(
    dtype: DType,
    changed: Option<(u64, f64)>,
    record: Option<&Arc<MemStorage>>,
) -> RecordedEnd {
    let data = data();
    let variables = VarMap::new();
    let net = M::new(VarBuilder::from_varmap(&variables, dtype, &Device::Cpu)).unwrap();
    initialise(&variables, 0.6);
    let options = |builder: Builder| builder.seed(SEED).fingerprint(data.fingerprint());
    train_by_sgd(&variables, (RATE, STEPS), record, options, |step| {
        let indices = indices(step);
        let batch = data
            .batch(Split::Train, &indices, None, dtype, &Device::Cpu)
            .unwrap();
        let draws = Draws { seed: SEED, step };
        let logits = with_draws(draws, &indices, || net.forward(&batch.inputs, true)).unwrap();
        let loss = match changed {
            None => own::loss::cross_entropy(&logits, &batch.targets).unwrap(),
            Some(changed) => {
                let losses = ops::cross_entropy(&logits, &batch.targets).unwrap();
                scaled(&losses, &indices, changed)
            }
        };
        (step / 3, indices, loss)
    });
    state(&variables, objective::<M>().as_ref())
}

fn replayed<M: Model>(name: &str) {
    for dtype in [DType::F32, DType::F64] {
        let storage = Arc::new(MemStorage::new());
        train::<M>(dtype, None, Some(&storage));
        let trace = trace(&storage);
        let data = data();
        let run = RecordedRun::from_trace(&trace, objective::<M>(), data.as_ref(), None).unwrap();
        let options = ReplayCheckOptions {
            samples: 0,
            ..ReplayCheckOptions::new(&run)
        };
        let report = replay_check(&run, &options, &mut |_, _| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(report.steps.len() as u64, STEPS, "{name}");
        assert!(
            report.bit_identical(),
            "{name}, {dtype:?}: {:?}",
            report.worst()
        );
    }
}

#[test]
fn runs_with_dropout_are_replayed_bit_for_bit() {
    replayed::<Cnn>("cnn");
    replayed::<Transformer>("transformer");
}

fn exact<M: Model>(name: &str) {
    let storage = Arc::new(MemStorage::new());
    train::<M>(DType::F64, None, Some(&storage));
    let trace = trace(&storage);
    let data = data();
    let run = RecordedRun::from_trace(&trace, objective::<M>(), data.as_ref(), None).unwrap();
    let query: Query = "validation".parse().unwrap();
    let trained = |example, factor| train::<M>(DType::F64, Some((example, factor)), None);
    let sizes = (STEPS, TRAIN as u64);
    let error = error_of_scores(&run, objective::<M>(), &query, sizes, &trained);
    println!("own layers, {name}: {error:.1e}");
    assert!(error < 1e-6, "{name}: {error:e}");
}

#[test]
fn scores_through_the_layers_equal_the_differences_of_repeated_training() {
    exact::<Cnn>("cnn");
    exact::<Transformer>("transformer");
}
