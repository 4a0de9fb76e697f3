//! Measures what recording adds to a training step: `cargo bench -p hindcast-recorder --bench overhead [-- SECONDS]`.
//!
//! Two copies of a net train in one process, in turns of a few steps. One is recorded into a folder, the other isn't.
//! Which one goes first changes from turn to turn. At the end of its turn, the recorded copy waits until everything it
//! recorded has been encoded and written, and this wait counts as its time. So the recorder's threads never work in the
//! other copy's time.
//!
//! Each net is recorded twice: with the indices of its batches, and with `batch_of`, which hashes their rows.
//!
//! The output shows medians over the turns. For the training thread's time inside the recorder's call it shows medians
//! over all steps, as wall-clock time and as processor time. "CPU ratio" compares the processor time of the whole
//! process, including the recorder's threads: the cost of recording where no core is free.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Optimizer, SGD, VarBuilder, VarMap, conv2d, linear, loss};
use hindcast_recorder::{BatchInfo, Recorder, StepInfo};
use rustix::time::{ClockId, clock_gettime};

type Forward = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

/// A net, its variables, and batches shaped like its data.
struct Net {
    variables: VarMap,
    forward: Forward,
    batches: Vec<(Tensor, Tensor, Vec<u64>)>,
    rate: f64,
}

impl Net {
    fn loss(&self, step: usize) -> Result<(Tensor, &[u64])> {
        let (x, y, indices) = &self.batches[step % self.batches.len()];
        let logits = (self.forward)(x)?;
        let loss = if y.dtype() == DType::U32 {
            loss::cross_entropy(&logits, y)?
        } else {
            loss::binary_cross_entropy_with_logit(&logits, y)?
        };
        Ok((loss, indices))
    }

    /// The tensors of a batch, whose rows can identify the examples.
    fn tensors(&self, step: usize) -> [&Tensor; 2] {
        let (x, y, _) = &self.batches[step % self.batches.len()];
        [x, y]
    }

    fn parameters(&self) -> usize {
        self.variables
            .all_vars()
            .iter()
            .map(|var| var.elem_count())
            .sum()
    }
}

/// Images in which most pixels are dark, like MNIST's.
fn pictures(batch: usize, shape: &[usize]) -> Result<Tensor> {
    let mut dims = vec![batch];
    dims.extend(shape);
    Tensor::randn(0f32, 1., dims, &Device::Cpu)?
        .relu()?
        .affine(0.6, -0.3)
}

fn batches(
    count: usize,
    batch: usize,
    shape: &[usize],
    classes: Option<u32>,
) -> Result<Vec<(Tensor, Tensor, Vec<u64>)>> {
    (0..count)
        .map(|number| {
            let labels = (0..batch as u32).map(|i| (i * 7 + number as u32) % classes.unwrap_or(2));
            let y = match classes {
                Some(_) => Tensor::from_iter(labels, &Device::Cpu)?,
                None => Tensor::from_iter(labels.map(|label| label as f32), &Device::Cpu)?
                    .reshape((batch, 1))?,
            };
            let first = (number * batch) as u64;
            Ok((
                pictures(batch, shape)?,
                y,
                (first..first + batch as u64).collect(),
            ))
        })
        .collect()
}

fn pool(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    x.reshape((batch, channels, height / 2, 2, width / 2, 2))?
        .max(5)?
        .max(3)
}

/// The paper's MNIST CNN: 13,750 parameters, batches of 64.
fn mnist_cnn() -> Result<Net> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let first = conv2d(1, 20, 5, Default::default(), vb.pp("first"))?;
    let second = conv2d(20, 20, 5, Default::default(), vb.pp("second"))?;
    let last = linear(320, 10, vb.pp("last"))?;
    let forward = move |x: &Tensor| {
        let x = pool(&x.apply(&first)?.relu()?)?;
        let x = pool(&x.apply(&second)?.relu()?)?;
        x.flatten_from(1)?.apply(&last)
    };
    Ok(Net {
        variables,
        forward: Box::new(forward),
        batches: batches(16, 64, &[1, 28, 28], Some(10))?,
        rate: 0.05,
    })
}

/// The paper's 784-8-8-1 net, batches of 20.
fn mnist_dnn() -> Result<Net> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let (first, second, last) = (
        linear(784, 8, vb.pp("first"))?,
        linear(8, 8, vb.pp("second"))?,
        linear(8, 1, vb.pp("last"))?,
    );
    // The eight ReLU units of a layer can all die, and then no parameter changes any more. Tanh units can't die.
    let forward = move |x: &Tensor| {
        let x = x.apply(&first)?.tanh()?.apply(&second)?.tanh()?;
        x.apply(&last)
    };
    Ok(Net {
        variables,
        forward: Box::new(forward),
        batches: batches(16, 20, &[784], None)?,
        rate: 0.05,
    })
}

