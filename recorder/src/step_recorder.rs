//! Records steps on the training thread: checks a step, copies its tensors, and queues it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId, Var};
use hindcast_format::layout::Layout;
use hindcast_format::{Chunking, RowSplit};

use crate::capture::Capture;
use crate::choices::Choices;
use crate::counters::add;
use crate::describe::StateVariable;
use crate::error::{AtStep, RecorderError};
use crate::estimate::{Basis, Estimate};
use crate::metadata::Completion;
use crate::pending::{Batches, Pending};
use crate::reopen::Retry;
use crate::rows::{RowBlock, RowBook};
use crate::shared::Shared;
use crate::stated_rule::{Origin, StatedRule};
use crate::step::{BatchInfo, OptimizerState, StepInfo, Trained};
use crate::tensors::Tensors;
use crate::update_rule::UpdateRule;
use crate::updates::{OwnUpdates, WithoutGradient, compare};
use crate::work::{Captured, FinalState, Job, Work};

/// Where a recording begins.
pub(crate) struct Begin {
    pub(crate) step: u64,
    /// The optimizer's counter before the step.
    pub(crate) update: u64,
    /// The recorded state of the optimizer before the step, by name.
    pub(crate) optimizer: Option<BTreeMap<String, Tensor>>,
    /// The counter of the optimizer of each parameter before the step, where the trace tells it.
    pub(crate) counters: Vec<Option<u64>>,
}

/// The training thread's side of a run.
pub(crate) struct StepRecorder {
    shared: Arc<Shared>,
    choices: Choices,
    tensors: Tensors,
    capture: Capture,
    own_updates: OwnUpdates,
    without_gradient: WithoutGradient,
    /// What the expected size of the run is computed from.
    basis: Basis,
    /// Where this recording begins.
    begin: Begin,
    /// Number of the next piece of work.
    number: u64,
    next_step: u64,
    /// The optimizer's counter before the next step.
    next_update: u64,
    /// The batch announced for the next step.
    pending: Option<Pending>,
    batches: Batches,
    /// A captured step that waits for its optimizer's update.
    prepared: Option<Job>,
    /// When failed storage is tried again.
    retry: Option<Retry>,
    /// Why nothing more is recorded, once the run is over or the training thread has stopped it.
    stopped: Option<RecorderError>,
}

impl StepRecorder {
    pub(crate) fn new(
        shared: Arc<Shared>,
        choices: Choices,
        tensors: Tensors,
        capture: Capture,
        basis: Basis,
        begin: Begin,
        rows: RowBook,
    ) -> Self {
        let batches = Batches::new(rows, choices.examples);
        Self {
            shared,
            choices,
            tensors,
            capture,
            own_updates: OwnUpdates::default(),
            without_gradient: WithoutGradient::default(),
            basis,
            number: 0,
            next_step: begin.step,
            next_update: begin.update,
            begin,
            pending: None,
            batches,
            prepared: None,
            retry: None,
            stopped: None,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn choices(&self) -> &Choices {
        &self.choices
    }

    pub(crate) fn choices_mut(&mut self) -> &mut Choices {
        &mut self.choices
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.tensors.layout
    }

    pub(crate) fn estimate(&self) -> Estimate {
        Estimate::new(&self.basis)
    }

    /// Where this recording begins, as long as it has no step.
    pub(crate) fn at_beginning(&self) -> Option<&Begin> {
        (self.next_step == self.begin.step).then_some(&self.begin)
    }

    /// The counter of an optimizer of these variables at the beginning of this recording.
    pub(crate) fn counter_of(&self, held: &[Var]) -> u64 {
        let counters = self.begin.counters.iter().zip(&self.tensors.parameters);
        let own = counters.filter(|(_, var)| held.iter().any(|held| held.id() == var.id()));
        own.filter_map(|(counter, _)| *counter)
            .max()
            .unwrap_or(self.begin.update)
    }

    /// The optimizer's counter before the next step.
    pub(crate) fn next_update(&self) -> u64 {
        self.next_update
    }

    pub(crate) fn tensors_mut(&mut self) -> &mut Tensors {
        &mut self.tensors
    }

    pub(crate) fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Adds the state of a wrapped optimizer to what the run records. Returns false if the run's layout is fixed, or is
    /// that of a state of the user's own choice.
    pub(crate) fn add_state(&mut self, state: &[StateVariable]) -> Result<bool, String> {
        if self.shared.description.is_fixed() || !self.tensors.add_state(state)? {
            return Ok(false);
        }
        self.describe_layout();
        Ok(true)
    }

    /// Gives the variables of a wrapped optimizer a parameter group of their own, so that its rate and decay can differ
    /// from those of others in the same step. Nothing happens if the layout is fixed or the builder named groups.
    pub(crate) fn claim_group(&mut self, held: &HashSet<TensorId>) -> Result<(), String> {
        let named = self.tensors.claims <= 1 && self.tensors.layout.groups() > 1;
        if !self.shared.description.is_fixed() && !named && self.tensors.claim(held)? {
            self.describe_layout();
        }
        Ok(())
    }

    /// Puts the changed layout into the run's description.
    fn describe_layout(&mut self) {
        let layout = self.tensors.layout.clone();
        self.basis.keyframe_extra = layout.key_bytes() as u64;
        self.shared.pool.set_layout(layout.clone());
        self.shared.description.change(|info| {
            info.chunks = Chunking::for_layout(&layout);
            info.layout = layout;
        });
    }

    /// States the rule that the wrapped optimizer tells, if the run has none and no segment repeats its description.
    pub(crate) fn state_rule(&mut self, rule: &UpdateRule) -> Result<(), RecorderError> {
        if self.choices.rule.is_stated() {
            return Ok(());
        }
        let text = rule.to_string();
        let told = StatedRule::read(Some(&text), None, None).map_err(|why| self.at().wrong(why))?;
        let changed = self
            .shared
            .description
            .change(|info| info.rule = Some(text));
        if changed {
            self.choices.rule = told.from(Origin::Optimizer);
        }
        Ok(())
    }

    pub(crate) fn next_step(&self) -> u64 {
        self.next_step
    }

    /// Number of parameter groups.
    pub(crate) fn groups(&self) -> usize {
        self.tensors.layout.groups()
    }

    /// Number of parameters.
    pub(crate) fn parameters(&self) -> usize {
        self.tensors.parameters.len()
    }

    /// Makes the errors of the next step.
    pub(crate) fn at(&self) -> AtStep<'_> {
        self.shared.at(self.next_step)
    }

    /// The optimizer failed in a step that is already recorded. The variables may be partly updated, so no step may
    /// follow.
    pub(crate) fn update_failed(&mut self, error: candle_core::Error) -> RecorderError {
        let error = self
            .shared
            .at(self.next_step.saturating_sub(1))
            .candle("the optimizer's step failed, and the run ends here", error);
        self.stopped.get_or_insert_with(|| error.clone());
        error
    }

    /// Whether steps can be recorded now. `Ok(false)` means that training continues unrecorded.
    fn ready(&self) -> Result<bool, RecorderError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        match self.shared.failure() {
            None => Ok(true),
            Some(error) if self.choices.trains_on(&error) => Ok(false),
            Some(error) => Err(error),
        }
    }

