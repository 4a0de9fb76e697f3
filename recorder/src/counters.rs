//! Counts what the threads of a recording do.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::statistics::{NonFinite, Statistics};

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
    rows: AtomicU64,
    row_bytes: AtomicU64,
    row_uses: AtomicU64,
    non_finite: Mutex<Option<NonFinite>>,
    not_updated: Mutex<BTreeSet<String>>,
    without_gradient: Mutex<Vec<String>>,
    not_staged: OnceLock<String>,
    /// Steps that are not in the trace, as ascending ranges.
    lost: Mutex<Vec<Range<u64>>>,
}

/// Adds to a counter. Counters are only read as totals, so no memory order is needed.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Adds a duration to a counter of nanoseconds.
pub(crate) fn add_time(counter: &AtomicU64, time: Duration) {
    add(counter, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

impl Counters {
    /// Notes the number of distinct rows, their bytes, and the number of their uses so far.
    pub(crate) fn rows(&self, distinct: u64, bytes: u64, uses: u64) {
        for (counter, total) in [
            (&self.rows, distinct),
            (&self.row_bytes, bytes),
            (&self.row_uses, uses),
        ] {
            counter.store(total, Ordering::Relaxed);
        }
    }

    /// Notes values that are not finite, in this number of steps. Encoders report in any order; the earliest step is kept.
    pub(crate) fn not_finite(&self, found: NonFinite, steps: u64) {
        add(&self.non_finite_steps, steps);
        let mut first = self
            .non_finite
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|first| found.step < first.step) {
            *first = Some(found);
        }
    }

    /// Notes that the optimizer did not change a parameter that had a gradient.
    pub(crate) fn not_updated(&self, name: String) {
        let mut all = self
            .not_updated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.insert(name);
    }

    /// Notes the parameters that have had no gradient so far.
    pub(crate) fn without_gradient(&self, names: Vec<String>) {
        let all = self.without_gradient.lock();
        *all.unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Notes why tensors of a device are copied while training waits.
    pub(crate) fn not_staged(&self, why: &str) {
        self.not_staged.get_or_init(|| why.to_owned());
    }

    /// Notes that a step is not in the trace.
    pub(crate) fn step_lost(&self, step: u64) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        // The writer and the training thread both report, so a step may arrive after later ones.
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

    /// Removes the lost steps from `first` up to `end`, because the trace has them after all: a frame may be complete
    /// although writing it reported an error. Returns their number.
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
            without_gradient: self
                .without_gradient
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            not_staged: self.not_staged.get().cloned(),
            lost: lost_steps.iter().map(|range| range.end - range.start).sum(),
            lost_steps,
            dropped_segments: get(&self.dropped_segments),
            raw_bytes: get(&self.raw_bytes),
            stored_bytes: get(&self.stored_bytes),
            rows: get(&self.rows),
            row_bytes: get(&self.row_bytes),
            row_uses: get(&self.row_uses),
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
            let tensor = format!("w{step}");
            counters.not_finite(NonFinite { step, tensor }, 1);
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
