//! Takes the snapshot of a step. If the queue has no room, it takes only the digest of the step's tensors.

use std::sync::Arc;
use std::time::Instant;

use hindcast_format::layout::Layout;
use hindcast_format::meta::StepMeta;
use hindcast_format::{KeyState, Segmenter, State};

use crate::counters::{add, add_time};
use crate::error::{AtStep, RecorderError};
use crate::keep::Keep;
use crate::late_state::LateState;
use crate::policy::WhenFull;
use crate::shared::Shared;
use crate::values::Values;
use crate::work::{Base, Captured};

/// Bytes by which the metadata of steps without tensors may exceed the queue's limit. Beyond that, training waits for
/// room even under [`WhenFull::Skip`].
const SKIPPED_EXTRA: u64 = 16 << 20;

/// Number of steps for which the default limit of the queue has room.
pub(crate) const QUEUED_STEPS: u64 = 4;

/// Number of states whose values may be on their way from a device at once.
pub(crate) const ON_THE_WAY: usize = 2;

/// Takes the snapshots of a run.
pub(crate) struct Capture {
    keep: Keep,
    when_full: WhenFull,
    segmenter: Segmenter,
    /// The state recorded last. The next difference is computed against it.
    last: Option<Base>,
    /// The buffers after the last recorded forward pass.
    buffers: Vec<u8>,
    /// The state that has these buffers instead, if its values were on their way when it was captured.
    buffers_in: Option<Arc<LateState>>,
    /// States whose values were on their way from a device when they were captured, oldest first.
    on_the_way: Vec<Arc<LateState>>,
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
            buffers_in: None,
            on_the_way: Vec::new(),
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
        let state = self.snapshot(shared, "copying the variables", at, values)?;
        let key = if cut && has_room && !thinned {
            let key = self.key(shared, values);
            Some(key.map_err(|why| at.wrong(why))?)
        } else {
            None
        };
        if !has_room {
            let digest = shared.arrived(&state)?.digest();
            let state = self.share(state);
            self.note_buffers(shared, &state);
            shared.pool.give_back(state);
            return Ok(Captured::Skipped { digest });
        }
        let state = self.share(state);
        self.note_buffers(shared, &state);
        if thinned {
            return Ok(Captured::Thinned { state });
        }
        let before = self.last.replace(Base {
            step: at.step,
            state: Arc::clone(&state),
        });
        match (key, before) {
            (Some((key, buffers)), before) => Ok(Captured::Keyframe {
                state,
                key,
                buffers,
                before,
            }),
            (None, Some(before)) => Ok(Captured::Difference { state, before }),
            // `cut` is true if there is no state before.
            (None, None) => {
                Err(at.wrong("there is no recorded state to compute the difference against"))
            }
        }
    }

    /// Copies the present values, or begins to copy them from their device. `what` is for errors.
    pub(crate) fn snapshot(
        &mut self,
        shared: &Shared,
        what: &str,
        at: AtStep<'_>,
        values: &dyn Values,
    ) -> Result<LateState, RecorderError> {
        self.make_way(shared);
        let mut state = shared.pool.state();
        let arrival = values.state(what, at, state.bytes_mut())?;
        Ok(LateState::new(at.step, state, arrival))
    }

    /// Waits until another state may be on its way. The training thread itself takes the values of the oldest one,
    /// because the encoder may be busy with earlier steps.
    fn make_way(&mut self, shared: &Shared) {
        for landed in self.on_the_way.extract_if(.., |state| state.has_landed()) {
            shared.pool.give_back(landed);
        }
        while self.on_the_way.len() >= ON_THE_WAY {
            let oldest = self.on_the_way.remove(0);
            add(&shared.counters.stalls, 1);
            let start = Instant::now();
            // If the copy failed, the encoder reports it.
            let _ = oldest.wait();
            add_time(&shared.counters.stalled_ns, start.elapsed());
            shared.pool.give_back(oldest);
        }
    }

    /// Lets several threads hold a state. While its values are on their way, it is counted.
    fn share(&mut self, state: LateState) -> Arc<LateState> {
        let state = Arc::new(state);
        if !state.has_landed() {
            self.on_the_way.push(Arc::clone(&state));
        }
        state
    }

    /// Notes the buffers of a state, which the next keyframe holds. They are copied if they are there.
    fn note_buffers(&mut self, shared: &Shared, state: &Arc<LateState>) {
        if self.buffers.is_empty() {
            return;
        }
        let before = match state.present() {
            Some(state) => {
                self.buffers.clear();
                self.buffers.extend_from_slice(state.buffers());
                self.buffers_in.take()
            }
            None => self.buffers_in.replace(Arc::clone(state)),
        };
        before
            .into_iter()
            .for_each(|state| shared.pool.give_back(state));
    }

    /// The buffers before the step's forward pass, and the optimizer's state before the step. If the buffers are still on
    /// their way, also returns the state that will have them.
    fn key(
        &self,
        shared: &Shared,
        values: &dyn Values,
    ) -> Result<(KeyState, Option<Arc<LateState>>), String> {
        let mut key = shared.pool.key();
        let present = match &self.buffers_in {
            None => Some(self.buffers.as_slice()),
            Some(late) => late.present().map(State::buffers),
        };
        if let Some(buffers) = present {
            key.buffers_before_mut().copy_from_slice(buffers);
        }
        values.optimizer(&mut key)?;
        let late = self.buffers_in.as_ref().filter(|_| present.is_none());
        Ok((key, late.map(Arc::clone)))
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
            let state = self.snapshot(shared, "copying the variables", at, values)?;
            let state = self.share(state);
            self.note_buffers(shared, &state);
            shared.pool.give_back(state);
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