    /// Takes the batch of the next step.
    pub(crate) fn announce(&mut self, batch: &BatchInfo<'_>) -> Result<(), RecorderError> {
        self.expect_no_batch()?;
        self.pending = Some(self.describe(batch)?);
        Ok(())
    }

    /// Takes the batch of the next step, whose rows identify its examples. Returns their indices.
    pub(crate) fn announce_rows(
        &mut self,
        batch: BatchInfo<'_>,
        blocks: Result<Vec<RowBlock>, String>,
    ) -> Result<Vec<u64>, RecorderError> {
        self.expect_no_batch()?;
        let pool = &self.shared.pool;
        let taken = blocks.and_then(|blocks| self.batches.by_rows(batch, blocks, pool));
        let pending = taken.map_err(|why| self.at().wrong(why))?;
        let (distinct, bytes, uses) = self.batches.book().totals();
        self.shared.counters.rows(distinct, bytes, uses);
        Ok(self.pending.insert(pending).meta.indices.clone())
    }

    /// Takes rows that are not trained on.
    pub(crate) fn hold_out(
        &mut self,
        split: RowSplit,
        block: Result<RowBlock, String>,
    ) -> Result<(), RecorderError> {
        self.ready()?;
        let taken = block.and_then(|block| self.batches.hold_out(split, block));
        taken.map_err(|why| self.at().wrong(why))
    }

    fn expect_no_batch(&self) -> Result<(), RecorderError> {
        self.ready()?;
        match &self.pending {
            Some(waiting) => Err(self.batch_pending(waiting)),
            None => Ok(()),
        }
    }

    fn batch_pending(&self, waiting: &Pending) -> RecorderError {
        RecorderError::BatchPending {
            run: self.shared.run.clone(),
            step: self.next_step,
            announced: waiting.meta.indices.len(),
        }
    }

