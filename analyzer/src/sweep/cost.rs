//! What a sweep will take, computed from sizes before its first step.

use hindcast_format::layout::TensorSpec;

use super::SweepOptions;
use crate::error::Result;
use crate::run::RecordedRun;

/// What a sweep is about to do, and the memory that it takes.
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
    /// Bytes of the float64 vectors and tensors of a step that may be there at once.
    pub step: u64,
    /// Bytes of the intermediate values of a batch's double backward pass, about; `None` where the model doesn't say.
    pub batch: Option<u64>,
}

/// Values of a double backward pass for each value that the layers put out. Measured as growth of a sweep's peak memory:
/// 14 on the MNIST CNN, whose layers are fused, 29 on the CIFAR-10 CNN with batch norm.
const PASSES: u64 = 20;

impl SweepCost {
    /// The cost of a sweep for `queries` queries with an engine that computes in numbers of `width` bytes.
    /// `values_per_example` is how many values the model's layers put out for an example.
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
        let epochs = match options.per_epoch {
            false => 0,
            true => source
                .epochs()?
                .iter()
                .filter(|(_, r)| r.end > options.window.start && r.start < options.window.end)
                .count() as u64,
        };
        let state = 8 * (n + q * (p + o + b + (2 + epochs) * n + 2 * (steps + 1)));
        // A decoded step, the one before it where buffers need it, and the engine's own copy.
        let mut step = 8 * 4 * (p + b);
        // Directions, their copies, and what comes out, for every query.
        step += 8 * q * (4 * p + 2 * b);
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
            step += 8 * root * (2 * o + 2 * p + b);
        }
        let batch = match values_per_example {
            None => None,
            Some(per_example) => {
                largest_batch(run)?.map(|n| PASSES * width as u64 * per_example * n)
            }
        };
        Ok(SweepCost {
            steps,
            examples: n,
            queries: q,
            state,
            step,
            batch,
        })
    }

    /// Bytes that the sweep takes for certain: not all of a step's vectors need be there at the same moment.
    pub fn certain(&self) -> u64 {
        self.state + self.step / 2
    }

    /// Bytes that it takes, about.
    pub fn about(&self) -> u64 {
        self.state + self.step + self.batch.unwrap_or(0)
    }
}

/// Examples that go through the model at once in the run's last step.
pub(crate) fn largest_batch(run: &RecordedRun<'_>) -> Result<Option<u64>> {
    let end = run.source().end()?.step;
    let last = run.source().metas(end.saturating_sub(1)..end)?;
    Ok(last.first().map(|meta| {
        let whole = meta.indices.len() as u64;
        let micro = meta.micro_batches.iter().map(|&n| u64::from(n)).max();
        micro.unwrap_or(whole)
    }))
}

/// The most steps of a segment as the recorder cuts them.
const SEGMENT_STEPS: u64 = 256;
