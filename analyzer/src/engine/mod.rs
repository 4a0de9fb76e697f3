//! Replay engines: the derivatives of one recorded step along directions in parameter space.
//!
//! Let `f(θ, v) = Σ_j v_j ℓ_j(θ) + shared(θ)` be the batch loss with per-example weights v, and let
//! `a = <s, ∇_θ f> + <ρ, r_out>`, a scalar. Differentiating a once gives three results:
//! - `∂a/∂v_j = <s, g_j>`, the product with each example's gradient;
//! - `∂a/∂θ = H s + J_statᵀ ρ`, the Hessian-vector product plus the share of the running statistics;
//! - `∂a/∂r_in`, the adjoint of the running statistics before the forward pass.

mod autodiff;
pub(crate) mod flat;
mod kernel;
mod split;
mod stop;
pub mod team;
mod worker;

pub(crate) use autodiff::DIFFERENTIATING;
pub use flat::variables;
pub use kernel::KernelEngine;
pub(crate) use split::SplitEngine;
pub use worker::AutodiffEngine;
pub(crate) use worker::caught;

use candle_core::{DType, Device};
use hindcast_model::objective::{Batch, Draws, Mode, Objective, TensorDef};
use hindcast_model::train::EVALUATION_ROWS;
use hindcast_model::vectors::dot;

use crate::error::{AnalysisError, Result};
use crate::run::floats::FloatSlice;

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
    /// The name that command lines and the metadata of tables use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernels => "kernels",
            Self::Autodiff => "autodiff",
        }
    }
}

/// One step as the input of an engine. All fields are borrowed, so that recorded steps and other vectors are not copied.
///
/// Vectors are flat: tensors back to back in the objective's order, row-major.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// θ_t, length p.
    pub parameters: FloatSlice<'a>,
    /// r_t, the buffers before the forward pass, length b.
    pub buffers: FloatSlice<'a>,
    /// The examples, one `Batch` per micro-batch, in the order of the forward passes. Neither the list nor a batch is
    /// empty.
    pub micro_batches: &'a [Batch],
    /// w, one weight per example over all micro-batches: the batch loss is `Σ_j w_j ℓ_j`.
    pub weights: &'a [f64],
    /// Training or evaluation mode.
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

/// Result of one double backward pass for Q directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Products {
    /// `<s, g_j>`, Q × |S|; g_j is the gradient of example j's unweighted loss.
    pub products: Vec<Vec<f64>>,
    /// `<s, ∇τ>` of each term τ of each example's loss, Q × |S| × P; empty if the objective doesn't say its losses' terms.
    /// The sum over the terms is the product.
    pub terms: Vec<Vec<Vec<f64>>>,
    /// `H s + J_statᵀ ρ`, Q × p. H is the Hessian of the weighted batch loss including the shared terms.
    pub hessian: Vec<Vec<f64>>,
    /// Adjoint of the buffers before the pass, Q × b.
    pub buffer_adjoints: Vec<Vec<f64>>,
    /// Whether the loss has stop-gradients. Then `hessian` is `Jᵀ s` for the Jacobian J of the step's gradient, which isn't
    /// symmetric.
    pub stopped: bool,
}

/// Result of one backward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct StepGradient {
    /// `Σ_j w_j ℓ_j` plus the shared terms.
    pub loss: f64,
    /// ∂loss/∂θ, length p; zero where the loss doesn't depend on a tensor.
    pub parameters: Vec<f64>,
    /// ∂loss/∂r, where r are the buffers before the pass; length b.
    pub buffers: Vec<f64>,
    /// ℓ_j, length |S|.
    pub per_example: Vec<f64>,
    /// r after the pass, length b.
    pub buffers_after: Vec<f64>,
}

/// Result of a forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardPass {
    /// ℓ_j including its share of a penalty inside the loss, length |S|.
    pub losses: Vec<f64>,
    /// The model's outputs, (|S|, outputs), row-major. Empty if they have more than two dimensions, so that an example's
    /// outputs aren't a list of values; the kernels flatten them instead.
    pub outputs: Vec<f64>,
}

/// Returns the directions (Q × p) of a step from its gradient (p).
pub type Directions<'a> = dyn FnMut(&[f64]) -> Result<Vec<Vec<f64>>> + 'a;

