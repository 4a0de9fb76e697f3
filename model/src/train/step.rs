//! A training step.

use super::error::TrainError;
use super::gradient::{Gradient, part};
use crate::objective::{Batch, Draws, Mode, Objective};
use crate::real::Real;
use crate::update::{Blocks, Settings, UpdateRule};

/// Everything that a step changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelState<T> {
    /// Parameters θ, flat, in the objective's order.
    pub parameters: Vec<T>,
    /// Buffers, flat, in the objective's order.
    pub buffers: Vec<T>,
    /// State of the optimizer, flat, in the order of [`UpdateRule::state_tensors`].
    pub optimizer: Vec<T>,
}

/// A batch or micro-batch with the weights of its examples in the batch loss.
#[derive(Debug, Clone)]
pub struct WeightedBatch {
    /// The examples.
    pub batch: Batch,
    /// One weight per row.
    pub weights: Vec<f64>,
}

/// Computes the steps of a run, for training, for the check of a trace and for counterfactual retraining. Equal states,
/// batches and settings give equal bits.
///
/// A step has two halves, because a trace records the values between them. [`Stepper::gradient`] doesn't change the
/// state, and [`Stepper::update`] does.
#[derive(Clone)]
pub struct Stepper<'a> {
    objective: &'a dyn Objective,
    rule: &'a UpdateRule,
    blocks: Blocks,
}

impl<'a> Stepper<'a> {
    /// A stepper for parameters that are all in one group.
    pub fn new(objective: &'a dyn Objective, rule: &'a UpdateRule) -> Self {
        Self::with_blocks(objective, rule, Blocks::of(objective.parameters()))
    }

    /// A stepper for parameters in several groups.
    pub fn with_blocks(objective: &'a dyn Objective, rule: &'a UpdateRule, blocks: Blocks) -> Self {
        Self {
            objective,
            rule,
            blocks,
        }
    }

    /// The positions of the parameter tensors in the flat vectors.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The gradient of a step whose batch is run in one or several parts. The gradients of the parts are added in order,
    /// each part starts from the buffers of the part before it, and a penalty outside the examples' losses counts once.
    ///
    /// # Errors
    /// [`TrainError`] if lengths don't fit, there is no part, or the model fails.
    pub fn gradient<T: Real>(
        &self,
        state: &ModelState<T>,
        parts: &[WeightedBatch],
        draws: Draws,
    ) -> Result<Gradient<T>, TrainError> {
        let mut sum: Option<Gradient<T>> = None;
        for WeightedBatch { batch, weights } in parts {
            let (buffers, first) = match &sum {
                None => (&state.buffers, true),
                Some(sum) => (&sum.buffers, false),
            };
            let more = part(
                self.objective,
                &state.parameters,
                buffers,
                batch,
                Mode::Train,
                draws,
                weights,
                first,
            )?;
            match &mut sum {
                None => sum = Some(more),
                Some(sum) => add(sum, more),
            }
        }
        sum.ok_or_else(|| {
            TrainError::Data("expected at least one part of a batch, got none".into())
        })
    }

    /// Updates the state by a gradient, and replaces its buffers by those of the gradient.
    ///
    /// `settings.trained` says which tensors are updated: [`Gradient::trained`] in training, the recorded flags in a
    /// replay.
    ///
    /// # Errors
    /// [`TrainError::Update`] if lengths, flags or groups don't fit. The state is then unchanged.
    pub fn update<T: Real>(
        &self,
        settings: &Settings,
        gradient: Gradient<T>,
        state: &mut ModelState<T>,
    ) -> Result<(), TrainError> {
        self.rule.step(
            &self.blocks,
            settings,
            &mut state.parameters,
            &gradient.gradient,
            &mut state.optimizer,
        )?;
        state.buffers = gradient.buffers;
        Ok(())
    }
}

fn add<T: Real>(sum: &mut Gradient<T>, more: Gradient<T>) {
    sum.loss += more.loss;
    sum.per_example.extend(more.per_example);
    sum.buffers = more.buffers;
    for (to, from) in sum.gradient.iter_mut().zip(&more.gradient) {
        *to += *from;
    }
    for (to, from) in sum.trained.iter_mut().zip(&more.trained) {
        *to |= *from;
    }
}
