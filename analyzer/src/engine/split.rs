//! A step's batch in parts, which are differentiated at the same time.
//!
//! candle computes most operations on one thread. If the loss of an example doesn't depend on the other examples of its batch,
//! the rows of a batch can be divided among threads: gradients and Hessian products are sums over the rows. This is so if the
//! model has no batch statistics, and no other operation mixes rows. The latter can't be seen from outside, so the gradient of the
//! whole batch is compared with the sum over its parts, in the first step and in a few later ones.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_model::objective::{Batch, Mode, Objective};
use hindcast_model::ops::second_order::MOST_BACKWARD_PASSES;
use hindcast_model::vectors::{add, norm};

use super::worker::SentInput;
use super::{
    AutodiffEngine, Directions, ForwardPass, Products, ReplayEngine, StepGradient, StepInput,
    one_after_the_other,
};
use crate::error::{AnalysisError, Doing, Result, Unsupported};

/// After the first step, these are compared too: every 16th, then every 256th, and so on.
const COMPARED_NEXT: u64 = 16;

/// Largest difference between the gradient of a batch and the sum over its parts, relative to the parts' norms. Rounding is
/// far below it. Rows that influence each other are far above it, unless their influence doesn't matter.
const ROUNDING: [f64; 2] = [1e-4, 1e-9];

/// An [`AutodiffEngine`] per part.
pub(crate) struct SplitEngine {
    /// The first one also computes whole batches.
    engines: Vec<AutodiffEngine>,
    /// Which steps are compared; in training and in evaluation.
    compared: [Compared; 2],
    /// Whether the parts' losses contain the shared part of a step's loss.
    with_shared: bool,
}

/// Number of split steps, and the next one that is compared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Compared {
    steps: u64,
    next: u64,
}

impl Compared {
    /// Counts a step. Returns its number and whether it is compared.
    pub(super) fn count(&mut self) -> (u64, bool) {
        let (step, due) = (self.steps, self.steps == self.next);
        self.steps += 1;
        if due {
            self.next = self.next.max(1) * COMPARED_NEXT;
        }
        (step, due)
    }
}

/// Whether a batch's gradient is the sum over its parts, up to rounding. `size` is the sum of the norms of the batch's gradient
/// and of those of the parts, and `rest` is the difference.
pub(super) fn sums_up(rest: &[f64], size: f64, dtype: DType) -> bool {
    let rounding = ROUNDING[usize::from(dtype == DType::F64)];
    // Values that aren't finite are reported where they are used.
    !size.is_finite() || norm(rest) <= rounding * size
}

/// Some rows of a step.
struct Part {
    input: SentInput,
    /// Their positions among the step's examples.
    rows: Vec<usize>,
}

impl SplitEngine {
    /// An engine of at most `parts` threads, on the CPU.
    ///
    /// # Errors
    /// As [`AutodiffEngine::new`].
    pub fn new(
        objective: &Arc<dyn Objective>,
        dtype: DType,
        parts: usize,
        rows_at_once: usize,
    ) -> Result<Self> {
        // Running statistics are those of whole batches.
        let parts = if objective.buffers().is_empty() {
            parts.clamp(1, MOST_BACKWARD_PASSES)
        } else {
            1
        };
        let engine = || AutodiffEngine::new(Arc::clone(objective), dtype, &Device::Cpu);
        let engines = (0..parts).map(|_| Ok(engine()?.with_rows_at_once(rows_at_once)));
        Ok(SplitEngine {
            engines: engines.collect::<Result<_>>()?,
            compared: Default::default(),
            with_shared: true,
        })
    }

    /// Leaves the shared part out of the steps' losses, because another engine computes it.
    #[must_use]
    pub(super) fn without_shared(mut self) -> Self {
        self.with_shared = false;
        self.engines = self
            .engines
            .into_iter()
            .map(AutodiffEngine::without_shared)
            .collect();
        self
    }

    fn whole(&mut self) -> &mut AutodiffEngine {
        &mut self.engines[0]
    }

    /// The parts of a step. `None` if it isn't split.
    fn divided(&mut self, input: &StepInput<'_>) -> Result<Option<Vec<Part>>> {
        let count = self.engines.len();
        if count == 1 || input.weights.len() != input.examples() || repeated(input) {
            return Ok(None);
        }
        let parts = self.parts_of(input)?;
        if parts.len() < 2 {
            return Ok(None);
        }
        let compared = &mut self.compared[usize::from(input.mode == Mode::Evaluate)];
        let (step, due) = compared.count();
        if due && !self.independent(input)? {
            if step > 0 {
                return Err(AnalysisError::Unsupported(Unsupported::RowsDepend));
            }
            self.engines.truncate(1);
            return Ok(None);
        }
        Ok(Some(parts))
    }

