//! The steps and the memory of a sweep, estimated before its first step.

use hindcast_format::layout::TensorSpec;

use super::ahead::steps_ahead;
use super::states::kept_bytes;
use super::{SweepOptions, terms};
use crate::error::Result;
use crate::query::point::QueryPoint;
use crate::run::batch_sizes::BatchSizes;
use crate::run::floats::FloatVec;
use crate::run::memory::{MemoryNeed, step_bytes};
use crate::run::recorded::RecordedRun;

/// The size of a sweep, and the memory that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepCost {
    /// Number of steps to walk, from T back to the window's first step.
    pub steps: u64,
    /// Number of training examples, all of which get a score.
    pub examples: u64,
    /// Number of queries.
    pub queries: u64,
    /// Exact bytes of the sweep's own state at its end: sensitivities, scores and counts.
    pub state: u64,
    /// Bytes of the vectors and tensors of steps that may be in memory at the same time.
    pub step: u64,
    /// Approximate bytes of the intermediate values of a batch's double backward pass; `None` if they are unknown.
    pub batch: Option<u64>,
    /// Approximate bytes of the table that is made from the state at the end; 0 if it is written row by row.
    pub table: u64,
    /// Bytes that each query adds to `state`.
    state_per_query: u64,
    /// The part of `state_per_query` that stays after the query's pass: its result.
    result_per_query: u64,
    /// Bytes that each query adds to `step`.
    step_per_query: u64,
    /// Bytes that each query adds to `batch`.
    batch_per_query: u64,
    /// Number of examples in the window's largest batch.
    pub largest_batch: u64,
    /// Number of examples that pass through the model at once.
    examples_at_once: u64,
}

/// Number of intermediate values of a double backward pass per output value of a layer. Measured by the growth of a
/// sweep's peak memory: 14 on the MNIST CNN, whose layers are fused, and 29 on the CIFAR-10 CNN with batch norm.
const VALUES_PER_OUTPUT: u64 = 20;

impl SweepCost {
    /// The cost of a sweep for `queries` queries with an engine that computes in numbers of `width` bytes.
    /// `values_per_example` is the number of output values of the model's layers for one example.
    ///
    /// # Errors
    /// If the trace's index or the metadata of a step can't be read.
    pub fn of(
        run: &RecordedRun<'_>,
        options: &SweepOptions,
        queries: usize,
        width: usize,
        values_per_example: Option<u64>,
    ) -> Result<SweepCost> {
        let source = run.source();
        let end = source.end()?.step;
        let values = |specs: &[TensorSpec]| -> u64 {
            specs
                .iter()
                .map(|s| s.shape.iter().product::<usize>() as u64)
                .sum()
        };
        let (p, b) = (values(source.parameters()), values(source.buffers()));
        let o = run.rule().state_values(run.blocks().values()) as u64;
        let (n, q) = (run.examples() as u64, queries as u64);
        let steps = end.saturating_sub(options.window.start);
        let mut epochs = 0;
        if options.per_epoch {
            let window = &options.window;
            let all = source.epochs()?;
            let scored = all
                .iter()
                .filter(|(_, r)| r.end > window.start && r.start < window.end);
            epochs = scored.count() as u64;
        }
        // The scores of an example's terms are a list of their own.
        let terms = if options.per_term {
            terms::required(run)? as u64 + LIST_WORDS
        } else {
            0
        };
        let result_per_query = 8 * ((2 + epochs + terms) * n + 2 * (steps + 1));
        // An average keeps the query's gradient until its last share is added.
        let gradients = if options.at == QueryPoint::Final {
            0
        } else {
            p + b
        };
        let state_per_query = result_per_query + 8 * (p + o + b + gradients);
        let state = 8 * n + q * state_per_query;
        let recorded = FloatVec::bytes(source.parameters()) + FloatVec::bytes(source.buffers());
        // The trace reader's state twice (it compares each keyframe with its own state), the step in replay, and the step
        // before it, which was read for its buffers.
        let mut step = 4 * recorded;
        let sizes = BatchSizes::of(source, options.window.start..end)?;
        // Steps that were read ahead.
        let read = step_bytes(run, width, sizes.largest);
        step += steps_ahead(read) as u64 * read;
        // For each query: direction, autodiff's copy of it, and the products.
        let step_per_query = 8 * (3 * p + 2 * b + (2 + terms) * sizes.largest);
        step += q * step_per_query;
        // Variables, gradient, direction and second gradient as tensors.
        step += 4 * width as u64 * (p + b);
        if run.rule().reverse_needs_state() {
            let longest = source
                .ranges()?
                .iter()
                .map(|r| r.end - r.start)
                .max()
                .unwrap_or(0);
            // Without recorded states, all steps follow from the first state.
            let steps_of_state = match source.optimizer_state() {
                [] => longest,
                _ => SEGMENT_STEPS.min(longest),
            };
            step += kept_bytes(run, steps_of_state, 8 * o);
            // The parameters after a step of the walk forward, its gradient, and the smallest squares so far.
            step += 8 * 3 * p;
            // The step's linearisation, and its parameters in float64.
            step += 8 * 4 * p;
        }
        let batch = values_per_example
            .map(|per_example| VALUES_PER_OUTPUT * width as u64 * per_example * sizes.largest_pass);
        Ok(SweepCost {
            steps,
            examples: n,
            queries: q,
            state,
            step,
            batch,
            table: n * (ROW_BYTES + 16 * q * (2 + epochs)),
            state_per_query,
            result_per_query,
            step_per_query,
            batch_per_query: 0,
            largest_batch: sizes.largest,
            examples_at_once: sizes.largest_pass,
        })
    }

