//! The training loop of a Task.

use candle_core::Device;

use super::error::{TrainError, check_length};
use super::step::{ModelState, Stepper, WeightedBatch};
use crate::batches::{Batches, LossWeights};
use crate::data::DataSet;
use crate::net::Net;
use crate::objective::{Draws, Objective, Split, values};
use crate::real::Real;
use crate::task::Task;
use crate::update::Settings;

/// One step, between its gradient and its update. It contains everything that a trace records.
#[derive(Debug)]
pub struct StepRecord<'a, T> {
    /// The step t.
    pub step: u64,
    /// The epoch.
    pub epoch: u64,
    /// Indices of the batch's examples, in order.
    pub indices: &'a [u64],
    /// Weights of the examples in the batch loss.
    pub weights: &'a LossWeights,
    /// Lengths of the micro-batches. The list is empty if the batch was run at once.
    pub micro_batches: &'a [usize],
    /// Learning rate, decay, clipping, the optimizer's step counter, and which tensors have a gradient.
    pub settings: &'a Settings,
    /// The batch loss.
    pub loss: f64,
    /// Loss ℓ_j of each row.
    pub per_example: &'a [f64],
    /// The state before the step: parameters θ_t, buffers r_t and the optimizer's state.
    pub before: &'a ModelState<T>,
    /// Buffers r_{t+1} after the forward pass.
    pub buffers: &'a [T],
    /// Gradient G_t before clipping and decay.
    pub gradient: &'a [T],
}

/// Trains a Task step by step.
pub struct Trainer<'a, T> {
    task: &'a Task,
    stepper: Stepper<'a>,
    data: &'a dyn DataSet,
    device: Device,
    batches: Batches,
    /// The current epoch and its batches.
    order: Option<(u64, Vec<Vec<u64>>)>,
    state: ModelState<T>,
    step: u64,
}

impl<'a, T: Real> Trainer<'a, T> {
    /// A trainer at step 0, with the model's initial values.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the data doesn't fit the Task, or if one of the steps can't be computed.
    pub fn new(
        task: &'a Task,
        net: &'a Net,
        data: &'a dyn DataSet,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let parameters = net.initial_parameters(task.train.seed);
        let optimizer = task.optimizer.initial_state(parameters.len());
        let state = ModelState {
            parameters,
            buffers: net.initial_buffers(),
            optimizer,
        };
        Self::resume(task, net, data, device, 0, state)
    }

    /// A trainer that resumes at step `step` from a given state. The model can be any objective.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the data doesn't fit the Task, [`TrainError::Length`] if the state doesn't fit the
    /// model.
    pub fn resume(
        task: &'a Task,
        objective: &'a dyn Objective,
        data: &'a dyn DataSet,
        device: &Device,
        step: u64,
        state: ModelState<T>,
    ) -> Result<Self, TrainError> {
        task.check_data(data)?;
        task.check_plan(data.len(Split::Train))?;
        let stepper = Stepper::new(objective, &task.optimizer);
        let p = stepper.blocks().values();
        check_length("parameters", p, state.parameters.len())?;
        let r = values(objective.buffers());
        check_length("buffers", r, state.buffers.len())?;
        let o = task.optimizer.state_values(p);
        check_length("the optimizer's state", o, state.optimizer.len())?;
        Ok(Self {
            task,
            stepper,
            data,
            device: device.clone(),
            batches: Batches::new(&task.train, data.len(Split::Train)),
            order: None,
            state,
            step,
        })
    }

    /// Number of the next step, which is the number of steps since the beginning of the run.
    pub fn next_step(&self) -> u64 {
        self.step
    }

    /// The batches of the run.
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Parameters, buffers and optimizer state before the next step.
    pub fn state(&self) -> &ModelState<T> {
        &self.state
    }

    /// Ends the training and returns the state.
    pub fn into_state(self) -> ModelState<T> {
        self.state
    }

