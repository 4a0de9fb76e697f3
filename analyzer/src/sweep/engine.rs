//! A sweep's wrapper around its replay engine: it measures time and applies the sweep's [`HessianTerm`].

use std::time::{Duration, Instant};

use candle_core::{DType, Device};

use super::propagation::HessianTerm;
use crate::engine::{
    Directions, ForwardPass, Products, ReplayEngine, StepGradient, StepInput, slices,
};
use crate::error::Result;

/// Wraps an engine, measures the time of its gradients and products, and changes its Hessian-vector products as a
/// [`HessianTerm`] says. Products with the examples' gradients stay unchanged.
pub(super) struct SweepEngine<'e> {
    engine: &'e mut dyn ReplayEngine,
    term: HessianTerm,
    spent: Duration,
}

impl<'e> SweepEngine<'e> {
    pub fn new(engine: &'e mut dyn ReplayEngine, term: HessianTerm) -> Self {
        SweepEngine {
            engine,
            term,
            spent: Duration::ZERO,
        }
    }

    /// Time spent in gradients and products so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Changes the Hessian term of products.
    ///
    /// An engine returns `H s + J_statᵀ ρ` as one sum, and only `H s` may change. If the model has running statistics, a
    /// second pass with s = 0 computes their share.
    fn changed(
        &mut self,
        input: &StepInput<'_>,
        mut out: Products,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let factor = match self.term {
            HessianTerm::Full => return Ok(out),
            HessianTerm::Dropped => 0.0,
            HessianTerm::DividedByBatch => 1.0 / input.examples() as f64,
        };
        let statistics = match self.engine.buffer_count() {
            0 => None,
            _ => {
                let zeros = vec![vec![0.0; self.engine.parameter_count()]; out.hessian.len()];
                Some(
                    self.engine
                        .products(input, &slices(&zeros), buffer_adjoints)?,
                )
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

impl ReplayEngine for SweepEngine<'_> {
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

    fn rows_at_once(&self) -> usize {
        self.engine.rows_at_once()
    }

    fn parts(&self) -> usize {
        self.engine.parts()
    }

    fn forward(&mut self, input: &StepInput<'_>) -> Result<ForwardPass> {
        self.engine.forward(input)
    }

    fn gradient_squares(&mut self, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>> {
        self.engine.gradient_squares(input, factors)
    }

    fn gradient(&mut self, input: &StepInput<'_>) -> Result<StepGradient> {
        let begun = Instant::now();
        let out = self.engine.gradient(input);
        self.spent += begun.elapsed();
        out
    }

    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let begun = Instant::now();
        let out = self.engine.products(input, directions, buffer_adjoints);
        let out = out.and_then(|out| self.changed(input, out, buffer_adjoints));
        self.spent += begun.elapsed();
        out
    }

    fn products_after(
        &mut self,
        input: &StepInput<'_>,
        directions: &mut Directions<'_>,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let begun = Instant::now();
        let mut elsewhere = Duration::ZERO;
        let mut timed = |gradient: &[f64]| {
            let begun = Instant::now();
            let found = directions(gradient);
            elsewhere += begun.elapsed();
            found
        };
        let out = self
            .engine
            .products_after(input, &mut timed, buffer_adjoints);
        let out = out.and_then(|out| self.changed(input, out, buffer_adjoints));
        self.spent += begun.elapsed().saturating_sub(elsewhere);
        out
    }
}
