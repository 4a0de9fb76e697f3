//! Measures what recording costs: the same training with and without recording, alternating in one process.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_model::data::DataSet;
use hindcast_model::net::Net;
use hindcast_model::real::Real;
use hindcast_model::task::{Precision, Task};
use hindcast_model::train::{TrainError, Trainer};
use hindcast_recorder::{Recorder, Statistics};
use serde::Serialize;

use crate::record::Recording;
use hindcast_analyzer::AnalysisError;

/// The cost of recording a task.
#[derive(Debug, Clone, Serialize)]
pub struct RecordingCost {
    /// Name of the task.
    pub task: String,
    /// Number of steps with recording, and the same number without.
    pub steps: u64,
    /// Number of steps timed together. The time of a recorded block ends when its last step has been encoded and
    /// written.
    pub block: u64,
    /// Median milliseconds per step without recording.
    pub plain_ms: f64,
    /// Median milliseconds per step with recording, including all work in the background.
    pub recorded_ms: f64,
    /// Median over pairs of adjacent blocks of the time with recording divided by the time without.
    pub ratio: f64,
    /// Size of the run divided by the size of its raw parameters and buffers.
    pub stored_share: f64,
}

/// Trains `task` twice, in alternating blocks of `block` steps: once without recording, and once recording every step.
/// `progress` is called after each pair of blocks with the number of steps done and the total, and may stop the
/// measurement.
///
/// # Errors
/// If training or recording fails, or `progress` asks to stop.
pub fn recording_cost(
    task: &Task,
    data: &dyn DataSet,
    block: u64,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<RecordingCost> {
    match task.train.dtype {
        Precision::F32 => run::<f32>(task, data, block, progress),
        Precision::F64 => run::<f64>(task, data, block, progress),
    }
}

fn run<T: Real>(
    task: &Task,
    data: &dyn DataSet,
    block: u64,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<RecordingCost> {
    let net = Net::new(&task.model, &task.loss)?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join("run");
    let mut plain = Trainer::<T>::new(task, &net, data, &Device::Cpu)?;
    let mut recorded =
        Recording::<T>::new(task, &net, data, &Device::Cpu, Recorder::builder(&path))?;
    let steps = recorded.steps();
    let block = block.clamp(1, steps.max(1));
    let (mut plain_ms, mut recorded_ms, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    while done < steps {
        let now = block.min(steps - done);
        // The order alternates, so that warm caches don't always favour the same one.
        let swap = (done / block) % 2 == 1;
        let mut times = [0.0; 2];
        for turn in 0..2 {
            let which = if swap { 1 - turn } else { turn };
            let begun = Instant::now();
            for _ in 0..now {
                if which == 0 {
                    plain.step(|_| Ok::<(), TrainError>(()))?;
                } else {
                    recorded.step()?;
                }
            }
            if which == 1 {
                recorded.drain()?;
            }
            if let Some(time) = times.get_mut(which) {
                *time = begun.elapsed().as_secs_f64() * 1e3 / now as f64;
            }
        }
        // The first pair includes page faults and the start of thread pools, and the last may be short.
        if done > 0 && now == block {
            plain_ms.push(times[0]);
            recorded_ms.push(times[1]);
            ratios.push(times[1] / times[0]);
        }
        done += now;
        if progress(done, steps).is_break() {
            return Err(AnalysisError::Cancelled { step: done }.into());
        }
    }
    let statistics: Statistics = recorded.finish()?.statistics;
    Ok(RecordingCost {
        task: task.name.clone(),
        steps,
        block,
        plain_ms: median(&mut plain_ms),
        recorded_ms: median(&mut recorded_ms),
        ratio: median(&mut ratios),
        stored_share: statistics.ratio().unwrap_or(f64::NAN),
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
