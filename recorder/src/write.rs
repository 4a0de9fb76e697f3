//! Writing: frames into segments, in order; segments sealed, and dropped when the run keeps less.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use hindcast_format::{EncodedFrame, Encoder, FormatError, Manifest, RunWriter};

use crate::encode::{panic_text, product};
use crate::error::RecorderError;
use crate::retention::Retention;
use crate::shared::{Final, Frames, Product, Shared};
use crate::statistics::{add, add_time};

/// Body of the writer thread. It takes products until the run ends, and goes on taking them after a failure, so that
/// nobody waits for a place in the queue.
pub(crate) fn run(shared: &Shared, writer: RunWriter, retention: Retention) {
    let next = || Some(shared.products.take()?.1);
    write(shared, writer, retention, next);
}

/// Body of the only thread of a run with one encoder: it writes what it has just encoded, which its core's cache still
/// holds, and no second thread takes a core from training.
pub(crate) fn encode_and_write(
    shared: &Shared,
    mut encoder: Encoder,
    writer: RunWriter,
    retention: Retention,
) {
    let next = || {
        let (_, work) = shared.work.take()?;
        Some(product(shared, &mut encoder, work))
    };
    write(shared, writer, retention, next);
}

fn write(
    shared: &Shared,
    writer: RunWriter,
    retention: Retention,
    mut next: impl FnMut() -> Option<Product>,
) {
    let mut writing = Writing {
        shared,
        writer: Some(writer),
        retention,
        last: None,
    };
    while let Some(product) = next() {
        let over = writing.take(product);
        shared.made_progress();
        if over {
            return;
        }
    }
    // The queue was closed without a last word.
    writing.abandon();
}

struct Writing<'a> {
    shared: &'a Shared,
    /// Gone once storage has failed or the run has ended.
    writer: Option<RunWriter>,
    retention: Retention,
    /// The step written last.
    last: Option<u64>,
}

impl Writing<'_> {
    /// Deals with one product; true if it was the last.
    fn take(&mut self, product: Product) -> bool {
        match product {
            Product::Frames(frames) => {
                let (step, held) = (frames.step, frames.held);
                if !self.guarded(step, |writing, writer| writing.frames(writer, *frames)) {
                    add(&self.shared.counters.lost, 1);
                }
                self.shared.budget.give_back(held);
                false
            }
            Product::Failed { held, error } => {
                self.shared.fail(error);
                self.shared.budget.give_back(held);
                add(&self.shared.counters.lost, 1);
                // Storage may be sound: then what came before is sealed now.
                if let Some(writer) = self.writer.take() {
                    let _ = writer.abandon(self.counters());
                }
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

    /// Does something with the writer, unless recording has failed; notes the failure if it fails now. False if it was
    /// not done.
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
            Ok(Err(error)) => self.storage_error(step, error),
            Err(panic) => self.panicked(step, &*panic),
        };
        self.shared.fail(error);
        false
    }

    fn frames(&mut self, writer: &mut RunWriter, frames: Frames) -> Result<(), FormatError> {
        let counters = &self.shared.counters;
        if let Some(link) = frames.cut {
            if let Some(link) = link {
                self.append(writer, link)?;
            }
            writer.seal()?;
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

    /// Appends a frame, hands its buffer back, and says how long it was.
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

    /// Seals the run with its final state.
    fn finish(&mut self, end: Final) {
        let Final {
            step,
            link,
            state,
            key,
        } = end;
        self.guarded(step, |writing, writer| {
            if let Some(link) = link {
                writing.append(writer, link)?;
            }
            writer.seal()?;
            let surplus = writing.retention.finished();
            writing.drop_oldest(writer, surplus)
        });
        let Some(writer) = self.writer.take() else {
            return self.shared.end(None);
        };
        let counters = self.counters();
        let finished = catch_unwind(AssertUnwindSafe(|| {
            let manifest = writer.finish(&state, &key, counters)?;
            // The head is the digest that the manifest ends with.
            Manifest::from_bytes(&manifest.to_bytes()?).map(|(_, head)| head)
        }));
        match finished {
            Ok(Ok(head)) => {
                self.shared.set_durable(step.checked_sub(1));
                self.shared.end(Some(head));
            }
            Ok(Err(error)) => self.ended_badly(self.storage_error(step, error)),
            Err(panic) => self.ended_badly(self.panicked(step, &*panic)),
        }
    }

    /// Seals the run as unfinished, if storage has not failed.
    fn abandon(&mut self) {
        let step = self.last.map_or(0, |last| last + 1);
        if let Some(writer) = self.writer.take() {
            let counters = self.counters();
            match catch_unwind(AssertUnwindSafe(|| writer.abandon(counters))) {
                Ok(Ok(_)) => self.shared.set_durable(self.last),
                Ok(Err(error)) => self.shared.fail(self.storage_error(step, error)),
                Err(panic) => self.shared.fail(self.panicked(step, &*panic)),
            }
        }
        self.shared.end(None);
    }

    fn ended_badly(&self, error: RecorderError) {
        self.shared.fail(error);
        self.shared.end(None);
    }

    /// What the manifest says of the recording itself.
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
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
    }

    fn storage_error(&self, step: u64, error: FormatError) -> RecorderError {
        RecorderError::Storage {
            run: self.shared.run.clone(),
            step,
            source: Arc::new(error),
        }
    }

    fn panicked(&self, step: u64, panic: &(dyn std::any::Any + Send)) -> RecorderError {
        RecorderError::Thread {
            run: self.shared.run.clone(),
            step,
            thread: "writer",
            message: panic_text(panic),
        }
    }
}