/// Computes the derivatives of one step that a sweep needs.
pub trait ReplayEngine {
    /// Number of parameters p.
    fn parameter_count(&self) -> usize;
    /// Number of buffer elements b.
    fn buffer_count(&self) -> usize;
    /// Element type of the computation. Batches must have this type.
    fn dtype(&self) -> DType;
    /// Device of the computation. Batches must be on this device.
    fn device(&self) -> &Device;
    /// Bytes of the intermediate values of one pass over `examples` for `queries` directions; `None` if the engine
    /// doesn't know.
    fn pass_bytes(&self, examples: usize, queries: usize) -> Option<u64> {
        let _ = (examples, queries);
        None
    }
    /// Number of examples of a batch that is not a step's, such as a part of a split. More need more memory.
    fn rows_at_once(&self) -> usize {
        EVALUATION_ROWS
    }
    /// Number of parts of a batch that are computed at the same time, each with parameters and products of its own.
    fn parts(&self) -> usize {
        1
    }
    /// Losses and outputs of the examples of all micro-batches, without derivatives.
    ///
    /// # Errors
    /// Sizes don't fit, or the model fails.
    fn forward(&mut self, input: &StepInput<'_>) -> Result<ForwardPass>;
    /// `Σ_k f_k ‖g_{j,k}‖²` of each example, length |S|. g_{j,k} is the part of g_j that belongs to parameter tensor k, and
    /// `factors` are the f_k. As in [`Products`], g_j is the gradient of example j's unweighted loss in its batch. The
    /// weights of `input` are not used.
    ///
    /// # Errors
    /// Sizes don't fit, or the model fails.
    fn gradient_squares(&mut self, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>>;
    /// Loss, gradient and per-example losses, without second derivatives.
    ///
    /// # Errors
    /// If sizes don't fit, or the model fails.
    fn gradient(&mut self, input: &StepInput<'_>) -> Result<StepGradient>;
    /// Products with `directions` s (Q × p), given the adjoints ρ (Q × b) of the buffers after the pass.
    ///
    /// # Errors
    /// If sizes don't fit, the model fails, or one of its operations has no second derivative.
    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products>;
    /// As [`products`](Self::products), for directions that depend on the step's gradient. `directions` gets the gradient
    /// (p) and returns them (Q × p). An engine that can differentiate its own gradient computes it only once.
    ///
    /// # Errors
    /// As [`products`](Self::products), and those of `directions`.
    fn products_after(
        &mut self,
        input: &StepInput<'_>,
        directions: &mut Directions<'_>,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        one_after_the_other(self, input, directions, buffer_adjoints)
    }
}

/// [`ReplayEngine::products_after`] by a pass for the gradient and another one for the products.
fn one_after_the_other<E: ReplayEngine + ?Sized>(
    engine: &mut E,
    input: &StepInput<'_>,
    directions: &mut Directions<'_>,
    buffer_adjoints: &[Vec<f64>],
) -> Result<Products> {
    let gradient = engine.gradient(input)?.parameters;
    let directions = directions(&gradient)?;
    engine.products(input, &slices(&directions), buffer_adjoints)
}

/// Borrows each vector, to pass them to [`ReplayEngine::products`] as directions.
pub fn slices(vectors: &[Vec<f64>]) -> Vec<&[f64]> {
    vectors.iter().map(Vec::as_slice).collect()
}

/// Checks that a step fits the model.
fn check_step(objective: &dyn Objective, input: &StepInput<'_>) -> Result<()> {
    flat::check("parameters", input.parameters.len(), objective.parameters())?;
    flat::check("buffers", input.buffers.len(), objective.buffers())?;
    let examples = input.examples();
    if input.weights.len() != examples {
        return Err(AnalysisError::Mismatch {
            what: "weights".to_owned(),
            expected: format!("{examples}, one per example"),
            got: input.weights.len().to_string(),
            hint: "weights follow the order of the micro-batches' examples".to_owned(),
        });
    }
    if input.micro_batches.is_empty() || input.micro_batches.iter().any(|b| b.indices.is_empty()) {
        return Err(AnalysisError::EmptyMicroBatch);
    }
    Ok(())
}

/// Checks that there is a factor per parameter tensor.
fn check_factors(objective: &dyn Objective, factors: &[f64]) -> Result<()> {
    let tensors = objective.parameters().len();
    if factors.len() == tensors {
        return Ok(());
    }
    Err(AnalysisError::Mismatch {
        what: "factors of squared gradients".to_owned(),
        expected: format!("{tensors}, one per parameter tensor"),
        got: factors.len().to_string(),
        hint: "factors follow the order of the objective's parameters".to_owned(),
    })
}

/// `Σ_k f_k ‖g_k‖²` over the parts of a flat gradient.
fn square(gradient: &[f64], tensors: &[TensorDef], factors: &[f64]) -> f64 {
    let mut start = 0;
    let parts = tensors.iter().zip(factors).map(|(def, factor)| {
        let part = &gradient[start..start + flat::elements(def)];
        start += part.len();
        factor * dot(part, part)
    });
    parts.sum()
}

/// Checks that directions and adjoints fit the model and each other.
fn check_adjoints(
    objective: &dyn Objective,
    directions: &[&[f64]],
    buffer_adjoints: &[Vec<f64>],
) -> Result<()> {
    if directions.len() != buffer_adjoints.len() {
        return Err(AnalysisError::Mismatch {
            what: "buffer adjoints".to_owned(),
            expected: format!("one per direction ({})", directions.len()),
            got: buffer_adjoints.len().to_string(),
            hint: "give one per query, empty if the model has no buffers".to_owned(),
        });
    }
    for (s, rho) in directions.iter().zip(buffer_adjoints) {
        flat::check("direction", s.len(), objective.parameters())?;
        flat::check("buffer adjoint", rho.len(), objective.buffers())?;
    }
    Ok(())
}
