//! A step's batch without some of its examples.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use candle_core::Tensor;
use hindcast_format::meta::{BatchWeights, StepMeta};
use hindcast_model::objective::Batch;
use hindcast_model::train::WeightedBatch;
use serde::{Deserialize, Serialize};

use crate::error::{AnalysisError, Doing, Result, Unknown};

/// How an example is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// Its loss term is dropped. It stays in the batch, and so in batch norm's statistics. This is what the sweep
    /// predicts.
    #[default]
    LossOnly,
    /// It is taken out of the batch. For a model without batch statistics, this equals [`Removal::LossOnly`].
    Absent,
}

/// The denominator of the remaining examples of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Denominators {
    /// The denominator from before the removal: the paper's rule.
    #[default]
    Fixed,
    /// The remaining weights are scaled so that they add up to the same total. A sum has no denominator and stays a
    /// sum.
    Renormalised,
}

macro_rules! names {
    ($type:ident, $what:literal, $($variant:ident => $name:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $name),+ })
            }
        }

        impl FromStr for $type {
            type Err = AnalysisError;

            fn from_str(text: &str) -> Result<Self> {
                match text.trim() {
                    $($name => Ok($type::$variant),)+
                    other => Err(AnalysisError::Unknown(Unknown::Word {
                        what: $what,
                        given: other.to_owned(),
                        expected: vec![$($name),+],
                    })),
                }
            }
        }
    };
}

names!(Removal, "removal", LossOnly => "loss-only", Absent => "absent");
names!(Denominators, "denominators", Fixed => "fixed", Renormalised => "renormalised");

/// A step's micro-batches without the examples in `removed`. `batches` and `weights` are those of the recorded step.
pub(super) fn without(
    meta: &StepMeta,
    batches: &[Batch],
    weights: &[f64],
    removed: &BTreeSet<u64>,
    removal: Removal,
    denominators: Denominators,
) -> Result<Vec<WeightedBatch>> {
    let kept: Vec<bool> = meta.indices.iter().map(|i| !removed.contains(i)).collect();
    let weights = if kept.iter().all(|&k| k) {
        weights.to_vec()
    } else {
        reweighted(meta, weights, &kept, denominators)
    };
    let mut parts = Vec::with_capacity(batches.len());
    let mut start = 0;
    for batch in batches {
        let end = start + batch.indices.len();
        let (kept, weights) = (&kept[start..end], &weights[start..end]);
        start = end;
        let rows: Vec<u32> = (0u32..)
            .zip(kept)
            .filter(|(_, kept)| **kept)
            .map(|(i, _)| i)
            .collect();
        if removal == Removal::LossOnly || rows.len() == batch.indices.len() {
            parts.push(WeightedBatch {
                batch: batch.clone(),
                weights: weights.to_vec(),
            });
        } else if !rows.is_empty() {
            parts.push(WeightedBatch {
                batch: select(batch, &rows)?,
                weights: rows.iter().map(|&i| weights[i as usize]).collect(),
            });
        }
    }
    // No example is left. The data's gradient is 0, but penalty, decay and momentum still change the parameters.
    if let (true, Some(batch)) = (parts.is_empty(), batches.first()) {
        parts.push(WeightedBatch {
            batch: empty(batch)?,
            weights: Vec::new(),
        });
    }
    Ok(parts)
}

fn reweighted(
    meta: &StepMeta,
    weights: &[f64],
    kept: &[bool],
    denominators: Denominators,
) -> Vec<f64> {
    let mask = |scale: f64| {
        weights
            .iter()
            .zip(kept)
            .map(|(w, &k)| if k { w * scale } else { 0.0 })
            .collect()
    };
    let left = kept.iter().filter(|&&k| k).count();
    match (denominators, &meta.weights) {
        (Denominators::Fixed, _) | (_, BatchWeights::Sum | BatchWeights::SumOfEach(_)) => mask(1.0),
        (Denominators::Renormalised, BatchWeights::Mean) => kept
            .iter()
            .map(|&k| if k { 1.0 / left as f64 } else { 0.0 })
            .collect(),
        (Denominators::Renormalised, BatchWeights::Each(_)) => {
            let total: f64 = weights.iter().sum();
            let rest: f64 = weights
                .iter()
                .zip(kept)
                .filter(|(_, k)| **k)
                .map(|(w, _)| w)
                .sum();
            mask(if rest == 0.0 { 1.0 } else { total / rest })
        }
    }
}

