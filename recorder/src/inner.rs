//! Recording a step on the training thread: check it, copy it, queue it.

mod complete;
mod queue;

use std::sync::Arc;

use candle_core::{Tensor, Var};
use hindcast_format::Segmenter;
use hindcast_format::layout::Layout;
use hindcast_format::meta::StepMeta;

use crate::error::RecorderError;
use crate::keep::Keep;
use crate::mend::Retry;
use crate::names::{Source, copy_optimizer};
use crate::policy::{LossValues, OnError, WhenFull};
use crate::shared::{Base, End, Job, Shared, Work};
use crate::snapshot::Plan;
use crate::statistics::add;
use crate::step::{BatchInfo, OptimizerState, StepInfo};

/// What the user chose for a run.
pub(crate) struct Choices {
    pub(crate) keep: Keep,
    pub(crate) when_full: WhenFull,
    pub(crate) on_error: OnError,
    pub(crate) loss_values: LossValues,
    pub(crate) weight_decay: f64,
    /// Training examples, where the data's identity tells.
    pub(crate) examples: Option<u64>,
}

/// Where the steps' tensors come from.
pub(crate) struct Tensors {
    pub(crate) layout: Layout,
    pub(crate) parameters: Vec<Var>,
    pub(crate) plan: Plan,
    pub(crate) optimizer: Vec<Source>,
}

/// The training thread's side of a run.
pub(crate) struct Inner {
    shared: Arc<Shared>,
    choices: Choices,
    tensors: Tensors,
    segmenter: Segmenter,
    /// Number of the next piece of work.
    number: u64,
    next_step: u64,
    next_update: u64,
    /// The batch announced for the next step.
    pending: Option<StepMeta>,
    /// The state recorded last, which the next difference starts from.
    last: Option<Base>,
    /// r_t: the buffers after the last recorded forward pass.
    buffers: Vec<u8>,
    /// When storage that has failed is tried again.
    retry: Option<Retry>,
    /// Set for good when the run is over or stopped on the training thread.
    stopped: Option<RecorderError>,
}

