//! Estimates the disk space and the memory that a run takes, before its first step.

use std::fmt;

use crate::keep::Keep;
use crate::statistics::Bytes;

/// Stored bytes per raw byte of float32 tensors from consecutive SGD steps. Measured: 0.48 to 0.61
/// (docs/benchmarks.md).
const TYPICAL_RATIO: f64 = 0.6;
/// Metadata of a step without its indices, in bytes: header, hyperparameters, checksums.
const META_BYTES: u64 = 160;

/// The disk space and memory that a run is expected to take. Stored sizes are estimates, because how well the steps
/// compress is known only when they are recorded. Rows of batches that are announced by their tensors come on top, because
/// their number and size are not known before: on disk each distinct row once, before compression, and in memory the rows
/// of four steps and about 80 bytes per distinct row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// Which steps are kept.
    pub keep: Keep,
    /// Bytes of a step's tensors (parameters and buffers). Exact.
    pub raw_step: u64,
    /// Bytes that a keyframe adds (the buffers before the step and the optimizer state). Exact.
    pub keyframe_extra: u64,
    /// Stored bytes per step, estimated.
    pub stored_step: u64,
    /// Largest number of steps per segment.
    pub segment_steps: u64,
    /// Steps of the run, if the builder was given their number.
    pub steps: Option<u64>,
    /// Bytes on disk when the run has ended, estimated. `None` if they depend on an unknown number of steps.
    pub stored_run: Option<u64>,
    /// Largest number of bytes on disk at any time, estimated. `None` as above.
    pub disk_peak: Option<u64>,
    /// Largest memory that recording takes in addition to the loop's own, in bytes, estimated: the full queue, the
    /// encoders, and for parameters on a GPU the pinned memory that they are copied to.
    pub memory_peak: u64,
    /// Memory that recording takes on the GPUs, in bytes: twice the parameters and buffers that are there. 0 without a GPU,
    /// and with [`without_staging`](crate::Builder::without_staging).
    pub device_memory: u64,
}

/// What an estimate is computed from.
#[derive(Clone)]
pub(crate) struct Basis {
    pub(crate) keep: Keep,
    pub(crate) raw_step: u64,
    pub(crate) keyframe_extra: u64,
    pub(crate) segment_steps: u64,
    pub(crate) steps: Option<u64>,
    pub(crate) steps_per_epoch: Option<u64>,
    pub(crate) queue_bytes: u64,
    pub(crate) encoders: usize,
    /// Bytes of the buffers on devices through which tensors are copied. As many bytes of pinned memory belong to them.
    pub(crate) staged: u64,
}

impl Estimate {
    pub(crate) fn new(basis: &Basis) -> Self {
        let &Basis {
            keep,
            raw_step,
            keyframe_extra,
            segment_steps,
            steps,
            steps_per_epoch,
            queue_bytes,
            encoders,
            staged,
        } = basis;
        let stored_step = (raw_step as f64 * TYPICAL_RATIO) as u64 + META_BYTES;
        let keyframe = raw_step + keyframe_extra + META_BYTES;
        // A segment begins with a keyframe and ends with a link, a difference to the next segment's first state.
        let of = |steps: u64| {
            let cut =
                steps_per_epoch.map_or(segment_steps, |epoch| segment_steps.min(epoch.max(1)));
            let segments = steps.div_ceil(cut.max(1));
            steps
                .saturating_mul(stored_step)
                .saturating_add(segments.saturating_mul(keyframe))
        };
        let kept_of = |kept: u64| of(steps.map_or(kept, |steps| steps.min(kept)));
        let (stored_run, disk_peak) = match keep {
            Keep::All => (steps.map(of), steps.map(of)),
            Keep::LastEpoch => (
                steps_per_epoch.map(kept_of),
                steps_per_epoch.map(|epoch| kept_of(epoch.saturating_mul(2))),
            ),
            Keep::LastSteps(n) => (
                Some(kept_of(n)),
                Some(kept_of(n.saturating_add(segment_steps.saturating_mul(2)))),
            ),
            Keep::EveryNth(n) => {
                let all = steps.map(|steps| {
                    of(steps.div_ceil(n.max(1))).saturating_add(steps.saturating_mul(META_BYTES))
                });
                (all, all)
            }
            Keep::Budget(bytes) => {
                let within = |extra: u64| {
                    Some(steps.map_or(bytes + extra, |steps| of(steps).min(bytes + extra)))
                };
                (within(0), within(of(segment_steps)))
            }
        };
        Self {
            keep,
            raw_step,
            keyframe_extra,
            stored_step,
            segment_steps,
            steps,
            stored_run,
            disk_peak,
            // An encoder holds a step's byte planes and its frame, the writer holds a frame, and the recorder holds the
            // preceding state.
            memory_peak: queue_bytes
                .saturating_add(raw_step.saturating_mul(2 * encoders as u64 + 2))
                .saturating_add(staged),
            device_memory: staged,
        }
    }

