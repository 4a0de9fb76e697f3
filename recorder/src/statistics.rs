//! What recording has done so far, and what it cost.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::RecorderError;

/// The first value in a run that was not a number, or infinite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonFinite {
    /// The step before which the tensor had it (a parameter), or in which the forward pass made it (a buffer).
    pub step: u64,
    /// The tensor's name.
    pub tensor: String,
}

/// What a run has recorded so far. Counts of steps that are still in the queue are in `steps` alone.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Recording calls that succeeded, steps lost or skipped included.
    pub steps: u64,
    /// Steps in the trace with their tensors, counted when they are handed to storage.
    pub written: u64,
    /// Steps in the trace without their tensors because the queue was full ([`WhenFull::Skip`](crate::WhenFull::Skip)).
    pub skipped: u64,
    /// Steps in the trace without their tensors because [`Keep::EveryNth`](crate::Keep::EveryNth) says so.
    pub thinned: u64,
    /// Steps that are not in the trace, since storage had failed ([`OnError::TrainOn`](crate::OnError::TrainOn)).
    pub lost: u64,
    /// Which steps those are: ranges in ascending order.
    pub lost_steps: Vec<Range<u64>>,
    /// Segments dropped because the run keeps less than everything.
    pub dropped_segments: u64,
    /// Bytes of the tensors written, before encoding.
    pub raw_bytes: u64,
    /// Bytes handed to storage, dropped segments included.
    pub stored_bytes: u64,
    /// Times that the training thread waited for room in the queue.
    pub stalls: u64,
    /// How long it waited, all in all.
    pub stalled: Duration,
    /// What the encoder threads spent encoding.
    pub encoding: Duration,
    /// What the writer thread spent in storage.
    pub writing: Duration,
    /// The most bytes that waited at once.
    pub queue_peak_bytes: u64,
    /// The most steps that waited at once.
    pub queue_peak_steps: u64,
    /// Steps with a value in them that is not a number or infinite.
    pub non_finite_steps: u64,
    /// The first of them. It is recorded bit for bit like any other.
    pub non_finite: Option<NonFinite>,
    /// Parameters that had a gradient and were not updated by the wrapped optimizer: it doesn't hold them. They are recorded as not
    /// trained.
    pub not_updated: Vec<String>,
    /// The first failure of storage or of a thread, if there was one. Under [`OnError::TrainOn`](crate::OnError::TrainOn) recording may have
    /// resumed after it.
    pub failure: Option<RecorderError>,
}

impl Statistics {
    /// Bytes stored for a byte of tensors, where any were.
    pub fn ratio(&self) -> Option<f64> {
        (self.raw_bytes > 0).then(|| self.stored_bytes as f64 / self.raw_bytes as f64)
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} stored",
            self.steps,
            Bytes(self.stored_bytes)
        )?;
        if let Some(ratio) = self.ratio() {
            write!(f, " ({ratio:.3} of raw)")?;
        }
        for (count, what) in [
            (self.skipped, "skipped as the queue was full"),
            (self.thinned, "kept as metadata"),
            (self.lost, "lost after storage failed"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if !self.lost_steps.is_empty() {
            write!(f, " ({})", Ranges(&self.lost_steps))?;
        }
        if self.non_finite_steps > 0 {
            let count = self.non_finite_steps;
            write!(f, ", {count} with a value that is not finite")?;
        }
        if let Some(first) = &self.non_finite {
            write!(f, " (first {:?} at step {})", first.tensor, first.step)?;
        }
        if let Some(first) = self.not_updated.first() {
            let more = match self.not_updated.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            write!(
                f,
                ", {first:?}{more} recorded as not trained, since the optimizer left what had a gradient as it was"
            )?;
        }
        if self.stalls > 0 {
            write!(
                f,
                ", training waited {} times, {:.1} s in all",
                self.stalls,
                self.stalled.as_secs_f64()
            )?;
        }
        match &self.failure {
            Some(failure) => write!(f, "; {failure}"),
            None => Ok(()),
        }
    }
}

/// Ranges of steps in a message; the middle of a long list is left out.
pub(crate) struct Ranges<'a>(pub(crate) &'a [Range<u64>]);

/// Ranges that a message spells out.
const SPELLED_OUT: usize = 6;

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().take(SPELLED_OUT).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match range.end - range.start {
                1 => write!(f, "{comma}step {}", range.start)?,
                _ => write!(f, "{comma}steps {} to {}", range.start, range.end - 1)?,
            }
        }
        match self.0.len().saturating_sub(SPELLED_OUT) {
            0 => Ok(()),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

/// Bytes as people read them: `13.7 kB`, decimal units.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if value < 1000.0 {
            return write!(f, "{} B", self.0);
        }
        for unit in ["kB", "MB", "GB", "TB"] {
            value /= 1000.0;
            if value < 999.95 || unit == "TB" {
                return write!(f, "{value:.1} {unit}");
            }
        }
        Ok(())
    }
}

