//! Encodes snapshots into frames, on background threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use hindcast_format::{Encoder, Extension, FormatError, RunInfo, State};

use crate::counters::{add, add_time};
use crate::error::RecorderError;
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
    let encoded = catch_unwind(AssertUnwindSafe(|| {
        arrive(shared, &job.captured)?;
        let start = Instant::now();
        let frames = encode(shared, encoding, job);
        add_time(&shared.counters.encoding_ns, start.elapsed());
        frames
    }));
    let error = match encoded {
        Ok(Ok(frames)) => return Product::Frames(Box::new(Frames { held, ..frames })),
        Ok(Err(error)) => error,
        Err(panic) => shared.at(step).panicked("encoder", &*panic),
    };
    Product::Failed { step, held, error }
}

/// The last piece of work always gives the last product, so that the writer ends.
fn finish(shared: &Shared, encoding: &mut Encoding, end: FinalState) -> Product {
    let at = shared.at(end.step);
    match catch_unwind(AssertUnwindSafe(|| final_frames(shared, encoding, end))) {
        Ok(Ok(frames)) => return Product::Finish(Box::new(frames)),
        Ok(Err(error)) => shared.fail(error),
        Err(panic) => shared.fail(at.panicked("encoder", &*panic)),
    }
    Product::Abandon
}

fn final_frames(
    shared: &Shared,
    encoding: &mut Encoding,
    end: FinalState,
) -> Result<FinalFrames, RecorderError> {
    let FinalState {
        step,
        state,
        mut key,
        before,
    } = end;
    let storage = move |error| shared.at(step).storage(error);
    let state = state
        .into_landed()
        .map_err(|fault| shared.at(step).device(fault))?;
    key.buffers_before_mut().copy_from_slice(state.buffers());
    // The final state isn't a step.
    look_for_non_finite(shared, step, &state, None, 0);
    let encoder = encoding.current(shared).map_err(storage)?;
    // If the last step could not be copied from its device, it has been reported, and there is nothing to link.
    let before = before.as_ref();
    let before = before.and_then(|before| Some((before.step, before.state.wait().ok()?)));
    let link = before
        .map(|(from, before)| encoder.link(step, from, before, &state))
        .transpose()
        .map_err(storage)?;
    Ok(FinalFrames {
        step,
        link,
        state,
        key,
    })
}

/// Waits for the values that a step needs.
fn arrive(shared: &Shared, captured: &Captured) -> Result<(), RecorderError> {
    let (state, before, buffers) = match captured {
        Captured::Keyframe {
            state,
            before,
            buffers,
            ..
        } => (state, before.as_ref(), buffers.as_ref()),
        Captured::Difference { state, before } => (state, Some(before), None),
        Captured::Thinned { state } => (state, None, None),
        Captured::Skipped { .. } => return Ok(()),
    };
    let before = before.map(|before| &before.state);
    for needed in buffers.into_iter().chain(before).chain([state]) {
        shared.arrived(needed)?;
    }
    Ok(())
}

fn encode(shared: &Shared, encoding: &mut Encoding, job: Job) -> Result<Frames, RecorderError> {
    let Job {
        mut meta,
        captured,
        rows,
        held,
    } = job;
    let step = meta.step;
    let storage = move |error| shared.at(step).storage(error);
    let encoder = encoding.current(shared).map_err(storage)?;
    let extensions = rows.iter().map(Extension::of_rows);
    let extensions = extensions.collect::<Result<Vec<_>, _>>().map_err(storage)?;
    meta.extensions.extend(extensions);
    if let (Captured::Keyframe { .. }, Some(session)) = (&captured, &shared.session) {
        meta.extensions.push(session.clone());
    }
    let pool = &shared.pool;
    if let Some(bytes) = pool.frame() {
        encoder.recycle_bytes(bytes);
    }
    let (cut, frame, raw_bytes) = match captured {
        Captured::Keyframe {
            state,
            mut key,
            buffers,
            before,
        } => {
            if let Some(buffers) = buffers {
                let values = shared.arrived(&buffers)?.buffers();
                key.buffers_before_mut().copy_from_slice(values);
                pool.give_back(buffers);
            }
            let values = shared.arrived(&state)?;
            look_for_non_finite(shared, meta.step, values, meta.loss, 1);
            let link = match &before {
                Some(before) => {
                    let from = shared.arrived(&before.state)?;
                    let link = encoder.link(meta.step, before.step, from, values);
                    Some(link.map_err(storage)?)
                }
                None => None,
            };
            let frame = encoder.keyframe(&meta, values, &key).map_err(storage)?;
            let raw = values.bytes().len();
            pool.give_back_key(key);
            pool.give_back(state);
            before
                .into_iter()
                .for_each(|before| pool.give_back(before.state));
            (Some(link), frame, raw)
        }
        Captured::Difference { state, before } => {
            let values = shared.arrived(&state)?;
            look_for_non_finite(shared, meta.step, values, meta.loss, 1);
            let from = shared.arrived(&before.state)?;
            let frame = encoder.difference(&meta, before.step, from, values);
            let frame = frame.map_err(storage)?;
            let raw = values.bytes().len();
            pool.give_back(state);
            pool.give_back(before.state);
            (None, frame, raw)
        }
        Captured::Thinned { state } => {
            let values = shared.arrived(&state)?;
            look_for_non_finite(shared, meta.step, values, meta.loss, 1);
            let frame = encoder.gap(&meta, &values.digest()).map_err(storage)?;
            pool.give_back(state);
            add(&shared.counters.thinned, 1);
            (None, frame, 0)
        }
        Captured::Skipped { digest } => {
            let frame = encoder.gap(&meta, &digest).map_err(storage)?;
            (None, frame, 0)
        }
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
