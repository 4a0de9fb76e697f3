//! A variational autoencoder of drawn digits, trained with AdamW on a sum loss; a tenth of the images are noisy.
//!
//! ```sh
//! cargo run --release --bin vae -- train runs/vae                            # kill it and start it again: it ends with the same bits
//! cargo run --release --bin vae -- verify runs/vae --replay --steps 0        # every recorded step is a training step of this model
//! cargo run --release --bin vae -- influence runs/vae --out scores.csv       # which images harm the validation loss?
//! cargo run --release --bin vae -- counterfactual runs/vae --top 5 scores.csv    # is that so? Retrain without the worst five
//! ```
//!
//! The noise of the latent variables follows from the seed, the step and the example, so a replay draws the same numbers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, VarMap, linear};
use clap::Parser;
use hindcast::run_with;
use hindcast_model::batches::shuffled;
use hindcast_model::data::{DataSet, DataSpec, Source, from_tensors, load};
use hindcast_model::objective::{Draws, Split};
use hindcast_model::ops;
use hindcast_model::own::{OwnModel, randn_like, seeded, with_draws}; // candle's randn_like draws other numbers in each pass
use hindcast_model::random::{Purpose, Stream};
use hindcast_recorder::{AdamW, BatchInfo, Recorder}; // candle_nn's AdamW, with moments that survive a kill

const SEED: u64 = 7;
const BATCH: usize = 32;
const HIDDEN: usize = 48;
const LATENT: usize = 8;

struct Vae {
    encoder: Linear,
    mean: Linear,
    log_variance: Linear,
    hidden: Linear,
    decoder: Linear,
}

impl Vae {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            encoder: linear(28 * 28, HIDDEN, vb.pp("encoder"))?,
            mean: linear(HIDDEN, LATENT, vb.pp("mean"))?,
            log_variance: linear(HIDDEN, LATENT, vb.pp("log_variance"))?,
            hidden: linear(LATENT, HIDDEN, vb.pp("hidden"))?,
            decoder: linear(HIDDEN, 28 * 28, vb.pp("decoder"))?,
        })
    }

    /// Images (B, 784) in 0..1 to the loss of each, (B,): the cross entropy of the pixels plus the divergence from the prior.
    fn losses(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let code = self.encoder.forward(x)?.tanh()?;
        let (mean, log_variance) = (self.mean.forward(&code)?, self.log_variance.forward(&code)?);
        let mut z = mean.clone();
        if train {
            z = (z + (log_variance.affine(0.5, 0.0)?.exp()? * randn_like(&mean, 0.0, 1.0)?)?)?;
        }
        let logits = self.decoder.forward(&self.hidden.forward(&z)?.tanh()?)?;
        let pixels = (ops::softplus(&logits)? - (x * &logits)?)?.sum(1)?;
        let variance = log_variance.exp()?;
        let divergence = ((variance + mean.sqr()?)? - (log_variance + 1.0)?)?.sum(1)?;
        pixels + (divergence * 0.5)?
    }
}

/// Drawn digits, (N, 784) in 0..1, with their classes. Every tenth training image is noisy: a sixth of its pixels is inverted.
fn digits(split: Split) -> anyhow::Result<(Tensor, Tensor)> {
    let mut spec = DataSpec::new(Source::Digits);
    (spec.train, spec.validation, spec.test) = (Some(640), Some(256), Some(0));
    spec.flipped = Some(0.0);
    let digits = load(&spec, None, None, SEED)?;
    let all: Vec<u64> = (0..digits.len(split)).collect();
    let batch = digits.batch(split, &all, None, DType::F32, &Device::Cpu)?;
    let images = batch.inputs.flatten_from(1)?;
    let mut inverted = Vec::with_capacity(images.elem_count());
    for i in all {
        let noisy = split == Split::Train && i % 10 == 9;
        let mut stream = Stream::of_example(SEED, i, Purpose::Synthetic(9));
        let pixels = images.dim(1)?;
        inverted.extend((0..pixels).map(|_| f32::from(noisy && stream.bernoulli(1.0 / 6.0))));
    }
    let inverted = Tensor::from_vec(inverted, images.dims(), &Device::Cpu)?;
    // x, or 1 − x.
    Ok(((images - inverted)?.abs()?, batch.targets))
}

fn examples(_folder: Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> {
    let (x, y) = digits(Split::Train)?;
    let (vx, vy) = digits(Split::Validation)?;
    Ok(from_tensors((&x, &y), Some((&vx, &vy)), None, &[], None)?)
}

/// Record a training
#[derive(Parser)]
#[command(bin_name = "vae train")]
struct Train {
    /// Folder of the run
    run: PathBuf,
    /// Number of passes over the images
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
}

fn train(args: &Train) -> anyhow::Result<()> {
    let data = examples(None)?;
    let variables = VarMap::new();
    let vae = Vae::new(seeded(&variables, SEED, DType::F32, &Device::Cpu))?;

    let (run, start) = Recorder::builder(&args.run)
        .seed(SEED)
        .objective("vae")
        .fingerprint(data.fingerprint())
        .segment_steps(20) // a kill costs at most this many steps
        .create_or_resume(&variables)?;
    let mut adam = run.wrap(AdamW::new_lr(variables.all_vars(), args.rate)?);

    let per_epoch = data.len(Split::Train) / BATCH as u64;
    for step in start.step..args.epochs * per_epoch {
        let epoch = step / per_epoch;
        let indices = shuffled(SEED, data.len(Split::Train), BATCH, step);
        let batch = data.batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)?;

        let draws = Draws { seed: SEED, step };
        let losses = with_draws(draws, &indices, || vae.losses(&batch.inputs, true))?;
        run.batch_with(BatchInfo::new(epoch, &indices).summed())?; // the batch loss is a sum, not a mean
        adam.backward_step(&losses.sum_all()?)?;
    }
    println!("{}", run.finish()?);
    Ok(())
}

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|verb| verb == "train") {
        train(&Train::parse_from(&words[1..]))?;
        return Ok(ExitCode::SUCCESS);
    }
    // All other verbs are Hindcast's. The forward function returns the losses already.
    let model = OwnModel::new(Vae::new, Vae::losses, |losses, _classes| Ok(losses.clone()))?;
    Ok(run_with(model, examples))
}
