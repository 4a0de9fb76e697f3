//! One step.

use super::error::TrainError;
use super::gradient::{Gradient, part};
use crate::objective::{Batch, Draws, Mode, Objective};
use crate::real::Real;
use crate::update::{Blocks, Settings, UpdateRule};

/// All that a step changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelState<T> {
    /// θ, flat, in the objective's order.
    pub parameters: Vec<T>,
    /// Buffers, flat, in the objective's order.
    pub buffers: Vec<T>,
    /// The optimizer's state, flat ([`UpdateRule::state_tensors`]).
    pub optimizer: Vec<T>,
}

/// A batch, or a micro-batch of one, with its weights in the batch loss.
#[derive(Debug, Clone)]
pub struct WeightedBatch {
    /// The examples.
    pub batch: Batch,
    /// One weight a row.
    pub weights: Vec<f64>,
}

/// What all steps of a run have in common. Training, the check of a trace and counterfactual retraining take their steps
/// here: the same state, parts and settings give the same bits.
///
/// A step has two halves, because a trace records what lies between them: [`Stepper::gradient`] leaves the state alone,
/// [`Stepper::update`] changes it.
#[derive(Clone)]
pub struct Stepper<'a> {
    objective: &'a dyn Objective,
    rule: &'a UpdateRule,
    blocks: Blocks,
}

impl<'a> Stepper<'a> {
    /// For parameters that are all in one group.
    pub fn new(objective: &'a dyn Objective, rule: &'a UpdateRule) -> Self {
        Self::with_blocks(objective, rule, Blocks::of(objective.parameters()))
    }

    /// For parameters in groups.
    pub fn with_blocks(objective: &'a dyn Objective, rule: &'a UpdateRule, blocks: Blocks) -> Self {
        Self {
            objective,
            rule,
            blocks,
        }
    }

    /// The parameter tensors in the flat vectors.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The gradient of a step whose batch comes in one or several parts: their gradients are added in order, buffers go
    /// from part to part, and a penalty outside the examples' losses counts once.
    ///
    /// # Errors
    /// [`TrainError`] where lengths don't fit, there is no part, or the model fails.
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
        sum.ok_or_else(|| TrainError::Data("a step needs at least one part of a batch".into()))
    }

    /// Moves the state along a gradient; its buffers become the gradient's.
    ///
    /// `settings.trained` decides which tensors move: [`Gradient::trained`] in training, the recorded flags in a replay.
    ///
    /// # Errors
    /// [`TrainError::Update`] where lengths, flags or groups don't fit; the state is as before then.
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
