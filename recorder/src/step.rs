//! What the loop says about a step.

use std::collections::HashSet;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId};
use hindcast_format::meta::{BatchWeights, GroupHyper, StepMeta};

/// The batch of a step: its examples and their weights.
///
/// ```
/// use hindcast_recorder::BatchInfo;
/// let indices = [17, 4, 4, 9];
/// // Two micro-batches of two, whose gradients are added before the optimizer steps.
/// let batch = BatchInfo::new(0, &indices).micro_batches(&[2, 2]).clip_norm(1.0).scalar("temperature", 0.5);
/// # let _ = batch;
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct BatchInfo<'a> {
    pub(crate) epoch: u64,
    pub(crate) indices: &'a [u64],
    pub(crate) weights: Weights<'a>,
    pub(crate) micro_batches: &'a [u32],
    pub(crate) clip_norm: Option<f64>,
    pub(crate) scalars: [Option<(&'a str, f64)>; MAX_SCALARS],
}

/// Largest number of scalars of a step.
pub(crate) const MAX_SCALARS: usize = 16;

/// Borrowed form of [`BatchWeights`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weights<'a> {
    Mean,
    Sum,
    Each(&'a [f64]),
    SumOfEach(&'a [f64]),
}

impl<'a> BatchInfo<'a> {
    /// A batch of the training examples `indices` in order. An index may occur twice. The batch loss is the mean of the
    /// examples' losses, unless [`summed`](Self::summed) or [`weights`](Self::weights) says otherwise.
    pub fn new(epoch: u64, indices: &'a [u64]) -> Self {
        Self {
            epoch,
            indices,
            weights: Weights::Mean,
            micro_batches: &[],
            clip_norm: None,
            scalars: [None; MAX_SCALARS],
        }
    }

    /// The batch loss is the sum of the examples' losses, not their mean.
    pub fn summed(mut self) -> Self {
        self.weights = Weights::Sum;
        self
    }

    /// The weight of each example in the batch loss `Σ_j w_j ℓ_j`, in the order of the indices. The loss is a weighted
    /// mean: the weights have been divided by their total. For a weighted sum use
    /// [`summed_weights`](Self::summed_weights).
    pub fn weights(mut self, weights: &'a [f64]) -> Self {
        self.weights = Weights::Each(weights);
        self
    }

    /// The weight of each example in the batch loss `Σ_j w_j ℓ_j`, in the order of the indices. The loss is a weighted
    /// sum, which has no denominator: without one example, the others keep their weights.
    pub fn summed_weights(mut self, weights: &'a [f64]) -> Self {
        self.weights = Weights::SumOfEach(weights);
        self
    }

    /// Lengths of the micro-batches that the indices are split into, for loops that add up gradients before a step.
    pub fn micro_batches(mut self, lengths: &'a [u32]) -> Self {
        self.micro_batches = lengths;
        self
    }

    /// Threshold of global-norm gradient clipping in this step.
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.clip_norm = Some(threshold);
        self
    }

    /// A number to store with the step. A step with more than 16 is refused.
    pub fn scalar(mut self, name: &'a str, value: f64) -> Self {
        match self.scalars.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some((name, value)),
            // A setter has no error to return. The mark makes the recording call fail.
            None => self.scalars = [Some(("", f64::NAN)); MAX_SCALARS],
        }
        self
    }
}

impl BatchInfo<'_> {
    /// Checks the batch against the number of training examples. The error text says what is wrong.
    pub(crate) fn check(&self, examples: Option<u64>) -> Result<(), String> {
        let batch = self.indices.len();
        if batch == 0 {
            return Err(
                "the batch is empty: a step needs at least one training example".to_owned(),
            );
        }
        if let Some(examples) = examples
            && let Some(at) = self.indices.iter().position(|index| *index >= examples)
        {
            let index = self.indices.get(at).copied().unwrap_or_default();
            return Err(format!(
                "index {index} (at position {at} of the batch, counted from 0) is outside of the training data, which has {examples} examples"
            ));
        }
        if let Weights::Each(weights) | Weights::SumOfEach(weights) = self.weights {
            if weights.len() != batch {
                return Err(format!(
                    "expected {batch} weights, one per index, got {}",
                    weights.len()
                ));
            }
            if let Some(bad) = weights.iter().find(|weight| !weight.is_finite()) {
                return Err(format!(
                    "a weight of {bad} cannot be replayed: weights must be finite"
                ));
            }
        }
        let lengths: u64 = self
            .micro_batches
            .iter()
            .map(|length| u64::from(*length))
            .sum();
        if !self.micro_batches.is_empty() && lengths != batch as u64 {
            return Err(format!(
                "the lengths of the micro-batches add up to {lengths}, but the batch has {batch} indices"
            ));
        }
        if self
            .scalars
            .iter()
            .flatten()
            .any(|(name, _)| name.is_empty())
        {
            return Err(format!(
                "a scalar needs a name, and a step has at most {MAX_SCALARS} scalars"
            ));
        }
        Ok(())
    }

    /// Writes the batch into metadata whose lists are empty.
    pub(crate) fn write(&self, meta: &mut StepMeta) {
        meta.epoch = self.epoch;
        meta.indices.extend_from_slice(self.indices);
        meta.weights = match self.weights {
            Weights::Mean => BatchWeights::Mean,
            Weights::Sum => BatchWeights::Sum,
            Weights::Each(weights) => BatchWeights::Each(weights.to_vec()),
            Weights::SumOfEach(weights) => BatchWeights::SumOfEach(weights.to_vec()),
        };
        meta.micro_batches.extend_from_slice(self.micro_batches);
        meta.clip_norm = self.clip_norm;
        meta.scalars.extend(
            self.scalars
                .iter()
                .flatten()
                .map(|(name, value)| ((*name).to_owned(), *value)),
        );
    }
}

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

/// A step's learning rate and weight decay: one pair for all parameter groups, or one pair per group.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StepHyper<'a> {
    One {
        learning_rate: f64,
        /// `None` takes the decay of the builder or the rule.
        weight_decay: Option<f64>,
    },
    Each(&'a [GroupHyper]),
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
