//! Recording a step on the training thread: check it, copy it, queue it.

use std::sync::Arc;

use candle_core::{Device, Storage as Place, Tensor, Var};
use hindcast_format::layout::Layout;
use hindcast_format::meta::{GroupHyper, StepMeta};
use hindcast_format::{Segmenter, State};

use crate::error::RecorderError;
use crate::keep::Keep;
use crate::names::{Source, copy_optimizer};
use crate::policy::{LossValues, OnError, WhenFull};
use crate::shared::{Base, End, Job, Kind, Shared, Work};
use crate::snapshot::Plan;
use crate::statistics::{add, add_time};
use crate::step::{BatchInfo, Hyper, OptimizerState, StepInfo, Trained};

/// Metadata of steps without tensors may take this much of the queue beyond its limit before they wait, too.
const SKIPPED_EXTRA: u64 = 16 << 20;

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
            Some(error) if self.trains_on(error) => Ok(false),
            Some(error) => Err(error.clone()),
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
            add(&self.shared.counters.lost, 1);
            self.shared.pool.give_back_meta(meta);
            self.step_done(info.optimizer_step.unwrap_or(self.next_update));
            return Ok(());
        }
        if let Err(error) = self.complete(&mut meta, info, loss) {
            // The announced batch waits on, so that the call can be repeated.
            if info.batch.is_none() {
                self.pending = Some(meta);
            }
            return Err(error);
        }
        let update = meta.optimizer_step;
        self.queue(meta, info.optimizer)?;
        self.step_done(update);
        Ok(())
    }

    fn step_done(&mut self, update: u64) {
        self.next_step += 1;
        self.next_update = update + 1;
        add(&self.shared.counters.steps, 1);
    }

    /// Adds to the batch's metadata what the step says.
    fn complete(
        &self,
        meta: &mut StepMeta,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        let (groups, parameters) = (self.groups(), self.tensors.parameters.len());
        meta.step = self.next_step;
        meta.groups.clear();
        match info.hyper {
            Hyper::One(hyper) => meta.groups.resize(groups, hyper),
            Hyper::Each(each) if each.len() == groups => meta.groups.extend_from_slice(each),
            Hyper::Each(each) => {
                return Err(self.wrong(format!(
                    "expected learning rates of {groups} parameter groups, got {}",
                    each.len()
                )));
            }
        }
        if let Some(bad) = meta.groups.iter().find(|group: &&GroupHyper| {
            !group.learning_rate.is_finite() || !group.weight_decay.is_finite()
        }) {
            return Err(self.wrong(format!(
                "a learning rate of {} and a decay of {} cannot be replayed",
                bad.learning_rate, bad.weight_decay
            )));
        }
        meta.trained.clear();
        match info.trained {
            Trained::All => meta.trained.resize(parameters, true),
            Trained::Gradients(gradients) => meta.trained.extend(
                self.tensors
                    .parameters
                    .iter()
                    .map(|var| gradients.get(var).is_some()),
            ),
            Trained::Flags(flags) if flags.len() == parameters => {
                meta.trained.extend_from_slice(flags)
            }
            Trained::Flags(flags) => {
                return Err(self.wrong(format!(
                    "expected flags of {parameters} parameters, got {}",
                    flags.len()
                )));
            }
        }
        meta.optimizer_step = info.optimizer_step.unwrap_or(self.next_update);
        meta.loss = info.loss;
        if let (None, Some(loss)) = (meta.loss, loss) {
            meta.loss = self
                .loss_value(loss)
                .map_err(|error| self.candle("reading the loss", error))?;
        }
        Ok(())
    }

    fn loss_value(&self, loss: &Tensor) -> candle_core::Result<Option<f64>> {
        let wanted = match self.choices.loss_values {
            LossValues::Never => false,
            LossValues::OnCpu => matches!(loss.device(), Device::Cpu),
            LossValues::Always => true,
        };
        if !wanted || loss.elem_count() != 1 {
            return Ok(None);
        }
        {
            // The usual case without the tensors that a conversion would make.
            let (storage, layout) = loss.storage_and_layout();
            if let Place::Cpu(candle_core::CpuStorage::F32(values)) = &*storage {
                return Ok(values
                    .get(layout.start_offset())
                    .map(|value| f64::from(*value)));
            }
        }
        loss.detach()
            .flatten_all()?
            .get(0)?
            .to_dtype(candle_core::DType::F64)?
            .to_scalar()
            .map(Some)
    }

    /// Takes the snapshot and hands it to the encoders, as the policies allow.
    fn queue(
        &mut self,
        meta: StepMeta,
        optimizer: Option<&dyn OptimizerState>,
    ) -> Result<(), RecorderError> {
        let shared = Arc::clone(&self.shared);
        let placement = self.segmenter.place(&meta);
        let cut = placement.cut || self.last.is_none();
        let thinned = matches!(self.choices.keep, Keep::EveryNth(n) if !meta.step.is_multiple_of(n));
        let layout = &self.tensors.layout;
        let small = meta_bytes(&meta);
        let full = small
            + layout.frame_bytes() as u64
            + if cut && !thinned {
                layout.key_bytes() as u64
            } else {
                0
            };
        let has_room = match self.choices.when_full {
            WhenFull::Block => {
                let waited = shared.budget.take(full);
                if !waited.is_zero() {
                    add(&shared.counters.stalls, 1);
                    add_time(&shared.counters.stalled_ns, waited);
                }
                true
            }
            WhenFull::Skip => shared.budget.try_take(full, 0),
            WhenFull::Stop => {
                if !shared.budget.try_take(full, 0) {
                    let (held, limit) = (shared.budget.held(), shared.budget.limit());
                    let error = RecorderError::QueueFull {
                        run: shared.run.clone(),
                        step: meta.step,
                        held,
                        limit,
                    };
                    self.stopped = Some(error.clone());
                    return Err(error);
                }
                true
            }
        };
        let mut state = shared.pool.state();
        if let Err(error) = self.tensors.plan.copy(state.bytes_mut()) {
            if has_room {
                shared.budget.give_back(full);
            }
            return Err(self.stop_on(self.candle("copying the variables", error)));
        }
        let step = meta.step;
        let kind = if !has_room {
            let digest = state.digest();
            self.keep_buffers(&state);
            shared.pool.give_back_state(state);
            shared.budget.take_or_wait(small, SKIPPED_EXTRA);
            add(&shared.counters.skipped, 1);
            Kind::Skipped { digest }
        } else if thinned {
            self.keep_buffers(&state);
            Kind::Thinned {
                state: Arc::new(state),
            }
        } else if cut {
            let mut key = shared.pool.key();
            key.buffers_before_mut().copy_from_slice(&self.buffers);
            let layout = &self.tensors.layout;
            if let Err(why) = copy_optimizer(
                layout.optimizer_state(),
                &self.tensors.optimizer,
                optimizer,
                key.optimizer_mut(),
            ) {
                shared.budget.give_back(full);
                return Err(self.stop_on(self.wrong(why)));
            }
            self.keep_buffers(&state);
            let state = Arc::new(state);
            let before = self.last.replace(Base {
                step,
                state: Arc::clone(&state),
            });
            Kind::Keyframe { state, key, before }
        } else {
            self.keep_buffers(&state);
            let state = Arc::new(state);
            match self.last.replace(Base {
                step,
                state: Arc::clone(&state),
            }) {
                Some(before) => Kind::Difference { state, before },
                // `cut` is true without a state before.
                None => return Err(self.wrong("there is no state to take the difference to")),
            }
        };
        if cut && matches!(kind, Kind::Skipped { .. } | Kind::Thinned { .. }) {
            // Only a step with tensors can open a segment: the next one does.
            self.segmenter.cut_next();
        }
        let held = if has_room { full } else { small };
        self.send(Work::Step(Box::new(Job { meta, kind, held })));
        Ok(())
    }

    fn keep_buffers(&mut self, state: &State) {
        self.buffers.clear();
        self.buffers.extend_from_slice(state.buffers());
    }

    /// The segmenter has placed a step that is not recorded, so nothing may follow.
    fn stop_on(&mut self, error: RecorderError) -> RecorderError {
        self.stopped.get_or_insert_with(|| error.clone());
        error
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
            self.shared.work.close();
            self.stopped = Some(RecorderError::Over {
                run: self.shared.run.clone(),
                step: self.next_step,
            });
        }
        self.shared.made_progress();
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

impl Drop for Inner {
    fn drop(&mut self) {
        // The last one to hold the run is gone; threads that still wait for work must not wait for ever.
        self.shared.work.close();
    }
}
