//! A character-level GPT, trained with AdamW on sentences of a small grammar, a tenth of them garbled.
//!
//! ```sh
//! cargo run --release --bin gpt -- train runs/gpt                            # kill it and start it again: it ends with the same bits
//! cargo run --release --bin gpt -- verify runs/gpt --replay --steps 0        # every recorded step is a training step of this model
//! cargo run --release --bin gpt -- influence runs/gpt --out scores.csv       # which sequences harm the validation loss?
//! cargo run --release --bin gpt -- influence runs/gpt --tokens tokens.csv    # and which of their characters?
//! cargo run --release --bin gpt -- counterfactual runs/gpt --top 5 scores.csv    # is that so? Retrain without the worst five
//! ```
//!
//! The default has 26,000 parameters and trains in seconds. `train runs/1m --width 128 --layers 5 --heads 4 --context 64` has a
//! million, `--width 384 --layers 6 --heads 6 --context 64` ten million. The run's notes keep these sizes for the analysis.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{
    Embedding, Init, Linear, Module, Optimizer as _, VarBuilder, VarMap, linear_no_bias,
};
use clap::{Args, Parser};
use hindcast::OwnProgram;
use hindcast_format::{RunInfo, Trace};
use hindcast_model::batches::shuffled;
use hindcast_model::data::{DataSet, Sequences, Vocabulary};
use hindcast_model::objective::Split;
use hindcast_model::ops;
// candle's fused layer norm and softmax have no derivative.
use hindcast_model::own::{LayerNorm, OwnModel, layer_norm, ops::softmax_last_dim, seeded};
use hindcast_model::random::{Purpose, Stream};
use hindcast_recorder::{AdamW, Recorder}; // candle_nn's AdamW, with moments that survive a kill

const SEED: u64 = 7;
const CHARACTERS: &str = "abcdefghijklmnopqrstuvwxyz .";

/// The sizes of a model and its data.
#[derive(Args, Clone, Copy)]
struct Sizes {
    /// Width of the residual stream
    #[arg(long, default_value_t = 32)]
    width: usize,
    /// Number of blocks
    #[arg(long, default_value_t = 2)]
    layers: usize,
    /// Number of attention heads, which must divide the width
    #[arg(long, default_value_t = 2)]
    heads: usize,
    /// Number of characters of a sequence
    #[arg(long, default_value_t = 32)]
    context: usize,
    /// Number of training sequences
    #[arg(long, default_value_t = 480)]
    sequences: usize,
}

impl Sizes {
    /// The notes that a run keeps.
    fn notes(self) -> [(&'static str, usize); 5] {
        [
            ("width", self.width),
            ("layers", self.layers),
            ("heads", self.heads),
            ("context", self.context),
            ("sequences", self.sequences),
        ]
    }

    /// The sizes of a recorded run.
    fn of(run: &RunInfo) -> anyhow::Result<Self> {
        let note = |key: &str| -> anyhow::Result<usize> {
            let text = run.notes.get(key);
            let text = text
                .with_context(|| format!("the run has no note `{key}`: is it of this program?"))?;
            text.parse()
                .with_context(|| format!("the run's note `{key}` is `{text}`, not a number"))
        };
        Ok(Self {
            width: note("width")?,
            layers: note("layers")?,
            heads: note("heads")?,
            context: note("context")?,
            sequences: note("sequences")?,
        })
    }
}

struct Block {
    heads: usize,
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(width: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            heads,
            norm1: layer_norm(width, 1e-5, vb.pp("norm1"))?,
            qkv: linear_no_bias(width, 3 * width, vb.pp("qkv"))?,
            proj: linear_no_bias(width, width, vb.pp("proj"))?,
            norm2: layer_norm(width, 1e-5, vb.pp("norm2"))?,
            up: linear_no_bias(width, 4 * width, vb.pp("up"))?,
            down: linear_no_bias(4 * width, width, vb.pp("down"))?,
        })
    }

    /// (B, T, D) to (B, T, D). `mask` (T, T) is added to the scores.
    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let x = (x + self.attention(&self.norm1.forward(x)?, mask)?)?;
        let hidden = ops::gelu(&self.up.forward(&self.norm2.forward(&x)?)?)?;
        x + self.down.forward(&hidden)?
    }

    fn attention(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (b, t, width) = x.dims3()?;
        let head = width / self.heads;
        let qkv = self.qkv.forward(x)?.reshape((b, t, 3, self.heads, head))?;
        let qkv = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?; // (3, B, heads, T, head)
        let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
        let scores = (q.matmul(&k.t()?)? / (head as f64).sqrt())?;
        let weights = softmax_last_dim(&scores.broadcast_add(mask)?)?;
        let mixed = weights.matmul(&v)?.transpose(1, 2)?.contiguous()?;
        self.proj.forward(&mixed.reshape((b, t, width))?)
    }
}

