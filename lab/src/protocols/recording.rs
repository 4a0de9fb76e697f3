//! What recording costs: the same training with and without it, side by side in one process.

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

/// What recording a task cost.
#[derive(Debug, Clone, Serialize)]
pub struct RecordingCost {
    /// Name of the task.
    pub task: String,
    /// Steps taken with and, as many, without recording.
    pub steps: u64,
    /// Steps timed together; a recorded block's time ends when its last step has been encoded and written.
    pub block: u64,
    /// Median milliseconds of a step without recording.
    pub plain_ms: f64,
    /// Median milliseconds of a step with recording, everything it causes in the background included.
    pub recorded_ms: f64,
    /// Median over pairs of neighbouring blocks of recorded time by plain time.
    pub ratio: f64,
    /// Bytes of the run by bytes of its raw parameters and buffers.
    pub stored_share: f64,
}

/// Trains `task` twice at once, in alternating blocks of `block` steps: plainly, and recorded with everything kept.
/// `progress` is told the steps done and in all after each pair of blocks, and may stop it.
///
/// # Errors
/// Where training or recording fails, or `progress` asks to stop.
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
        // Every other pair begins with the other one, so that neither is always the one that finds warm caches.
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
        // The first pair pays for page faults and thread pools, the last may be short.
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
