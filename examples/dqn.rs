//! Deep Q-learning with a target network, on a memory of transitions in a grid world; a tenth of the rewards are wrong.
//!
//! ```sh
//! cargo run --release --bin dqn -- train runs/dqn                            # kill it and start it again: it ends with the same bits
//! cargo run --release --bin dqn -- verify runs/dqn --replay --steps 0        # every recorded step is a training step of this model
//! cargo run --release --bin dqn -- influence runs/dqn --out scores.csv       # which transitions harm the error on held-out ones?
//! cargo run --release --bin dqn -- counterfactual runs/dqn --top 5 scores.csv    # is that so? Retrain without the worst five
//! ```
//!
//! The target network's parameters are buffers: the forward pass changes them and not the optimizer, as it does running
//! statistics. The step's gradient doesn't flow through the target, and the analysis follows how an example changes later
//! targets. An agent collected the memory at random before the training, so the transitions don't
//! depend on the network.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Init, VarBuilder, VarMap, init};
use clap::Parser;
use hindcast::run_with;
use hindcast_model::batches::shuffled;
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::Split;
use hindcast_model::own::{Buffer, OwnModel, seeded, stop_gradient};
use hindcast_model::random::{Purpose, Stream};
use hindcast_recorder::{AdamW, Recorder}; // candle_nn's AdamW, with moments that survive a kill

const SEED: u64 = 7;
const BATCH: usize = 32;
const DISCOUNT: f64 = 0.9;
/// How far the target network moves towards the network in each step.
const FOLLOW: f64 = 0.05;
/// The world has SIDE × SIDE cells.
const SIDE: usize = 5;
const CELLS: usize = SIDE * SIDE;
const ACTIONS: usize = 4;
const HIDDEN: usize = 24;

/// The shapes of a network's parameters by name.
const SHAPES: [(&str, &[usize]); 4] = [
    ("first.weight", &[CELLS, HIDDEN]),
    ("first.bias", &[HIDDEN]),
    ("second.weight", &[HIDDEN, ACTIONS]),
    ("second.bias", &[ACTIONS]),
];

/// The values of all actions, (B, 4), in the states (B, 25).
fn values(parameters: &[Tensor], states: &Tensor) -> Result<Tensor> {
    let [w1, b1, w2, b2] = parameters else {
        candle_core::bail!("a network has 4 parameters");
    };
    let hidden = states.matmul(w1)?.broadcast_add(b1)?.tanh()?;
    hidden.matmul(w2)?.broadcast_add(b2)
}

struct Dqn {
    network: Vec<Tensor>,
    target: Vec<Buffer>,
}

impl Dqn {
    fn new(vb: VarBuilder) -> Result<Self> {
        let network = SHAPES.iter().map(|&(name, shape)| {
            let start = match shape {
                [inputs, _] => Init::Randn {
                    mean: 0.0,
                    stdev: 1.0 / (*inputs as f64).sqrt(),
                },
                _ => init::ZERO,
            };
            vb.pp("network").get_with_hints(shape, name, start)
        });
        let target = SHAPES
            .iter()
            .map(|&(name, shape)| Buffer::get(&vb.pp("target"), shape, name, init::ZERO));
        Ok(Self {
            network: network.collect::<Result<_>>()?,
            target: target.collect::<Result<_>>()?,
        })
    }

    /// Transitions (B, 25 + 4 + 25 + 2) to the squared error of each, (B,).
    fn losses(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let part = |start, length| x.narrow(1, start, length);
        let (state, action) = (part(0, CELLS)?, part(CELLS, ACTIONS)?);
        let next = part(CELLS + ACTIONS, CELLS)?;
        let rest = 2 * CELLS + ACTIONS;
        let (reward, continues) = (part(rest, 1)?, part(rest + 1, 1)?);
        let target: Vec<Tensor> = self.target.iter().map(Buffer::value).collect();
        let best = values(&target, &next)?.max_keepdim(1)?;
        // `detach()`, which a replay can follow.
        let wanted = stop_gradient(&(reward + (continues * best)?.affine(DISCOUNT, 0.0)?)?)?;
        let value = (values(&self.network, &state)? * action)?.sum_keepdim(1)?;
        if train {
            for (buffer, (before, now)) in self.target.iter().zip(target.iter().zip(&self.network))
            {
                buffer.set(&(before.affine(1.0 - FOLLOW, 0.0)? + now.affine(FOLLOW, 0.0)?)?)?;
            }
        }
        (value - wanted)?.sqr()?.squeeze(1)
    }
}