    /// The cost if a double backward pass takes these bytes per example.
    #[must_use]
    pub fn with_bytes_per_example(self, bytes: u64) -> SweepCost {
        SweepCost {
            batch: Some(bytes * self.examples_at_once),
            ..self
        }
    }

    /// The cost if an engine for `values` parameters in numbers of `width` bytes computes a batch in `parts` at the same time.
    #[must_use]
    pub fn in_parts(self, parts: usize, values: usize, width: usize) -> SweepCost {
        let more = parts.saturating_sub(1) as u64 * values as u64;
        // Each part has a gradient, and for each query a direction and a product, all in float64. It also has the four tensors
        // of a step.
        let per_query = 8 * 2 * more;
        SweepCost {
            step: self.step + more * (8 + 4 * width as u64) + self.queries * per_query,
            step_per_query: self.step_per_query + per_query,
            ..self
        }
    }

    /// The cost with the engine's own estimate of `batch`. `bytes(examples, queries)` returns the bytes of a double
    /// backward pass, or `None` if the engine doesn't know them.
    #[must_use]
    pub fn with_passes(self, bytes: impl Fn(usize, usize) -> Option<u64>) -> SweepCost {
        let examples = usize::try_from(self.examples_at_once).unwrap_or(usize::MAX);
        let bytes = |queries| bytes(examples, queries);
        let at_once = usize::try_from(self.queries).unwrap_or(usize::MAX);
        match (bytes(at_once), bytes(1), bytes(2)) {
            (Some(all), Some(one), Some(two)) => SweepCost {
                batch: Some(all),
                batch_per_query: two.saturating_sub(one),
                ..self
            },
            _ => self,
        }
    }

    /// The cost of one pass if the steps are walked several times, each time for `queries` of the queries. The results of
    /// all queries stay in memory; sensitivities and vectors are only those of the pass.
    #[must_use]
    pub fn in_passes_of(&self, queries: u64) -> SweepCost {
        let fewer = self.queries.saturating_sub(queries);
        SweepCost {
            state: self.state - fewer * (self.state_per_query - self.result_per_query),
            step: self.step - fewer * self.step_per_query,
            batch: self
                .batch
                .map(|bytes| bytes.saturating_sub(fewer * self.batch_per_query)),
            ..self.clone()
        }
    }

    /// The largest number of queries per pass whose estimated memory is at most `bytes`; at least 1.
    pub fn queries_within(&self, bytes: u64) -> u64 {
        let fits = |q: &u64| self.in_passes_of(*q).memory().about <= bytes;
        let (mut fit, mut too_many) = (1, self.queries.max(1) + 1);
        while too_many - fit > 1 {
            let middle = fit + (too_many - fit) / 2;
            if fits(&middle) {
                fit = middle;
            } else {
                too_many = middle;
            }
        }
        fit
    }

    /// Memory that the sweep needs in addition to the data. Not all vectors of a step are in memory at the same time, so
    /// half of their bytes count as certain.
    pub fn memory(&self) -> MemoryNeed {
        let sweep = self.state + self.step + self.batch.unwrap_or(0);
        MemoryNeed {
            certain: self.state + self.step / 2,
            about: sweep.max(self.state + self.table),
        }
    }
}

/// Number of eight-byte values that a list takes besides its elements.
const LIST_WORDS: u64 = 3;

/// Approximate bytes of a table's row without its scores.
const ROW_BYTES: u64 = 200;

/// The recorder's default for the largest number of steps in a segment.
const SEGMENT_STEPS: u64 = 256;
