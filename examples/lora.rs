//! Low-rank adapters (LoRA) on a frozen network: a classifier of digits learns to read mirrored ones, a tenth of them
//! with wrong labels.
//!
//! ```sh
//! cargo run --release --bin lora -- base base.safetensors                    # a network to begin with; not recorded
//! cargo run --release --bin lora -- train runs/lora --base base.safetensors  # kill it and start it again: it ends with the same bits
//! cargo run --release --bin lora -- verify runs/lora --replay --steps 0      # every recorded step is a training step of this model
//! cargo run --release --bin lora -- influence runs/lora --out scores.csv     # which examples harm the validation loss?
//! cargo run --release --bin lora -- counterfactual runs/lora --top 5 scores.csv  # is that so? Retrain without the worst five
//! ```
//!
//! The optimizer holds only the adapters, and the trace says so. The frozen tensors are in the trace, too, so the analysis
//! doesn't need the file of the base. They hardly take space, because they don't change.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use candle_core::{DType, Device, Result, Tensor, Var, safetensors};
use candle_nn::{Linear, Module, Optimizer as _, VarBuilder, VarMap, init, linear};
use clap::Parser;
use hindcast::run_with;
use hindcast_model::batches::shuffled;
use hindcast_model::data::{DataSet, DataSpec, Source, from_tensors, load};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::{OwnModel, seeded};
use hindcast_recorder::{AdamW, Recorder}; // candle_nn's AdamW, with moments that survive a kill

const SEED: u64 = 7;
const BATCH: usize = 32;
const RANK: usize = 4;

/// A frozen linear layer with an adapter: W x + b + B A x.
struct Adapted {
    frozen: Linear,
    /// (rank, in).
    a: Tensor,
    /// (out, rank), zero at first.
    b: Tensor,
}

impl Adapted {
    fn new(inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Self> {
        let adapter = vb.pp("lora");
        Ok(Self {
            frozen: linear(inputs, outputs, vb.pp("base"))?,
            a: adapter.get_with_hints((RANK, inputs), "a", init::DEFAULT_KAIMING_NORMAL)?,
            b: adapter.get_with_hints((outputs, RANK), "b", init::ZERO)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.frozen.forward(x)? + x.matmul(&self.a.t()?)?.matmul(&self.b.t()?)?
    }
}

struct Net {
    first: Adapted,
    second: Adapted,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            first: Adapted::new(28 * 28, 48, vb.pp("first"))?,
            second: Adapted::new(48, 10, vb.pp("second"))?,
        })
    }

    /// (B, 784) to logits (B, 10).
    fn forward(&self, x: &Tensor, _train: bool) -> Result<Tensor> {
        self.second.forward(&self.first.forward(x)?.tanh()?)
    }
}

/// The variables of the adapters, or all others.
fn variables_of(variables: &VarMap, adapters: bool) -> anyhow::Result<Vec<(String, Var)>> {
    let Ok(all) = variables.data().lock() else {
        anyhow::bail!("a thread panicked while it held the variables");
    };
    let chosen = all
        .iter()
        .filter(|(name, _)| name.contains(".lora.") == adapters);
    Ok(chosen
        .map(|(name, var)| (name.clone(), var.clone()))
        .collect())
}

/// Drawn digits, (N, 784), with their classes.
fn digits(split: Split, mirrored: bool) -> anyhow::Result<(Tensor, Tensor)> {
    let mut spec = DataSpec::new(Source::Digits);
    (spec.train, spec.validation, spec.test) = (Some(640), Some(256), Some(0));
    spec.flipped = Some(0.0);
    (spec.mean, spec.sd) = (vec![0.13], vec![0.31]);
    let digits = load(&spec, None, None, SEED)?;
    let all: Vec<u64> = (0..digits.len(split)).collect();
    let batch = digits.batch(split, &all, None, DType::F32, &Device::Cpu)?;
    let mut images = batch.inputs; // (N, 1, 28, 28)
    if mirrored {
        images = images.flip(&[3])?;
    }
    Ok((images.flatten_from(1)?, batch.targets))
}