/// Processor time in seconds, of this thread or of the whole process.
fn processor(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut times: Vec<f64> = values.into_iter().collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn compare(
    name: &str,
    make: fn() -> Result<Net>,
    turn: usize,
    budget: Duration,
    by_rows: bool,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (plain, recorded) = (make()?, make()?);
    let folder = tempfile::tempdir()?;
    let run = Recorder::builder(folder.path().join("run")).create(&recorded.variables)?;
    let mut plain_sgd = SGD::new(plain.variables.all_vars(), plain.rate)?;
    let mut recorded_sgd = SGD::new(recorded.variables.all_vars(), recorded.rate)?;
    let (mut a, mut b, mut calls, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    let (mut round, mut steps) = (0usize, 0u64);
    while round < 6 || start.elapsed() < budget {
        for side in 0..2 {
            let (begun, whole) = (Instant::now(), processor(ClockId::ProcessCPUTime));
            if (side + round) % 2 == 0 {
                for i in 0..turn {
                    let gradients = plain.loss(round * turn + i)?.0.backward()?;
                    plain_sgd.step(&gradients)?;
                }
                let spent = processor(ClockId::ProcessCPUTime) - whole;
                a.push((begun.elapsed().as_secs_f64() / turn as f64, spent));
            } else {
                for i in 0..turn {
                    let (loss, indices) = recorded.loss(round * turn + i)?;
                    let gradients = loss.backward()?;
                    let (call, used) = (Instant::now(), processor(ClockId::ThreadCPUTime));
                    let epoch = steps / 938;
                    let info = if by_rows {
                        run.batch_of(epoch, &recorded.tensors(round * turn + i))?;
                        StepInfo::announced(recorded.rate)
                    } else {
                        StepInfo::new(BatchInfo::new(epoch, indices), recorded.rate)
                    };
                    run.step(&info.gradients(&gradients).loss(0.0))?;
                    cpu.push(processor(ClockId::ThreadCPUTime) - used);
                    calls.push(call.elapsed().as_secs_f64());
                    recorded_sgd.step(&gradients)?;
                    steps += 1;
                }
                run.drain()?;
                let spent = processor(ClockId::ProcessCPUTime) - whole;
                b.push((begun.elapsed().as_secs_f64() / turn as f64, spent));
            }
        }
        // The first turns warm up the caches and the pools.
        if round == 2 {
            a.clear();
            b.clear();
            calls.clear();
            cpu.clear();
        }
        round += 1;
    }
    let pairs = || a.iter().zip(&b);
    let ratio = median(pairs().map(|(a, b)| b.0 / a.0));
    let cpu_ratio = median(pairs().map(|(a, b)| b.1 / a.1));
    let added = median(pairs().map(|(a, b)| b.0 - a.0));
    let parameters = recorded.parameters();
    let (plain, record) = (median(a.iter().map(|a| a.0)), median(b.iter().map(|b| b.0)));
    let (call, cpu) = (median(calls), median(cpu));
    let statistics = run.statistics();
    run.finish()?;
    println!(
        "{name:<22} {parameters:>7} {:>10.3} {:>10.3} {ratio:>7.3} {cpu_ratio:>9.3} {:>9.1} {:>11.1} {:>10.1} {:>10.1} {:>7.3}",
        plain * 1e3,
        record * 1e3,
        added * 1e6,
        call * 1e6,
        cpu * 1e6,
        statistics.encoding.as_secs_f64() * 1e6 / steps as f64,
        statistics.ratio().unwrap_or(f64::NAN),
    );
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(20);
    let budget = Duration::from_secs(seconds);
    println!(
        "{:<22} {:>7} {:>10} {:>10} {:>7} {:>9} {:>9} {:>11} {:>10} {:>10} {:>7}",
        "net",
        "params",
        "plain ms",
        "record ms",
        "ratio",
        "CPU ratio",
        "added µs",
        "in call µs",
        "of CPU µs",
        "encode µs",
        "stored"
    );
    for by_rows in [false, true] {
        let by = if by_rows { ", by rows" } else { "" };
        compare(&format!("MNIST CNN, 64{by}"), mnist_cnn, 4, budget, by_rows)?;
        compare(
            &format!("784-8-8-1, 20{by}"),
            mnist_dnn,
            200,
            budget,
            by_rows,
        )?;
    }
    Ok(())
}
