//! The snapshot, and its way into the queue.

use std::sync::Arc;

use hindcast_format::KeyState;
use hindcast_format::meta::StepMeta;

use super::Inner;
use crate::error::RecorderError;
use crate::keep::Keep;
use crate::names::copy_optimizer;
use crate::policy::WhenFull;
use crate::shared::{Base, Kind};
use crate::statistics::{add, add_time};
use crate::step::OptimizerState;

/// Metadata of steps without tensors may take this much of the queue beyond its limit before they wait, too.
const SKIPPED_EXTRA: u64 = 16 << 20;

impl Inner {
    /// Takes the snapshot, as the policies allow: what becomes of the step, and what that holds of the queue.
    pub(super) fn capture(
        &mut self,
        meta: &StepMeta,
        optimizer: Option<&dyn OptimizerState>,
    ) -> Result<(Kind, u64), RecorderError> {
        let shared = Arc::clone(&self.shared);
        let cut = self.segmenter.place(meta).cut || self.last.is_none();
        let thinned = self.last.is_some()
            && matches!(self.choices.keep, Keep::EveryNth(n) if !meta.step.is_multiple_of(n));
        let layout = &self.tensors.layout;
        let key_bytes = if cut && !thinned {
            layout.key_bytes()
        } else {
            0
        };
        let small = meta_bytes(meta);
        let full = small + (layout.frame_bytes() + key_bytes) as u64;
        let has_room = self.make_room(full)?;
        let captured = self.kind(meta.step, cut, thinned, has_room, optimizer);
        if cut && !matches!(captured, Ok(Kind::Keyframe { .. })) {
            // Only a step with tensors can open a segment: the next one does.
            self.segmenter.cut_next();
        }
        match captured {
            Ok(kind) if has_room => Ok((kind, full)),
            Ok(kind) => {
                shared.budget.take_or_wait(small, SKIPPED_EXTRA);
                add(&shared.counters.skipped, 1);
                Ok((kind, small))
            }
            Err(error) => {
                if has_room {
                    shared.budget.give_back(full);
                }
                Err(error)
            }
        }
    }

    fn kind(
        &mut self,
        step: u64,
        cut: bool,
        thinned: bool,
        has_room: bool,
        optimizer: Option<&dyn OptimizerState>,
    ) -> Result<Kind, RecorderError> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.pool.state();
        self.tensors
            .plan
            .copy(state.bytes_mut())
            .map_err(|error| self.candle("copying the variables", error))?;
        let key = if cut && has_room && !thinned {
            Some(self.key(optimizer)?)
        } else {
            None
        };
        self.buffers.clear();
        self.buffers.extend_from_slice(state.buffers());
        if !has_room {
            let digest = state.digest();
            shared.pool.give_back_state(state);
            return Ok(Kind::Skipped { digest });
        }
        let state = Arc::new(state);
        if thinned {
            return Ok(Kind::Thinned { state });
        }
        let before = self.last.replace(Base {
            step,
            state: Arc::clone(&state),
        });
        match (key, before) {
            (Some(key), before) => Ok(Kind::Keyframe { state, key, before }),
            (None, Some(before)) => Ok(Kind::Difference { state, before }),
            // `cut` is true without a state before.
            (None, None) => Err(self.wrong("there is no state to take the difference to")),
        }
    }

    /// The buffers before the step's forward pass, and the optimizer's state before the step.
    fn key(&self, optimizer: Option<&dyn OptimizerState>) -> Result<KeyState, RecorderError> {
        let mut key = self.shared.pool.key();
        key.buffers_before_mut().copy_from_slice(&self.buffers);
        let specs = self.tensors.layout.optimizer_state();
        copy_optimizer(
            specs,
            &self.tensors.optimizer,
            optimizer,
            key.optimizer_mut(),
        )
        .map_err(|why| self.wrong(why))?;
        Ok(key)
    }

    /// Takes room in the queue as the policy says; false if the step is to go without its tensors.
    fn make_room(&mut self, bytes: u64) -> Result<bool, RecorderError> {
        let shared = &self.shared;
        // A trace begins with tensors, so the first step always waits.
        let policy = if self.last.is_none() {
            WhenFull::Block
        } else {
            self.choices.when_full
        };
        if policy == WhenFull::Block {
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
        if room || policy == WhenFull::Skip {
            return Ok(room);
        }
        let (held, limit) = (shared.budget.held(), shared.budget.limit());
        let error = RecorderError::QueueFull {
            run: shared.run.clone(),
            step: self.next_step,
            held,
            limit,
        };
        self.stopped.get_or_insert_with(|| error.clone());
        Err(error)
    }
}

/// What a step's metadata takes in memory, about.
fn meta_bytes(meta: &StepMeta) -> u64 {
    let lists = meta.groups.len() * 16
        + meta.indices.len() * 16
        + meta.micro_batches.len() * 4
        + meta.trained.len()
        + meta.scalars.len() * 64;
    512 + lists as u64
}