/// The counters behind [`Statistics`], shared by all threads.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) steps: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) thinned: AtomicU64,
    pub(crate) dropped_segments: AtomicU64,
    pub(crate) raw_bytes: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) stalled_ns: AtomicU64,
    pub(crate) encoding_ns: AtomicU64,
    pub(crate) writing_ns: AtomicU64,
    pub(crate) non_finite_steps: AtomicU64,
    non_finite: Mutex<Option<NonFinite>>,
    not_updated: Mutex<BTreeSet<String>>,
    /// Steps that are not in the trace, in ascending ranges.
    lost: Mutex<Vec<Range<u64>>>,
}

/// Adds to a counter: they are only ever summed, so no order between them is promised.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Adds a duration to a counter of nanoseconds.
pub(crate) fn add_time(counter: &AtomicU64, time: Duration) {
    add(counter, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

impl Counters {
    /// Notes a step with values that are not finite; several encoders may come in any order, the earliest step wins.
    pub(crate) fn not_finite(&self, found: NonFinite) {
        add(&self.non_finite_steps, 1);
        let mut first = self
            .non_finite
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|first| found.step < first.step) {
            *first = Some(found);
        }
    }

    /// Notes that the optimizer left a parameter with a gradient as it was.
    pub(crate) fn not_updated(&self, name: String) {
        let mut all = self
            .not_updated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.insert(name);
    }

    /// Notes that a step is not in the trace.
    pub(crate) fn step_lost(&self, step: u64) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        // The writer and the training thread report in turn, so a step may come after later ones.
        let at = lost.partition_point(|range| range.end < step);
        match lost.get_mut(at) {
            Some(range) if range.contains(&step) => return,
            Some(range) if range.end == step => range.end += 1,
            Some(range) if range.start == step + 1 => range.start = step,
            _ => lost.insert(at, step..step + 1),
        }
        if let (Some(here), Some(next)) = (lost.get(at).cloned(), lost.get(at + 1).cloned())
            && here.end == next.start
        {
            lost.remove(at + 1);
            if let Some(range) = lost.get_mut(at) {
                range.end = next.end;
            }
        }
    }

    /// Steps before `end` that were taken for lost after `first` are in the trace: a frame may be whole although its write reported an error.
    /// Says how many.
    pub(crate) fn found(&self, first: u64, end: u64) -> u64 {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = 0;
        for range in lost.iter_mut().filter(|range| range.start >= first) {
            let start = range.start.max(end).min(range.end);
            found += start - range.start;
            range.start = start;
        }
        lost.retain(|range| !range.is_empty());
        found
    }

    pub(crate) fn snapshot(&self) -> Statistics {
        let lost_steps = self
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            steps: get(&self.steps),
            written: get(&self.written),
            skipped: get(&self.skipped),
            thinned: get(&self.thinned),
            not_updated: self
                .not_updated
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .cloned()
                .collect(),
            lost: lost_steps.iter().map(|range| range.end - range.start).sum(),
            lost_steps,
            dropped_segments: get(&self.dropped_segments),
            raw_bytes: get(&self.raw_bytes),
            stored_bytes: get(&self.stored_bytes),
            stalls: get(&self.stalls),
            stalled: Duration::from_nanos(get(&self.stalled_ns)),
            encoding: Duration::from_nanos(get(&self.encoding_ns)),
            writing: Duration::from_nanos(get(&self.writing_ns)),
            non_finite_steps: get(&self.non_finite_steps),
            non_finite: self
                .non_finite
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            ..Statistics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_960, "1.0 MB"),
            (55_000, "55.0 kB"),
            (3_400_000_000_000_000, "3400.0 TB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn lost_steps_join_into_ranges_in_any_order() {
        let counters = Counters::default();
        for step in [5, 7, 6, 12, 4, 13, 20, 6] {
            counters.step_lost(step);
        }
        let statistics = counters.snapshot();
        assert_eq!(statistics.lost_steps, [4..8, 12..14, 20..21]);
        assert_eq!(statistics.lost, 7);
        let text = statistics.to_string();
        assert!(
            text.contains("7 lost after storage failed (steps 4 to 7, steps 12 to 13, step 20)"),
            "{text}"
        );
        assert_eq!(counters.found(12, 13), 1);
        assert_eq!(counters.snapshot().lost_steps, [4..8, 13..14, 20..21]);
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_the_earliest_step() {
        let counters = Counters::default();
        for step in [7, 3, 9] {
            counters.not_finite(NonFinite {
                step,
                tensor: format!("w{step}"),
            });
        }
        let statistics = counters.snapshot();
        assert_eq!(statistics.non_finite_steps, 3);
        assert_eq!(
            statistics.non_finite,
            Some(NonFinite {
                step: 3,
                tensor: "w3".into()
            })
        );
        assert!(
            statistics
                .to_string()
                .contains("3 with a value that is not finite (first \"w3\" at step 3)"),
            "{statistics}"
        );
    }
}