fn is_target(name: &str) -> bool {
    name.starts_with("target.")
}

/// A transition and its reward: an agent in a random cell goes in a random direction. The last cell is the goal, with
/// reward 1; the centre is a pit, with reward −1; both end the game.
fn transition(part: u32, index: u64) -> (Vec<f32>, f32) {
    let mut stream = Stream::of_example(SEED, index, Purpose::Synthetic(part));
    let (goal, pit) = (CELLS - 1, CELLS / 2);
    let cell = loop {
        let cell = stream.below(CELLS as u64) as usize;
        if cell != goal && cell != pit {
            break cell;
        }
    };
    let action = stream.below(ACTIONS as u64) as usize;
    let (row, column) = (cell / SIDE, cell % SIDE);
    let (row, column) = match action {
        0 => (row.saturating_sub(1), column),
        1 => ((row + 1).min(SIDE - 1), column),
        2 => (row, column.saturating_sub(1)),
        _ => (row, (column + 1).min(SIDE - 1)),
    };
    let next = row * SIDE + column;
    let mut reward = f32::from(u8::from(next == goal)) - f32::from(u8::from(next == pit));
    let ends = next == goal || next == pit;
    if part == 0 && index % 10 == 9 {
        reward = if reward == 0.0 { 1.0 } else { -reward }; // a wrong reward
    }
    let one_hot = |at: usize, of: usize| (0..of).map(move |i| f32::from(u8::from(i == at)));
    let mut x: Vec<f32> = one_hot(cell, CELLS).collect();
    x.extend(one_hot(action, ACTIONS));
    x.extend(one_hot(next, CELLS));
    x.extend([reward, f32::from(u8::from(!ends))]);
    (x, reward)
}

fn memory(part: u32, count: u64) -> Result<(Tensor, Tensor)> {
    let (x, rewards): (Vec<_>, Vec<_>) = (0..count).map(|i| transition(part, i)).unzip();
    Ok((
        Tensor::new(x, &Device::Cpu)?,
        Tensor::new(rewards, &Device::Cpu)?,
    ))
}

/// The memory, with the rewards as labels.
fn examples(_folder: Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> {
    let (x, y) = memory(0, 640)?;
    let (vx, vy) = memory(1, 256)?;
    Ok(from_tensors((&x, &y), Some((&vx, &vy)), None, &[], None)?)
}

/// Record a training
#[derive(Parser)]
#[command(bin_name = "dqn train")]
struct Train {
    /// Folder of the run
    run: PathBuf,
    /// Number of passes over the memory
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    /// Learning rate
    #[arg(long, default_value_t = 1e-2)]
    rate: f64,
}

fn train(args: &Train) -> anyhow::Result<()> {
    let data = examples(None)?;
    let variables = VarMap::new();
    let dqn = Dqn::new(seeded(&variables, SEED, DType::F32, &Device::Cpu))?;

    let (run, start) = Recorder::builder(&args.run)
        .seed(SEED)
        .objective("dqn")
        .fingerprint(data.fingerprint())
        .buffers(is_target)
        .segment_steps(20) // a kill costs at most this many steps
        .create_or_resume(&variables)?;
    let mut adam = run.wrap(AdamW::new_lr(dqn_variables(&variables)?, args.rate)?);

    let per_epoch = data.len(Split::Train) / BATCH as u64;
    for step in start.step..args.epochs * per_epoch {
        let epoch = step / per_epoch;
        let indices = shuffled(SEED, data.len(Split::Train), BATCH, step);
        let batch = data.batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)?;

        let loss = dqn.losses(&batch.inputs, true)?.mean_all()?;
        run.batch(epoch, &indices)?;
        adam.backward_step(&loss)?;
    }
    println!("{}", run.finish()?);
    Ok(())
}

/// The variables that the optimizer updates: not those of the target.
fn dqn_variables(variables: &VarMap) -> anyhow::Result<Vec<candle_core::Var>> {
    let Ok(all) = variables.data().lock() else {
        anyhow::bail!("a thread panicked while it held the variables");
    };
    let network = all.iter().filter(|(name, _)| !is_target(name));
    Ok(network.map(|(_, var)| var.clone()).collect())
}

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|verb| verb == "train") {
        train(&Train::parse_from(&words[1..]))?;
        return Ok(ExitCode::SUCCESS);
    }
    // All other verbs are Hindcast's. The forward function returns the losses already.
    let model = OwnModel::new(Dqn::new, Dqn::losses, |losses, _rewards| Ok(losses.clone()))?;
    Ok(run_with(model.buffers_where(is_target), examples))
}
