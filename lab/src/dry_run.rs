//! Records the first steps of a task into memory, to say what the whole run would take.

use std::fmt;
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
    /// How the training diverged in these steps, if it did.
    pub diverged: Option<Divergence>,
}

/// How a training diverged.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Divergence {
    /// The loss isn't finite from this step on.
    NotFinite {
        /// The step.
        step: u64,
    },
    /// The loss at the last of the measured steps is [`GROWS`] times that of the first, or more.
    Grows {
        /// Number of measured steps.
        steps: u64,
        /// The loss of the first one.
        from: f64,
        /// The smallest loss of the last few.
        to: f64,
    },
}

/// Growth of the loss from which a training is said to diverge.
pub const GROWS: f64 = 10.0;
/// Number of last steps of which none may have a smaller loss: one batch may be hard.
const LAST: usize = 3;

impl Divergence {
    /// Judges the losses of the first steps. Losses below 0 say nothing by their ratio.
    pub fn of(losses: &[f64]) -> Option<Divergence> {
        if let Some(step) = losses.iter().position(|loss| !loss.is_finite()) {
            return Some(Divergence::NotFinite { step: step as u64 });
        }
        let (from, rest) = losses.split_first()?;
        let last = rest.last_chunk::<LAST>()?;
        let to = last.iter().copied().fold(f64::INFINITY, f64::min);
        (*from > 0.0 && to >= GROWS * from).then_some(Divergence::Grows {
            steps: losses.len() as u64,
            from: *from,
            to,
        })
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { step } => write!(
                f,
                "the training diverges: the loss is not finite at step {step}"
            )?,
            Self::Grows { steps, from, to } => write!(
                f,
                "the training probably diverges: the loss grows from {from:.4} to {to:.4e} in the first {steps} steps"
            )?,
        }
        f.write_str(". Lower schedule.learning_rate, or standardise the inputs")
    }
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
    let (mut measured, mut warm, mut losses) = (0, None, Vec::new());
    while measured < most && (measured < 2 || begun.elapsed() < time) {
        let Some((_, loss)) = recording.step()? else {
            break;
        };
        losses.push(loss);
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
        diverged: Divergence::of(&losses),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_grows_or_is_not_finite_diverges() {
        let of = Divergence::of;
        assert_eq!(
            of(&[2.0, 5.0, f64::NAN, 1.0]),
            Some(Divergence::NotFinite { step: 2 })
        );
        let grows = of(&[2.0, 19.0, 30.0, 20.0, 400.0]);
        let told = grows.map(|d| d.to_string()).unwrap_or_default();
        assert!(
            told.contains("from 2.0000 to 2.0000e1 in the first 5 steps"),
            "{told}"
        );
        // One hard batch, few steps, or a loss that may be negative.
        assert_eq!(of(&[2.0, 30.0, 30.0, 1.0]), None);
        assert_eq!(of(&[2.0, 30.0]), None);
        assert_eq!(of(&[-2.0, 30.0, 30.0, 30.0]), None);
        assert_eq!(of(&[]), None);
    }
}