impl Inner {
    /// The next step is `next_step`; `buffers` are r of that step, `next_update` is the optimizer's counter before it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        choices: Choices,
        tensors: Tensors,
        segmenter: Segmenter,
        (next_step, next_update): (u64, u64),
        buffers: Vec<u8>,
    ) -> Self {
        Self {
            shared,
            choices,
            tensors,
            segmenter,
            number: 0,
            next_step,
            next_update,
            pending: None,
            last: None,
            buffers,
            retry: None,
            stopped: None,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn next_step(&self) -> u64 {
        self.next_step
    }

    pub(crate) fn groups(&self) -> usize {
        self.tensors.layout.groups()
    }

    pub(crate) fn weight_decay(&self) -> f64 {
        self.choices.weight_decay
    }

    /// Is this a failure that the user chose to train through?
    pub(crate) fn trains_on(&self, error: &RecorderError) -> bool {
        self.choices.on_error == OnError::TrainOn
            && matches!(
                error,
                RecorderError::Storage { .. }
                    | RecorderError::Thread { .. }
                    | RecorderError::Stuck { .. }
            )
    }

    pub(crate) fn candle(&self, what: &str, error: candle_core::Error) -> RecorderError {
        RecorderError::Candle {
            run: self.shared.run.clone(),
            step: self.next_step,
            what: what.to_owned(),
            source: Arc::new(error),
        }
    }

    fn wrong(&self, why: impl Into<String>) -> RecorderError {
        RecorderError::Step {
            run: self.shared.run.clone(),
            step: self.next_step,
            why: why.into(),
        }
    }

    /// The optimizer failed in a step that is recorded already: the variables may be half updated, so nothing may follow.
    pub(crate) fn update_failed(&mut self, error: candle_core::Error) -> RecorderError {
        let error = RecorderError::Candle {
            run: self.shared.run.clone(),
            step: self.next_step.saturating_sub(1),
            what: "the optimizer's step failed, and the run ends here".to_owned(),
            source: Arc::new(error),
        };
        self.stopped.get_or_insert_with(|| error.clone());
        error
    }

    /// May more be recorded? `Ok(false)` means that training goes on unrecorded.
    fn ready(&self) -> Result<bool, RecorderError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        match self.shared.failure() {
            None => Ok(true),
            Some(error) if self.trains_on(&error) => Ok(false),
            Some(error) => Err(error),
        }
    }

    pub(crate) fn announce(&mut self, batch: &BatchInfo<'_>) -> Result<(), RecorderError> {
        self.ready()?;
        if let Some(waiting) = &self.pending {
            return Err(RecorderError::BatchPending {
                run: self.shared.run.clone(),
                step: self.next_step,
                announced: waiting.indices.len(),
            });
        }
        let meta = self.describe(batch)?;
        self.pending = Some(meta);
        Ok(())
    }

    pub(crate) fn withdraw(&mut self) {
        if let Some(meta) = self.pending.take() {
            self.shared.pool.give_back_meta(meta);
        }
    }

    /// Metadata that says what the batch says.
    fn describe(&self, batch: &BatchInfo<'_>) -> Result<StepMeta, RecorderError> {
        batch
            .check(self.choices.examples)
            .map_err(|why| self.wrong(why))?;
        let mut meta = self.shared.pool.meta();
        batch.write(&mut meta);
        Ok(meta)
    }

    /// Records θ_t and what is said of step t.
    pub(crate) fn record(
        &mut self,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        let recording = self.ready()?;
        let mut meta = match (&info.batch, self.pending.take()) {
            (None, Some(meta)) => meta,
            (Some(batch), None) => self.describe(batch)?,
            (None, None) => {
                return Err(RecorderError::NoBatch {
                    run: self.shared.run.clone(),
                    step: self.next_step,
                });
            }
            (Some(_), Some(waiting)) => {
                let announced = waiting.indices.len();
                self.pending = Some(waiting);
                return Err(RecorderError::BatchPending {
                    run: self.shared.run.clone(),
                    step: self.next_step,
                    announced,
                });
            }
        };
        if !recording {
            self.shared.pool.give_back_meta(meta);
            self.pass_over()?;
            self.step_done(info.optimizer_step.unwrap_or(self.next_update));
            return Ok(());
        }
        self.retry = None;
        let captured = self
            .complete(&mut meta, info, loss)
            .and_then(|()| self.capture(&meta, info.optimizer));
        let (kind, held) = match captured {
            Ok(captured) => captured,
            Err(error) => {
                // The announced batch waits on, so that the call can be repeated.
                if info.batch.is_none() {
                    self.pending = Some(meta);
                }
                return Err(error);
            }
        };
        let update = meta.optimizer_step;
        self.send(Work::Step(Box::new(Job { meta, kind, held })));
        self.step_done(update);
        Ok(())
    }

    /// Training goes on while nothing can be recorded. The next step that can be opens a segment.
    fn pass_over(&mut self) -> Result<(), RecorderError> {
        if !self.buffers.is_empty() {
            // That segment's keyframe says what the buffers were before its step.
            let mut state = self.shared.pool.state();
            self.tensors
                .plan
                .copy(state.bytes_mut())
                .map_err(|error| self.candle("copying the variables", error))?;
            self.buffers.clear();
            self.buffers.extend_from_slice(state.buffers());
            self.shared.pool.give_back_state(state);
        }
        self.shared.counters.step_lost(self.next_step);
        self.last = None;
        self.segmenter.cut_next();
        if self.retry.get_or_insert_with(Retry::new).due() {
            self.send(Work::Retry);
        }
        Ok(())
    }

    fn step_done(&mut self, update: u64) {
        self.next_step += 1;
        self.next_update = update + 1;
        add(&self.shared.counters.steps, 1);
    }

    pub(crate) fn send(&mut self, work: Work) {
        self.shared.work.give(self.number, work);
        self.number += 1;
    }

    /// Sends the final state; closes the run.
    pub(crate) fn finish(
        &mut self,
        optimizer: Option<&dyn OptimizerState>,
    ) -> Result<(), RecorderError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        let layout = &self.tensors.layout;
        let (mut state, mut key) = (self.shared.pool.state(), self.shared.pool.key());
        self.tensors
            .plan
            .copy(state.bytes_mut())
            .map_err(|error| self.candle("copying the final variables", error))?;
        key.buffers_before_mut().copy_from_slice(state.buffers());
        copy_optimizer(
            layout.optimizer_state(),
            &self.tensors.optimizer,
            optimizer,
            key.optimizer_mut(),
        )
        .map_err(|why| self.wrong(format!("{why} (finish_with(&optimizer) ends such a run)")))?;
        let before = self.last.take();
        self.close(Work::Finish(Box::new(End {
            step: self.next_step,
            state,
            key,
            before,
        })));
        Ok(())
    }

    /// Closes the run as it is.
    pub(crate) fn abandon(&mut self) {
        self.close(Work::Abandon);
    }

    fn close(&mut self, last: Work) {
        if !matches!(self.stopped, Some(RecorderError::Over { .. })) {
            self.send(last);
            self.shared.hurry();
            self.shared.work.close();
            self.stopped = Some(RecorderError::Over {
                run: self.shared.run.clone(),
                step: self.next_step,
            });
        }
        self.shared.made_progress();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last one to hold the run is gone; threads that still wait for work must not wait for ever.
        self.shared.work.close();
    }
}
