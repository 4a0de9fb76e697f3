//! The model at fixed parameters, in evaluation mode: with running statistics, without dropout, augmentation and penalty.

use hindcast_model::objective::{Batch, Draws, Mode, Split};
use hindcast_model::vectors::add;

use crate::engine::{Products, ReplayEngine, StepInput, slices};
use crate::error::{AnalysisError, Result};
use crate::run::recorded::RecordedRun;
use crate::sweep::{Observer, Stage, tell};

/// A point in parameter space, with the training data.
pub(super) struct Still<'a> {
    pub run: &'a RecordedRun<'a>,
    pub parameters: &'a [f64],
    pub buffers: &'a [f64],
}

/// Products over all training examples.
pub(super) struct Everyone {
    /// `<s, g_j>`, Q × N.
    pub products: Vec<Vec<f64>>,
    /// `H s` of the mean loss over all training examples, Q × p.
    pub hessian: Vec<Vec<f64>>,
}

impl Still<'_> {
    /// Training examples without augmentation.
    pub fn batch(&self, engine: &dyn ReplayEngine, examples: &[u64]) -> Result<Batch> {
        self.run
            .data()
            .batch(
                Split::Train,
                examples,
                None,
                engine.dtype(),
                engine.device(),
            )
            .map_err(AnalysisError::from)
    }

    /// Products with Q directions for one chunk of examples, all with the same weight in `H s`.
    fn chunk(
        &self,
        engine: &mut dyn ReplayEngine,
        examples: &[u64],
        weight: f64,
        directions: &[Vec<f64>],
    ) -> Result<Products> {
        let batch = self.batch(engine, examples)?;
        engine.products(
            &StepInput {
                parameters: self.parameters.into(),
                buffers: self.buffers.into(),
                micro_batches: std::slice::from_ref(&batch),
                weights: &vec![weight; examples.len()],
                mode: Mode::Evaluate,
                draws: Draws { seed: 0, step: 0 },
            },
            &slices(directions),
            &vec![vec![0.0; self.buffers.len()]; directions.len()],
        )
    }

    /// `H s` of the mean loss over these examples, Q × p. Calls `after` after each chunk, with its number of examples.
    pub fn hessian(
        &self,
        engine: &mut dyn ReplayEngine,
        examples: &[u64],
        directions: &[Vec<f64>],
        after: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<Vec<f64>>> {
        let mut sum = vec![vec![0.0; self.parameters.len()]; directions.len()];
        let weight = 1.0 / examples.len() as f64;
        for chunk in examples.chunks(engine.rows_at_once()) {
            let part = self.chunk(engine, chunk, weight, directions)?;
            add_each(&mut sum, &part.hessian);
            after(chunk.len() as u64)?;
        }
        Ok(sum)
    }

    /// Products over all training examples. Reports progress to the observer, starting from `stage.done`.
    pub fn everyone(
        &self,
        engine: &mut dyn ReplayEngine,
        directions: &[Vec<f64>],
        mut stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<Everyone> {
        let examples: Vec<u64> = (0..self.run.examples() as u64).collect();
        let mut out = Everyone {
            products: vec![Vec::with_capacity(examples.len()); directions.len()],
            hessian: vec![vec![0.0; self.parameters.len()]; directions.len()],
        };
        let weight = 1.0 / examples.len() as f64;
        for chunk in examples.chunks(engine.rows_at_once()) {
            let part = self.chunk(engine, chunk, weight, directions)?;
            for (all, some) in out.products.iter_mut().zip(part.products) {
                all.extend(some);
            }
            add_each(&mut out.hessian, &part.hessian);
            stage.done += chunk.len() as u64;
            tell(observer, stage)?;
        }
        Ok(out)
    }
}

fn add_each(sum: &mut [Vec<f64>], part: &[Vec<f64>]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        add(sum, part);
    }
}
