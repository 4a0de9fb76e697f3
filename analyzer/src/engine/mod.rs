//! Replay engines: what one recorded step says about a direction in parameter space.
//!
//! With per-example weights v, `f(θ, v) = Σ_j v_j ℓ_j(θ) + shared(θ)` and the scalar `a = <s, ∇_θ f> + <ρ, r_out>`, one
//! differentiation of a gives every per-example product `∂a/∂v_j = <s, g_j>`, the Hessian-vector product with the
//! running statistics' share `∂a/∂θ = H s + J_statᵀ ρ`, and the statistics' adjoint before the pass, `∂a/∂r_in`.

mod autodiff;
pub(crate) mod flat;
mod kernel;
mod worker;

pub use flat::variables;
pub use kernel::{Evaluation, KernelEngine};
pub use worker::AutodiffEngine;

use candle_core::{DType, Device};
use hindcast_model::objective::{Batch, Draws, Mode, Objective};

use crate::error::{AnalysisError, Result};

/// Which engine replays a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// [`KernelEngine`]: for the models of tasks, on the CPU.
    Kernels,
    /// [`AutodiffEngine`]: for any model, on any device.
    Autodiff,
}

impl EngineKind {
    /// The name on the command line and in the description of a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernels => "kernels",
            Self::Autodiff => "autodiff",
        }
    }
}

/// One step as an engine sees it. Vectors are flat: tensors back to back in the objective's order, row-major.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// θ_t, length p.
    pub parameters: &'a [f64],
    /// r_t, the buffers before the forward pass, length b.
    pub buffers: &'a [f64],
    /// The examples, one `Batch` a micro-batch, in the order of the forward passes; never empty, no empty batch.
    pub micro_batches: &'a [Batch],
    /// w, one weight an example over all micro-batches: the batch loss is `Σ_j w_j ℓ_j`.
    pub weights: &'a [f64],
    /// As trained, or as evaluated.
    pub mode: Mode,
    /// Key of the step's random draws.
    pub draws: Draws,
}

impl StepInput<'_> {
    /// |S|: number of examples over all micro-batches.
    pub fn examples(&self) -> usize {
        self.micro_batches.iter().map(|b| b.indices.len()).sum()
    }
}

/// What one double backward gives for Q directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Products {
    /// `<s, g_j>`, Q × |S|; g_j is the gradient of example j's unweighted loss.
    pub products: Vec<Vec<f64>>,
    /// `H s + J_statᵀ ρ`, Q × p; H belongs to the weighted batch loss with whatever it shares.
    pub hessian: Vec<Vec<f64>>,
    /// Adjoint of the buffers before the pass, Q × b.
    pub buffer_adjoints: Vec<Vec<f64>>,
}

/// What one backward gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// `Σ_j w_j ℓ_j` and what is shared.
    pub loss: f64,
    /// ∂loss/∂θ, length p; zero where a tensor takes no part.
    pub parameters: Vec<f64>,
    /// ∂loss/∂r, r being the buffers before the pass, length b.
    pub buffers: Vec<f64>,
    /// ℓ_j, length |S|.
    pub per_example: Vec<f64>,
    /// r after the pass, length b.
    pub buffers_after: Vec<f64>,
}

/// Computes, at one step, everything that a sweep needs to go one step back.
pub trait ReplayEngine {
    /// Number of parameters p.
    fn parameter_count(&self) -> usize;
    /// Number of buffer elements b.
    fn buffer_count(&self) -> usize;
    /// Element type in which the model is run; batches have to come in it.
    fn dtype(&self) -> DType;
    /// Where the model is run; batches have to lie there.
    fn device(&self) -> &Device;
    /// Bytes of the intermediate values of a pass over `examples` at once for `queries` directions, where the engine knows.
    fn pass_bytes(&self, examples: usize, queries: usize) -> Option<u64> {
        let _ = (examples, queries);
        None
    }
    /// Loss, gradient and per-example losses, without second derivatives.
    ///
    /// # Errors
    /// Where sizes don't fit, or the model fails.
    fn gradient(&mut self, input: &StepInput<'_>) -> Result<Gradient>;
    /// Products with `directions` s (Q × p), given the adjoints of the buffers after the pass ρ (Q × b).
    ///
    /// # Errors
    /// Where sizes don't fit, the model fails, or one of its operations has no second derivative.
    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[Vec<f64>],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products>;
}

/// A step must fit the model before any engine runs it.
fn check_step(objective: &dyn Objective, input: &StepInput<'_>) -> Result<()> {
    flat::check("parameters", input.parameters, objective.parameters())?;
    flat::check("buffers", input.buffers, objective.buffers())?;
    let examples = input.examples();
    if input.weights.len() != examples {
        return Err(AnalysisError::Mismatch {
            what: "weights".to_owned(),
            expected: format!("{examples}, one an example"),
            got: input.weights.len().to_string(),
            hint: "weights follow the order of the micro-batches' examples".to_owned(),
        });
    }
    if input.micro_batches.is_empty() || input.micro_batches.iter().any(|b| b.indices.is_empty()) {
        return Err(AnalysisError::EmptyMicroBatch);
    }
    Ok(())
}

/// Directions and adjoints must fit the model, and one another.
fn check_adjoints(
    objective: &dyn Objective,
    directions: &[Vec<f64>],
    buffer_adjoints: &[Vec<f64>],
) -> Result<()> {
    if directions.len() != buffer_adjoints.len() {
        return Err(AnalysisError::Mismatch {
            what: "buffer adjoints".to_owned(),
            expected: format!("one a direction ({})", directions.len()),
            got: buffer_adjoints.len().to_string(),
            hint: "give one a query, empty where the model has no buffers".to_owned(),
        });
    }
    for (s, rho) in directions.iter().zip(buffer_adjoints) {
        flat::check("direction", s, objective.parameters())?;
        flat::check("buffer adjoint", rho, objective.buffers())?;
    }
    Ok(())
}
