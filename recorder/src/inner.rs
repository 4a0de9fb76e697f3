//! Recording a step on the training thread: check it, copy it, queue it.

mod complete;
mod queue;
mod updates;

use std::sync::Arc;

use candle_core::{Tensor, Var};
use candle_nn::AdamW;
use hindcast_format::Segmenter;
use hindcast_format::layout::Layout;
use hindcast_format::meta::StepMeta;

use crate::error::RecorderError;
use crate::keep::Keep;
use crate::mend::Retry;
use crate::names::{Source, copy_optimizer};
use crate::policy::{LossValues, OnError, WhenFull};
use crate::rule::{Rule, check_optimizer, known};
use crate::shared::{Base, End, Job, Shared, Work};
use crate::snapshot::Plan;
use crate::statistics::add;
use crate::step::{BatchInfo, OptimizerState, StepInfo, Trained};
use updates::Claim;

/// What the user chose for a run.
pub(crate) struct Choices {
    pub(crate) keep: Keep,
    pub(crate) when_full: WhenFull,
    pub(crate) on_error: OnError,
    pub(crate) loss_values: LossValues,
    pub(crate) weight_decay: Option<f64>,
    pub(crate) rule: Rule,
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
    /// A captured step that waits for its optimizer's update.
    prepared: Option<Job>,
    /// Parameters that the loop's own update has not been seen to change.
    unseen: Option<Vec<usize>>,
    /// What the last step of the loop's own update must have changed.
    claim: Option<Claim>,
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
            prepared: None,
            unseen: None,
            claim: None,
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
        let rule = &self.choices.rule;
        self.choices
            .weight_decay
            .unwrap_or_else(|| rule.default_decay())
    }

    /// Holds a wrapped optimizer, which is about to take a step, against what the run says of it; gives the decay of candle's own
    /// optimizers.
    pub(crate) fn check_optimizer<O: candle_nn::Optimizer + 'static>(
        &self,
        optimizer: &O,
    ) -> Result<Option<f64>, RecorderError> {
        check_optimizer(&self.choices.rule, optimizer).map_err(|why| self.wrong(why))?;
        let Some(adamw) = known::<O, AdamW>(optimizer) else {
            return Ok(None);
        };
        let decay = adamw.params().weight_decay;
        match self.choices.weight_decay {
            Some(given) if given != decay => Err(self.wrong(format!(
                "the builder says weight_decay({given}), and candle_nn::AdamW has {decay}: leave the builder's out"
            ))),
            _ => Ok(Some(decay)),
        }
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
        self.prepare(info, loss)?;
        self.hand_over();
        Ok(())
    }

    /// Captures θ_t and what is said of step t. [`settle`](Self::settle) or [`hand_over`](Self::hand_over) sends it on its way.
    pub(crate) fn prepare(
        &mut self,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        self.hand_over();
        let recording = self.ready()?;
        self.check_claim()?;
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
            .and_then(|()| match info.trained {
                Trained::Gradients(gradients) => self
                    .claim(&meta, gradients)
                    .map_err(|error| self.candle("reading the gradients", error)),
                _ => Ok(()),
            })
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
        self.prepared = Some(Job { meta, kind, held });
        self.step_done(update);
        Ok(())
    }

    /// Sends a captured step to the encoders.
    pub(crate) fn hand_over(&mut self) {
        if let Some(job) = self.prepared.take() {
            self.send(Work::Step(Box::new(job)));
        }
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
        // A step that was captured comes before whatever is asked for after it.
        self.hand_over();
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