struct Gpt {
    tokens: Embedding,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    out: Linear,
}

impl Gpt {
    fn new(sizes: Sizes, vb: VarBuilder) -> Result<Self> {
        let Sizes {
            width,
            layers,
            heads,
            context,
            ..
        } = sizes;
        if heads == 0 || width % heads != 0 {
            candle_core::bail!("the width ({width}) must be a multiple of the heads ({heads})");
        }
        let small = Init::Randn {
            mean: 0.0,
            stdev: 0.02,
        };
        let tokens = vb.get_with_hints((CHARACTERS.len(), width), "tokens", small)?;
        let blocks = (0..layers).map(|i| Block::new(width, heads, vb.pp(format!("block{i}"))));
        Ok(Self {
            tokens: Embedding::new(tokens, width),
            positions: vb.get_with_hints((context, width), "positions", small)?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: layer_norm(width, 1e-5, vb.pp("norm"))?,
            out: linear_no_bias(width, CHARACTERS.len(), vb.pp("out"))?,
        })
    }

    /// Ids (B, T) to logits (B, T, V).
    fn forward(&self, ids: &Tensor, _train: bool) -> Result<Tensor> {
        let mut x = self.tokens.forward(ids)?.broadcast_add(&self.positions)?;
        // 0 for earlier characters, −10⁹ for later ones, in the type of the pass: the check of the model runs in float64.
        let earlier = Tensor::tril2(x.dim(1)?, x.dtype(), x.device())?;
        let mask = ((earlier - 1.0)? * 1e9)?;
        for block in &self.blocks {
            x = block.forward(&x, &mask)?;
        }
        self.out.forward(&self.norm.forward(&x)?)
    }
}

/// The loss of each sequence in terms of its characters, (B, T): the terms of a sequence add up to its loss.
fn terms(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    ops::token_cross_entropy(logits, targets, None)
}

