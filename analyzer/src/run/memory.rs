//! Estimates of the memory that work on a recorded run requires, computed before the work starts.

use std::ops::Range;

use hindcast_model::net::{Net, Node, Op};

use super::batch_sizes::BatchSizes;
use super::floats::FloatVec;
use super::recorded::RecordedRun;
use crate::error::Result;

/// Bytes of memory that work needs in addition to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryNeed {
    /// A lower bound: with less memory the work fails.
    pub certain: u64,
    /// An estimate of the peak.
    pub about: u64,
}

/// Whether work fits into a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFit {
    /// The estimate fits.
    Fits,
    /// The lower bound fits, the estimate does not.
    Uncertain,
    /// Even the lower bound does not fit.
    TooLarge,
}

impl MemoryNeed {
    /// Compares the need with `limit` bytes.
    pub fn within(self, limit: u64) -> MemoryFit {
        if self.certain > limit {
            MemoryFit::TooLarge
        } else if self.about > limit {
            MemoryFit::Uncertain
        } else {
            MemoryFit::Fits
        }
    }

    /// The need if only an estimate of it is known. Half of the estimate counts as certain.
    pub(crate) fn estimated(about: u64) -> Self {
        MemoryNeed {
            certain: about / 2,
            about,
        }
    }
}

/// Bytes of a step in memory: its recorded vectors, and its batch's inputs, targets, indices and weights. Inputs and
/// targets take `width` bytes per value.
pub fn step_bytes(run: &RecordedRun<'_>, width: usize, examples: u64) -> u64 {
    let source = run.source();
    let inputs: u64 = run.data().shape().iter().map(|&n| n as u64).product();
    FloatVec::bytes(source.parameters())
        + 2 * FloatVec::bytes(source.buffers())
        + (width as u64 * (inputs + 1) + 8 * INDEX_WORDS) * examples
}

/// Number of eight-byte values per example: its index in the metadata, its index in the batch, and its weight.
const INDEX_WORDS: u64 = 3;

/// Number of values in one example and in the outputs of all layers for it.
pub fn values_per_example(net: &Net) -> u64 {
    fn of(nodes: &[Node]) -> u64 {
        nodes
            .iter()
            .map(|node| {
                let inner = match &node.op {
                    Op::Residual { body, projection } => of(body) + of(projection),
                    _ => 0,
                };
                inner + node.output.iter().product::<usize>() as u64
            })
            .sum()
    }
    of(net.nodes()) + net.input_shape().iter().product::<usize>() as u64
}

/// Memory of one training step on the largest batch of `sizes`. For an own model, whose layers aren't known, only the
/// step itself is counted.
pub fn training_step(run: &RecordedRun<'_>, sizes: &BatchSizes) -> MemoryNeed {
    let width = run.dtype().size_in_bytes();
    let read = step_bytes(run, width, sizes.largest);
    let layers =
        width as u64 * run.net().map_or(0, |net| values_per_example(net)) * sizes.largest_pass;
    MemoryNeed {
        certain: read + layers,
        about: read + VALUES_PER_OUTPUT * layers,
    }
}

/// Approximate number of values that a training step keeps in memory per output value of a layer: the value, its
/// gradient, and candle's intermediate results.
const VALUES_PER_OUTPUT: u64 = 4;

/// The cost of retraining without sets of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrainingCost {
    /// Number of steps from the start of the window to the end of training.
    pub steps: u64,
    /// Number of examples in the largest batch.
    pub largest_batch: u64,
    /// Memory without the model's intermediate values.
    pub memory: MemoryNeed,
}

impl RetrainingCost {
    /// The cost of retraining once with all examples and once without each of `sets` sets.
    ///
    /// # Errors
    /// If the run's end or the metadata of a step cannot be read.
    pub fn of(run: &RecordedRun<'_>, window: &Range<u64>, sets: usize) -> Result<Self> {
        let source = run.source();
        let end = source.end()?;
        let steps = end.step.saturating_sub(window.start);
        let values = (end.parameters.len() + end.buffers.len()) as u64;
        let optimizer = run.rule().state_values(run.blocks().values()) as u64;
        let width = run.dtype().size_in_bytes() as u64;
        let sizes = BatchSizes::of(source, window.start..end.step)?;
        // Each retraining holds its state, a gradient and the new state. All share the batches and the recorded end, which
        // is in float64.
        let runs = 1 + sets as u64;
        let states = runs * width * (3 * values + 2 * optimizer);
        let batch = step_bytes(run, width as usize, sizes.largest);
        let about = states + 8 * sizes.indices + steps * META_BYTES + batch + runs * 8 * values;
        Ok(RetrainingCost {
            steps,
            largest_batch: sizes.largest,
            memory: MemoryNeed::estimated(about),
        })
    }
}

/// Approximate bytes of a step's metadata without its indices.
const META_BYTES: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_between_the_bounds_is_uncertain() {
        let need = MemoryNeed {
            certain: 10,
            about: 20,
        };
        assert_eq!(need.within(20), MemoryFit::Fits);
        assert_eq!(need.within(19), MemoryFit::Uncertain);
        assert_eq!(need.within(10), MemoryFit::Uncertain);
        assert_eq!(need.within(9), MemoryFit::TooLarge);
    }
}