    /// Drops the announced batch.
    pub(crate) fn withdraw(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.batches.withdraw(pending, &self.shared.pool);
        }
    }

    /// A batch whose indices the loop gives.
    fn describe(&self, batch: &BatchInfo<'_>) -> Result<Pending, RecorderError> {
        let pending = self.batches.by_indices(batch, &self.shared.pool);
        pending.map_err(|why| self.at().wrong(why))
    }

    /// The batch of the next step: that in `info`, or the announced one.
    fn batch(&mut self, info: &StepInfo<'_>) -> Result<Pending, RecorderError> {
        match (&info.batch, self.pending.take()) {
            (None, Some(pending)) => Ok(pending),
            (Some(batch), None) => self.describe(batch),
            (None, None) => Err(RecorderError::NoBatch {
                run: self.shared.run.clone(),
                step: self.next_step,
            }),
            (Some(_), Some(waiting)) => {
                let error = self.batch_pending(&waiting);
                self.pending = Some(waiting);
                Err(error)
            }
        }
    }

    /// Records the next step: the variables as they are now, and what the loop says about the step.
    pub(crate) fn record(
        &mut self,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        self.prepare(info, loss)?;
        self.hand_over();
        Ok(())
    }

    /// Captures the next step and keeps it back until its update is done. [`settle`](Self::settle) or
    /// [`hand_over`](Self::hand_over) queues it.
    pub(crate) fn prepare(
        &mut self,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        self.hand_over();
        let recording = self.ready()?;
        let last = self.capture.last();
        self.own_updates
            .check(&self.shared, &self.tensors, last, self.next_step)?;
        let mut pending = self.batch(info)?;
        if !recording {
            self.shared.pool.give_back_meta(pending.meta);
            self.batches.book().forget_stored();
            self.pass_over()?;
            self.step_done(info.optimizer_step.unwrap_or(self.next_update));
            return Ok(());
        }
        self.retry = None;
        match self.complete_and_capture(&mut pending, info, loss) {
            Ok((captured, held)) => {
                let update = pending.meta.optimizer_step;
                let opens = matches!(captured, Captured::Keyframe { .. });
                let rows = pending.records(self.batches.book(), opens);
                self.prepared = Some(Job {
                    meta: pending.meta,
                    captured,
                    rows,
                    held,
                });
                self.step_done(update);
                Ok(())
            }
            Err(error) => {
                if let RecorderError::QueueFull { .. } = error {
                    self.stopped.get_or_insert_with(|| error.clone());
                }
                // The announced batch stays, so that the call can be repeated.
                if info.batch.is_none() {
                    self.pending = Some(pending);
                }
                Err(error)
            }
        }
    }

    /// Completes the metadata and takes the snapshot. Returns it with the number of the queue's bytes that it holds.
    fn complete_and_capture(
        &mut self,
        pending: &mut Pending,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(Captured, u64), RecorderError> {
        let rows = pending.row_bytes(self.batches.book());
        let meta = &mut pending.meta;
        let (shared, tensors) = (&self.shared, &self.tensors);
        let at = shared.at(self.next_step);
        let completion = Completion {
            choices: &self.choices,
            tensors,
            at,
            update: self.next_update,
        };
        completion.complete(meta, info, loss)?;
        self.without_gradient.see(shared, tensors, info.trained);
        if let Trained::Gradients(gradients) = info.trained {
            self.own_updates
                .expect(tensors, meta, gradients)
                .map_err(|error| at.candle("reading the gradients", error))?;
        }
        self.capture
            .take(shared, tensors, meta, rows, info.optimizer)
    }

    /// Compares the parameters with their recorded values after the optimizer's update, then queues the step. `unseen`
    /// holds the parameters that have not been seen to change.
    pub(crate) fn settle(
        &mut self,
        gradients: &GradStore,
        unseen: &mut Vec<usize>,
    ) -> Result<(), RecorderError> {
        let Some(mut job) = self.prepared.take() else {
            return Ok(());
        };
        let compared = compare(&self.shared, &self.tensors, &mut job, gradients, unseen);
        self.prepared = Some(job);
        self.hand_over();
        compared.map_err(|error| self.at().candle("comparing the updated variables", error))
    }

    /// Queues the captured step.
    pub(crate) fn hand_over(&mut self) {
        if let Some(job) = self.prepared.take() {
            self.shared.description.fix();
            self.give(Work::Step(Box::new(job)));
        }
    }

    /// Counts a step that can't be recorded. Queues another attempt on the storage if one is due.
    fn pass_over(&mut self) -> Result<(), RecorderError> {
        let at = self.shared.at(self.next_step);
        self.capture.pass_over(&self.shared, &self.tensors, at)?;
        self.shared.counters.step_lost(self.next_step);
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

    /// Queues work behind the captured step.
    pub(crate) fn send(&mut self, work: Work) {
        self.hand_over();
        self.give(work);
    }

    fn give(&mut self, work: Work) {
        self.shared.work.give(self.number, work);
        self.number += 1;
    }

    /// Queues the final state and closes the queue.
    pub(crate) fn finish(
        &mut self,
        optimizer: Option<&dyn OptimizerState>,
    ) -> Result<(), RecorderError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        let (mut state, mut key) = (self.shared.pool.state(), self.shared.pool.key());
        self.tensors
            .copier
            .copy(state.bytes_mut())
            .map_err(|error| self.at().candle("copying the final variables", error))?;
        key.buffers_before_mut().copy_from_slice(state.buffers());
        self.tensors
            .copy_optimizer(optimizer, &mut key)
            .map_err(|why| {
                self.at()
                    .wrong(format!("{why} (finish_with(&optimizer) ends such a run)"))
            })?;
        let before = self.capture.take_last();
        self.shared.description.fix();
        self.close(Work::Finish(Box::new(FinalState {
            step: self.next_step,
            state,
            key,
            before,
        })));
        Ok(())
    }

    /// Closes the queue. The run is sealed without a final state.
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

impl Drop for StepRecorder {
    fn drop(&mut self) {
        // Nothing holds the run any longer. Threads that still wait for work must end.
        self.shared.work.close();
    }
}
