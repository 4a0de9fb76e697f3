//! Reopens a run whose storage failed during training, and schedules the attempts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hindcast_format::{Durability, FormatError, RunWriter, Storage, Trace};

use crate::keep::Keep;
use crate::retention::Retention;

/// Wait before the first attempt to reopen. Each later wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts. Every successful attempt adds an entry to the manifest, so there should be few.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What a writer needs to reopen its run.
pub(crate) struct Reopening {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) durability: Durability,
    pub(crate) keep: Keep,
    /// Whether training continues after a failure. Otherwise the run is not reopened.
    pub(crate) trains_on: bool,
}

/// A reopened run.
pub(crate) struct Reopened {
    pub(crate) writer: RunWriter,
    pub(crate) retention: Retention,
    /// One more than the last step that the trace holds.
    pub(crate) end: u64,
}

impl Reopening {
    /// Reopens the run after its last step. The files are read and checked again, as for any resumed run, because the
    /// writer that failed doesn't know which bytes reached the disk.
    pub(crate) fn reopen(&self) -> Result<Reopened, FormatError> {
        let trace = Trace::open_storage(Arc::clone(&self.storage))?;
        let (end, epochs) = (trace.span().end, epochs(&trace));
        drop(trace);
        let (mut writer, _) = RunWriter::resume(Arc::clone(&self.storage), end, self.durability)?;
        writer.hold_reserve();
        let retention = retention(self.keep, &epochs, &writer)?;
        Ok(Reopened {
            writer,
            retention,
            end,
        })
    }
}

/// The epoch in which each segment of a trace begins, by the segment's first step.
pub(crate) fn epochs(trace: &Trace) -> BTreeMap<u64, u64> {
    let sizes = trace.sizes().into_iter();
    sizes
        .filter_map(|size| Some((size.steps.start, trace.meta(size.steps.start).ok()?.epoch)))
        .collect()
}

/// The retention of a run, including the segments that existed when it was opened.
pub(crate) fn retention(
    keep: Keep,
    epochs: &BTreeMap<u64, u64>,
    writer: &RunWriter,
) -> Result<Retention, FormatError> {
    let mut retention = Retention::new(keep);
    for segment in writer.segments()? {
        retention.found(
            epochs.get(&segment.first_step).copied().unwrap_or(0),
            segment.steps + segment.gaps,
            segment.bytes,
        );
    }
    Ok(retention)
}

/// Schedule of the attempts on failed storage.
pub(crate) struct Retry {
    wait: Duration,
    next: Instant,
}

impl Retry {
    pub(crate) fn new() -> Self {
        Self {
            wait: FIRST_WAIT,
            next: Instant::now() + FIRST_WAIT,
        }
    }

    /// Whether an attempt is due. If so, the next one is scheduled.
    pub(crate) fn due(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        self.next = now + self.wait;
        true
    }
}

/// Steps that earlier sessions of a resumed run lost, as its manifest counts them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LostBefore {
    pub(crate) steps: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl LostBefore {
    /// The part that still holds for a run that is resumed at `step`. Later steps are recorded again.
    pub(crate) fn read(counters: &BTreeMap<String, u64>, step: u64) -> Option<Self> {
        let get = |name: &str| counters.get(name).copied();
        let (steps, from, to) = (get("lost")?, get("lost-from")?, get("lost-to")?.min(step));
        let steps = steps.min(to.checked_sub(from)?);
        (steps > 0).then_some(Self { steps, from, to })
    }
}