fn select(batch: &Batch, rows: &[u32]) -> Result<Batch> {
    (|| {
        let ids = Tensor::new(rows, batch.inputs.device())?;
        Ok(Batch {
            indices: rows.iter().map(|&i| batch.indices[i as usize]).collect(),
            inputs: batch.inputs.index_select(&ids, 0)?,
            targets: batch.targets.index_select(&ids, 0)?,
        })
    })()
    .doing(|| "taking examples out of a batch".to_owned())
}

fn empty(batch: &Batch) -> Result<Batch> {
    (|| {
        Ok(Batch {
            indices: Vec::new(),
            inputs: batch.inputs.narrow(0, 0, 0)?,
            targets: batch.targets.narrow(0, 0, 0)?,
        })
    })()
    .doing(|| "emptying a batch".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn meta(weights: BatchWeights) -> StepMeta {
        StepMeta {
            step: 0,
            epoch: 0,
            groups: Vec::new(),
            indices: vec![4, 7, 4, 9],
            weights,
            micro_batches: vec![2, 2],
            loss: None,
            clip_norm: None,
            optimizer_step: 0,
            trained: Vec::new(),
            scalars: Vec::new(),
            extensions: Vec::new(),
        }
    }

    fn batches() -> Vec<Batch> {
        [[4u64, 7], [4, 9]]
            .map(|indices| Batch {
                inputs: Tensor::from_vec(indices.map(|i| i as f64).to_vec(), (2, 1), &Device::Cpu)
                    .unwrap(),
                targets: Tensor::zeros(2, DType::U32, &Device::Cpu).unwrap(),
                indices: indices.to_vec(),
            })
            .to_vec()
    }

    fn parts(
        removed: &[u64],
        removal: Removal,
        denominators: Denominators,
    ) -> Vec<(Vec<u64>, Vec<f64>)> {
        without(
            &meta(BatchWeights::Mean),
            &batches(),
            &[0.25; 4],
            &removed.iter().copied().collect(),
            removal,
            denominators,
        )
        .unwrap()
        .into_iter()
        .map(|p| (p.batch.indices, p.weights))
        .collect()
    }

    #[test]
    fn removal_takes_every_occurrence() {
        use Denominators::{Fixed, Renormalised};
        use Removal::{Absent, LossOnly};
        assert_eq!(
            parts(&[4], LossOnly, Fixed),
            [(vec![4, 7], vec![0.0, 0.25]), (vec![4, 9], vec![0.0, 0.25])]
        );
        assert_eq!(
            parts(&[4], Absent, Renormalised),
            [(vec![7], vec![0.5]), (vec![9], vec![0.5])]
        );
        // A micro-batch that becomes empty is dropped. A whole batch that becomes empty stays as one without rows.
        assert_eq!(parts(&[4, 7], Absent, Fixed), [(vec![9], vec![0.25])]);
        assert_eq!(parts(&[4, 7, 9], Absent, Fixed), [(vec![], vec![])]);
        assert_eq!(parts(&[1], Absent, Renormalised)[0].1, [0.25, 0.25]);
    }

    #[test]
    fn names_are_read_back() {
        for removal in [Removal::LossOnly, Removal::Absent] {
            assert_eq!(removal.to_string().parse::<Removal>().unwrap(), removal);
        }
        let message = "gone".parse::<Removal>().unwrap_err().to_string();
        assert!(message.contains("loss-only, absent"), "{message}");
        assert!("fixed".parse::<Denominators>().is_ok());
    }
}
