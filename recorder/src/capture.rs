//! Takes the snapshot of a step. If the queue has no room, it takes only the digest of the step's tensors.

use std::sync::Arc;

use hindcast_format::layout::Layout;
use hindcast_format::meta::StepMeta;
use hindcast_format::{KeyState, Segmenter};

use crate::counters::{add, add_time};
use crate::error::{AtStep, RecorderError};
use crate::keep::Keep;
use crate::policy::WhenFull;
use crate::shared::Shared;
use crate::values::Values;
use crate::work::{Base, Captured};

/// Bytes by which the metadata of steps without tensors may exceed the queue's limit. Beyond that, training waits for
/// room even under [`WhenFull::Skip`].
const SKIPPED_EXTRA: u64 = 16 << 20;

/// Number of steps for which the default limit of the queue has room.
pub(crate) const QUEUED_STEPS: u64 = 4;

/// Takes the snapshots of a run.
pub(crate) struct Capture {
    keep: Keep,
    when_full: WhenFull,
    segmenter: Segmenter,
    /// The state recorded last. The next difference is computed against it.
    last: Option<Base>,
    /// The buffers after the last recorded forward pass.
    buffers: Vec<u8>,
    /// Whether the queue's limit is the default, which has room for several steps with their rows.
    rows_raise_limit: bool,
}

/// How a step is to be captured.
#[derive(Clone, Copy)]
struct Placement {
    /// Whether the step opens a segment.
    cut: bool,
    /// Whether [`Keep::EveryNth`] leaves out the step's tensors.
    thinned: bool,
    /// Whether the queue has room for the step's tensors.
    has_room: bool,
}

impl Capture {
    /// `buffers` are those before the first step's forward pass.
    pub(crate) fn new(
        keep: Keep,
        when_full: WhenFull,
        segmenter: Segmenter,
        buffers: Vec<u8>,
        rows_raise_limit: bool,
    ) -> Self {
        Self {
            keep,
            when_full,
            segmenter,
            last: None,
            buffers,
            rows_raise_limit,
        }
    }

    /// The next step opens a segment.
    pub(crate) fn cut_next(&mut self) {
        self.segmenter.cut_next();
    }

    /// The state recorded last.
    pub(crate) fn last(&self) -> Option<&Base> {
        self.last.as_ref()
    }

    /// Takes the state recorded last. The next step opens a segment.
    pub(crate) fn take_last(&mut self) -> Option<Base> {
        self.last.take()
    }

    /// Takes the snapshot of a step, whose metadata gets `rows.0` bytes of rows, and `rows.1` more if it opens a segment.
    /// Returns it with the number of the queue's bytes that it holds.
    pub(crate) fn take(
        &mut self,
        shared: &Shared,
        layout: &Layout,
        meta: &StepMeta,
        rows: (u64, u64),
        values: &dyn Values,
    ) -> Result<(Captured, u64), RecorderError> {
        let at = shared.at(meta.step);
        let cut = self.segmenter.place(meta).cut || self.last.is_none();
        let thinned = self.last.is_some()
            && matches!(self.keep, Keep::EveryNth(n) if !meta.step.is_multiple_of(n));
        let key_bytes = if cut && !thinned {
            layout.key_bytes()
        } else {
            0
        };
        let small = meta_bytes(meta) + rows.0 + if cut && !thinned { rows.1 } else { 0 };
        let full = small + (layout.frame_bytes() + key_bytes) as u64;
        if rows.0 > 0 && self.rows_raise_limit {
            let more = (QUEUED_STEPS - 1) * (small + layout.frame_bytes() as u64);
            shared.budget.raise(full + more);
        }
        let has_room = self.make_room(shared, meta.step, full)?;
        let placement = Placement {
            cut,
            thinned,
            has_room,
        };
        let captured = self.capture(shared, at, placement, values);
        if cut && !matches!(captured, Ok(Captured::Keyframe { .. })) {
            // Only a step with tensors can open a segment, so the next one does.
            self.segmenter.cut_next();
        }
        match captured {
            Ok(captured) if has_room => Ok((captured, full)),
            Ok(captured) => {
                shared.budget.take_with_extra(small, SKIPPED_EXTRA);
                add(&shared.counters.skipped, 1);
                Ok((captured, small))
            }
            Err(error) => {
                if has_room {
                    shared.budget.give_back(full);
                }
                Err(error)
            }
        }
    }

