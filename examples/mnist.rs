//! A convolutional network with dropout, trained with AdamW on images of digits, a tenth of them with wrong labels.
//!
//! ```sh
//! cargo run --release --bin mnist -- train runs/mnist                            # kill it and start it again: it ends with the same bits
//! cargo run --release --bin mnist -- verify runs/mnist --replay --steps 0        # every recorded step is a training step of this model
//! cargo run --release --bin mnist -- influence runs/mnist --out scores.csv       # which examples harm the validation loss?
//! cargo run --release --bin mnist -- counterfactual runs/mnist --top 5 scores.csv    # is that so? Retrain without the worst five
//! ```
//!
//! With `--data DIR` it trains on MNIST's four files in this folder. Without it, the digits are drawn by code.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module, VarBuilder, VarMap, conv2d, linear};
use clap::Parser;
use hindcast::run_with;
use hindcast_model::batches::shuffled;
use hindcast_model::data::{DataSet, DataSpec, Source, load};
use hindcast_model::objective::{Draws, Split};
use hindcast_model::ops;
// candle's dropout draws other numbers in each pass, and its max_pool2d has a wrong gradient.
use hindcast_model::own::{Dropout, OwnModel, max_pool2d, seeded, with_draws};
use hindcast_recorder::{AdamW, Recorder}; // candle_nn's AdamW, with moments that survive a kill

const SEED: u64 = 7;
const BATCH: usize = 32;

struct Net {
    conv1: Conv2d,
    conv2: Conv2d,
    dropout: Dropout,
    out: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        let conv = |stride, padding| Conv2dConfig {
            stride,
            padding,
            ..Default::default()
        };
        Ok(Self {
            conv1: conv2d(1, 8, 5, conv(2, 2), vb.pp("conv1"))?,
            conv2: conv2d(8, 16, 3, conv(1, 1), vb.pp("conv2"))?,
            dropout: Dropout::new(0.25),
            out: linear(16 * 7 * 7, 10, vb.pp("out"))?,
        })
    }

    /// (B, 1, 28, 28) to logits (B, 10).
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = max_pool2d(&self.conv1.forward(x)?, 2)?.relu()?;
        let x = self.conv2.forward(&x)?.relu()?.flatten_from(1)?;
        self.out.forward(&self.dropout.forward(&x, train)?)
    }
}

/// The examples: MNIST's files if a folder is given, else drawn digits.
fn examples(folder: Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> {
    let mut spec = DataSpec::new(match folder {
        Some(_) => Source::Idx,
        None => Source::Digits,
    });
    (spec.train, spec.validation, spec.test) = (Some(640), Some(256), Some(0));
    spec.flipped = Some(0.1); // the labels that an analysis should find
    (spec.mean, spec.sd) = (vec![0.13], vec![0.31]);
    Ok(load(&spec, None, folder, SEED)?)
}

/// Record a training
#[derive(Parser)]
#[command(bin_name = "mnist train")]
struct Train {
    /// Folder of the run
    run: PathBuf,
    /// Folder with MNIST's files [default: drawn digits]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Number of passes over the examples
    #[arg(long, default_value_t = 8)]
    epochs: u64,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
}

fn train(args: &Train) -> anyhow::Result<()> {
    let data = examples(args.data.as_deref())?;
    let variables = VarMap::new();
    let net = Net::new(seeded(&variables, SEED, DType::F32, &Device::Cpu))?;

    let (run, start) = Recorder::builder(&args.run)
        .seed(SEED)
        .objective("mnist")
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
        let logits = with_draws(draws, &indices, || net.forward(&batch.inputs, true))?;
        let loss = ops::cross_entropy(&logits, &batch.targets)?.mean_all()?;
        run.batch(epoch, &indices)?;
        adam.backward_step(&loss)?;
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
    // All other verbs are Hindcast's.
    let model = OwnModel::new(Net::new, Net::forward, ops::cross_entropy)?;
    Ok(run_with(model, examples))
}