/// A text of `length` characters: sentences such as `the old fox sees a red bird near the river.`
fn text(part: u32, length: usize) -> String {
    const ARTICLES: &[&str] = &["the", "a", "this", "every", "my"];
    const ADJECTIVES: &[&str] = &[
        "old", "red", "small", "quiet", "happy", "green", "wild", "lazy",
    ];
    const NOUNS: &[&str] = &[
        "fox", "bird", "child", "teacher", "boat", "tree", "wolf", "farmer",
    ];
    const VERBS: &[&str] = &["sees", "follows", "likes", "hears", "finds", "forgets"];
    const PLACES: &[&str] = &[
        "near the river",
        "in the garden",
        "by night",
        "at school",
        "on a hill",
    ];
    let mut stream = Stream::of_run(SEED, Purpose::Synthetic(part));
    let mut text = String::new();
    while text.len() < length {
        let mut word = |words: &[&'static str]| words[stream.below(words.len() as u64) as usize];
        let who = [word(ARTICLES), word(ADJECTIVES), word(NOUNS)].join(" ");
        let whom = [word(ARTICLES), word(NOUNS)].join(" ");
        text += &format!("{who} {} {whom} {}. ", word(VERBS), word(PLACES));
    }
    text.truncate(length);
    text
}

fn vocabulary() -> Vocabulary {
    Vocabulary::chars(CHARACTERS.chars())
}

/// Consecutive sequences of `context` characters of a text, and for each character the next one. Of the training sequences,
/// every tenth is garbled: its characters are in random order.
fn sequences(part: u32, context: usize, count: usize) -> anyhow::Result<(Tensor, Tensor)> {
    let text = text(part, context * count + 1);
    let ids = vocabulary()
        .ids(&text)
        .context("a character of the text isn't in the vocabulary")?;
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for i in 0..count {
        let mut ids = ids[i * context..=(i + 1) * context].to_vec();
        if part == 0 && i % 10 == 9 {
            Stream::of_example(SEED, i as u64, Purpose::LabelNoise(0)).shuffle(&mut ids);
        }
        inputs.extend_from_slice(&ids[..context]);
        targets.extend_from_slice(&ids[1..]);
    }
    let tensor = |ids| Tensor::from_vec(ids, (count, context), &Device::Cpu);
    Ok((tensor(inputs)?, tensor(targets)?))
}

/// The training and validation sequences.
fn examples(sizes: Sizes) -> anyhow::Result<Box<dyn DataSet>> {
    let (x, y) = sequences(0, sizes.context, sizes.sequences)?;
    let (vx, vy) = sequences(1, sizes.context, 64)?;
    let data = Sequences::new((&x, &y)).validation((&vx, &vy));
    Ok(data.vocabulary(vocabulary()).build()?)
}

/// Record a training
#[derive(Parser)]
#[command(bin_name = "gpt train")]
struct Train {
    /// Folder of the run
    run: PathBuf,
    #[command(flatten)]
    sizes: Sizes,
    /// Number of sequences of a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Number of passes over the sequences
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    /// Highest learning rate
    #[arg(long, default_value_t = 3e-3)]
    rate: f64,
}

/// The learning rate rises over the first tenth of the steps, and then falls to a tenth along a cosine.
fn rate(step: u64, steps: u64, highest: f64) -> f64 {
    let warm_up = (steps / 10).max(1);
    if step < warm_up {
        return highest * (step + 1) as f64 / warm_up as f64;
    }
    let along = (step - warm_up) as f64 / (steps - warm_up) as f64;
    highest * (0.55 + 0.45 * (std::f64::consts::PI * along).cos())
}

fn train(args: &Train) -> anyhow::Result<()> {
    anyhow::ensure!(
        (1..=args.sizes.sequences).contains(&args.batch),
        "--batch: expected 1 to {}, the number of sequences, got {}",
        args.sizes.sequences,
        args.batch
    );
    let data = examples(args.sizes)?;
    let variables = VarMap::new();
    let net = Gpt::new(
        args.sizes,
        seeded(&variables, SEED, DType::F32, &Device::Cpu),
    )?;

    let mut builder = Recorder::builder(&args.run);
    for (key, size) in args.sizes.notes() {
        builder = builder.note(key, size.to_string());
    }
    // The batches and the schedule depend on these, so a killed run continues only with the same ones.
    let begun = Trace::open(&args.run).ok();
    for (key, value) in [
        ("batch", args.batch.to_string()),
        ("epochs", args.epochs.to_string()),
        ("rate", args.rate.to_string()),
    ] {
        if let Some(had) = begun.as_ref().and_then(|run| run.info().notes.get(key)) {
            anyhow::ensure!(
                *had == value,
                "--{key}: the run was begun with {had}, got {value}"
            );
        }
        builder = builder.note(key, value);
    }
    let (run, start) = builder
        .seed(SEED)
        .objective("gpt")
        .fingerprint(data.fingerprint())
        .segment_steps(20) // a kill costs at most this many steps
        .create_or_resume(&variables)?;
    let mut adam = run.wrap(AdamW::new_lr(variables.all_vars(), args.rate)?);

    let per_epoch = (args.sizes.sequences / args.batch) as u64;
    let steps = args.epochs * per_epoch;
    for step in start.step..steps {
        let epoch = step / per_epoch;
        let sequences = args.sizes.sequences as u64;
        let indices = shuffled(SEED, sequences, args.batch, step);
        let batch = data.batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)?;

        let logits = net.forward(&batch.inputs, true)?;
        let loss = terms(&logits, &batch.targets)?.sum(1)?.mean_all()?;
        adam.set_learning_rate(rate(step, steps, args.rate)); // recorded with the step
        run.batch(epoch, &indices)?;
        adam.backward_step(&loss)?;
    }
    println!("{}", run.finish()?);
    Ok(())
}

/// The model and the data of a recorded run.
fn open(run: &RunInfo, _: Option<&Path>) -> anyhow::Result<(OwnModel, Box<dyn DataSet>)> {
    let sizes = Sizes::of(run)?;
    let model = OwnModel::new(move |vb| Gpt::new(sizes, vb), Gpt::forward, terms)?;
    Ok((model, examples(sizes)?))
}

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|verb| verb == "train") {
        train(&Train::parse_from(&words[1..]))?;
        return Ok(ExitCode::SUCCESS);
    }
    // All other verbs are Hindcast's.
    Ok(OwnProgram::for_runs(open).run())
}
