//! Clipping of gradients by their joint norm.

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var};

/// The number that PyTorch's `clip_grad_norm_` adds to the norm before the division.
const EPSILON: f64 = 1e-6;

/// Multiplies the gradients of these variables by `most` / (norm + 1e-6) if that is below 1. Returns their joint norm before.
pub(super) fn clip(gradients: &mut GradStore, variables: &[&Var], most: f64) -> Result<f64> {
    let mut squares = 0.0;
    for gradient in variables.iter().filter_map(|var| gradients.get(var)) {
        squares += sum_of_squares(gradient)?;
    }
    let norm = squares.sqrt();
    let scale = most / (norm + EPSILON);
    if scale < 1.0 {
        for var in variables {
            if let Some(gradient) = gradients.remove(var) {
                gradients.insert(var, (gradient * scale)?);
            }
        }
    }
    Ok(norm)
}

/// In float64, in the eight partial sums in which the replay adds, so that both find the same norm.
fn sum_of_squares(gradient: &Tensor) -> Result<f64> {
    let values: Vec<f64> = gradient.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
    let mut lanes = [0.0; 8];
    for chunk in values.chunks(lanes.len()) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    Ok(lanes.iter().sum())
}
