//! Losses and classification errors on a split.

use candle_core::{D, DType, Device, Tensor};

use super::error::TrainError;
use super::flat::tensors;
use super::gradient::append_f64;
use crate::data::DataSet;
use crate::objective::{Batch, Draws, Mode, Objective, Pass, Split};
use crate::own::without_rounding;
use crate::real::Real;

/// Number of rows that are evaluated at once. It limits memory and changes no value, because evaluation treats each row
/// separately.
pub const EVALUATION_ROWS: usize = 500;

/// Result of evaluating a model on a split, without penalty, dropout and augmentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss. It is 0 if there are no examples.
    pub loss: f64,
    /// Number of examples whose class isn't the predicted one. `None` if the targets aren't classes.
    pub errors: Option<u64>,
    /// Number of evaluated examples.
    pub examples: u64,
}

impl Evaluation {
    /// Share of wrongly classified examples, in [0, 1].
    pub fn error_rate(&self) -> Option<f64> {
        self.errors
            .filter(|_| self.examples > 0)
            .map(|errors| errors as f64 / self.examples as f64)
    }
}

/// Evaluates a model on a whole split. `parameters` (p) and `buffers` are flat, in the objective's order.
///
/// # Errors
/// [`TrainError`] if lengths don't fit, a batch can't be loaded, or the model fails.
pub fn evaluate<T: Real>(
    objective: &dyn Objective,
    parameters: &[T],
    buffers: &[T],
    data: &dyn DataSet,
    split: Split,
    device: &Device,
) -> Result<Evaluation, TrainError> {
    let indices: Vec<u64> = (0..data.len(split)).collect();
    let mut errors = Some(0);
    let mut sum = 0.0;
    let run = Evaluator {
        objective,
        data,
        split,
        device,
    };
    run.each(parameters, buffers, &indices, |losses, outputs, batch| {
        sum += losses.iter().sum::<f64>();
        let more = if are_losses(outputs, losses)? {
            None
        } else {
            self::errors(outputs, batch)?
        };
        errors = match (errors, more) {
            (Some(all), Some(more)) => Some(all + more),
            _ => None,
        };
        Ok(())
    })?;
    let examples = indices.len() as u64;
    Ok(Evaluation {
        loss: sum / examples.max(1) as f64,
        errors: errors.filter(|_| examples > 0),
        examples,
    })
}

/// Losses of the examples at `indices` in evaluation mode, in the order of `indices`.
///
/// # Errors
/// As [`evaluate`].
pub fn losses<T: Real>(
    objective: &dyn Objective,
    parameters: &[T],
    buffers: &[T],
    data: &dyn DataSet,
    split: Split,
    indices: &[u64],
    device: &Device,
) -> Result<Vec<f64>, TrainError> {
    let mut all = Vec::with_capacity(indices.len());
    let run = Evaluator {
        objective,
        data,
        split,
        device,
    };
    run.each(parameters, buffers, indices, |losses, _, _| {
        all.extend_from_slice(losses);
        Ok(())
    })?;
    Ok(all)
}

struct Evaluator<'a> {
    objective: &'a dyn Objective,
    data: &'a dyn DataSet,
    split: Split,
    device: &'a Device,
}

impl Evaluator<'_> {
    /// Calls `visit` with the losses, the outputs and the batch of each group of examples.
    fn each<T: Real>(
        &self,
        parameters: &[T],
        buffers: &[T],
        indices: &[u64],
        mut visit: impl FnMut(&[f64], &Tensor, &Batch) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let objective = self.objective;
        let parameters = tensors(
            "parameters",
            parameters,
            objective.parameters(),
            self.device,
        )?;
        let buffers = tensors("buffers", buffers, objective.buffers(), self.device)?;
        for indices in indices.chunks(EVALUATION_ROWS) {
            let batch = self
                .data
                .batch(self.split, indices, None, T::DTYPE, self.device)?;
            // A model is judged by its function, without the rounding of mixed-precision training.
            let pass = Pass {
                parameters: &parameters,
                buffers: &buffers,
                batch: &batch,
                mode: Mode::Evaluate,
                draws: Draws { seed: 0, step: 0 },
            };
            let result = without_rounding(|| objective.losses(&pass))?;
            let mut losses = Vec::with_capacity(indices.len());
            append_f64(&result.per_example, &mut losses)?;
            visit(&losses, &result.outputs, &batch)?;
        }
        Ok(())
    }
}

