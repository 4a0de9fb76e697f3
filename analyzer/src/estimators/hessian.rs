//! Sweeps that take the Hessian's term otherwise: ablations of SGD-influence, by a wrapper around any engine.

use candle_core::{DType, Device};

use crate::engine::{Gradient, Products, ReplayEngine, StepInput};
use crate::error::Result;

/// What a sweep does with the term `H_t s` of a step. Everything else that a step does to the adjoint (decay, momentum,
/// the moments of Adam, clipping, running statistics) stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HessianTerm {
    /// Takes it, as the derivation says.
    #[default]
    Full,
    /// Leaves it out.
    Dropped,
    /// Divides it by the number of examples of the step, on top of the mean's own division.
    DividedByBatch,
}

impl HessianTerm {
    /// Name of the method that sweeps so.
    pub fn method(self) -> &'static str {
        match self {
            Self::Full => "sgd",
            Self::Dropped => "hessian-free",
            Self::DividedByBatch => "released-rule",
        }
    }
}

/// An engine whose Hessian-vector products are changed as a [`HessianTerm`] says; products with the examples' gradients
/// are the wrapped engine's own.
pub struct WithHessian<'e> {
    engine: &'e mut dyn ReplayEngine,
    term: HessianTerm,
}

impl<'e> WithHessian<'e> {
    /// Wraps an engine.
    pub fn new(engine: &'e mut dyn ReplayEngine, term: HessianTerm) -> Self {
        Self { engine, term }
    }
}

impl ReplayEngine for WithHessian<'_> {
    fn parameter_count(&self) -> usize {
        self.engine.parameter_count()
    }

    fn buffer_count(&self) -> usize {
        self.engine.buffer_count()
    }

    fn dtype(&self) -> DType {
        self.engine.dtype()
    }

    fn device(&self) -> &Device {
        self.engine.device()
    }

    fn pass_bytes(&self, examples: usize, queries: usize) -> Option<u64> {
        self.engine.pass_bytes(examples, queries)
    }

    fn gradient(&mut self, input: &StepInput<'_>) -> Result<Gradient> {
        self.engine.gradient(input)
    }

    /// An engine gives `H s + J_statᵀ ρ` as one sum. Where a model has running statistics, their share is what it gives for
    /// s = 0, in a pass of its own.
    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[Vec<f64>],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let mut out = self.engine.products(input, directions, buffer_adjoints)?;
        let factor = match self.term {
            HessianTerm::Full => return Ok(out),
            HessianTerm::Dropped => 0.0,
            HessianTerm::DividedByBatch => 1.0 / input.examples() as f64,
        };
        let statistics = match self.engine.buffer_count() {
            0 => None,
            _ => {
                let nowhere: Vec<Vec<f64>> =
                    directions.iter().map(|s| vec![0.0; s.len()]).collect();
                Some(self.engine.products(input, &nowhere, buffer_adjoints)?)
            }
        };
        for (q, sum) in out.hessian.iter_mut().enumerate() {
            match &statistics {
                None => sum.iter_mut().for_each(|x| *x *= factor),
                Some(statistics) => {
                    for (x, &share) in sum.iter_mut().zip(&statistics.hessian[q]) {
                        *x = share + factor * (*x - share);
                    }
                }
            }
        }
        Ok(out)
    }
}
