//! Encodes snapshots into frames, on background threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use hindcast_format::{Encoder, Extension, FormatError, RunInfo, State};

use crate::counters::{add, add_time};
use crate::finite::first_not_finite;
use crate::shared::Shared;
use crate::statistics::NonFinite;
use crate::work::{Captured, FinalFrames, FinalState, Frames, Job, Product, Work};

/// An encoder, with the description that it was made for.
pub(crate) struct Encoding {
    pub(crate) encoder: Encoder,
    pub(crate) info: Arc<RunInfo>,
}

impl Encoding {
    /// The encoder for the run as its first step found it. The description doesn't change while steps are queued.
    fn current(&mut self, shared: &Shared) -> Result<&mut Encoder, FormatError> {
        let info = shared.description.info();
        if !Arc::ptr_eq(&info, &self.info) {
            if info.layout != self.info.layout {
                self.encoder = Encoder::new(&info)?;
            }
            self.info = info;
        }
        Ok(&mut self.encoder)
    }
}

/// Body of an encoder thread. It takes work in order until the queue is closed. The writer waits for every number in
/// turn, so each piece of work gives a product, even if encoding it fails.
pub(crate) fn run(shared: &Shared, mut encoder: Encoding) {
    while let Some((number, work)) = shared.work.take() {
        let product = product(shared, &mut encoder, work);
        shared.products.give(number, product);
        shared.made_progress();
    }
}

/// The product that the writer gets for a piece of work.
pub(crate) fn product(shared: &Shared, encoder: &mut Encoding, work: Work) -> Product {
    match work {
        Work::Step(job) => step(shared, encoder, *job),
        Work::Finish(end) => finish(shared, encoder, *end),
        Work::Flush(flush) => Product::Flush(flush),
        Work::Retry => Product::Retry,
        Work::Abandon => Product::Abandon,
    }
}

fn step(shared: &Shared, encoding: &mut Encoding, job: Job) -> Product {
    let (step, held) = (job.meta.step, job.held);
    if let Some(error) = shared.failure() {
        // While storage fails, nothing is written. The writer only counts the lost steps.
        return Product::Failed { step, held, error };
    }
    let start = Instant::now();
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        encode(shared, encoding.current(shared)?, job)
    }));
    add_time(&shared.counters.encoding_ns, start.elapsed());
    let error = match encoded {
        Ok(Ok(frames)) => return Product::Frames(Box::new(Frames { held, ..frames })),
        Ok(Err(error)) => shared.at(step).storage(error),
        Err(panic) => shared.at(step).panicked("encoder", &*panic),
    };
    Product::Failed { step, held, error }
}

/// The last piece of work always gives the last product, so that the writer ends.
fn finish(shared: &Shared, encoding: &mut Encoding, end: FinalState) -> Product {
    let FinalState {
        step,
        state,
        key,
        before,
    } = end;
    // The final state isn't a step.
    look_for_non_finite(shared, step, &state, None, 0);
    let link = catch_unwind(AssertUnwindSafe(|| {
        let encoder = encoding.current(shared)?;
        before
            .map(|before| encoder.link(step, before.step, &before.state, &state))
            .transpose()
    }));
    match link {
        Ok(Ok(link)) => {
            return Product::Finish(Box::new(FinalFrames {
                step,
                link,
                state,
                key,
            }));
        }
        Ok(Err(error)) => shared.fail(shared.at(step).storage(error)),
        Err(panic) => shared.fail(shared.at(step).panicked("encoder", &*panic)),
    }
    Product::Abandon
}

fn encode(shared: &Shared, encoder: &mut Encoder, job: Job) -> Result<Frames, FormatError> {
    let Job {
        mut meta,
        captured,
        rows,
        held,
    } = job;
    for record in &rows {
        meta.extensions.push(Extension::of_rows(record)?);
    }
    if let (Captured::Keyframe { .. }, Some(session)) = (&captured, &shared.session) {
        meta.extensions.push(session.clone());
    }
    let pool = &shared.pool;
    if let Some(bytes) = pool.frame() {
        encoder.recycle_bytes(bytes);
    }
    let (cut, frame, raw_bytes) = match captured {
        Captured::Keyframe { state, key, before } => {
            look_for_non_finite(shared, meta.step, &state, meta.loss, 1);
            let link = match &before {
                Some(before) => {
                    Some(encoder.link(meta.step, before.step, &before.state, &state)?)
                }
                None => None,
            };
            let frame = encoder.keyframe(&meta, &state, &key)?;
            let raw = state.bytes().len();
            pool.give_back_key(key);
            pool.give_back(state);
            before
                .into_iter()
                .for_each(|before| pool.give_back(before.state));
            (Some(link), frame, raw)
        }
        Captured::Difference { state, before } => {
            look_for_non_finite(shared, meta.step, &state, meta.loss, 1);
            let frame = encoder.difference(&meta, before.step, &before.state, &state)?;
            let raw = state.bytes().len();
            pool.give_back(state);
            pool.give_back(before.state);
            (None, frame, raw)
        }
        Captured::Thinned { state } => {
            look_for_non_finite(shared, meta.step, &state, meta.loss, 1);
            let frame = encoder.gap(&meta, &state.digest())?;
            pool.give_back(state);
            add(&shared.counters.thinned, 1);
            (None, frame, 0)
        }
        Captured::Skipped { digest } => (None, encoder.gap(&meta, &digest)?, 0),
    };
    let frames = Frames {
        step: meta.step,
        epoch: meta.epoch,
        cut,
        frame,
        raw_bytes: raw_bytes as u64,
        held,
    };
    pool.give_back_meta(meta);
    Ok(frames)
}

/// Notes a value that isn't finite, as one of this number of steps.
fn look_for_non_finite(shared: &Shared, step: u64, state: &State, loss: Option<f64>, steps: u64) {
    let tensor = match first_not_finite(state) {
        Some(index) => {
            let spec = state.layout().tensors().get(index);
            spec.map_or_else(String::new, |spec| spec.name.clone())
        }
        // The loss is the first value that stops being finite. The parameters follow one step later.
        None if loss.is_some_and(|loss| !loss.is_finite()) => "loss".to_owned(),
        None => return,
    };
    shared
        .counters
        .not_finite(NonFinite { step, tensor }, steps);
}
