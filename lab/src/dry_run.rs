//! Records the first steps of a task into memory, to say what the whole run would take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use hindcast_format::MemStorage;
use hindcast_model::data::DataSet;
use hindcast_model::net::Net;
use hindcast_model::real::Real;
use hindcast_model::task::{Precision, Task};
use hindcast_recorder::{Builder, Estimate, Keep};

use crate::record::{Recording, described};

/// Largest number of bytes of tensors that a dry run records.
const MOST_BYTES: u64 = 512 << 20;
/// Smallest number of steps whose stored size says something about the others.
const FEWEST: u64 = 4;

/// What a run is expected to take, by its first steps.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DryRun {
    /// The recorder's estimate, with the stored size of the measured steps.
    pub estimate: Estimate,
    /// Number of steps of the run.
    pub steps: u64,
    /// Number of steps that were taken.
    pub measured: u64,
    /// Mean time of a step, with its recording. The first step is left out if there are others, because it warms caches
    /// and pools.
    pub per_step: Duration,
}

impl DryRun {
    /// The expected time of all steps.
    pub fn time(&self) -> Duration {
        self.per_step.mul_f64(self.steps as f64)
    }
}

/// Takes the first steps of a task for at most about `time`, and records them into memory. At least two steps are taken if
/// the run has as many.
///
/// # Errors
/// If the task can't be trained on this data, as for [`record_task`](crate::record_task).
pub fn dry_run(
    task: &Task,
    data: &dyn DataSet,
    device: &Device,
    keep: Keep,
    time: Duration,
) -> anyhow::Result<DryRun> {
    let net = Net::new(&task.model, &task.loss)?;
    match task.train.dtype {
        Precision::F32 => run::<f32>(task, &net, data, device, keep, time),
        Precision::F64 => run::<f64>(task, &net, data, device, keep, time),
    }
}

fn run<T: Real>(
    task: &Task,
    net: &Net,
    data: &dyn DataSet,
    device: &Device,
    keep: Keep,
    time: Duration,
) -> anyhow::Result<DryRun> {
    // All steps are kept here, so that the size of a difference can be measured.
    let builder = |keep| {
        let storage = Arc::new(MemStorage::new());
        described(Builder::on(storage, "the dry run").keep(keep), task, data)
    };
    let estimate = Recording::<T>::new(task, net, data, device, builder(keep)?)?.estimate();
    let mut recording = Recording::<T>::new(task, net, data, device, builder(Keep::All)?)?;
    let steps = recording.steps();
    let most = (MOST_BYTES / estimate.raw_step.max(1)).max(2);
    let begun = Instant::now();
    let (mut measured, mut warm) = (0, None);
    while measured < most && (measured < 2 || begun.elapsed() < time) {
        if recording.step()?.is_none() {
            break;
        }
        measured += 1;
        if warm.is_none() {
            warm = Some(Instant::now());
        }
    }
    recording.drain()?;
    let since = |from: Instant, steps: u64| {
        from.elapsed() / u32::try_from(steps.max(1)).unwrap_or(u32::MAX)
    };
    let per_step = match warm {
        Some(warm) if measured > 1 => since(warm, measured - 1),
        _ => since(begun, measured),
    };
    let keyframe = estimate.raw_step + estimate.keyframe_extra;
    let differences = recording.stored_bytes().saturating_sub(keyframe);
    let stored_step = (measured > FEWEST).then(|| differences / (measured - 1));
    Ok(DryRun {
        estimate: match stored_step {
            Some(bytes) => estimate.with_stored_step(bytes),
            None => estimate,
        },
        steps,
        measured,
        per_step,
    })
}
