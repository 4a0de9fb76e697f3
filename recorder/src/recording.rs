//! Records steps on the training thread: checks a step, copies its tensors, and queues it.

use std::sync::Arc;

use hindcast_format::layout::Layout;
use hindcast_format::meta::StepMeta;
use hindcast_format::{Chunking, HELD_OUT, RowSplit};

use crate::batch::BatchInfo;
use crate::capture::Capture;
use crate::choices::Choices;
use crate::counters::add;
use crate::error::{AtStep, RecorderError};
use crate::estimate::{Basis, Estimate};
use crate::held_out::Missing;
use crate::metadata::{Completion, Said};
use crate::pending::{Batches, Pending};
use crate::reopen::Retry;
use crate::row_block::RowBlock;
use crate::rows::RowBook;
use crate::shared::Shared;
use crate::stated_rule::{Origin, StatedRule};
use crate::update_rule::UpdateRule;
use crate::values::Values;
use crate::work::{Base, Captured, FinalState, Job, Work};

/// The training thread's side of a run, whatever computes the steps.
pub(crate) struct Recording {
    shared: Arc<Shared>,
    choices: Choices,
    layout: Layout,
    batches: Batches,
    capture: Capture,
    /// What the expected size of the run is computed from.
    basis: Basis,
    /// Number of the next piece of work.
    number: u64,
    next_step: u64,
    /// The optimizer's counter before the next step.
    next_update: u64,
    /// The batch announced for the next step.
    pending: Option<Pending>,
    /// A captured step that waits for its optimizer's update.
    prepared: Option<Job>,
    /// When failed storage is tried again.
    retry: Option<Retry>,
    /// Why nothing more is recorded, once the run is over or the training thread has stopped it.
    stopped: Option<RecorderError>,
}

