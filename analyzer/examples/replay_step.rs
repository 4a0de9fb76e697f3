//! One replay step by the kernels, to count its instructions: `replay_step TASK BATCH`. `.ci/instructions` runs it
//! under valgrind, which counts during [`counted_step`].

use std::sync::Arc;

use anyhow::Context as _;
use candle_core::{DType, Device, Tensor};
use hindcast_analyzer::engine::Products;
use hindcast_analyzer::{KernelEngine, ReplayEngine, StepInput};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode};
use hindcast_model::task::{LossKind, Task};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [task, batch] = words.as_slice() else {
        anyhow::bail!("usage: replay_step TASK BATCH");
    };
    let n: usize = batch.parse().context("BATCH is a number of examples")?;
    let task = Task::builtin(task)?;
    let net = Arc::new(Net::new(&task.model, &task.loss)?);
    let inputs: usize = net.input_shape().iter().product();
    let outputs: usize = net.output_shape().iter().product();
    let wave = |i: usize| (i as f32 * 0.37).sin();
    let mut shape = vec![n];
    shape.extend_from_slice(net.input_shape());
    let batch = Batch {
        indices: (0..n as u64).collect(),
        inputs: Tensor::from_iter((0..n * inputs).map(wave), &Device::Cpu)?.reshape(shape)?,
        targets: match net.loss().kind {
            LossKind::CrossEntropy => {
                Tensor::from_iter((0..n).map(|i| (i % outputs) as u32), &Device::Cpu)?
            }
            _ => Tensor::from_iter((0..n * outputs).map(|i| (i % 2) as f32), &Device::Cpu)?
                .reshape((n, outputs))?,
        },
    };
    let parameters: Vec<f64> = net.initial_parameters(0);
    let buffers = net.initial_buffers::<f64>();
    let weights = vec![1.0 / n as f64; n];
    let input = StepInput {
        parameters: (&parameters).into(),
        buffers: (&buffers).into(),
        micro_batches: &[batch],
        weights: &weights,
        mode: Mode::Train,
        draws: Draws { seed: 0, step: 0 },
    };
    let direction: Vec<f64> = (0..parameters.len()).map(|i| f64::from(wave(i))).collect();
    let direction = [direction.as_slice()];
    let adjoint = vec![vec![0.5; net.buffer_values()]];
    let mut engine = KernelEngine::new(net, DType::F32)?;
    // The first step allocates. The second one, which is like all that follow, is counted.
    counted(&mut engine, &input, &direction, &adjoint, false)?;
    let out = counted(&mut engine, &input, &direction, &adjoint, true)?;
    println!("{:e}", out.products[0][0]);
    Ok(())
}

fn counted(
    engine: &mut KernelEngine,
    input: &StepInput<'_>,
    directions: &[&[f64]],
    adjoints: &[Vec<f64>],
    count: bool,
) -> anyhow::Result<Products> {
    if count {
        counted_step(engine, input, directions, adjoints)
    } else {
        Ok(engine.products(input, directions, adjoints)?)
    }
}

/// valgrind finds this function by its name.
#[inline(never)]
fn counted_step(
    engine: &mut KernelEngine,
    input: &StepInput<'_>,
    directions: &[&[f64]],
    adjoints: &[Vec<f64>],
) -> anyhow::Result<Products> {
    Ok(engine.products(input, directions, adjoints)?)
}
