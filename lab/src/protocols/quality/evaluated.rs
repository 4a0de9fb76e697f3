//! Losses and predictions of retrained models, in float64 for any float type of training: a loss near 0 has few
//! significant digits in float32, and the ranks would be noise.

use candle_core::{D, DType, Device, Tensor};
use hindcast_model::objective::{Draws, Mode, Pass, Split};
use hindcast_model::train::{losses, tensors};

use hindcast_analyzer::counterfactual::Outcome;
use hindcast_analyzer::{AnalysisError, RecordedRun};

/// The loss of each of these examples, in evaluation mode and without penalty.
pub(super) fn losses_of(
    run: &RecordedRun<'_>,
    end: &Outcome,
    split: Split,
    examples: &[u64],
) -> anyhow::Result<Vec<f64>> {
    let (parameters, buffers) = end.model();
    Ok(losses::<f64>(
        run.objective().as_ref(),
        parameters,
        buffers,
        run.data(),
        split,
        examples,
        &Device::Cpu,
    )?)
}

/// The class that the model predicts for each of these examples.
pub(super) fn predictions_of(
    run: &RecordedRun<'_>,
    parameters: &[f64],
    buffers: &[f64],
    split: Split,
    examples: &[u64],
) -> anyhow::Result<Vec<u32>> {
    let (objective, device) = (run.objective(), &Device::Cpu);
    let batch = run
        .data()
        .batch(split, examples, None, DType::F64, device)
        .map_err(AnalysisError::from)?;
    let found = objective.losses(&Pass {
        parameters: &tensors("parameters", parameters, objective.parameters(), device)?,
        buffers: &tensors("buffers", buffers, objective.buffers(), device)?,
        batch: &batch,
        mode: Mode::Evaluate,
        draws: Draws { seed: 0, step: 0 },
    })?;
    classes(&found.outputs)
}

/// The class with the largest output; for a single output, whether it is above 0.
fn classes(outputs: &Tensor) -> anyhow::Result<Vec<u32>> {
    let classes = match outputs.dims() {
        [_, 1] => outputs.squeeze(1)?.gt(0f64)?.to_dtype(DType::U32)?,
        [_, _] => outputs.argmax(D::Minus1)?,
        shape => {
            return Err(AnalysisError::other(format!(
                "outputs of shape {shape:?} don't predict classes"
            ))
            .into());
        }
    };
    Ok(classes.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_output_is_the_class() {
        let device = &Device::Cpu;
        let many = Tensor::new(&[[0.1f64, 0.3, -1.0], [5.0, 4.0, 3.0]], device).unwrap();
        assert_eq!(classes(&many).unwrap(), [1, 0]);
        let one = Tensor::new(&[[0.1f64], [-2.0]], device).unwrap();
        assert_eq!(classes(&one).unwrap(), [1, 0]);
        assert!(classes(&Tensor::new(&[1.0f64], device).unwrap()).is_err());
    }
}
