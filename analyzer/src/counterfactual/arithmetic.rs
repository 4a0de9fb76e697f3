//! Trains and evaluates counterfactual runs, with candle or with the kernels.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode, Split};
use hindcast_model::real::Real;
use hindcast_model::train::{
    self, EVALUATION_ROWS, Evaluation, Gradient, ModelState, Stepper, WeightedBatch,
};
use hindcast_model::update::Settings;

use super::start::{narrow, stepper};
use crate::engine::{ForwardPass, KernelEngine, ReplayEngine, StepInput};
use crate::error::Result;
use crate::run::recorded::RecordedRun;

/// The arithmetic that trains and evaluates counterfactual runs.
#[derive(Debug, Clone, Default)]
pub enum Arithmetic {
    /// candle's, as in the recorded run: with all examples it gives the recorded bits.
    #[default]
    Recorded,
    /// The kernels for this net, which are faster. They sum in another order, so with all examples the result differs
    /// from the recorded parameters by rounding, which may grow over the steps. The run with all examples, from which
    /// changes are measured, uses the kernels too.
    Kernels(Arc<Net>),
}

/// Computes steps and evaluates states.
pub(super) struct Trainer<'a> {
    run: &'a RecordedRun<'a>,
    stepper: Stepper<'a>,
    engine: Option<KernelEngine>,
    device: &'a Device,
}

fn wide<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.wide()).collect()
}

impl<'a> Trainer<'a> {
    /// # Errors
    /// If the net has a layer without kernels.
    pub fn new(
        run: &'a RecordedRun<'a>,
        arithmetic: &Arithmetic,
        device: &'a Device,
    ) -> Result<Self> {
        let engine = match arithmetic {
            Arithmetic::Recorded => None,
            Arithmetic::Kernels(net) => Some(KernelEngine::new(Arc::clone(net), run.dtype())?),
        };
        Ok(Self {
            run,
            stepper: stepper(run),
            engine,
            device,
        })
    }

    /// The step's gradient, summed over its parts.
    pub fn gradient<T: Real>(
        &mut self,
        state: &ModelState<T>,
        parts: &[WeightedBatch],
        draws: Draws,
    ) -> Result<Gradient<T>> {
        // A batch without examples has only the gradient of the penalty, for which the kernels aren't needed.
        let empty = parts.iter().any(|part| part.batch.indices.is_empty());
        let Some(engine) = self.engine.as_mut().filter(|_| !empty) else {
            return Ok(self.stepper.gradient(state, parts, draws)?);
        };
        let (batches, weights): (Vec<_>, Vec<_>) = parts
            .iter()
            .map(|part| (part.batch.clone(), part.weights.as_slice()))
            .unzip();
        let found = engine.gradient(&StepInput {
            parameters: (&wide(&state.parameters)).into(),
            buffers: (&wide(&state.buffers)).into(),
            micro_batches: &batches,
            weights: &weights.concat(),
            mode: Mode::Train,
            draws,
        })?;
        Ok(Gradient {
            loss: found.loss,
            per_example: found.per_example,
            gradient: narrow(&found.parameters),
            // Not used: which tensors are updated is recorded in the step's settings.
            trained: vec![true; self.run.objective().parameters().len()],
            buffers: narrow(&found.buffers_after),
        })
    }

    /// Updates the state with a gradient.
    pub fn update<T: Real>(
        &self,
        settings: &Settings,
        gradient: Gradient<T>,
        state: &mut ModelState<T>,
    ) -> Result<()> {
        Ok(self.stepper.update(settings, gradient, state)?)
    }

    /// Loss and errors on a split.
    pub fn evaluate<T: Real>(&mut self, state: &ModelState<T>, split: Split) -> Result<Evaluation> {
        let data = self.run.data();
        if self.engine.is_none() {
            return Ok(train::evaluate(
                self.run.objective().as_ref(),
                &state.parameters,
                &state.buffers,
                data,
                split,
                self.device,
            )?);
        }
        let indices: Vec<u64> = (0..data.len(split)).collect();
        let (mut sum, mut errors) = (0.0, Some(0));
        self.each(state, split, &indices, |forward, batch| {
            sum += forward.losses.iter().sum::<f64>();
            let rows = batch.indices.len();
            let outputs = forward.outputs.len() / rows.max(1);
            let outputs = Tensor::from_vec(forward.outputs, (rows, outputs), &Device::Cpu)
                .map_err(train::TrainError::from)?;
            errors = match (errors, train::errors(&outputs, batch)?) {
                (Some(all), Some(more)) => Some(all + more),
                _ => None,
            };
            Ok(())
        })?;
        let examples = indices.len() as u64;
        Ok(Evaluation {
            loss: sum / examples.max(1) as f64,
            errors: errors.filter(|_| examples > 0),
            examples,
        })
    }

    /// Losses of these examples.
    pub fn losses<T: Real>(
        &mut self,
        state: &ModelState<T>,
        split: Split,
        indices: &[u64],
    ) -> Result<Vec<f64>> {
        if self.engine.is_none() {
            return Ok(train::losses(
                self.run.objective().as_ref(),
                &state.parameters,
                &state.buffers,
                self.run.data(),
                split,
                indices,
                self.device,
            )?);
        }
        let mut losses = Vec::with_capacity(indices.len());
        self.each(state, split, indices, |forward, _| {
            losses.extend(forward.losses);
            Ok(())
        })?;
        Ok(losses)
    }

    /// Device of the states.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// The run.
    pub fn run(&self) -> &'a RecordedRun<'a> {
        self.run
    }

    fn each<T: Real>(
        &mut self,
        state: &ModelState<T>,
        split: Split,
        indices: &[u64],
        mut see: impl FnMut(ForwardPass, &Batch) -> Result<()>,
    ) -> Result<()> {
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        let (parameters, buffers) = (wide(&state.parameters), wide(&state.buffers));
        for indices in indices.chunks(EVALUATION_ROWS) {
            let batch = self
                .run
                .data()
                .batch(split, indices, None, T::DTYPE, self.device)
                .map_err(train::TrainError::from)?;
            let forward = engine.forward(&StepInput {
                parameters: (&parameters).into(),
                buffers: (&buffers).into(),
                weights: &vec![1.0; indices.len()],
                micro_batches: std::slice::from_ref(&batch),
                mode: Mode::Evaluate,
                draws: Draws { seed: 0, step: 0 },
            })?;
            see(forward, &batch)?;
        }
        Ok(())
    }
}
