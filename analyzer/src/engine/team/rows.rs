//! The rows of a batch, divided among ranks, for the autodiff engine.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_model::objective::{Mode, Objective};
use hindcast_model::vectors::norm;

use super::divided::Divided;
use super::wire::{self, Call};
use crate::engine::split::{Compared, SomeRows, repeated, some_rows, sums_up};
use crate::engine::{
    Directions, ForwardPass, Products, ReplayEngine, SplitEngine, StepGradient, StepInput, flat,
};
use crate::error::{AnalysisError, Doing, Result, Unsupported};
use crate::ranks::Ranks;

/// An autodiff engine per rank. The losses of a batch's rows must not depend on other rows, which the leader checks in the first
/// step and in a few later ones.
pub(super) struct Rows {
    engine: SplitEngine,
    ranks: Ranks,
    /// Which steps the leader checks; in training and in evaluation.
    compared: [Compared; 2],
}

impl Rows {
    /// # Errors
    /// If the model has running statistics, or as [`SplitEngine::new`].
    pub fn new(
        objective: &Arc<dyn Objective>,
        dtype: DType,
        threads: usize,
        rows_at_once: usize,
        ranks: &Ranks,
    ) -> Result<Self> {
        if flat::count(objective.buffers()) > 0 {
            return Err(AnalysisError::Unsupported(Unsupported::RanksAndStatistics));
        }
        let engine = SplitEngine::new(objective, dtype, threads, rows_at_once)?;
        Ok(Rows {
            // The part of the loss that rows share is counted once.
            engine: if ranks.leads() {
                engine
            } else {
                engine.without_shared()
            },
            ranks: ranks.clone(),
            compared: Default::default(),
        })
    }

    fn own(&self, input: &StepInput<'_>) -> Result<SomeRows> {
        some_rows(input, |n| self.ranks.part(n)).doing(|| "dividing a batch".to_owned())
    }

    /// Calls `pass` with this rank's rows, if it has any.
    fn pass<T>(
        &mut self,
        input: &StepInput<'_>,
        pass: impl FnOnce(&mut SplitEngine, &StepInput<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let some = self.own(input)?;
        if some.rows.is_empty() {
            return Ok(None);
        }
        let part = StepInput {
            micro_batches: &some.micro_batches,
            weights: &some.weights,
            ..*input
        };
        pass(&mut self.engine, &part).map(Some)
    }

    /// Puts the values of all ranks' rows in their places. There are equally many per row.
    fn gather(&self, input: &StepInput<'_>, own: &[f64]) -> Result<Vec<f64>> {
        let size = self.ranks.size();
        let counts = self.ranks.gather(&[own.len() as f64], &vec![1; size])?;
        let counts: Vec<usize> = counts.iter().map(|n| *n as usize).collect();
        let all = self.ranks.gather(own, &counts)?;
        let examples = input.examples();
        let by = all.len() / examples.max(1);
        let mut out = vec![0.0; all.len()];
        let mut rest = all.as_slice();
        for rank in 0..size {
            let mut offset = 0;
            for batch in input.micro_batches {
                let n = batch.indices.len();
                let rows = self.ranks.part_of(rank, n);
                let (values, after) = rest.split_at(by * rows.len());
                out[by * (offset + rows.start)..][..values.len()].copy_from_slice(values);
                rest = after;
                offset += n;
            }
        }
        Ok(out)
    }

    /// The sum over the ranks, complete on the leader only.
    fn sum(&self, own: Option<&[f64]>, len: usize) -> Result<Vec<f64>> {
        let mut sum = vec![0.0; len];
        self.ranks.receive_sum(&mut sum)?;
        for (sum, own) in sum.iter_mut().zip(own.unwrap_or_default()) {
            *sum += own;
        }
        self.ranks.pass_sum(&sum)?;
        Ok(sum)
    }

    /// The products of all rows, from those of this rank.
    fn join(
        &self,
        input: &StepInput<'_>,
        own: Option<Products>,
        adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let (p, queries) = (self.parameter_count(), adjoints.len());
        let mut out = Products {
            products: Vec::with_capacity(queries),
            terms: Vec::new(),
            hessian: Vec::with_capacity(queries),
            buffer_adjoints: adjoints.to_vec(),
            stopped: false,
        };
        let of = |all: fn(&Products) -> &Vec<Vec<f64>>, q: usize| {
            own.as_ref().and_then(|own| all(own).get(q).cloned())
        };
        for q in 0..queries {
            let products = of(|own| &own.products, q).unwrap_or_default();
            out.products.push(self.gather(input, &products)?);
            let hessian = of(|own| &own.hessian, q);
            out.hessian.push(self.sum(hessian.as_deref(), p)?);
            let terms = own.as_ref().and_then(|own| own.terms.get(q));
            let terms: Vec<f64> = terms.into_iter().flatten().flatten().copied().collect();
            let terms = self.gather(input, &terms)?;
            if !terms.is_empty() {
                let by = terms.len() / input.examples();
                out.terms
                    .push(terms.chunks_exact(by).map(<[f64]>::to_vec).collect());
            }
        }
        let stopped = own.is_some_and(|own| own.stopped);
        let all = self.sum(Some(&[f64::from(u8::from(stopped))]), 1)?;
        out.stopped = all.iter().any(|x| *x > 0.0);
        Ok(out)
    }

    /// The gradient of all rows.
    fn join_gradient(
        &self,
        input: &StepInput<'_>,
        own: Option<StepGradient>,
    ) -> Result<StepGradient> {
        let gradient = own.as_ref().map(|own| own.parameters.as_slice());
        let loss = own.as_ref().map_or(0.0, |own| own.loss);
        let losses = own.as_ref().map(|own| own.per_example.as_slice());
        Ok(StepGradient {
            parameters: self.sum(gradient, self.parameter_count())?,
            loss: self.sum(Some(&[loss]), 1)?.iter().sum(),
            per_example: self.gather(input, losses.unwrap_or_default())?,
            buffers: Vec::new(),
            buffers_after: Vec::new(),
        })
    }
}

impl Divided for Rows {
    fn rows_of(&self, rank: usize, _: Mode, examples: usize) -> Range<usize> {
        self.ranks.part_of(rank, examples)
    }