/// Whether a model's outputs are its losses, as those of a model that computes them in its forward pass. They are no scores
/// of classes, whatever the labels are.
fn are_losses(outputs: &Tensor, losses: &[f64]) -> Result<bool, TrainError> {
    if losses.is_empty() || outputs.elem_count() != losses.len() {
        return Ok(false);
    }
    let mut values = Vec::with_capacity(losses.len());
    append_f64(&outputs.flatten_all()?, &mut values)?;
    Ok(values == losses)
}

/// Number of rows that are assigned a wrong class. The predicted class is the one with the largest output, or, for one
/// output, 1 if the output is positive and 0 otherwise. `outputs` are (rows, outputs) or (rows). Returns `None` if the
/// targets aren't classes, or if a row's class isn't one that the outputs can express: then they are no scores of classes,
/// such as the losses of an autoencoder whose examples have labels.
///
/// # Errors
/// [`TrainError::Tensor`] if candle fails.
pub fn errors(outputs: &Tensor, batch: &Batch) -> Result<Option<u64>, TrainError> {
    if batch.targets.dtype() != DType::U32 {
        return Ok(None);
    }
    let (predicted, classes) = match outputs.dims() {
        [_, 1] => (outputs.squeeze(1)?.gt(0f64)?.to_dtype(DType::U32)?, 2),
        [_] => (outputs.gt(0f64)?.to_dtype(DType::U32)?, 2),
        [_, outputs_per_row] => (outputs.argmax(D::Minus1)?, *outputs_per_row),
        _ => return Ok(None),
    };
    let predicted = predicted.to_vec1::<u32>()?;
    let truth = batch.targets.flatten_all()?.to_vec1::<u32>()?;
    if truth.iter().any(|&class| class as usize >= classes) {
        return Ok(None);
    }
    let wrong = predicted.iter().zip(&truth).filter(|(p, t)| p != t);
    Ok(Some(wrong.count() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(outputs: &Tensor, classes: &[u32]) -> Option<u64> {
        let batch = Batch {
            indices: (0..classes.len() as u64).collect(),
            inputs: outputs.clone(),
            targets: Tensor::new(classes, &Device::Cpu).unwrap(),
        };
        errors(outputs, &batch).unwrap()
    }

    #[test]
    fn outputs_that_are_the_losses_are_no_classes() {
        let outputs = Tensor::new(&[0.5f32, 0.25, 2.0], &Device::Cpu).unwrap();
        let losses = [0.5, 0.25, 2.0];
        assert!(are_losses(&outputs, &losses).unwrap());
        assert!(are_losses(&outputs.unsqueeze(1).unwrap(), &losses).unwrap());
        assert!(!are_losses(&outputs, &[0.5, 0.25, 2.5]).unwrap());
        assert!(!are_losses(&outputs, &[0.5, 0.25]).unwrap());
    }

    #[test]
    fn errors_are_counted_only_if_the_outputs_can_express_the_classes() {
        let one = Tensor::new(&[0.5f32, -1.0, 2.0], &Device::Cpu).unwrap();
        assert_eq!(count(&one, &[1, 1, 0]), Some(2));
        assert_eq!(count(&one.unsqueeze(1).unwrap(), &[1, 0, 1]), Some(0));
        // Losses of examples with three labels.
        assert_eq!(count(&one, &[1, 0, 2]), None);
        let two = Tensor::new(&[[0.5f32, 1.0], [3.0, 1.0]], &Device::Cpu).unwrap();
        assert_eq!(count(&two, &[1, 1]), Some(1));
        assert_eq!(count(&two, &[1, 2]), None);
    }
}
