//! Reads the outputs of a model as classes or as values.

use candle_core::DType;
use hindcast_model::data::{DataSet, TargetScale};
use hindcast_model::objective::Batch;
use hindcast_model::task::LossKind;

use super::told::{Told, Untold};
use crate::engine::ForwardPass;
use crate::error::{AnalysisError, Diverged, Doing, Result};
use crate::run::recorded::RecordedRun;

/// How the outputs of a model are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// One logit per class, or a single logit of class 1.
    Classes,
    /// One value per target.
    Values,
    /// One logit per target, whose σ is a share between 0 and 1.
    Shares,
    Nothing(Untold),
}

/// Losses, targets and outputs of examples.
pub(super) struct Raw {
    /// The loss of a task. The loss of an own model isn't known.
    loss: Option<LossKind>,
    pub losses: Vec<f64>,
    targets: Vec<f64>,
    outputs: Vec<f64>,
    /// Whether all targets are whole numbers by their type.
    whole: bool,
    /// The standardisation of the targets, which is undone in predictions.
    scale: Option<TargetScale>,
}

impl Raw {
    pub fn new(run: &RecordedRun<'_>, data: &dyn DataSet) -> Self {
        Raw {
            loss: run.net().map(|net| net.loss().kind),
            losses: Vec::new(),
            targets: Vec::new(),
            outputs: Vec::new(),
            whole: true,
            scale: data.target_scale().cloned(),
        }
    }

    /// Adds the examples of a forward pass.
    ///
    /// # Errors
    /// A loss or an output isn't finite, or the targets can't be read.
    pub fn add(&mut self, batch: &Batch, pass: ForwardPass) -> Result<()> {
        let mut all = pass.losses.iter().chain(&pass.outputs);
        if all.any(|x| !x.is_finite()) {
            return Err(AnalysisError::Diverged(Diverged::Prediction));
        }
        let targets = &batch.targets;
        self.whole &= matches!(targets.dtype(), DType::U8 | DType::U32 | DType::I64);
        let values = targets
            .flatten_all()
            .and_then(|t| t.to_dtype(DType::F64)?.to_vec1());
        let values: Vec<f64> = values.doing(|| "reading the labels of a batch".to_owned())?;
        self.targets.extend(values);
        self.losses.extend(pass.losses);
        self.outputs.extend(pass.outputs);
        Ok(())
    }

    /// Number of targets and of outputs per example; `None` if they don't divide evenly.
    fn widths(&self) -> Option<(usize, usize)> {
        let n = self.losses.len();
        let width = |of: &[f64]| (n > 0 && of.len().is_multiple_of(n)).then(|| of.len() / n);
        width(&self.targets).zip(width(&self.outputs))
    }

    pub fn reading(&self) -> Reading {
        let Some((targets, outputs)) = self.widths() else {
            return Reading::Nothing(Untold::Shape);
        };
        let classes = self.are_classes(targets, outputs);
        match self.loss {
            Some(LossKind::MeanSquaredError) if targets == outputs => Reading::Values,
            Some(LossKind::BinaryCrossEntropy) if !classes && targets == outputs => Reading::Shares,
            Some(_) if classes => Reading::Classes,
            None if outputs > 0 && self.outputs == self.losses => Reading::Nothing(Untold::Losses),
            None if self.whole && classes => Reading::Classes,
            None if !self.whole && targets == outputs && outputs > 0 => Reading::Values,
            _ if targets > 1 => Reading::Nothing(Untold::Sequence),
            _ => Reading::Nothing(Untold::Shape),
        }
    }

    /// Whether each example has one target, which is the number of a class that the outputs can express.
    fn are_classes(&self, targets: usize, outputs: usize) -> bool {
        let classes = match outputs {
            1 => 2,
            n => n,
        };
        let class = |y: &f64| *y >= 0.0 && y.fract() == 0.0 && *y < classes as f64;
        targets == 1 && outputs > 0 && self.targets.iter().all(class)
    }

    /// The prediction for the example at a position.
    pub fn told(&self, at: usize, reading: Reading) -> Told {
        let (Some((targets, outputs)), false) =
            (self.widths(), matches!(reading, Reading::Nothing(_)))
        else {
            return Told::Nothing;
        };
        let label = &self.targets[at * targets..(at + 1) * targets];
        let outputs = &self.outputs[at * outputs..(at + 1) * outputs];
        match reading {
            Reading::Classes => Told::Class {
                label: label.first().map_or(0, |y| *y as usize),
                predicted: largest(outputs),
                probabilities: probabilities(outputs),
            },
            Reading::Shares => Told::Values {
                label: label.to_vec(),
                predicted: outputs.iter().map(|z| sigmoid(*z)).collect(),
            },
            Reading::Values | Reading::Nothing(_) => Told::Values {
                label: self.in_units(label),
                predicted: self.in_units(outputs),
            },
        }
    }

    /// Values in the unit of the labels.
    fn in_units(&self, values: &[f64]) -> Vec<f64> {
        match &self.scale {
            Some(scale) => scale.in_units(values),
            None => values.to_vec(),
        }
    }
}

/// The class with the largest output, the first of several. A single output is the logit of class 1.
fn largest(outputs: &[f64]) -> usize {
    if let [logit] = outputs {
        return usize::from(*logit > 0.0);
    }
    let mut best = 0;
    for (class, z) in outputs.iter().enumerate() {
        if *z > outputs[best] {
            best = class;
        }
    }
    best
}