    fn differentiates_gradients(&self) -> bool {
        true
    }

    fn whole(&mut self, input: &StepInput<'_>) -> Option<&mut dyn ReplayEngine> {
        // The random numbers of an example that is twice in a batch depend on its place.
        let alone = self.ranks.size() == 1 || repeated(input);
        alone.then_some(&mut self.engine as &mut dyn ReplayEngine)
    }

    fn check(&mut self, input: &StepInput<'_>) -> Result<()> {
        let (_, due) = self.compared[usize::from(input.mode == Mode::Evaluate)].count();
        if !due {
            return Ok(());
        }
        wire::send_step(
            &self.ranks,
            &Call::Gradient,
            input,
            (&[], &[]),
            &|rank, n| self.ranks.part_of(rank, n),
        )?;
        let parts = self.gradient(input)?.parameters;
        let mut rest = self.engine.gradient(input)?.parameters;
        let size = norm(&rest) + norm(&parts);
        for (x, y) in rest.iter_mut().zip(&parts) {
            *x -= y;
        }
        if sums_up(&rest, size, self.dtype()) {
            return Ok(());
        }
        Err(AnalysisError::Unsupported(Unsupported::RanksAndRows))
    }
}

impl ReplayEngine for Rows {
    fn parameter_count(&self) -> usize {
        self.engine.parameter_count()
    }

    fn buffer_count(&self) -> usize {
        0
    }

    fn dtype(&self) -> DType {
        self.engine.dtype()
    }

    fn device(&self) -> &Device {
        self.engine.device()
    }

    fn rows_at_once(&self) -> usize {
        self.engine.rows_at_once()
    }

    fn parts(&self) -> usize {
        self.engine.parts()
    }

    fn forward(&mut self, input: &StepInput<'_>) -> Result<ForwardPass> {
        let own = self.pass(input, |engine, part| engine.forward(part))?;
        let of = |values: fn(&ForwardPass) -> &Vec<f64>| {
            own.as_ref().map(values).map_or(&[][..], Vec::as_slice)
        };
        Ok(ForwardPass {
            losses: self.gather(input, of(|own| &own.losses))?,
            outputs: self.gather(input, of(|own| &own.outputs))?,
        })
    }

    fn gradient_squares(&mut self, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>> {
        let own = self.pass(input, |engine, part| engine.gradient_squares(part, factors))?;
        self.gather(input, own.as_deref().unwrap_or_default())
    }

    fn gradient(&mut self, input: &StepInput<'_>) -> Result<StepGradient> {
        let own = self.pass(input, |engine, part| engine.gradient(part))?;
        self.join_gradient(input, own)
    }

    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let own = self.pass(input, |engine, part| {
            engine.products(part, directions, buffer_adjoints)
        })?;
        self.join(input, own, buffer_adjoints)
    }

    fn products_after(
        &mut self,
        input: &StepInput<'_>,
        directions: &mut Directions<'_>,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let ranks = self.ranks.clone();
        let p = self.parameter_count();
        // The leader chooses the directions when it has the whole gradient, and sends them to the others.
        let mut after = |own: &[f64]| -> Result<Vec<Vec<f64>>> {
            let mut gradient = vec![0.0; p];
            ranks.receive_sum(&mut gradient)?;
            for (sum, own) in gradient.iter_mut().zip(own) {
                *sum += own;
            }
            ranks.pass_sum(&gradient)?;
            let chosen = directions(&gradient)?;
            if ranks.leads() {
                for direction in &chosen {
                    wire::send_numbers(&ranks, direction)?;
                }
            }
            Ok(chosen)
        };
        let own = self.pass(input, |engine, part| {
            engine.products_after(part, &mut after, buffer_adjoints)
        })?;
        if own.is_none() {
            // A rank without rows takes part in the sum.
            after(&vec![0.0; p])?;
        }
        self.join(input, own, buffer_adjoints)
    }
}
