//! A candle optimizer that records before it steps.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::Optimizer;
use hindcast_format::meta::GroupHyper;

use crate::error::RecorderError;
use crate::recorder::Handle;
use crate::step::{Hyper, OptimizerState, StepInfo};

type HyperFn<O> = Box<dyn Fn(&O, &mut [GroupHyper]) + Send>;
type StateFn<O> = fn(&O) -> &dyn OptimizerState;

/// A candle optimizer whose steps are recorded; made by [`Recorder::wrap`](crate::Recorder::wrap).
///
/// [`backward_step`](Self::backward_step) computes the gradients, records the parameters as they are before the step,
/// the learning rate and which parameters had a gradient, and then lets the optimizer step. Every step needs a batch,
/// announced with [`Recorder::batch`](crate::Recorder::batch).
///
/// It is an [`Optimizer`] itself, so it fits where a loop expects one; only [`Optimizer::new`] fails, since a run
/// cannot be made out of variables alone.
pub struct Recorded<O> {
    optimizer: O,
    run: Handle,
    hyper: Option<HyperFn<O>>,
    state: Option<StateFn<O>>,
    groups: Vec<GroupHyper>,
}

impl<O: Optimizer> Recorded<O> {
    pub(crate) fn new(optimizer: O, run: Handle, state: Option<StateFn<O>>) -> Self {
        Self {
            optimizer,
            run,
            hyper: None,
            state,
            groups: Vec::new(),
        }
    }

    /// How to read learning rate and decay of each parameter group off the optimizer before every step. Without this
    /// every group has the optimizer's [`learning_rate`](Optimizer::learning_rate) and the decay given to
    /// [`Builder::weight_decay`](crate::Builder::weight_decay); those are what the entries hold when `read` is called.
    #[must_use]
    pub fn hyper(mut self, read: impl Fn(&O, &mut [GroupHyper]) + Send + 'static) -> Self {
        self.hyper = Some(Box::new(read));
        self
    }

    /// Computes the gradients of `loss`, records the step, and steps.
    ///
    /// # Errors
    /// No announced batch, a recorder that has failed, or candle's own errors. The variables have not changed then,
    /// unless it was the optimizer's step itself that failed.
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<(), RecorderError> {
        let gradients = loss
            .backward()
            .map_err(|error| self.run.candle("computing the gradients", error))?;
        self.step_with(&gradients, Some(loss))
    }

    /// Records the step whose gradients these are (clipped, accumulated, however the loop made them), and steps.
    /// `loss` is the batch loss, if it is to be recorded.
    ///
    /// # Errors
    /// As [`backward_step`](Self::backward_step).
    pub fn step_with(
        &mut self,
        gradients: &GradStore,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        let plain = GroupHyper {
            learning_rate: self.optimizer.learning_rate(),
            weight_decay: self.run.weight_decay(),
        };
        let mut info = StepInfo::announced(plain.learning_rate).gradients(gradients);
        info.hyper = match &self.hyper {
            None => Hyper::One(plain),
            Some(read) => {
                self.groups.clear();
                self.groups.resize(self.run.groups(), plain);
                read(&self.optimizer, &mut self.groups);
                Hyper::Each(&self.groups)
            }
        };
        if let Some(state) = self.state {
            info = info.optimizer(state(&self.optimizer));
        }
        self.run.record(&info, loss)?;
        self.optimizer
            .step(gradients)
            .map_err(|error| self.run.update_failed(error))
    }

    /// The optimizer itself.
    pub fn optimizer(&self) -> &O {
        &self.optimizer
    }

    /// The optimizer itself, to change. What it does to the variables outside of a recorded step is not in the trace.
    pub fn optimizer_mut(&mut self) -> &mut O {
        &mut self.optimizer
    }

    /// Ends the recording of this optimizer's steps and gives it back.
    pub fn into_inner(self) -> O {
        self.optimizer
    }
}

impl<O: Optimizer> Optimizer for Recorded<O> {
    type Config = O::Config;

    /// Always fails: use [`Recorder::wrap`](crate::Recorder::wrap).
    fn new(_: Vec<Var>, _: Self::Config) -> candle_core::Result<Self> {
        candle_core::bail!(
            "a recorded optimizer is made by Recorder::wrap(optimizer), not from variables alone"
        )
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        Ok(self.step_with(gradients, None)?)
    }

    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.optimizer.set_learning_rate(learning_rate);
    }

    fn backward_step(&mut self, loss: &Tensor) -> candle_core::Result<()> {
        Ok(Recorded::backward_step(self, loss)?)
    }
}

impl<O: OptimizerState> OptimizerState for Recorded<O> {
    fn tensors(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        self.optimizer.tensors()
    }
}