/// The softmax of the outputs; for a single output, the probabilities of the classes 0 and 1.
fn probabilities(outputs: &[f64]) -> Vec<f64> {
    if let [logit] = outputs {
        return vec![sigmoid(-logit), sigmoid(*logit)];
    }
    let top = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let odds: Vec<f64> = outputs.iter().map(|z| (z - top).exp()).collect();
    let sum: f64 = odds.iter().sum();
    odds.into_iter().map(|x| x / sum).collect()
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(loss: Option<LossKind>, whole: bool, targets: &[f64], outputs: &[f64]) -> Raw {
        Raw {
            loss,
            losses: vec![0.5, 0.25],
            targets: targets.to_vec(),
            outputs: outputs.to_vec(),
            whole,
            scale: None,
        }
    }

    #[test]
    fn probabilities_are_those_of_the_logits() {
        // By hand: e/(1 + e + e²) and so on.
        let e = std::f64::consts::E;
        let sum = 1.0 + e + e * e;
        let found = probabilities(&[1.0, 0.0, 2.0]);
        for (found, expected) in found.iter().zip([e / sum, 1.0 / sum, e * e / sum]) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        let one = probabilities(&[3f64.ln()]);
        assert!((one[0] - 0.25).abs() < 1e-15 && (one[1] - 0.75).abs() < 1e-15);
        // Large logits neither overflow nor become NaN.
        assert_eq!(probabilities(&[2000.0, -2000.0]), [1.0, 0.0]);
        assert_eq!(probabilities(&[-1000.0]), [1.0, 0.0]);
    }

    #[test]
    fn the_predicted_class_has_the_largest_output_and_the_first_of_equal_ones() {
        assert_eq!(largest(&[-1.0, 3.0, 2.0]), 1);
        assert_eq!(largest(&[2.0, 2.0, 1.0]), 0);
        assert_eq!(
            (largest(&[0.1]), largest(&[0.0]), largest(&[-4.0])),
            (1, 0, 0)
        );
    }

    #[test]
    fn values_are_in_the_unit_of_the_labels() {
        let mut raw = raw(
            Some(LossKind::MeanSquaredError),
            false,
            &[2.0, -1.0],
            &[0.5, 0.0],
        );
        raw.scale = Some(TargetScale {
            mean: vec![100.0],
            sd: vec![10.0],
        });
        let told = |at| raw.told(at, Reading::Values);
        let values = |label: f64, predicted: f64| Told::Values {
            label: vec![label],
            predicted: vec![predicted],
        };
        assert_eq!(told(0), values(120.0, 105.0));
        assert_eq!(told(1), values(90.0, 100.0));
    }

    #[test]
    fn outputs_are_read_by_the_loss_or_by_the_labels() {
        use LossKind::{BinaryCrossEntropy, CrossEntropy, MeanSquaredError};
        let nothing = Reading::Nothing;
        for (loss, whole, targets, outputs, expected) in [
            (
                Some(CrossEntropy),
                true,
                &[1.0, 0.0][..],
                &[1.0, 2.0, 0.0, 1.0][..],
                Reading::Classes,
            ),
            (
                Some(BinaryCrossEntropy),
                true,
                &[1.0, 0.0],
                &[1.0, -1.0],
                Reading::Classes,
            ),
            // Numbers that are all 0 or 1 are classes; others are shares.
            (
                Some(BinaryCrossEntropy),
                false,
                &[1.0, 0.0],
                &[1.0, -1.0],
                Reading::Classes,
            ),
            (
                Some(BinaryCrossEntropy),
                false,
                &[0.3, 1.0],
                &[1.0, -1.0],
                Reading::Shares,
            ),
            (
                Some(BinaryCrossEntropy),
                false,
                &[1.0, 0.0, 0.0, 1.0],
                &[1.0, 2.0, 3.0, 4.0],
                Reading::Shares,
            ),
            // Two classes as the numbers 0 and 1 are still numbers for a squared error.
            (
                Some(MeanSquaredError),
                true,
                &[1.0, 0.0],
                &[0.7, 0.2],
                Reading::Values,
            ),
            (
                None,
                true,
                &[1.0, 0.0],
                &[1.0, 2.0, 0.0, 1.0],
                Reading::Classes,
            ),
            (None, false, &[1.5, 0.0], &[1.0, 2.0], Reading::Values),
            (
                None,
                true,
                &[1.0, 2.0, 0.0, 1.0],
                &[],
                nothing(Untold::Sequence),
            ),
            (
                None,
                true,
                &[1.0, 0.0],
                &[0.5, 0.25],
                nothing(Untold::Losses),
            ),
            (
                None,
                true,
                &[7.0, 0.0],
                &[1.0, 2.0, 0.0, 1.0],
                nothing(Untold::Shape),
            ),
            (
                None,
                false,
                &[1.0, 0.0],
                &[1.0, 2.0, 0.0, 1.0],
                nothing(Untold::Shape),
            ),
        ] {
            let found = raw(loss, whole, targets, outputs).reading();
            assert_eq!(found, expected, "{loss:?} {targets:?} {outputs:?}");
        }
    }
}