/// Completes the metadata of a step with what only the training library knows.
pub(crate) type Fill<'a> =
    dyn FnMut(&mut StepMeta, &Shared, AtStep<'_>) -> Result<(), RecorderError> + 'a;

impl Recording {
    pub(crate) fn new(
        shared: Arc<Shared>,
        choices: Choices,
        layout: Layout,
        capture: Capture,
        basis: Basis,
        rows: RowBook,
        (step, update): (u64, u64),
    ) -> Self {
        let batches = Batches::new(rows, choices.examples);
        Self {
            shared,
            choices,
            layout,
            batches,
            capture,
            basis,
            number: 0,
            next_step: step,
            next_update: update,
            pending: None,
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
        &self.layout
    }

    pub(crate) fn estimate(&self) -> Estimate {
        Estimate::new(&self.basis)
    }

    /// The optimizer's counter before the next step.
    pub(crate) fn next_update(&self) -> u64 {
        self.next_update
    }

    pub(crate) fn next_step(&self) -> u64 {
        self.next_step
    }

    /// The state recorded last.
    pub(crate) fn last(&self) -> Option<&Base> {
        self.capture.last()
    }

    /// The step that waits for its optimizer's update.
    pub(crate) fn prepared(&mut self) -> Option<&mut Job> {
        self.prepared.as_mut()
    }

    /// Notes the bytes of the buffers through which tensors are copied from a device, and why a device has none.
    pub(crate) fn set_staged(&mut self, bytes: u64, refused: Option<&str>) {
        self.basis.staged = bytes;
        if let Some(why) = refused {
            self.shared.counters.not_staged(why);
        }
    }

    /// Puts a changed layout into the run's description, which no segment repeats yet.
    pub(crate) fn set_layout(&mut self, layout: Layout) {
        self.basis.keyframe_extra = layout.key_bytes() as u64;
        self.shared.pool.set_layout(layout.clone());
        self.layout = layout.clone();
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

    /// Makes the errors of the next step.
    pub(crate) fn at(&self) -> AtStep<'_> {
        self.shared.at(self.next_step)
    }

    /// Nothing more is recorded, because of this error.
    pub(crate) fn stop(&mut self, error: &RecorderError) {
        self.stopped.get_or_insert_with(|| error.clone());
    }

    /// Whether steps can be recorded now. `Ok(false)` means that training continues unrecorded.
    pub(crate) fn ready(&self) -> Result<bool, RecorderError> {
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
        if pending.needs_segment(self.batches.book()) {
            self.capture.cut_next();
        }
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
        let rows = taken.map_err(|why| self.at().wrong(why))?;
        // The description survives the step that stores the rows, so that a reader can say that they are lost.
        if let Some(key) = (split as usize)
            .checked_sub(1)
            .and_then(|i| HELD_OUT.get(i))
        {
            self.shared.description.change(|info| {
                info.notes.insert((*key).to_owned(), rows.to_string());
            });
        }
        Ok(())
    }

    /// The held-out rows that the finished run lacks.
    pub(crate) fn missing_held_out(&mut self, lost: &[std::ops::Range<u64>]) -> Vec<Missing> {
        self.batches.book().missing(lost)
    }

    /// Checks that a batch is announced whose gradients can be clipped at this norm.
    pub(crate) fn expect_clipping(&self, most: f64) -> Result<(), RecorderError> {
        self.ready()?;
        let Some(waiting) = &self.pending else {
            return Err(self.no_batch());
        };
        if !(most.is_finite() && most > 0.0) {
            let why =
                format!("the largest norm of a gradient must be positive and finite, got {most}");
            return Err(self.at().wrong(why));
        }
        match waiting.meta.clip_norm {
            None => Ok(()),
            Some(before) => Err(self.at().wrong(format!(
                "the gradients are clipped twice: at {before} (BatchInfo::clip_norm, or an earlier call) and at {most}"
            ))),
        }
    }

    /// Says that the gradients of the announced batch are clipped at this norm.
    pub(crate) fn clipped(&mut self, most: f64) {
        if let Some(waiting) = &mut self.pending {
            waiting.meta.clip_norm = Some(most);
        }
    }

    fn expect_no_batch(&self) -> Result<(), RecorderError> {
        self.ready()?;
        match &self.pending {
            Some(waiting) => Err(self.batch_pending(waiting)),
            None => Ok(()),
        }
    }

    fn no_batch(&self) -> RecorderError {
        RecorderError::NoBatch {
            run: self.shared.run.clone(),
            step: self.next_step,
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

    /// The batch of the next step: `given` with the step, or the announced one.
    fn batch(&mut self, given: Option<&BatchInfo<'_>>) -> Result<Pending, RecorderError> {
        match (given, self.pending.take()) {
            (None, Some(pending)) => Ok(pending),
            (Some(batch), None) => self.describe(batch),
            (None, None) => Err(self.no_batch()),
            (Some(_), Some(waiting)) => {
                let error = self.batch_pending(&waiting);
                self.pending = Some(waiting);
                Err(error)
            }
        }
    }

    /// Captures the next step and keeps it back until its update is done. [`hand_over`](Self::hand_over) queues it.
    /// `batch` is given with the step, unless it was announced.
    pub(crate) fn prepare(
        &mut self,
        batch: Option<&BatchInfo<'_>>,
        said: &Said<'_>,
        fill: &mut Fill<'_>,
        values: &dyn Values,
    ) -> Result<(), RecorderError> {
        self.hand_over();
        let recording = self.ready()?;
        let mut pending = self.batch(batch)?;
        if !recording {
            self.shared.pool.give_back_meta(pending.meta);
            self.batches.book().forget_stored();
            self.pass_over(values)?;
            self.step_done(said.optimizer_step.unwrap_or(self.next_update));
            return Ok(());
        }
        self.retry = None;
        match self.complete_and_capture(&mut pending, said, fill, values) {
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
                    self.stop(&error);
                }
                // The announced batch stays, so that the call can be repeated.
                if batch.is_none() {
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
        said: &Said<'_>,
        fill: &mut Fill<'_>,
        values: &dyn Values,
    ) -> Result<(Captured, u64), RecorderError> {
        let rows = pending.row_bytes(self.batches.book());
        let meta = &mut pending.meta;
        let shared = &self.shared;
        let at = shared.at(self.next_step);
        let completion = Completion {
            choices: &self.choices,
            layout: &self.layout,
            at,
            update: self.next_update,
        };
        completion.complete(meta, said)?;
        meta.trained.clear();
        fill(meta, shared, at)?;
        self.capture.take(shared, &self.layout, meta, rows, values)
    }

    /// Queues the captured step.
    pub(crate) fn hand_over(&mut self) {
        if let Some(job) = self.prepared.take() {
            self.shared.description.fix();
            self.give(Work::Step(Box::new(job)));
        }
    }

    /// Counts a step that can't be recorded. Queues another attempt on the storage if one is due.
    fn pass_over(&mut self, values: &dyn Values) -> Result<(), RecorderError> {
        let at = self.shared.at(self.next_step);
        self.capture.pass_over(&self.shared, values, at)?;
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
    pub(crate) fn finish(&mut self, values: &dyn Values) -> Result<(), RecorderError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        let shared = Arc::clone(&self.shared);
        let at = shared.at(self.next_step);
        let what = "copying the final variables";
        let state = self.capture.snapshot(&shared, what, at, values)?;
        let mut key = shared.pool.key();
        values.optimizer(&mut key).map_err(|why| at.wrong(why))?;
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

impl Drop for Recording {
    fn drop(&mut self) {
        // Nothing holds the run any longer. Threads that still wait for work must end.
        self.shared.work.close();
    }
}

impl AsMut<Recording> for Recording {
    fn as_mut(&mut self) -> &mut Recording {
        self
    }
}
