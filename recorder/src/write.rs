//! Writes frames into segments in order, seals segments, and drops those that the run no longer keeps.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use hindcast_format::{EncodedFrame, FormatError, KeyState, RunWriter, State};

use crate::counters::{add, add_time};
use crate::encode::{Encoding, product};
use crate::reopen::{LostBefore, Reopening};
use crate::retention::Retention;
use crate::shared::Shared;
use crate::statistics::Statistics;
use crate::work::{FinalFrames, Frames, Product};

/// Body of the writer thread. It takes products until the run ends. It continues after a failure, so that no thread
/// waits for room in the queue.
pub(crate) fn run(shared: &Shared, output: Output) {
    let next = || Some(shared.products.take()?.1);
    write(shared, output, next);
}

/// Body of the only thread of a run with one encoder. It writes a frame while the frame is still in its core's cache,
/// and training shares the cores with one thread fewer.
pub(crate) fn encode_and_write(shared: &Shared, mut encoder: Encoding, output: Output) {
    let next = || {
        let (_, work) = shared.work.take()?;
        Some(product(shared, &mut encoder, work))
    };
    write(shared, output, next);
}

/// The writer of a run, with what it needs to drop segments and to reopen the run.
pub(crate) struct Output {
    pub(crate) writer: RunWriter,
    pub(crate) retention: Retention,
    pub(crate) reopening: Reopening,
    pub(crate) lost_before: Option<LostBefore>,
    /// Whether the run is new.
    pub(crate) created: bool,
}

fn write(shared: &Shared, output: Output, mut next: impl FnMut() -> Option<Product>) {
    let mut writing = Writing {
        shared,
        writer: Some(output.writer),
        failed: None,
        retention: output.retention,
        reopening: output.reopening,
        lost_before: output.lost_before,
        created: output.created,
        first_lost: None,
        last: None,
    };
    while let Some(product) = next() {
        let over = writing.take(product);
        shared.made_progress();
        if over {
            return;
        }
    }
    // The queue was closed before a last piece of work.
    writing.abandon();
}

struct Writing<'a> {
    shared: &'a Shared,
    /// `None` while storage has failed, and after the end of the run.
    writer: Option<RunWriter>,
    /// The writer that failed, until its run is closed.
    failed: Option<RunWriter>,
    retention: Retention,
    reopening: Reopening,
    lost_before: Option<LostBefore>,
    /// Whether the run is new.
    created: bool,
    /// The first step lost in the current failure.
    first_lost: Option<u64>,
    /// The last step written.
    last: Option<u64>,
}