    fn parts_of(&self, input: &StepInput<'_>) -> Result<Vec<Part>> {
        divide(input, self.engines.len(), self.with_shared).doing(|| "dividing a batch".to_owned())
    }

    /// Whether the gradient of the batch is the sum over its parts.
    fn independent(&mut self, input: &StepInput<'_>) -> Result<bool> {
        let parts = self.parts_of(input)?;
        let mut rest = self.whole().gradient(input)?.parameters;
        let mut size = norm(&rest);
        for part in self.gradients(parts)? {
            size += norm(&part.1.parameters);
            for (x, y) in rest.iter_mut().zip(&part.1.parameters) {
                *x -= y;
            }
        }
        Ok(sums_up(&rest, size, self.dtype()))
    }

    /// The gradient of each part, with the positions of its examples.
    fn gradients(&self, parts: Vec<Part>) -> Result<Vec<(Vec<usize>, StepGradient)>> {
        let begun: Vec<_> = self
            .engines
            .iter()
            .zip(parts)
            .map(|(engine, part)| Ok((part.rows, engine.begin_gradient(part.input)?)))
            .collect::<Result<_>>()?;
        begun
            .into_iter()
            .map(|(rows, answer)| Ok((rows, answer.wait()?)))
            .collect()
    }
}

impl ReplayEngine for SplitEngine {
    fn parameter_count(&self) -> usize {
        self.engines[0].parameter_count()
    }

    fn buffer_count(&self) -> usize {
        self.engines[0].buffer_count()
    }

    fn dtype(&self) -> DType {
        self.engines[0].dtype()
    }

    fn device(&self) -> &Device {
        self.engines[0].device()
    }

    fn rows_at_once(&self) -> usize {
        self.engines[0].rows_at_once()
    }

    fn parts(&self) -> usize {
        self.engines.len()
    }

    fn forward(&mut self, input: &StepInput<'_>) -> Result<ForwardPass> {
        // Without derivatives, candle needs little memory and time.
        self.whole().forward(input)
    }

    fn gradient_squares(&mut self, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>> {
        let Some(parts) = self.divided(input)? else {
            return self.whole().gradient_squares(input, factors);
        };
        let begun: Vec<_> = self
            .engines
            .iter()
            .zip(parts)
            .map(|(engine, part)| Ok((part.rows, engine.begin_squares(part.input, factors)?)))
            .collect::<Result<_>>()?;
        let mut out = vec![0.0; input.examples()];
        for (rows, answer) in begun {
            scatter(&mut out, &rows, answer.wait()?);
        }
        Ok(out)
    }

    fn gradient(&mut self, input: &StepInput<'_>) -> Result<StepGradient> {
        let Some(parts) = self.divided(input)? else {
            return self.whole().gradient(input);
        };
        let mut out = StepGradient {
            loss: 0.0,
            parameters: vec![0.0; input.parameters.len()],
            buffers: Vec::new(),
            per_example: vec![0.0; input.examples()],
            buffers_after: Vec::new(),
        };
        for (rows, part) in self.gradients(parts)? {
            out.loss += part.loss;
            add(&mut out.parameters, &part.parameters);
            scatter(&mut out.per_example, &rows, part.per_example);
        }
        Ok(out)
    }

    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let Some(parts) = self.divided(input)? else {
            return self.whole().products(input, directions, buffer_adjoints);
        };
        let begun: Vec<_> = self
            .engines
            .iter()
            .zip(parts)
            .map(|(engine, part)| {
                let answer = engine.begin_products(part.input, directions, buffer_adjoints)?;
                Ok((part.rows, answer))
            })
            .collect::<Result<_>>()?;
        let mut out = Joined::new(input, directions.len(), buffer_adjoints);
        for (rows, answer) in begun {
            out.add(&rows, answer.wait()?);
        }
        Ok(out.0)
    }

    fn products_after(
        &mut self,
        input: &StepInput<'_>,
        directions: &mut Directions<'_>,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        if input.micro_batches.len() != 1 {
            return one_after_the_other(self, input, directions, buffer_adjoints);
        }
        let Some(parts) = self.divided(input)? else {
            return self
                .whole()
                .products_after(input, directions, buffer_adjoints);
        };
        let begun: Vec<_> = self
            .engines
            .iter()
            .zip(parts)
            .map(|(engine, part)| {
                let begun = engine.begin_products_after(part.input, buffer_adjoints)?;
                Ok((part.rows, begun))
            })
            .collect::<Result<_>>()?;
        let mut gradient = Some(vec![0.0; input.parameters.len()]);
        for (_, part) in &begun {
            let part = part.gradient();
            gradient = gradient.zip(part).map(|(mut sum, part)| {
                add(&mut sum, &part);
                sum
            });
        }
        let mut queries = buffer_adjoints.len();
        // Without the gradient, a part has failed. Its error comes below.
        if let Some(gradient) = gradient {
            let found = directions(&gradient)?;
            queries = found.len();
            for (_, part) in &begun {
                part.give(found.clone());
            }
        }
        let mut out = Joined::new(input, queries, buffer_adjoints);
        for answer in finish(begun) {
            let (rows, part) = answer?;
            out.add(&rows, part);
        }
        Ok(out.0)
    }
}

