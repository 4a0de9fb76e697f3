//! Times the steps of a task on this machine: training, replay by each engine, gradient, decoding.

mod drawn;
mod flops;
mod peak;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use hindcast_format::{MemStorage, Trace};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode};
use hindcast_model::real::Real;
use hindcast_model::task::{Precision, Task};
use hindcast_model::train::{TrainError, Trainer};
use hindcast_recorder::Recorder;
use serde::Serialize;

use crate::record::record_task;
use drawn::Drawn;
pub use flops::Flops;
use hindcast_analyzer::engine::slices;
use hindcast_analyzer::{
    AnalysisError, AutodiffEngine, EngineKind, KernelEngine, ReplayEngine, StepInput, StepSource,
};

/// Options of the measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchOptions {
    /// Examples per batch.
    pub batch: usize,
    /// Directions per replay step.
    pub queries: usize,
    /// How many times each operation is timed.
    pub repeats: usize,
    /// Number of threads, for the measurement of the peak and for the report. The caller sets up the pool.
    pub threads: usize,
}

/// The results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Name of the task.
    pub task: String,
    /// Examples per batch.
    pub batch: usize,
    /// Directions per replay step.
    pub queries: usize,
    /// Number of threads.
    pub threads: usize,
    /// f32 or f64.
    pub precision: Precision,
    /// Number of the model's parameters.
    pub parameters: usize,
    /// Best GFLOP/s of a product of two 1024 × 1024 matrices by `gemm` on the same number of threads.
    pub peak_gflops: f64,
    /// The operations that were timed.
    pub rows: Vec<BenchRow>,
}

/// One operation that was timed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchRow {
    /// Name of the operation.
    pub name: String,
    /// Median milliseconds of all repeats.
    pub median_ms: f64,
    /// Smallest milliseconds of all repeats.
    pub min_ms: f64,
    /// 10⁹ operations in matrix products, as [`Flops`] counts them; `None` if there are none.
    pub gflop: Option<f64>,
    /// GFLOP/s at the median time.
    pub gflops: Option<f64>,
    /// `gflops` as a share of the peak.
    pub share_of_peak: Option<f64>,
}

/// The repeats are spread over this many rounds, so that a short disturbance of the machine doesn't affect only one
/// row.
const ROUNDS: usize = 5;
/// Batches per epoch of generated examples.
const BATCHES: usize = 32;

/// An operation to be timed.
struct Timing<'a> {
    name: String,
    /// Floating-point operations per call.
    flops: Option<f64>,
    /// Steps per call.
    steps: f64,
    run: Box<dyn FnMut() -> anyhow::Result<()> + 'a>,
    ms: Vec<f64>,
}

impl<'a> Timing<'a> {
    fn new(
        name: impl Into<String>,
        flops: Option<f64>,
        run: impl FnMut() -> anyhow::Result<()> + 'a,
    ) -> Self {
        Timing {
            name: name.into(),
            flops,
            steps: 1.0,
            run: Box::new(run),
            ms: Vec::new(),
        }
    }
}

/// The engines that can replay this model.
fn engines(
    objective: &Arc<Net>,
    precision: Precision,
) -> anyhow::Result<Vec<(&'static str, Box<dyn ReplayEngine>)>> {
    let dtype = precision.dtype();
    Ok(vec![
        (
            EngineKind::Kernels.name(),
            Box::new(KernelEngine::new(objective.clone(), dtype)?),
        ),
        (
            EngineKind::Autodiff.name(),
            Box::new(AutodiffEngine::new(objective.clone(), dtype, &Device::Cpu)?),
        ),
    ])
}

