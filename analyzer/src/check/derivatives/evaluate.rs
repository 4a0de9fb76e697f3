//! Evaluates an objective near the point of a check, in one float type on the CPU.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use hindcast_model::objective::{Batch, Mode, Objective, Pass};
use hindcast_model::own::{with_constants, without_rounding};

use super::point::CheckPoint;
use super::precision::Precision;
use crate::engine::{
    AutodiffEngine, Products, ReplayEngine, StepGradient, StepInput, caught, flat,
};
use crate::error::{Doing, Result, Unsupported};

/// Evaluates the batch loss, its derivatives and the per-example losses. All examples have the same weight.
pub(super) struct Evaluator<'a> {
    pub objective: &'a dyn Objective,
    pub point: &'a CheckPoint<'a>,
    pub precision: &'static Precision,
    engine: AutodiffEngine,
    batch: Batch,
    weights: Vec<f64>,
    /// Values of the constants of a training step's gradient at the point, in order.
    constants: Vec<Tensor>,
}

/// The values of a forward pass.
pub(super) struct Values {
    /// `Σ_j w_j ℓ_j` plus the shared part.
    pub loss: f64,
    /// ℓ_j.
    pub per_example: Vec<f64>,
    /// Values of the constants of the gradient.
    pub constants: Vec<Tensor>,
    /// Number of terms whose sum is the loss of an example; `None` if the loss has no terms.
    pub terms: Option<usize>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(
        objective: &'a Arc<dyn Objective>,
        point: &'a CheckPoint<'a>,
        precision: &'static Precision,
    ) -> Result<Self> {
        let examples = point.batch.indices.len();
        let engine = AutodiffEngine::new(Arc::clone(objective), precision.dtype, &Device::Cpu)?;
        Ok(Evaluator {
            objective: objective.as_ref(),
            point,
            precision,
            engine,
            batch: batch_in(point.batch, precision)?,
            weights: vec![1.0 / examples as f64; examples],
            constants: Vec::new(),
        })
    }

    /// Holds the constants of a training step's gradient at these values in all later passes without a graph: of that
    /// function of θ, the step's gradient is the gradient.
    pub(super) fn hold(&mut self, constants: Vec<Tensor>) {
        self.constants = constants;
    }

    /// The held constants. Empty if the loss has no stop-gradients.
    pub(super) fn constants(&self) -> &[Tensor] {
        &self.constants
    }

    /// The batch, in the float type of the check.
    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// A forward pass without a graph.
    ///
    /// # Errors
    /// The model fails, or its losses are of another float type.
    pub(super) fn values(&self, theta: &[f64], r: &[f64], mode: Mode) -> Result<Values> {
        caught("running the model", || self.values_uncaught(theta, r, mode))
    }

    fn values_uncaught(&self, theta: &[f64], r: &[f64], mode: Mode) -> Result<Values> {
        let dtype = self.precision.dtype;
        let on_device = |values, defs| flat::tensors(values, defs, 1.0, dtype, &Device::Cpu);
        let running = || format!("running the model on a batch of {}", self.weights.len());
        let losses = on_device(theta, self.objective.parameters())
            .and_then(|parameters| {
                let buffers = on_device(r, self.objective.buffers())?;
                let pass = Pass {
                    parameters: &parameters,
                    buffers: &buffers,
                    batch: &self.batch,
                    mode,
                    draws: self.point.draws,
                };
                holding(&self.constants, || self.objective.losses(&pass))
            })
            .doing(running)?;
        if losses.per_example.dtype() != dtype {
            return Err(Unsupported::LossesInOtherType {
                losses: losses.per_example.dtype(),
                model: dtype,
            }
            .into());
        }
        let flat_values = |t: &Tensor| flat::values(t).doing(running);
        let per_example = flat_values(&losses.per_example)?;
        let shared = match &losses.shared {
            Some(shared) => flat_values(shared)?.iter().sum(),
            None => 0.0,
        };
        let weighted = per_example.iter().zip(&self.weights).map(|(l, w)| l * w);
        Ok(Values {
            loss: weighted.sum::<f64>() + shared,
            per_example,
            terms: losses
                .terms
                .as_ref()
                .map(|terms| terms.dims().iter().skip(1).product()),
            constants: losses
                .stopped
                .iter()
                .map(|stop| stop.constant.as_detached_tensor())
                .collect(),
        })
    }

    /// The loss of the batch and its gradient at (θ, r).
    pub(super) fn gradient(
        &mut self,
        theta: &[f64],
        r: &[f64],
        mode: Mode,
    ) -> Result<StepGradient> {
        self.engine.gradient(&StepInput {
            parameters: theta.into(),
            buffers: r.into(),
            micro_batches: std::slice::from_ref(&self.batch),
            weights: &self.weights,
            mode,
            draws: self.point.draws,
        })
    }

    /// The products of a training step with the directions `s`, at the point.
    pub(super) fn products(&mut self, s: &[&[f64]], rho: &[Vec<f64>]) -> Result<Products> {
        let input = StepInput {
            parameters: self.point.parameters.into(),
            buffers: self.point.buffers.into(),
            micro_batches: std::slice::from_ref(&self.batch),
            weights: &self.weights,
            mode: Mode::Train,
            draws: self.point.draws,
        };
        self.engine.products(&input, s, rho)
    }
}

/// The batch with its floats in another type. Token ids and classes stay integers.
fn batch_in(batch: &Batch, precision: &Precision) -> Result<Batch> {
    let floats = |t: &Tensor| {
        if t.dtype().is_float() {
            t.to_dtype(precision.dtype)
        } else {
            Ok(t.clone())
        }
    };
    let converted = floats(&batch.inputs).and_then(|inputs| {
        Ok(Batch {
            indices: batch.indices.clone(),
            inputs,
            targets: floats(&batch.targets)?,
        })
    });
    converted.doing(|| format!("converting a batch to {}", precision.name))
}

/// Runs a pass with these constants held, if there are any, in the float type of the pass.
pub(super) fn holding<T>(constants: &[Tensor], pass: impl FnOnce() -> T) -> T {
    if constants.is_empty() {
        without_rounding(pass)
    } else {
        with_constants(constants, || without_rounding(pass))
    }
}