/// Finishes all parts, and returns the error of a part that failed rather than that of one that waited for it.
fn finish(begun: Vec<(Vec<usize>, super::worker::Begun)>) -> Vec<Result<(Vec<usize>, Products)>> {
    let mut answers: Vec<_> = begun
        .into_iter()
        .map(|(rows, part)| part.finish().map(|part| (rows, part)))
        .collect();
    answers.sort_by_key(|answer| matches!(answer, Ok(_) | Err(AnalysisError::EngineGone)));
    answers
}

/// Products of a whole step.
struct Joined(Products);

impl Joined {
    fn new(input: &StepInput<'_>, queries: usize, buffer_adjoints: &[Vec<f64>]) -> Self {
        Joined(Products {
            products: vec![vec![0.0; input.examples()]; queries],
            terms: Vec::new(),
            hessian: vec![vec![0.0; input.parameters.len()]; queries],
            buffer_adjoints: buffer_adjoints.to_vec(),
            stopped: false,
        })
    }

    fn add(&mut self, rows: &[usize], part: Products) {
        let all = self.0.products.first().map_or(0, Vec::len);
        for (to, from) in self.0.products.iter_mut().zip(part.products) {
            scatter(to, rows, from);
        }
        for (to, from) in self.0.hessian.iter_mut().zip(&part.hessian) {
            add(to, from);
        }
        if self.0.terms.is_empty() {
            self.0.terms = vec![vec![Vec::new(); all]; part.terms.len()];
        }
        for (to, from) in self.0.terms.iter_mut().zip(part.terms) {
            scatter(to, rows, from);
        }
        self.0.stopped |= part.stopped;
    }
}

/// Puts the values of some rows in their places.
pub(super) fn scatter<T>(to: &mut [T], rows: &[usize], values: Vec<T>) {
    for (&row, value) in rows.iter().zip(values) {
        to[row] = value;
    }
}

/// Whether a batch has an example twice. Its random numbers then depend on which of them comes first.
pub(super) fn repeated(input: &StepInput<'_>) -> bool {
    input.micro_batches.iter().any(|batch| {
        let mut sorted = batch.indices.clone();
        sorted.sort_unstable();
        sorted.windows(2).any(|pair| pair[0] == pair[1])
    })
}

/// Divides the rows of each micro-batch evenly. There are fewer parts if all micro-batches have fewer rows.
fn divide(
    input: &StepInput<'_>,
    count: usize,
    with_shared: bool,
) -> candle_core::Result<Vec<Part>> {
    let parameters = Arc::new(input.parameters.into());
    let mut parts = Vec::with_capacity(count);
    for k in 0..count {
        let some = some_rows(input, |n| n * k / count..n * (k + 1) / count)?;
        if some.rows.is_empty() {
            continue;
        }
        parts.push(Part {
            input: SentInput {
                parameters: Arc::clone(&parameters),
                buffers: input.buffers.into(),
                micro_batches: some.micro_batches,
                weights: some.weights,
                mode: input.mode,
                draws: input.draws,
                with_shared: with_shared && parts.is_empty(),
            },
            rows: some.rows,
        });
    }
    Ok(parts)
}

/// Some rows of the micro-batches of a step.
pub(super) struct SomeRows {
    /// Those that have such rows.
    pub micro_batches: Vec<Batch>,
    pub weights: Vec<f64>,
    /// Their positions among the step's examples.
    pub rows: Vec<usize>,
}

/// The rows `of(n)` of each micro-batch of n rows.
pub(super) fn some_rows(
    input: &StepInput<'_>,
    of: impl Fn(usize) -> Range<usize>,
) -> candle_core::Result<SomeRows> {
    let mut some = SomeRows {
        micro_batches: Vec::new(),
        weights: Vec::new(),
        rows: Vec::new(),
    };
    let mut offset = 0;
    for batch in input.micro_batches {
        let n = batch.indices.len();
        let rows = of(n);
        if !rows.is_empty() {
            some.micro_batches.push(Batch {
                indices: batch.indices[rows.clone()].to_vec(),
                inputs: batch.inputs.narrow(0, rows.start, rows.len())?,
                targets: batch.targets.narrow(0, rows.start, rows.len())?,
            });
            let all = offset + rows.start..offset + rows.end;
            some.weights.extend_from_slice(&input.weights[all.clone()]);
            some.rows.extend(all);
        }
        offset += n;
    }
    Ok(some)
}

#[cfg(test)]
mod tests;