/// Times the steps of `task` in its own float type on generated examples. `progress` is called with the number of
/// measurements done and the total, and may stop the benchmark.
///
/// # Errors
/// If the task doesn't build, a step fails, or `progress` stops the benchmark.
pub fn bench(
    task: &Task,
    options: &BenchOptions,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<BenchReport> {
    match task.train.dtype {
        Precision::F32 => run::<f32>(task, options, progress),
        Precision::F64 => run::<f64>(task, options, progress),
    }
}

fn run<T: Real>(
    task: &Task,
    options: &BenchOptions,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<BenchReport> {
    let mut task = task.clone();
    task.train.batch = options.batch;
    task.train.micro_batch = None;
    let net = Arc::new(Net::new(&task.model, &task.loss)?);
    let data = Drawn::new(&task, &net, BATCHES * options.batch);
    let trace = recorded(&task, &data)?;
    // More steps than will ever be taken.
    task.train.epochs = 1 << 32;
    let flops = Flops::of(&net);
    let batch = options.batch as f64;

    let mut trainer = Trainer::<T>::new(&task, &net, &data, &Device::Cpu)?;
    let inputs = Inputs::new(&trainer, &net, &data, options)?;
    let mut engines = engines(&net, task.train.dtype)?;
    let mut timings = vec![Timing::new(
        "training step",
        Some(batch * flops.step()),
        move || {
            trainer.step(|_| Ok::<_, TrainError>(()))?;
            Ok(())
        },
    )];
    let inputs = &inputs;
    for (name, engine) in &mut engines {
        timings.extend(of_engine(name, engine.as_mut(), inputs, flops, options));
    }
    let (trace, span) = (&trace, trace.span());
    timings.push(Timing {
        steps: (span.end - span.start) as f64,
        ..Timing::new("decoding a recorded step", None, move || {
            let mut walk = StepSource::reverse(trace, span.clone())?;
            walk.try_for_each(|step| step.map(drop))?;
            Ok(())
        })
    });
    let mut peak = peak::Peak::<T>::new(options.threads);
    let peak_flops = peak.flops();
    timings.push(Timing::new("peak", Some(peak_flops), move || {
        peak.run();
        Ok(())
    }));
    time(&mut timings, options.repeats, progress)?;

    let peak = timings.pop().map_or(f64::NAN, |timing| {
        let best = timing.ms.first().copied().unwrap_or(f64::NAN);
        peak_flops / 1e6 / best
    });
    Ok(BenchReport {
        task: task.name.clone(),
        batch: options.batch,
        queries: options.queries,
        threads: options.threads,
        precision: task.train.dtype,
        parameters: net.parameter_values(),
        peak_gflops: peak,
        rows: timings.iter().map(|timing| row(timing, peak)).collect(),
    })
}

/// The replay step and the gradient of one engine.
fn of_engine<'a>(
    name: &str,
    engine: &'a mut dyn ReplayEngine,
    inputs: &'a Inputs,
    flops: Flops,
    options: &BenchOptions,
) -> [Timing<'a>; 2] {
    let batch = options.batch as f64;
    let engine = Rc::new(RefCell::new(engine));
    let same = Rc::clone(&engine);
    [
        Timing::new(
            format!("replay step, {name}"),
            Some(batch * flops.replay(options.queries)),
            move || {
                let mut engine = engine.borrow_mut();
                let directions = slices(&inputs.directions);
                engine.products(&inputs.step(), &directions, &inputs.adjoints)?;
                Ok(())
            },
        ),
        Timing::new(
            format!("gradient, {name}"),
            Some(batch * flops.step()),
            move || {
                same.borrow_mut().gradient(&inputs.step())?;
                Ok(())
            },
        ),
    ]
}

/// Times everything in rounds. In each round, an operation runs once to warm up, and is then timed several times in a
/// row.
fn time(
    timings: &mut [Timing<'_>],
    repeats: usize,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let rounds = ROUNDS.min(repeats.max(1));
    let total = (rounds * timings.len()) as u64;
    let mut done = 0;
    for round in 0..rounds {
        for timing in timings.iter_mut() {
            (timing.run)()?;
            let now = (round + 1) * repeats / rounds - round * repeats / rounds;
            for _ in 0..now.max(1) {
                // Between two timed runs, so that the first signal stops a long operation, too.
                if progress(done, total).is_break() {
                    return Err(AnalysisError::Cancelled { step: done }.into());
                }
                let begun = Instant::now();
                (timing.run)()?;
                let ms = 1e3 * begun.elapsed().as_secs_f64() / timing.steps;
                timing.ms.push(ms);
            }
            done += 1;
            if progress(done, total).is_break() && done < total {
                return Err(AnalysisError::Cancelled { step: done }.into());
            }
        }
    }
    for timing in timings {
        timing.ms.sort_by(f64::total_cmp);
    }
    Ok(())
}

fn row(timing: &Timing<'_>, peak: f64) -> BenchRow {
    let at = |i: usize| timing.ms.get(i).copied().unwrap_or(f64::NAN);
    let (median, min) = (at(timing.ms.len() / 2), at(0));
    let gflop = timing.flops.map(|flops| flops / 1e9).filter(|&g| g > 0.0);
    let gflops = gflop.map(|gflop| 1e3 * gflop / median);
    BenchRow {
        name: timing.name.clone(),
        median_ms: median,
        min_ms: min,
        gflop,
        gflops,
        share_of_peak: gflops.map(|gflops| gflops / peak),
    }
}

/// A short run of the task, kept in memory.
fn recorded(task: &Task, data: &Drawn) -> anyhow::Result<Trace> {
    let mut task = task.clone();
    task.train.epochs = 1;
    let storage = Arc::new(MemStorage::new());
    let builder = Recorder::builder_on(storage.clone(), "a run in memory");
    record_task(&task, data, &Device::Cpu, builder, &mut |_, _, _| {})?;
    Ok(Trace::open_storage(storage)?)
}

/// The inputs of an engine.
struct Inputs {
    parameters: Vec<f64>,
    buffers: Vec<f64>,
    batches: Vec<Batch>,
    weights: Vec<f64>,
    directions: Vec<Vec<f64>>,
    adjoints: Vec<Vec<f64>>,
}

impl Inputs {
    fn new<T: Real>(
        trainer: &Trainer<'_, T>,
        net: &Net,
        data: &Drawn,
        options: &BenchOptions,
    ) -> anyhow::Result<Self> {
        use hindcast_model::data::DataSet as _;
        use hindcast_model::objective::Split;
        let state = trainer.state();
        let indices: Vec<u64> = (0..options.batch as u64).collect();
        let wide = |x: &[T]| x.iter().map(|x| x.wide()).collect::<Vec<f64>>();
        let direction = |q: usize, n: usize| {
            let values = (0..n).map(|i| 1e-2 * ((i + 7 * q) as f64).sin());
            values.collect::<Vec<f64>>()
        };
        let batch = data.batch(Split::Train, &indices, None, T::DTYPE, &Device::Cpu)?;
        Ok(Inputs {
            parameters: wide(&state.parameters),
            buffers: wide(&state.buffers),
            batches: vec![batch],
            weights: vec![1.0 / options.batch as f64; options.batch],
            directions: (0..options.queries)
                .map(|q| direction(q, net.parameter_values()))
                .collect(),
            adjoints: vec![vec![0.0; net.buffer_values()]; options.queries],
        })
    }

    fn step(&self) -> StepInput<'_> {
        StepInput {
            parameters: (&self.parameters).into(),
            buffers: (&self.buffers).into(),
            micro_batches: &self.batches,
            weights: &self.weights,
            mode: Mode::Train,
            draws: Draws { seed: 0, step: 0 },
        }
    }
}