    fn capture(
        &mut self,
        shared: &Shared,
        at: AtStep<'_>,
        placement: Placement,
        values: &dyn Values,
    ) -> Result<Captured, RecorderError> {
        let Placement {
            cut,
            thinned,
            has_room,
        } = placement;
        let mut state = shared.pool.state();
        values.state("copying the variables", at, state.bytes_mut())?;
        let key = if cut && has_room && !thinned {
            let key = self.key(shared, values);
            Some(key.map_err(|why| at.wrong(why))?)
        } else {
            None
        };
        self.buffers.clear();
        self.buffers.extend_from_slice(state.buffers());
        if !has_room {
            let digest = state.digest();
            shared.pool.give_back_state(state);
            return Ok(Captured::Skipped { digest });
        }
        let state = Arc::new(state);
        if thinned {
            return Ok(Captured::Thinned { state });
        }
        let before = self.last.replace(Base {
            step: at.step,
            state: Arc::clone(&state),
        });
        match (key, before) {
            (Some(key), before) => Ok(Captured::Keyframe { state, key, before }),
            (None, Some(before)) => Ok(Captured::Difference { state, before }),
            // `cut` is true if there is no state before.
            (None, None) => {
                Err(at.wrong("there is no recorded state to compute the difference against"))
            }
        }
    }

    /// The buffers before the step's forward pass, and the optimizer's state before the step.
    fn key(&self, shared: &Shared, values: &dyn Values) -> Result<KeyState, String> {
        let mut key = shared.pool.key();
        key.buffers_before_mut().copy_from_slice(&self.buffers);
        values.optimizer(&mut key)?;
        Ok(key)
    }

    /// Takes room in the queue, or does what [`WhenFull`] says if there is none. Returns false if the step is to be
    /// recorded without its tensors.
    fn make_room(&self, shared: &Shared, step: u64, bytes: u64) -> Result<bool, RecorderError> {
        // A trace begins with tensors, so its first step always waits.
        let when_full = if self.last.is_none() {
            WhenFull::Block
        } else {
            self.when_full
        };
        if when_full == WhenFull::Block {
            if shared.budget.try_take(bytes, 0) {
                return Ok(true);
            }
            shared.hurry();
            let waited = shared.budget.take(bytes);
            shared.relax();
            if !waited.is_zero() {
                add(&shared.counters.stalls, 1);
                add_time(&shared.counters.stalled_ns, waited);
            }
            return Ok(true);
        }
        let room = shared.budget.try_take(bytes, 0);
        if room || when_full == WhenFull::Skip {
            return Ok(room);
        }
        Err(RecorderError::QueueFull {
            run: shared.run.clone(),
            step,
            held: shared.budget.held(),
            limit: shared.budget.limit(),
        })
    }

    /// Passes over a step that can't be recorded. The next step that can be recorded opens a segment.
    pub(crate) fn pass_over(
        &mut self,
        shared: &Shared,
        values: &dyn Values,
        at: AtStep<'_>,
    ) -> Result<(), RecorderError> {
        if !self.buffers.is_empty() {
            // That segment's keyframe needs the buffers before its step.
            let mut state = shared.pool.state();
            values.state("copying the variables", at, state.bytes_mut())?;
            self.buffers.clear();
            self.buffers.extend_from_slice(state.buffers());
            shared.pool.give_back_state(state);
        }
        self.last = None;
        self.segmenter.cut_next();
        Ok(())
    }
}

/// Approximate size of a step's metadata in memory.
fn meta_bytes(meta: &StepMeta) -> u64 {
    let lists = meta.groups.len() * 16
        + meta.indices.len() * 16
        + meta.micro_batches.len() * 4
        + meta.trained.len()
        + meta.scalars.len() * 64;
    512 + lists as u64
}