    /// Computes the loss and the gradient of the next step and discards them. A first step that can't be computed fails
    /// here, before any file of the run is written.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn rehearse(&self) -> Result<(), TrainError> {
        let at = self.batches.position(self.step);
        let in_epoch = at.step % self.batches.steps_per_epoch().max(1);
        let epoch = self.batches.epoch(at.epoch);
        let Some(indices) = epoch.get(in_epoch as usize) else {
            return Ok(());
        };
        let draws = Draws {
            seed: self.task.train.seed,
            step: at.step,
        };
        let (_, parts) = self.parts(indices, &self.batches.micro_batches(indices.len()), draws)?;
        self.stepper.gradient(&self.state, &parts, draws)?;
        Ok(())
    }

    /// Takes one step. Returns false if the run is complete. `observe` is called with the step after its gradient is
    /// computed and before the update. If `observe` fails, the state is unchanged.
    ///
    /// # Errors
    /// [`TrainError`], and any error of `observe`.
    pub fn step<E: From<TrainError>>(
        &mut self,
        observe: impl FnOnce(&StepRecord<'_, T>) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.step >= self.batches.steps() {
            return Ok(false);
        }
        let at = self.batches.position(self.step);
        let order = match self.order.take() {
            Some((epoch, order)) if epoch == at.epoch => order,
            _ => self.batches.epoch(at.epoch),
        };
        let in_epoch = (at.step % self.batches.steps_per_epoch().max(1)) as usize;
        let result = match order.get(in_epoch) {
            Some(indices) => self.step_on(indices, at, observe),
            None => Ok(()),
        };
        self.order = Some((at.epoch, order));
        result?;
        self.step += 1;
        Ok(true)
    }

    fn step_on<E: From<TrainError>>(
        &mut self,
        indices: &[u64],
        at: crate::schedule::Position,
        observe: impl FnOnce(&StepRecord<'_, T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let draws = Draws {
            seed: self.task.train.seed,
            step: at.step,
        };
        let micro_batches = self.batches.micro_batches(indices.len());
        let (weights, parts) = self.parts(indices, &micro_batches, draws)?;
        let gradient = self.stepper.gradient(&self.state, &parts, draws)?;
        let mut settings = Settings::uniform(
            &self.task.optimizer,
            at.step,
            self.task.schedule.rate(at),
            self.stepper.blocks().tensors(),
        );
        settings.trained.clone_from(&gradient.trained);
        observe(&StepRecord {
            step: at.step,
            epoch: at.epoch,
            indices,
            weights: &weights,
            micro_batches: &micro_batches,
            settings: &settings,
            loss: gradient.loss,
            per_example: &gradient.per_example,
            before: &self.state,
            buffers: &gradient.buffers,
            gradient: &gradient.gradient,
        })?;
        self.stepper
            .update(&settings, gradient, &mut self.state)
            .map_err(E::from)
    }

    /// The parts in which a batch is run, and the weights of the whole batch.
    fn parts(
        &self,
        indices: &[u64],
        micro_batches: &[usize],
        draws: Draws,
    ) -> Result<(LossWeights, Vec<WeightedBatch>), TrainError> {
        let split = |indices: &[u64]| {
            self.data
                .batch(Split::Train, indices, Some(draws), T::DTYPE, &self.device)
        };
        if micro_batches.is_empty() {
            let batch = split(indices)?;
            let weights = LossWeights::of(&self.task.loss, &batch)?;
            let values = weights.values(indices.len());
            return Ok((
                weights,
                vec![WeightedBatch {
                    batch,
                    weights: values,
                }],
            ));
        }
        let mut batches = Vec::with_capacity(micro_batches.len());
        let mut rest = indices;
        for &len in micro_batches {
            let (now, later) = rest.split_at(len.min(rest.len()));
            batches.push(split(now)?);
            rest = later;
        }
        let weights = LossWeights::of_parts(&self.task.loss, &batches)?;
        let mut values = weights.values(indices.len()).into_iter();
        let parts = batches
            .into_iter()
            .map(|batch| WeightedBatch {
                weights: values.by_ref().take(batch.indices.len()).collect(),
                batch,
            })
            .collect();
        Ok((weights, parts))
    }
}
