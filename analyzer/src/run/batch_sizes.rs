//! Batch sizes of recorded steps, the basis of memory estimates.

use std::ops::Range;

use hindcast_format::meta::StepMeta;

use crate::error::Result;
use crate::run::source::StepSource;

/// Batch sizes over a range of steps. Only one step's metadata is in memory at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchSizes {
    /// Number of steps.
    pub steps: u64,
    /// Total number of indices in all steps.
    pub indices: u64,
    /// Number of indices in the largest batch.
    pub largest: u64,
    /// Number of examples in the largest micro-batch: the most that pass through the model at once.
    pub largest_pass: u64,
}

impl BatchSizes {
    /// The sizes of the batches of these steps.
    ///
    /// # Errors
    /// If the metadata of a step cannot be read.
    pub fn of(source: &dyn StepSource, range: Range<u64>) -> Result<Self> {
        Self::of_ranges(source, &[range])
    }

    /// The sizes of the batches of the steps of all these ranges.
    ///
    /// # Errors
    /// If the metadata of a step cannot be read.
    pub fn of_ranges(source: &dyn StepSource, ranges: &[Range<u64>]) -> Result<Self> {
        let mut sizes = BatchSizes::default();
        for range in ranges {
            source.each_meta(range.clone(), &mut |meta| {
                sizes.add(meta);
                Ok(())
            })?;
        }
        Ok(sizes)
    }

    fn add(&mut self, meta: &StepMeta) {
        let batch = meta.indices.len() as u64;
        let pass = meta.micro_batches.iter().map(|&n| u64::from(n)).max();
        self.steps += 1;
        self.indices += batch;
        self.largest = self.largest.max(batch);
        self.largest_pass = self.largest_pass.max(pass.unwrap_or(batch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryRun;
    use crate::run::{FloatVec, RecordedStep};
    use hindcast_format::meta::BatchWeights;

    #[test]
    fn the_largest_batch_counts_wherever_it_is() {
        let step = |step: u64, batch: usize, micro: &[u32]| RecordedStep {
            meta: StepMeta {
                step,
                epoch: 0,
                groups: Vec::new(),
                indices: vec![0; batch],
                weights: BatchWeights::Mean,
                micro_batches: micro.to_vec(),
                loss: None,
                clip_norm: None,
                optimizer_step: step,
                trained: Vec::new(),
                scalars: Vec::new(),
                extensions: Vec::new(),
            },
            parameters: FloatVec::default(),
            buffers_after: FloatVec::default(),
            key: None,
        };
        let run = MemoryRun {
            steps: vec![step(0, 7, &[]), step(1, 9, &[4, 5]), step(2, 2, &[])],
            ..MemoryRun::default()
        };
        let sizes = BatchSizes::of(&run, 0..3).unwrap();
        let expected = BatchSizes {
            steps: 3,
            indices: 18,
            largest: 9,
            largest_pass: 7,
        };
        assert_eq!(sizes, expected);
        assert_eq!(BatchSizes::of(&run, 2..3).unwrap().largest, 2);
        let apart = BatchSizes::of_ranges(&run, &[0..1, 1..3]).unwrap();
        assert_eq!(apart, expected);
    }
}