/// The mirrored digits. Of the training examples, every tenth has the label of the next digit.
fn examples(_folder: Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> {
    let (x, y) = digits(Split::Train, true)?;
    let (vx, vy) = digits(Split::Validation, true)?;
    let wrong = |(i, class): (usize, u32)| if i % 10 == 9 { (class + 1) % 10 } else { class };
    let y: Vec<u32> = y
        .to_vec1::<u32>()?
        .into_iter()
        .enumerate()
        .map(wrong)
        .collect();
    let y = Tensor::new(y, &Device::Cpu)?;
    Ok(from_tensors((&x, &y), Some((&vx, &vy)), None, &[], None)?)
}

/// Train the network to begin with, and save its tensors
#[derive(Parser)]
#[command(bin_name = "lora base")]
struct Base {
    /// The file to write
    file: PathBuf,
}

fn base(args: &Base) -> anyhow::Result<()> {
    let (x, y) = digits(Split::Train, false)?;
    let variables = VarMap::new();
    let net = Net::new(seeded(&variables, SEED, DType::F32, &Device::Cpu))?;
    let named = variables_of(&variables, false)?;
    let vars = named.iter().map(|(_, var)| var.clone()).collect();
    let mut adam = candle_nn::AdamW::new_lr(vars, 2e-3)?;
    for _ in 0..40 {
        let loss = ops::cross_entropy(&net.forward(&x, true)?, &y)?.mean_all()?;
        adam.backward_step(&loss)?;
    }
    let tensors = named
        .into_iter()
        .map(|(name, var)| (name, var.into_inner()));
    safetensors::save(&tensors.collect(), &args.file)?;
    Ok(())
}

/// Record the training of the adapters
#[derive(Parser)]
#[command(bin_name = "lora train")]
struct Train {
    /// Folder of the run
    run: PathBuf,
    /// File that `lora base` wrote
    #[arg(long)]
    base: PathBuf,
    /// Number of passes over the examples
    #[arg(long, default_value_t = 8)]
    epochs: u64,
    /// Learning rate
    #[arg(long, default_value_t = 2e-3)]
    rate: f64,
}

fn train(args: &Train) -> anyhow::Result<()> {
    let data = examples(None)?;
    let mut variables = VarMap::new();
    let net = Net::new(seeded(&variables, SEED, DType::F32, &Device::Cpu))?;
    let base = safetensors::load(&args.base, &Device::Cpu);
    let base = base.with_context(|| format!("the base {}", args.base.display()))?;
    variables.set(base.iter())?;

    let (run, start) = Recorder::builder(&args.run)
        .seed(SEED)
        .objective("lora")
        .fingerprint(data.fingerprint())
        .segment_steps(20) // a kill costs at most this many steps
        .create_or_resume(&variables)?;
    let adapters = variables_of(&variables, true)?
        .into_iter()
        .map(|(_, var)| var);
    let mut adam = run.wrap(AdamW::new_lr(adapters.collect(), args.rate)?);

    let per_epoch = data.len(Split::Train) / BATCH as u64;
    for step in start.step..args.epochs * per_epoch {
        let epoch = step / per_epoch;
        let indices = shuffled(SEED, data.len(Split::Train), BATCH, step);
        let batch = data.batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)?;

        let logits = net.forward(&batch.inputs, true)?;
        let loss = ops::cross_entropy(&logits, &batch.targets)?.mean_all()?;
        run.batch(epoch, &indices)?;
        adam.backward_step(&loss)?;
    }
    println!("{}", run.finish()?);
    Ok(())
}

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    match words.get(1).and_then(|verb| verb.to_str()) {
        Some("base") => base(&Base::parse_from(&words[1..]))?,
        Some("train") => train(&Train::parse_from(&words[1..]))?,
        // All other verbs are Hindcast's.
        _ => {
            let model = OwnModel::new(Net::new, Net::forward, ops::cross_entropy)?;
            return Ok(run_with(model, examples));
        }
    }
    Ok(ExitCode::SUCCESS)
}
