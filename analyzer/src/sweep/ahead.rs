//! Reading ahead: steps are decoded, and their batches loaded, on a thread of their own while the replay works.
//!
//! The thread hands over in order, through a channel of a few places, so that the sweep gets the same steps, and the same
//! error after the same step, as if it read them itself. When the sweep stops, so does the thread.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use hindcast_format::meta::StepMeta;
use hindcast_model::objective::Batch;

use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::run::anchor::{no_buffers, with_buffers_before};
use crate::run::batch_sizes::BatchSizes;
use crate::run::memory::step_bytes;
use crate::run::recorded::RecordedRun;
use crate::run::source::{RecordedStep, StepWalk};

/// Steps that may wait in the channel; one more is in the reader's hands.
const PLACES: usize = 2;
/// Steps of more bytes than this don't wait: the reader holds one, and that is all.
const LARGE: u64 = 64 << 20;

/// How many steps are held ahead of the replay at most, each of so many bytes.
pub(super) fn steps_ahead(bytes: u64) -> usize {
    1 + places(bytes)
}

fn places(bytes: u64) -> usize {
    if bytes > LARGE { 0 } else { PLACES }
}

/// A step as it comes from the trace and the data.
pub(crate) struct ReadStep {
    pub meta: StepMeta,
    /// θ_t.
    pub parameters: Vec<f64>,
    /// r_t, before the forward pass.
    pub buffers: Vec<f64>,
    /// Its micro-batches.
    pub batches: Vec<Batch>,
}

/// Which way to walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    OldestFirst,
    NewestFirst,
}

/// What a walk reads, and for which engine.
#[derive(Clone)]
pub(crate) struct Walked {
    pub range: Range<u64>,
    pub order: Order,
    pub dtype: DType,
    pub device: Device,
}

impl Walked {
    pub fn new(range: Range<u64>, order: Order, engine: &dyn ReplayEngine) -> Self {
        Walked {
            range,
            order,
            dtype: engine.dtype(),
            device: engine.device().clone(),
        }
    }
}

/// The steps of a range, read by a thread that ends with this.
pub(crate) struct Ahead<'scope> {
    steps: Option<Receiver<Result<ReadStep>>>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Ahead<'scope> {
    /// Begins to read.
    pub fn spawn<'env>(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env RecordedRun<'env>,
        walked: Walked,
    ) -> Result<Self> {
        // What can't be read here is said by the walk itself, at its step.
        let sizes = BatchSizes::of(run.source(), walked.range.clone()).unwrap_or_default();
        let bytes = step_bytes(run, walked.dtype.size_in_bytes(), sizes.largest);
        let (give, steps) = sync_channel(places(bytes));
        let thread = std::thread::Builder::new()
            .name("hindcast-reader".to_owned())
            .spawn_scoped(scope, move || read(run, walked, &give))
            .map_err(|e| AnalysisError::Threads {
                what: "the thread that reads steps",
                problem: e.to_string(),
            })?;
        Ok(Ahead {
            steps: Some(steps),
            thread: Some(thread),
        })
    }

    /// The next step, or `None` after the last; `waited` grows by the time until it was there.
    pub fn next(&mut self, waited: &mut Duration) -> Result<Option<ReadStep>> {
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

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        // Without a receiver the reader's next step can't be handed over, and it ends.
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(run: &RecordedRun<'_>, walked: Walked, give: &SyncSender<Result<ReadStep>>) {
    let mut reader = match Reader::new(run, walked) {
        Ok(reader) => reader,
        // A receiver that is gone wants nothing any more, no error either.
        Err(error) => return give.send(Err(error)).unwrap_or_default(),
    };
    while let Some(step) = reader.next().transpose() {
        let last = step.is_err();
        if give.send(step).is_err() || last {
            return;
        }
    }
}

struct Reader<'a> {
    run: &'a RecordedRun<'a>,
    walk: Box<dyn StepWalk + 'a>,
    walked: Walked,
    /// Newest first: the older step that was read for its buffers. It is due next.
    pending: Option<RecordedStep>,
    /// Oldest first: the buffers after the step before.
    buffers: Option<Vec<f64>>,
}

impl<'a> Reader<'a> {
    fn new(run: &'a RecordedRun<'a>, walked: Walked) -> Result<Self> {
        let range = with_buffers_before(run, walked.range.clone())?;
        Ok(Reader {
            run,
            walk: match walked.order {
                Order::OldestFirst => run.source().forward(range)?,
                Order::NewestFirst => run.source().reverse(range)?,
            },
            walked,
            pending: None,
            buffers: None,
        })
    }

    fn next(&mut self) -> Result<Option<ReadStep>> {
        let found = match self.walked.order {
            Order::OldestFirst => self.younger()?,
            Order::NewestFirst => self.older()?,
        };
        let Some((step, buffers)) = found else {
            return Ok(None);
        };
        let batches = self
            .run
            .batches(&step.meta, self.walked.dtype, &self.walked.device)?;
        Ok(Some(ReadStep {
            meta: step.meta,
            parameters: step.parameters,
            buffers,
            batches,
        }))
    }

    /// The next older step with the buffers before it, which its keyframe or the step before it has.
    fn older(&mut self) -> Result<Option<(RecordedStep, Vec<f64>)>> {
        let here = match self.pending.take() {
            Some(step) => Some(step),
            None => self.walk.next()?,
        };
        let Some(mut here) = here.filter(|s| s.meta.step >= self.walked.range.start) else {
            return Ok(None);
        };
        let buffers = match (here.key.take(), self.run.source().buffers().is_empty()) {
            (_, true) => Vec::new(),
            (Some(key), false) => key.buffers_before,
            (None, false) => {
                let older = self
                    .walk
                    .next()?
                    .ok_or_else(|| no_buffers(here.meta.step))?;
                let before = older.buffers_after.clone();
                self.pending = Some(older);
                before
            }
        };
        Ok(Some((here, buffers)))
    }

    /// The next younger step with the buffers before it.
    fn younger(&mut self) -> Result<Option<(RecordedStep, Vec<f64>)>> {
        while let Some(mut here) = self.walk.next()? {
            let before = match here.key.take() {
                Some(key) => Some(key.buffers_before),
                None => self.buffers.take(),
            };
            self.buffers = Some(std::mem::take(&mut here.buffers_after));
            if here.meta.step < self.walked.range.start {
                continue;
            }
            let buffers = match self.run.source().buffers().is_empty() {
                true => Vec::new(),
                false => before.ok_or_else(|| no_buffers(here.meta.step))?,
            };
            return Ok(Some((here, buffers)));
        }
        Ok(None)
    }
}
