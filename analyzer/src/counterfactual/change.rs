//! What a counterfactual run changes in the recorded training.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor};
use hindcast_model::batches::LossWeights;
use hindcast_model::objective::Batch;

use crate::error::{AnalysisError, Doing, Result, Unsupported};
use crate::run::recorded::RecordedRun;

/// A change of the training examples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Examples that are left out, in any order.
    pub without: Vec<u64>,
    /// Examples with another class as their label.
    pub relabelled: Vec<(u64, u32)>,
}

impl Change {
    /// Leaves out these examples.
    pub fn without(examples: &[u64]) -> Self {
        Change {
            without: examples.to_vec(),
            relabelled: Vec::new(),
        }
    }

    /// All examples that it names.
    pub(super) fn examples(&self) -> impl Iterator<Item = u64> {
        let relabelled = self.relabelled.iter().map(|(example, _)| *example);
        self.without.iter().copied().chain(relabelled)
    }

    /// The same, for looking up the examples of a batch.
    pub(super) fn lookup(&self) -> Lookup {
        Lookup {
            without: self.without.iter().copied().collect(),
            relabelled: self.relabelled.iter().copied().collect(),
        }
    }
}

/// A [`Change`] as sets.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    pub without: BTreeSet<u64>,
    relabelled: BTreeMap<u64, u32>,
}

impl Lookup {
    /// A step's batches and weights with the new labels. The weights only change if the loss has a factor per class.
    pub fn relabel(
        &self,
        run: &RecordedRun<'_>,
        step: u64,
        batches: &[Batch],
        weights: &[f64],
    ) -> Result<(Vec<Batch>, Vec<f64>)> {
        let touched = |batch: &Batch| {
            batch
                .indices
                .iter()
                .any(|i| self.relabelled.contains_key(i))
        };
        if self.relabelled.is_empty() || !batches.iter().any(touched) {
            return Ok((batches.to_vec(), weights.to_vec()));
        }
        let changed = batches.iter().map(|batch| self.batch(step, batch));
        let batches = changed.collect::<Result<Vec<_>>>()?;
        let loss = run.net().map(|net| net.loss());
        let weights = match loss.filter(|loss| !loss.class_weights.is_empty()) {
            None => weights.to_vec(),
            Some(loss) => LossWeights::of_parts(loss, &batches)
                .doing(|| format!("step {step}: weighing a batch with other labels"))?
                .values(weights.len()),
        };
        Ok((batches, weights))
    }

    fn batch(&self, step: u64, batch: &Batch) -> Result<Batch> {
        let targets = &batch.targets;
        if targets.elem_count() != batch.indices.len() {
            return Err(AnalysisError::Unsupported(Unsupported::Labels { step }));
        }
        let new = |&index: &u64| self.relabelled.get(&index).copied();
        let changed = if targets.dtype() == DType::U32 {
            targets
                .flatten_all()
                .and_then(|flat| flat.to_vec1::<u32>())
                .and_then(|mut classes| {
                    for (class, index) in classes.iter_mut().zip(&batch.indices) {
                        *class = new(index).unwrap_or(*class);
                    }
                    Tensor::from_vec(classes, targets.shape(), targets.device())
                })
        } else {
            targets
                .to_dtype(DType::F64)
                .and_then(|wide| wide.flatten_all()?.to_vec1::<f64>())
                .and_then(|mut values| {
                    for (value, index) in values.iter_mut().zip(&batch.indices) {
                        *value = new(index).map_or(*value, f64::from);
                    }
                    Tensor::from_vec(values, targets.shape(), targets.device())?
                        .to_dtype(targets.dtype())
                })
        };
        Ok(Batch {
            targets: changed.doing(|| format!("step {step}: relabelling a batch"))?,
            ..batch.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn only_the_named_labels_of_a_batch_change() {
        let batch = |targets: Tensor| Batch {
            indices: vec![4, 7, 4, 9],
            inputs: Tensor::zeros((4, 1), DType::F32, &Device::Cpu).unwrap(),
            targets,
        };
        let change = Change {
            without: vec![1],
            relabelled: vec![(4, 2), (9, 0), (100, 1)],
        };
        assert_eq!(change.examples().collect::<Vec<_>>(), [1, 4, 9, 100]);
        let classes = Tensor::new(&[0u32, 1, 0, 1], &Device::Cpu).unwrap();
        let got = change.lookup().batch(3, &batch(classes)).unwrap().targets;
        assert_eq!(got.to_vec1::<u32>().unwrap(), [2, 1, 2, 0]);
        let numbers = Tensor::new(&[[0f32], [1.0], [0.0], [1.0]], &Device::Cpu).unwrap();
        let got = change.lookup().batch(3, &batch(numbers)).unwrap().targets;
        assert_eq!(got.dims(), [4, 1]);
        assert_eq!(
            got.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            [2.0, 1.0, 2.0, 0.0]
        );
        let wide = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(change.lookup().batch(3, &batch(wide)).is_err());
    }
}
