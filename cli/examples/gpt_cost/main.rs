//! A character-level GPT with AdamW, to measure what recording and analysing a model of your own cost.
//!
//! ```sh
//! cargo run --release --example gpt_cost -- train runs/gpt 12                 # 12 steps; 1 million parameters
//! cargo run --release --example gpt_cost -- influence runs/gpt --at final --out scores.csv
//! ```
//!
//! `plain - 12` trains without recording. With `GPT=large` it has 10.7 million parameters and batches of 256 instead of 512 tokens.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Module, Optimizer, VarBuilder, VarMap, embedding};
use hindcast::OwnProgram;
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::{self, LayerNorm, Linear, OwnModel, linear};
use hindcast_model::random::{Purpose, Stream};
use hindcast_recorder::{AdamW, Recorder};

#[global_allocator]
static ALLOCATOR: hindcast::Allocator = hindcast::Allocator;

/// Characters per sequence.
const TOKENS: usize = 64;
const VOCABULARY: usize = 96;
const SEQUENCES: usize = 600;

#[derive(Clone, Copy)]
struct Size {
    layers: usize,
    width: usize,
    heads: usize,
    batch: usize,
}

fn size() -> Size {
    let large = std::env::var("GPT").is_ok_and(|size| size == "large");
    if large {
        Size {
            layers: 6,
            width: 384,
            heads: 6,
            batch: 4,
        }
    } else {
        Size {
            layers: 5,
            width: 128,
            heads: 4,
            batch: 8,
        }
    }
}

struct Block {
    norms: [LayerNorm; 2],
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
    heads: usize,
}

impl Block {
    fn new(size: Size, vb: VarBuilder) -> Result<Self> {
        let w = size.width;
        Ok(Self {
            norms: [
                own::layer_norm(w, 1e-5, vb.pp("norm1"))?,
                own::layer_norm(w, 1e-5, vb.pp("norm2"))?,
            ],
            qkv: linear(w, 3 * w, vb.pp("qkv"))?,
            out: linear(w, w, vb.pp("out"))?,
            up: linear(w, 4 * w, vb.pp("up"))?,
            down: linear(4 * w, w, vb.pp("down"))?,
            heads: size.heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norms[0].forward(x)?)?;
        let mixed = ops::self_attention(&qkv, self.heads, true)?;
        let x = (x + self.out.forward(&mixed)?)?;
        let inner = ops::gelu(&self.up.forward(&self.norms[1].forward(&x)?)?)?;
        x + self.down.forward(&inner)?
    }
}

struct Gpt {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Gpt {
    fn new(vb: VarBuilder) -> Result<Self> {
        let size = size();
        let blocks = (0..size.layers).map(|i| Block::new(size, vb.pp(format!("block{i}"))));
        Ok(Self {
            tokens: embedding(VOCABULARY, size.width, vb.pp("tokens"))?,
            positions: embedding(TOKENS, size.width, vb.pp("positions"))?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: own::layer_norm(size.width, 1e-5, vb.pp("norm"))?,
            head: linear(size.width, VOCABULARY, vb.pp("head"))?,
        })
    }

    fn forward(&self, ids: &Tensor, _train: bool) -> Result<Tensor> {
        let t = ids.dim(1)?;
        let places = Tensor::arange(0u32, t as u32, ids.device())?;
        let mut x = self
            .tokens
            .forward(ids)?
            .broadcast_add(&self.positions.forward(&places)?)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.head.forward(&self.norm.forward(&x)?)
    }
}

fn loss(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    ops::sequence_cross_entropy(logits, targets, None)
}

/// Sequences of drawn characters: only their number matters for the cost.
fn data() -> anyhow::Result<Box<dyn DataSet>> {
    const VALIDATION: usize = 40;
    let mut stream = Stream::of_run(7, Purpose::Synthetic(0));
    let length = (SEQUENCES + VALIDATION) * TOKENS + 1;
    let ids: Vec<u32> = (0..length)
        .map(|_| stream.below(VOCABULARY as u64) as u32)
        .collect();
    let rows = |from: usize, n: usize| -> Result<(Tensor, Tensor)> {
        let at = |shift: usize| -> Result<Tensor> {
            let values = (0..n * TOKENS).map(|i| i64::from(ids[from * TOKENS + i + shift]));
            Tensor::from_iter(values, &Device::Cpu)?.reshape((n, TOKENS))
        };
        Ok((at(0)?, at(1)?))
    };
    let (train, validation) = (rows(0, SEQUENCES)?, rows(SEQUENCES, VALIDATION)?);
    Ok(from_tensors(
        (&train.0, &train.1),
        Some((&validation.0, &validation.1)),
        None,
        &[],
        None,
    )?)
}

fn train(path: Option<&Path>, steps: usize) -> anyhow::Result<()> {
    let data = data()?;
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let net = Gpt::new(vb)?;
    let count: usize = variables.all_vars().iter().map(|v| v.elem_count()).sum();
    println!("{count} parameters");
    let run = match path {
        Some(path) => {
            let builder = Recorder::builder(path).fingerprint(data.fingerprint());
            Some(builder.create(&variables)?)
        }
        None => None,
    };
    let adam = AdamW::new_lr(variables.all_vars(), 3e-4)?;
    let (mut recorded, mut plain) = match &run {
        Some(run) => (Some(run.wrap(adam)), None),
        None => (None, Some(adam)),
    };
    let mut times = Vec::new();
    for step in 0..steps {
        let begun = Instant::now();
        let batch = size().batch;
        let indices: Vec<u64> = (0..batch)
            .map(|k| ((step * batch + k) * 7 % SEQUENCES) as u64)
            .collect();
        let batch = data.batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)?;
        let logits = net.forward(&batch.inputs, true)?;
        let loss = loss(&logits, &batch.targets)?.mean_all()?;
        if let (Some(run), Some(adam)) = (&run, &mut recorded) {
            run.batch(0, &indices)?;
            adam.backward_step(&loss)?;
        } else if let Some(adam) = &mut plain {
            adam.backward_step(&loss)?;
        }
        times.push(begun.elapsed().as_secs_f64());
    }
    if let Some(run) = run {
        println!("{}", run.finish()?);
    }
    times.sort_by(f64::total_cmp);
    println!("median step {:.0} ms", 1e3 * times[times.len() / 2]);
    Ok(())
}

fn main() -> ExitCode {
    // The layers divide their work among the threads of rayon's pool. Those of a second pool would spin and take the cores.
    ops::threads::one_for_elements();
    let words: Vec<OsString> = std::env::args_os().collect();
    let verb = words.get(1).and_then(|word| word.to_str());
    if let Some(verb @ ("train" | "plain")) = verb {
        let steps = words.get(3).map_or(Some(12), |n| n.to_str()?.parse().ok());
        let (Some(path), Some(steps)) = (words.get(2), steps) else {
            eprintln!(
                "gpt_cost: expected `train RUN [STEPS]`, or `plain - [STEPS]` to train without recording"
            );
            return ExitCode::from(2);
        };
        return match train((verb == "train").then(|| Path::new(path)), steps) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("gpt_cost: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match OwnModel::new(Gpt::new, Gpt::forward, loss) {
        Ok(model) => OwnProgram::new(model, |_| data()).run_args(words),
        Err(error) => {
            eprintln!("gpt_cost: the model doesn't build: {error}");
            ExitCode::FAILURE
        }
    }
}