    /// The estimate with a measured number of stored bytes per step. The sizes on disk change in proportion, because
    /// differences make up nearly all of a run.
    pub fn with_stored_step(mut self, bytes: u64) -> Self {
        let scale = bytes as f64 / self.stored_step.max(1) as f64;
        let scaled = |size: Option<u64>| size.map(|size| (size as f64 * scale) as u64);
        // A budget limits the disk whatever the size of a step is.
        if !matches!(self.keep, Keep::Budget(_)) {
            self.stored_run = scaled(self.stored_run);
            self.disk_peak = scaled(self.disk_peak);
        }
        self.stored_step = bytes;
        self
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "keeping {}: {} per step, about {} stored",
            self.keep,
            Bytes(self.raw_step),
            Bytes(self.stored_step)
        )?;
        if let Some(steps) = self.steps {
            write!(f, "; {steps} steps")?;
        }
        match (self.stored_run, self.disk_peak) {
            (Some(run), Some(peak)) if peak > run => write!(
                f,
                "; about {} on disk at the end, {} at most",
                Bytes(run),
                Bytes(peak)
            ),
            (Some(run), _) => write!(f, "; about {} on disk", Bytes(run)),
            (None, _) => write!(f, "; the total depends on the number of steps"),
        }?;
        write!(f, "; at most {} of memory", Bytes(self.memory_peak))?;
        if self.device_memory > 0 {
            write!(f, " and {} on the GPU", Bytes(self.device_memory))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(keep: Keep) -> Estimate {
        Estimate::new(&Basis {
            keep,
            raw_step: 1_000_000,
            keyframe_extra: 0,
            segment_steps: 256,
            steps: Some(1000),
            steps_per_epoch: Some(100),
            queue_bytes: 64 << 20,
            encoders: 1,
            staged: 0,
        })
    }

    #[test]
    fn keeping_the_last_epoch_needs_twice_its_size_on_disk() {
        let last = estimate(Keep::LastEpoch);
        assert_eq!(last.disk_peak, last.stored_run.map(|bytes| 2 * bytes));
        assert!(last.to_string().contains(" on disk at the end, "), "{last}");
    }

    #[test]
    fn a_measured_step_scales_the_sizes_on_disk() {
        let all = estimate(Keep::All);
        let measured = all.clone().with_stored_step(all.stored_step / 2);
        let (before, after) = (all.stored_run.unwrap(), measured.stored_run.unwrap());
        assert!(before.abs_diff(2 * after) < 4, "{before} {after}");
        let budget = estimate(Keep::Budget(1_000_000));
        let measured = budget.clone().with_stored_step(1);
        assert_eq!(measured.stored_run, budget.stored_run);
    }

    #[test]
    fn keeping_less_takes_less() {
        let all = estimate(Keep::All).disk_peak.unwrap();
        assert!(all > 600_000_000 && all < 650_000_000);
        for keep in [
            Keep::LastEpoch,
            Keep::LastSteps(20),
            Keep::EveryNth(10),
            Keep::Budget(50_000_000),
        ] {
            let less = estimate(keep).disk_peak.unwrap();
            assert!(less < all, "{keep}: {less}");
        }
    }

    #[test]
    fn an_unknown_total_is_not_printed() {
        let unknown = Estimate::new(&Basis {
            keep: Keep::All,
            raw_step: 8,
            keyframe_extra: 0,
            segment_steps: 256,
            steps: None,
            steps_per_epoch: None,
            queue_bytes: 32,
            encoders: 1,
            staged: 0,
        });
        assert_eq!(unknown.stored_run, None);
        assert_eq!(unknown.memory_peak, 32 + 4 * 8);
        assert!(
            unknown
                .to_string()
                .contains("depends on the number of steps"),
            "{unknown}"
        );
    }
}
