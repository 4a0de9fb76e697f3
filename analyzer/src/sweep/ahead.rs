//! Reading ahead: a separate thread decodes steps and loads their batches while the engine replays earlier ones.
//!
//! The thread sends steps in order through a channel that holds only a few of them. So a sweep gets the same steps, and
//! the same error after the same step, as if it read them itself. The thread ends when the sweep stops receiving.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};

use super::step::ReplayStep;
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Damaged, Result};
use crate::run::batch_sizes::BatchSizes;
use crate::run::memory::step_bytes;
use crate::run::recorded::RecordedRun;
use crate::run::walk::{Order, WithBuffers};

/// Number of steps that the channel holds. The reading thread holds one more.
const PLACES: usize = 2;
/// Steps of more bytes than this aren't kept in the channel, so that only the reading thread holds one ahead of time.
const LARGE_STEP: u64 = 64 << 20;

/// The largest number of steps, each of `bytes` bytes, that are in memory ahead of the replay.
pub(super) fn steps_ahead(bytes: u64) -> usize {
    1 + places(bytes)
}

fn places(bytes: u64) -> usize {
    if bytes > LARGE_STEP { 0 } else { PLACES }
}

/// Which steps to read, and the type and device in which to load their batches.
#[derive(Clone)]
pub(crate) struct Reading {
    range: Range<u64>,
    order: Order,
    dtype: DType,
    device: Device,
}

impl Reading {
    /// The steps of `range` for a replay by `engine`.
    pub fn new(range: Range<u64>, order: Order, engine: &dyn ReplayEngine) -> Self {
        Reading {
            range,
            order,
            dtype: engine.dtype(),
            device: engine.device().clone(),
        }
    }
}

/// Receives steps from the thread that reads them. Dropping it ends the thread.
pub(crate) struct Ahead<'scope> {
    steps: Option<Receiver<Result<ReplayStep>>>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Ahead<'scope> {
    /// Starts the thread.
    pub fn spawn<'env>(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env RecordedRun<'env>,
        reading: Reading,
    ) -> Result<Self> {
        // If metadata can't be read here, the walk reports the error when it reaches the step.
        let sizes = BatchSizes::of(run.source(), reading.range.clone()).unwrap_or_default();
        let bytes = step_bytes(run, reading.dtype.size_in_bytes(), sizes.largest);
        let (sender, steps) = sync_channel(places(bytes));
        let thread = std::thread::Builder::new()
            .name("hindcast-reader".to_owned())
            .spawn_scoped(scope, move || read(run, reading, &sender))
            .map_err(|e| AnalysisError::Threads {
                what: "the thread that reads steps",
                problem: e.to_string(),
            })?;
        Ok(Ahead {
            steps: Some(steps),
            thread: Some(thread),
        })
    }

    /// The next step, or `None` after the last one. Adds the time spent waiting for it to `waited`.
    pub fn next(&mut self, waited: &mut Duration) -> Result<Option<ReplayStep>> {
        let Some(steps) = &self.steps else {
            return Ok(None);
        };
        let begun = Instant::now();
        let got = steps.recv();
        *waited += begun.elapsed();
        if let Ok(step) = got {
            return step.map(Some);
        }
        self.steps = None;
        if let Some(Err(panic)) = self.thread.take().map(ScopedJoinHandle::join) {
            resume_unwind(panic);
        }
        Ok(None)
    }
}

/// Calls `see` with each step that `reading` names, oldest first.
///
/// # Errors
/// A step can't be read or is not the next one; the errors of `see`.
pub(crate) fn each_step(
    run: &RecordedRun<'_>,
    reading: Reading,
    see: &mut dyn FnMut(ReplayStep) -> Result<()>,
) -> Result<()> {
    let mut waited = Duration::ZERO;
    each_step_timed(run, reading, &mut waited, see)
}

/// As [`each_step`]. Adds the time spent waiting for steps to `waited`.
///
/// # Errors
/// As [`each_step`].
pub(super) fn each_step_timed(
    run: &RecordedRun<'_>,
    reading: Reading,
    waited: &mut Duration,
    see: &mut dyn FnMut(ReplayStep) -> Result<()>,
) -> Result<()> {
    let range = reading.range.clone();
    std::thread::scope(|scope| {
        let mut ahead = Ahead::spawn(scope, run, reading)?;
        let mut due = range.start;
        while let Some(step) = ahead.next(waited)? {
            if step.meta.step != due {
                return Err(AnalysisError::Damaged(Damaged::Order {
                    due,
                    got: step.meta.step,
                }));
            }
            see(step)?;
            due += 1;
        }
        if due < range.end {
            return Err(AnalysisError::Damaged(Damaged::Ends { step: due }));
        }
        Ok(())
    })
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        // Without a receiver the reader's next send fails, which ends the thread.
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends the steps and the first error, if there is one, until the receiver is gone.
fn read(run: &RecordedRun<'_>, reading: Reading, sender: &SyncSender<Result<ReplayStep>>) {
    let Reading {
        range,
        order,
        dtype,
        device,
    } = reading;
    let walk = match WithBuffers::new(run.source(), range, order) {
        Ok(walk) => walk,
        // If the receiver is gone, the sweep has stopped and needs no error.
        Err(error) => return sender.send(Err(error)).unwrap_or_default(),
    };
    for found in walk {
        let step = found.and_then(|found| ReplayStep::load(run, found, dtype, &device));
        let last = step.is_err();
        if sender.send(step).is_err() || last {
            return;
        }
    }
}