impl Writing<'_> {
    /// Handles one product. Returns true if it was the last.
    fn take(&mut self, product: Product) -> bool {
        match product {
            Product::Frames(frames) => {
                let (step, held) = (frames.step, frames.held);
                if !self.guarded(step, |writing, writer| writing.frames(writer, *frames)) {
                    self.lost(step);
                }
                self.shared.budget.give_back(held);
                false
            }
            Product::Failed { step, held, error } => {
                self.shared.fail(error);
                self.shared.budget.give_back(held);
                // Counted before the run is sealed, so that its manifest has the step.
                self.lost(step);
                // Storage itself may work. Then the steps before this one are sealed now.
                if let Some(writer) = self.writer.take() {
                    let _ = writer.abandon(self.counters());
                }
                false
            }
            Product::Retry => {
                self.reopen();
                false
            }
            Product::Flush(flush) => {
                let step = self.last.map_or(0, |last| last + 1);
                if flush.sync {
                    self.guarded(step, |writing, writer| {
                        writer.sync()?;
                        writing.shared.set_durable(writer.durable_step());
                        Ok(())
                    });
                    self.set_aside();
                }
                flush.done.raise();
                false
            }
            Product::Finish(end) => {
                self.finish(*end);
                true
            }
            Product::Abandon => {
                self.abandon();
                true
            }
        }
    }

    /// Calls `work` with the writer, unless recording has failed before. Returns whether it succeeded. A failure or a
    /// panic becomes the failure of the run.
    fn guarded(
        &mut self,
        step: u64,
        work: impl FnOnce(&mut Self, &mut RunWriter) -> Result<(), FormatError>,
    ) -> bool {
        let Some(mut writer) = self.writer.take() else {
            return false;
        };
        let start = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| work(self, &mut writer)));
        add_time(&self.shared.counters.writing_ns, start.elapsed());
        let error = match done {
            Ok(Ok(())) => {
                self.writer = Some(writer);
                return true;
            }
            Ok(Err(error)) => {
                self.failed = Some(writer);
                self.shared.at(step).storage(error)
            }
            Err(panic) => self.shared.at(step).panicked("writer", &*panic),
        };
        self.shared.fail(error);
        false
    }

    /// Counts a step that is not in the trace because storage failed.
    fn lost(&mut self, step: u64) {
        self.shared.counters.step_lost(step);
        self.first_lost.get_or_insert(step);
        self.set_aside();
    }

    /// Closes the run of a failed writer: complete frames are sealed, and the manifest counts the lost steps. This is
    /// done only if training continues. Otherwise the run stays as the failure left it, and the user can resume it.
    fn set_aside(&mut self) {
        let Some(failed) = self.failed.take() else {
            return;
        };
        if self.reopening.trains_on {
            // If the disk is full, the run stays open, and only the summary counts the lost steps.
            let counters = self.counters();
            let _ = catch_unwind(AssertUnwindSafe(|| failed.close_after_failure(counters)));
        }
    }

    /// Tries to reopen a run whose storage failed. True if the next frame can be written.
    fn reopen(&mut self) -> bool {
        self.set_aside();
        if self.writer.is_some() || !self.reopening.trains_on {
            return self.writer.is_some();
        }
        let Ok(Ok(reopened)) = catch_unwind(AssertUnwindSafe(|| self.reopening.reopen())) else {
            return false;
        };
        if let Some(first) = self.first_lost.take() {
            let found = self.shared.counters.found(first, reopened.end);
            add(&self.shared.counters.written, found);
        }
        self.shared.set_durable(reopened.writer.durable_step());
        self.last = reopened.end.checked_sub(1);
        self.writer = Some(reopened.writer);
        self.retention = reopened.retention;
        self.shared.recovered();
        true
    }

    fn frames(&mut self, writer: &mut RunWriter, frames: Frames) -> Result<(), FormatError> {
        let counters = &self.shared.counters;
        if let Some(link) = frames.cut {
            if let Some(link) = link {
                self.append(writer, link)?;
            }
            // The first segment of the run repeats the description as its first step found it.
            if !writer.describe(self.shared.description.info().as_ref())? {
                writer.seal()?;
            }
            writer.open_segment(frames.step)?;
            let sealed = writer.segments()?.last().map_or(0, |segment| segment.bytes);
            let surplus = self.retention.opened(frames.epoch, sealed);
            self.drop_oldest(writer, surplus)?;
        }
        let bytes = self.append(writer, frames.frame)?;
        self.retention.appended(bytes);
        self.last = Some(frames.step);
        if frames.raw_bytes > 0 {
            add(&counters.written, 1);
            add(&counters.raw_bytes, frames.raw_bytes);
        }
        self.shared.set_durable(writer.durable_step());
        Ok(())
    }

    /// Appends a frame and gives back its buffer. Returns its length.
    fn append(&self, writer: &mut RunWriter, frame: EncodedFrame) -> Result<u64, FormatError> {
        let bytes = frame.bytes().len() as u64;
        let buffer = writer.append(frame)?;
        self.shared.pool.give_back_frame(buffer);
        add(&self.shared.counters.stored_bytes, bytes);
        Ok(bytes)
    }

    fn drop_oldest(&self, writer: &mut RunWriter, count: usize) -> Result<(), FormatError> {
        if count > 0 {
            writer.drop_oldest(count)?;
            add(&self.shared.counters.dropped_segments, count as u64);
        }
        Ok(())
    }

    /// Seals the run with its final state. If training continued after a failure, a second attempt is made. If that
    /// fails, the steps before the failure are closed as unfinished.
    fn finish(&mut self, end: FinalFrames) {
        let FinalFrames {
            step,
            link,
            state,
            key,
        } = end;
        // After lost steps there is no state for the link to start from.
        let mut link = link.filter(|_| self.writer.is_some());
        for _ in 0..2 {
            if !self.reopen() {
                break;
            }
            if let Some(head) = self.try_to_finish(step, link.take(), &state, &key) {
                self.shared.set_durable(step.checked_sub(1));
                return self.shared.end(Some(head));
            }
            self.set_aside();
        }
        self.end_with_loss();
    }

    /// Ends a run that can't be sealed. A new run without a step is removed, since it would block the next attempt.
    fn end_with_loss(&mut self) {
        let removed =
            self.is_empty() && RunWriter::discard_empty(&self.reopening.storage).unwrap_or(false);
        if !removed && self.reopening.trains_on {
            // Storage still fails, but there may be room for the counters.
            let counters = self.counters();
            let _ = RunWriter::replace_counters(self.reopening.storage.as_ref(), counters);
        }
        self.shared.end(None);
    }

    /// Returns the head digest. `None` after a failure.
    fn try_to_finish(
        &mut self,
        step: u64,
        link: Option<EncodedFrame>,
        state: &State,
        key: &KeyState,
    ) -> Option<[u8; 32]> {
        let mut manifest = None;
        self.guarded(step, |writing, writer| {
            if let Some(link) = link {
                writing.append(writer, link)?;
            }
            // A run without steps has not been described yet.
            writer.describe(writing.shared.description.info().as_ref())?;
            writer.seal()?;
            let surplus = writing.retention.finished();
            writing.drop_oldest(writer, surplus)?;
            let finished = writer.finish_at(step, state, key, writing.counters())?;
            // The manifest ends with the head digest.
            manifest = Some(finished.head()?);
            Ok(())
        });
        manifest
    }

    /// Seals the run as unfinished, unless storage has failed.
    fn abandon(&mut self) {
        let step = self.last.map_or(0, |last| last + 1);
        self.reopen();
        if self.is_empty() {
            // Nothing to seal: the run is removed.
            self.writer = None;
        }
        let Some(writer) = self.writer.take() else {
            return self.end_with_loss();
        };
        let counters = self.counters();
        match catch_unwind(AssertUnwindSafe(|| writer.abandon(counters))) {
            Ok(Ok(_)) => self.shared.set_durable(self.last),
            Ok(Err(error)) => self.shared.fail(self.shared.at(step).storage(error)),
            Err(panic) => self
                .shared
                .fail(self.shared.at(step).panicked("writer", &*panic)),
        }
        self.shared.end(None);
    }

    /// Whether the run is new and has no step.
    fn is_empty(&self) -> bool {
        self.created && self.last.is_none()
    }

    /// The counters that the manifest stores.
    fn counters(&self) -> BTreeMap<String, u64> {
        let statistics = self.shared.statistics();
        let nanoseconds =
            |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        [
            ("written", statistics.written),
            ("skipped", statistics.skipped),
            ("thinned", statistics.thinned),
            ("stalls", statistics.stalls),
            ("stalled-ns", nanoseconds(statistics.stalled)),
            ("dropped-segments", statistics.dropped_segments),
            ("raw-bytes", statistics.raw_bytes),
            ("stored-bytes", statistics.stored_bytes),
            ("non-finite-steps", statistics.non_finite_steps),
        ]
        .into_iter()
        .chain(self.lost_counters(&statistics))
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
    }

    /// The number of steps lost in this session and the earlier ones, and their range.
    fn lost_counters(&self, statistics: &Statistics) -> Vec<(&'static str, u64)> {
        let now = statistics
            .lost_steps
            .first()
            .zip(statistics.lost_steps.last());
        let now = now.map(|(first, last)| (statistics.lost, first.start, last.end));
        let before = self
            .lost_before
            .map(|before| (before.steps, before.from, before.to));
        let all = [before, now].into_iter().flatten();
        all.reduce(|(n, from, to), (m, start, end)| (n + m, from.min(start), to.max(end)))
            .map_or_else(Vec::new, |(lost, from, to)| {
                vec![("lost", lost), ("lost-from", from), ("lost-to", to)]
            })
    }
}
