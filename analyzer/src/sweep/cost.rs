//! Steps and memory of a sweep, computed from sizes before its first step.

use hindcast_format::layout::TensorSpec;

use super::SweepOptions;
use super::ahead::steps_ahead;
use crate::error::Result;
use crate::run::batch_sizes::BatchSizes;
use crate::run::floats::FloatVec;
use crate::run::memory::{MemoryNeed, step_bytes};
use crate::run::recorded::RecordedRun;

/// The size of a sweep, and the memory that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepCost {
    /// Steps to walk: from T back to the window's first.
    pub steps: u64,
    /// Training examples that are scored.
    pub examples: u64,
    /// Queries.
    pub queries: u64,
    /// Bytes of the sweep's own state at its end: sensitivities, scores, counts. Exact.
    pub state: u64,
    /// Bytes of the float64 vectors and tensors of steps that may exist at the same moment.
    pub step: u64,
    /// Approximate bytes of the intermediate values of a batch's double backward pass; `None` if they are unknown.
    pub batch: Option<u64>,
    /// Approximate bytes of the table that is made from the state at the end.
    pub table: u64,
    /// Bytes that each query adds to `state`.
    state_a_query: u64,
    /// The part of `state_a_query` that stays when the query's pass is over: its result.
    result_a_query: u64,
    /// Bytes that each query adds to `step`.
    step_a_query: u64,
    /// Bytes that each query adds to `batch`.
    batch_a_query: u64,
    /// Number of examples in the window's largest batch.
    pub largest_batch: u64,
    /// Number of examples that pass through the model at once.
    examples_at_once: u64,
}

/// Number of intermediate values of a double backward pass per output value of a layer. Measured as growth of a sweep's peak
/// memory: 14 on the MNIST CNN, whose layers are fused, and 29 on the CIFAR-10 CNN with batch norm.
const PASSES: u64 = 20;

impl SweepCost {
    /// The cost of a sweep for `queries` queries with an engine that computes in numbers of `width` bytes.
    /// `values_per_example` is the number of output values of the model's layers for one example.
    ///
    /// # Errors
    /// Where the trace's index can't be read.
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
        let result_a_query = 8 * ((2 + epochs) * n + 2 * (steps + 1));
        let state_a_query = result_a_query + 8 * (p + o + b);
        let state = 8 * n + q * state_a_query;
        let recorded = FloatVec::bytes(source.parameters()) + FloatVec::bytes(source.buffers());
        // The trace's own state twice (a keyframe is compared with it), the step in replay, and the older one that was read
        // for its buffers.
        let mut step = 4 * recorded;
        let sizes = BatchSizes::of(source, options.window.start..end)?;
        // Steps that were read ahead.
        let read = step_bytes(run, width, sizes.largest);
        step += steps_ahead(read) as u64 * read;
        // For each query: direction, autodiff's copy of it, and the products.
        let step_a_query = 8 * (3 * p + 2 * b + 2 * sizes.largest);
        step += q * step_a_query;
        // Variables, gradient, direction and second gradient as tensors.
        step += 4 * width as u64 * (p + b);
        if run.rule().reverse_needs_state() {
            // A segment's states at every √L-th step, and a block of √L whole steps.
            let longest = source
                .ranges()?
                .iter()
                .map(|r| r.end - r.start)
                .max()
                .unwrap_or(0);
            let root = SEGMENT_STEPS.min(longest).isqrt() + 1;
            step += root * (8 * (2 * o + p) + recorded);
            // The step's linearisation, and its parameters in float64.
            step += 8 * 4 * p;
        }
        let batch = values_per_example
            .map(|per_example| PASSES * width as u64 * per_example * sizes.largest_pass);
        Ok(SweepCost {
            steps,
            examples: n,
            queries: q,
            state,
            step,
            batch,
            table: n * (ROW + 16 * q * (2 + epochs)),
            state_a_query,
            result_a_query,
            step_a_query,
            batch_a_query: 0,
            largest_batch: sizes.largest,
            examples_at_once: sizes.largest_pass,
        })
    }

    /// The cost with the engine's own knowledge: `bytes(examples, queries)` are the bytes of a pass, or `None` if the engine
    /// doesn't know them.
    #[must_use]
    pub fn with_passes(self, bytes: impl Fn(usize, usize) -> Option<u64>) -> SweepCost {
        let examples = usize::try_from(self.examples_at_once).unwrap_or(usize::MAX);
        let bytes = |queries| bytes(examples, queries);
        let at_once = usize::try_from(self.queries).unwrap_or(usize::MAX);
        match (bytes(at_once), bytes(1), bytes(2)) {
            (Some(all), Some(one), Some(two)) => SweepCost {
                batch: Some(all),
                batch_a_query: two.saturating_sub(one),
                ..self
            },
            _ => self,
        }
    }

    /// The cost if the steps are walked several times, each time for `queries` of the queries. The results of all queries stay
    /// in memory; the rest is that of one pass.
    #[must_use]
    pub fn in_passes_of(&self, queries: u64) -> SweepCost {
        let fewer = self.queries.saturating_sub(queries);
        SweepCost {
            state: self.state - fewer * (self.state_a_query - self.result_a_query),
            step: self.step - fewer * self.step_a_query,
            batch: self
                .batch
                .map(|bytes| bytes.saturating_sub(fewer * self.batch_a_query)),
            ..self.clone()
        }
    }

    /// The largest number of queries per pass for which `bytes` are probably enough; at least 1.
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

    /// Memory that the sweep needs in addition to the data. Not all of a step's vectors exist at the same moment, so half
    /// of them count as certain.
    pub fn memory(&self) -> MemoryNeed {
        let sweep = self.state + self.step + self.batch.unwrap_or(0);
        MemoryNeed {
            certain: self.state + self.step / 2,
            about: sweep.max(self.state + self.table),
        }
    }
}

/// Approximate bytes of a table's row without its scores.
const ROW: u64 = 200;

/// The largest number of steps in a segment, by the recorder's default.
const SEGMENT_STEPS: u64 = 256;
