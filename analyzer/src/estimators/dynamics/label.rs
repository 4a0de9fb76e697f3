//! What a classifier's outputs say about an example's label.

use candle_core::DType;
use hindcast_model::objective::Batch;

use crate::error::{Doing, Result};

/// A classifier's view of an example's label. Outputs are logits.
///
/// With several outputs z, one per class, and the label y, the margin is `z_y − max_{c≠y} z_c` (Pleiss et al. 2020) and the
/// probability the softmax's. A single output z is the logit of class 1, and class 0 has the logit 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelOutput {
    /// The label's logit minus the largest other logit. Positive if and only if the label is the predicted class.
    pub margin: f64,
    /// The label's probability.
    pub probability: f64,
}

impl LabelOutput {
    /// Of the outputs of one example; `None` if the label isn't one of the classes.
    pub fn of(outputs: &[f64], label: u32) -> Option<Self> {
        if let &[logit] = outputs {
            let margin = match label {
                0 => -logit,
                1 => logit,
                _ => return None,
            };
            return Some(LabelOutput {
                margin,
                probability: 1.0 / (1.0 + (-margin).exp()),
            });
        }
        let label = label as usize;
        let own = *outputs.get(label)?;
        let others = || {
            let others = outputs.iter().enumerate().filter(|(c, _)| *c != label);
            others.map(|(_, z)| *z)
        };
        // Relative to the label's logit, so that nothing overflows that doesn't round to a probability of 0.
        let odds: f64 = others().map(|z| (z - own).exp()).sum();
        Some(LabelOutput {
            margin: own - others().fold(f64::NEG_INFINITY, f64::max),
            probability: 1.0 / (1.0 + odds),
        })
    }

    /// Whether the label is the predicted class. Equal largest logits don't predict either class.
    pub fn is_right(&self) -> bool {
        self.margin > 0.0
    }
}

/// The class of each example of a step; `None` if the targets aren't classes. `binary` says whether the loss is a binary
/// cross entropy, whose classes are the numbers 0 and 1.
pub(super) fn classes_of_step(batches: &[Batch], binary: bool) -> Result<Option<Vec<u32>>> {
    let mut labels = Vec::new();
    for batch in batches {
        match classes(batch, binary).doing(|| "reading the labels of a batch".to_owned())? {
            Some(classes) => labels.extend(classes),
            None => return Ok(None),
        }
    }
    Ok(Some(labels))
}

/// One entry per example with these outputs and classes; `None` if no output belongs to a label.
pub(super) fn of_classes(outputs: &[f64], labels: &[u32]) -> Option<Vec<LabelOutput>> {
    let classes = outputs.len() / labels.len().max(1);
    if classes == 0 {
        return None;
    }
    let rows = outputs.chunks_exact(classes).zip(labels);
    rows.map(|(row, &label)| LabelOutput::of(row, label))
        .collect()
}

/// The probability of each class, by the outputs of one example: the softmax of the logits. A single output is the logit of
/// class 1, and class 0 has the logit 0.
pub(in crate::estimators) fn probabilities(outputs: &[f64]) -> Vec<f64> {
    let logits = match outputs {
        &[logit] => vec![0.0, logit],
        all => all.to_vec(),
    };
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let odds: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
    let sum: f64 = odds.iter().sum();
    odds.into_iter().map(|odds| odds / sum).collect()
}

/// The class of each example.
fn classes(batch: &Batch, binary: bool) -> candle_core::Result<Option<Vec<u32>>> {
    let targets = &batch.targets;
    if targets.elem_count() != batch.indices.len() {
        return Ok(None);
    }
    if targets.dtype() == DType::U32 {
        return targets.flatten_all()?.to_vec1().map(Some);
    }
    if !binary {
        return Ok(None);
    }
    let numbers = targets.to_dtype(DType::F64)?.flatten_all()?;
    let class = |y: f64| match y {
        0.0 => Some(0),
        1.0 => Some(1),
        _ => None,
    };
    Ok(numbers.to_vec1()?.into_iter().map(class).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn several_outputs_are_the_classes_logits() {
        let z = [1.0, 3.0, 2.0];
        let total = 1f64.exp() + 3f64.exp() + 2f64.exp();
        for (label, margin) in [(0, -2.0), (1, 1.0), (2, -1.0)] {
            let got = LabelOutput::of(&z, label).unwrap();
            assert!(close(got.margin, margin), "{got:?}");
            assert!(close(got.probability, z[label as usize].exp() / total));
            assert_eq!(got.is_right(), label == 1);
        }
        assert_eq!(LabelOutput::of(&z, 3), None);
        // The largest logit twice: neither class is predicted.
        assert!(!LabelOutput::of(&[2.0, 2.0, 0.0], 0).unwrap().is_right());
    }

    #[test]
    fn one_output_is_the_logit_of_class_one() {
        let (no, yes) = (LabelOutput::of(&[0.5], 0), LabelOutput::of(&[0.5], 1));
        let (no, yes) = (no.unwrap(), yes.unwrap());
        assert_eq!((no.margin, yes.margin), (-0.5, 0.5));
        assert!(close(yes.probability, 0.622_459_331_201_854_6));
        assert!(close(no.probability + yes.probability, 1.0));
        assert_eq!(LabelOutput::of(&[0.5], 2), None);
    }

    #[test]
    fn probabilities_are_those_of_each_label() {
        for outputs in [&[1.0, 3.0, 2.0][..], &[0.5], &[900.0, -900.0]] {
            let all = probabilities(outputs);
            assert_eq!(all.len(), outputs.len().max(2));
            for (label, p) in (0..).zip(&all) {
                assert!(close(
                    *p,
                    LabelOutput::of(outputs, label).unwrap().probability
                ));
            }
        }
    }

    #[test]
    fn large_logits_neither_overflow_nor_become_nan() {
        let got = LabelOutput::of(&[1000.0, -1000.0], 1).unwrap();
        assert_eq!((got.margin, got.probability), (-2000.0, 0.0));
        let got = LabelOutput::of(&[-900.0], 1).unwrap();
        assert_eq!((got.margin, got.probability), (-900.0, 0.0));
    }
}
