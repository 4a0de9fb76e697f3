//! What the loop says about a step.

use std::collections::HashSet;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId};
use hindcast_format::meta::GroupHyper;

use crate::batch::BatchInfo;
use crate::metadata::StepHyper;

/// Which parameters a step trains.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trained<'a> {
    All,
    Gradients(&'a GradStore),
    /// Those with a gradient, for an optimizer whose updates are compared.
    Watched(&'a GradStore),
    /// Those of the given variables that have a gradient.
    Updated(&'a GradStore, &'a HashSet<TensorId>),
    Flags(&'a [bool]),
}

/// What a loop that computes its own update says about a step: the batch, the hyperparameters, and optionally more,
/// such as the loss and the gradients.
///
/// Give it to [`Recorder::step`](crate::Recorder::step) when the gradients are known and before the variables change.
#[derive(Clone, Copy)]
#[must_use]
pub struct StepInfo<'a> {
    pub(crate) batch: Option<BatchInfo<'a>>,
    pub(crate) hyper: StepHyper<'a>,
    pub(crate) loss: Option<f64>,
    pub(crate) optimizer_step: Option<u64>,
    pub(crate) trained: Trained<'a>,
    pub(crate) optimizer: Option<&'a dyn OptimizerState>,
}

impl<'a> StepInfo<'a> {
    /// A step on `batch` with learning rate η in every parameter group.
    pub fn new(batch: BatchInfo<'a>, learning_rate: f64) -> Self {
        Self {
            batch: Some(batch),
            ..Self::announced(learning_rate)
        }
    }

    /// A step on the batch that [`Recorder::batch`](crate::Recorder::batch) announced.
    pub fn announced(learning_rate: f64) -> Self {
        Self {
            batch: None,
            hyper: StepHyper::One {
                learning_rate,
                weight_decay: None,
            },
            loss: None,
            optimizer_step: None,
            trained: Trained::All,
            optimizer: None,
        }
    }

    /// The optimizer's own weight decay λ in every group. By default that of
    /// [`Builder::weight_decay`](crate::Builder::weight_decay), or of the run's rule.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        if let StepHyper::One { weight_decay, .. } = &mut self.hyper {
            *weight_decay = Some(decay);
        }
        self
    }

    /// Learning rate and weight decay of each parameter group, in the groups' order.
    pub fn groups(mut self, groups: &'a [GroupHyper]) -> Self {
        self.hyper = StepHyper::Each(groups);
        self
    }

    /// The value of the batch loss.
    pub fn loss(mut self, loss: f64) -> Self {
        self.loss = Some(loss);
        self
    }

    /// Number of updates that the optimizer had done before this one, if that is not the number of recorded steps.
    pub fn optimizer_step(mut self, updates: u64) -> Self {
        self.optimizer_step = Some(updates);
        self
    }

    /// The gradients. A parameter without one is recorded as not trained in this step. Without this call, all
    /// parameters are recorded as trained. candle gives a gradient to every variable that the loss depends on; if the
    /// update changes only some of them, list those with [`trained`](Self::trained).
    pub fn gradients(mut self, gradients: &'a GradStore) -> Self {
        self.trained = Trained::Gradients(gradients);
        self
    }

    /// Whether the step trains each parameter, in the layout's order (by name).
    pub fn trained(mut self, flags: &'a [bool]) -> Self {
        self.trained = Trained::Flags(flags);
        self
    }

    /// The optimizer's state before the update. It is read only at keyframes.
    pub fn optimizer(mut self, state: &'a dyn OptimizerState) -> Self {
        self.optimizer = Some(state);
        self
    }
}

/// The optimizer's own tensors (momentum, Adam's moments), recorded with every keyframe.
///
/// An optimizer whose state is in [`Var`](candle_core::Var)s doesn't need this trait. Give the variables to
/// [`Builder::create_from`](crate::Builder::create_from) as [`Named::optimizer_state`](crate::Named::optimizer_state).
pub trait OptimizerState {
    /// All tensors by name. Every call must return the same names, shapes and types, in any order.
    ///
    /// # Errors
    /// Those of candle. The recording call then fails.
    fn tensors(&self) -> candle_core::Result<Vec<(String, Tensor)>>;
}

impl<F> OptimizerState for F
where
    F: Fn() -> candle_core::Result<Vec<(String, Tensor)>>,
{
    fn tensors(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        self()
    }
}
