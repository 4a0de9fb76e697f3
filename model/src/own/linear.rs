//! A fully connected layer with candle_nn's names, constructors and bits, and a faster backward pass.

use candle_core::{Result, Tensor};
use candle_nn::{Module, VarBuilder};

use crate::ops::{affine, supported};

/// A fully connected layer y = x wᵀ + b, a replacement of `candle_nn::Linear`.
///
/// candle_nn's layer is right, too, except for an input that isn't contiguous, such as a transposed batch. This one is faster
/// on the CPU: candle adds the rows of a bias's gradient one element at a time, and writes the weight's gradient transposed.
/// On the CPU in float32 and float64, the values and the gradients have candle_nn's bits.
#[derive(Debug, Clone)]
pub struct Linear(candle_nn::Linear);

impl Linear {
    /// A layer with a weight (out, in) and a bias (out,) or none.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self(candle_nn::Linear::new(weight, bias))
    }

    /// The weight, (out, in).
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// The bias, (out,), if there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }
}

impl Module for Linear {
    /// (..., in) to (..., out).
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        if runs_here(&x, self.weight(), self.bias()) {
            affine(&x, self.weight(), self.bias())
        } else {
            // With the messages of candle's operations if shapes or types don't fit.
            self.0.forward(&x)
        }
    }
}

/// Whether the shapes fit, and the types are those of the custom operations.
fn runs_here(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> bool {
    let [out, size] = *weight.dims() else {
        return false;
    };
    let alike = |t: &Tensor| t.device().is_cpu() && t.dtype() == x.dtype();
    supported(x)
        && x.rank() >= 2
        && x.dims().last() == Some(&size)
        && alike(weight)
        && bias.is_none_or(|bias| alike(bias) && bias.dims() == [out])
}

/// A fully connected layer, with the same tensors as `candle_nn::linear`: `weight` and `bias`.
///
/// # Errors
/// If the builder doesn't return a tensor.
pub fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    candle_nn::linear(in_dim, out_dim, vb).map(Linear)
}

/// A fully connected layer without a bias, as `candle_nn::linear_no_bias`.
///
/// # Errors
/// If the builder doesn't return a tensor.
pub fn linear_no_bias(in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    candle_nn::linear_no_bias(in_dim, out_dim, vb).map(Linear)
}

/// A fully connected layer with or without a bias, as `candle_nn::linear_b`.
///
/// # Errors
/// If the builder doesn't return a tensor.
pub fn linear_b(in_dim: usize, out_dim: usize, bias: bool, vb: VarBuilder<'_>) -> Result<Linear> {
    candle_nn::linear_b(in_dim, out_dim, bias, vb).map(Linear)
}
