//! Two optimizers over one model, as is usual for transformers: matrices with weight decay, biases and norms without.
//! With accumulated gradients and clipping. The data are drawn digits, a tenth of them with wrong labels.
//!
//! ```sh
//! cargo run --release --bin groups -- train runs/groups                          # kill it and start it again: it ends with the same bits
//! cargo run --release --bin groups -- verify runs/groups --replay --steps 0      # every recorded step is a training step of this model
//! cargo run --release --bin groups -- influence runs/groups --out scores.csv     # which examples harm the validation loss?
//! cargo run --release --bin groups -- counterfactual runs/groups --top 5 scores.csv  # is that so? Retrain without the worst five
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Linear, Module, Optimizer as _, ParamsAdamW, VarBuilder, VarMap, linear};
use clap::Parser;
use hindcast::run_with;
use hindcast_model::batches::shuffled;
use hindcast_model::data::{DataSet, DataSpec, Source, load};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::{LayerNorm, OwnModel, layer_norm, seeded}; // candle's fused layer norm has no derivative
use hindcast_recorder::{AdamW, BatchInfo, Recorder}; // candle_nn's AdamW, with moments that survive a kill

const SEED: u64 = 7;
const BATCH: usize = 32;
const MICRO_BATCH: usize = 16;
const DECAY: f64 = 0.1;
const CLIP: f64 = 1.0;
const WIDTH: usize = 32;

struct Net {
    embed: Linear,
    norm: LayerNorm,
    up: Linear,
    down: Linear,
    head: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            embed: linear(28 * 28, WIDTH, vb.pp("embed"))?,
            norm: layer_norm(WIDTH, 1e-5, vb.pp("norm"))?,
            up: linear(WIDTH, 2 * WIDTH, vb.pp("up"))?,
            down: linear(2 * WIDTH, WIDTH, vb.pp("down"))?,
            head: linear(WIDTH, 10, vb.pp("head"))?,
        })
    }

    /// (B, 1, 28, 28) to logits (B, 10).
    fn forward(&self, x: &Tensor, _train: bool) -> Result<Tensor> {
        let x = self.embed.forward(&x.flatten_from(1)?)?;
        let hidden = ops::gelu(&self.up.forward(&self.norm.forward(&x)?)?)?;
        self.head.forward(&(x + self.down.forward(&hidden)?)?)
    }
}

fn examples(_folder: Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> {
    let mut spec = DataSpec::new(Source::Digits);
    (spec.train, spec.validation, spec.test) = (Some(640), Some(256), Some(0));
    spec.flipped = Some(0.1); // the labels that an analysis should find
    (spec.mean, spec.sd) = (vec![0.13], vec![0.31]);
    Ok(load(&spec, None, None, SEED)?)
}

/// The variables in the order of their names. `all_vars` returns them in another order each time, and with it the last digits
/// of a sum over them would change.
fn in_order(variables: &VarMap) -> anyhow::Result<Vec<Var>> {
    let Ok(all) = variables.data().lock() else {
        anyhow::bail!("a thread panicked while it held the variables");
    };
    let sorted: BTreeMap<&String, &Var> = all.iter().collect();
    Ok(sorted.into_values().cloned().collect())
}

/// Adds the gradients of a micro-batch to those of the earlier ones.
fn add(sum: &mut GradStore, gradients: &GradStore, variables: &[Var]) -> Result<()> {
    for var in variables {
        if let Some(gradient) = gradients.get(var) {
            let total = match sum.remove(var) {
                Some(before) => (before + gradient)?,
                None => gradient.clone(),
            };
            sum.insert(var, total);
        }
    }
    Ok(())
}

/// Record a training
#[derive(Parser)]
#[command(bin_name = "groups train")]
struct Train {
    /// Folder of the run
    run: PathBuf,
    /// Number of passes over the examples
    #[arg(long, default_value_t = 8)]
    epochs: u64,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
}

fn train(args: &Train) -> anyhow::Result<()> {
    let data = examples(None)?;
    let variables = VarMap::new();
    let net = Net::new(seeded(&variables, SEED, DType::F32, &Device::Cpu))?;

    let (run, start) = Recorder::builder(&args.run)
        .seed(SEED)
        .objective("groups")
        .fingerprint(data.fingerprint())
        .segment_steps(20) // a kill costs at most this many steps
        .create_or_resume(&variables)?;
    let all = in_order(&variables)?;
    let adam = |decayed: bool, weight_decay: f64| {
        let chosen = all.iter().filter(|var| (var.rank() > 1) == decayed);
        let params = ParamsAdamW {
            lr: args.rate,
            weight_decay,
            ..Default::default()
        };
        AdamW::new(chosen.cloned().collect(), params)
    };
    let mut matrices = run.wrap(adam(true, DECAY)?);
    let mut vectors = run.wrap(adam(false, 0.0)?);

    let per_epoch = data.len(Split::Train) / BATCH as u64;
    for step in start.step..args.epochs * per_epoch {
        let epoch = step / per_epoch;
        let indices = shuffled(SEED, data.len(Split::Train), BATCH, step);

        let mut gradients = GradStore::default();
        for indices in indices.chunks(MICRO_BATCH) {
            let batch = data.batch(Split::Train, indices, None, DType::F32, &Device::Cpu)?;
            let losses = ops::cross_entropy(&net.forward(&batch.inputs, true)?, &batch.targets)?;
            // The mean over the whole batch.
            let loss = (losses.sum_all()? / BATCH as f64)?;
            add(&mut gradients, &loss.backward()?, &all)?;
        }
        let parts = [MICRO_BATCH as u32; BATCH / MICRO_BATCH];
        run.batch_with(BatchInfo::new(epoch, &indices).micro_batches(&parts))?;
        run.clip_grad_norm(&mut gradients, &all, CLIP)?;
        run.step_with(&gradients, None, &mut [&mut matrices, &mut vectors])?;
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
