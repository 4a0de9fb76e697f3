//! Operations of `candle_nn::ops` whose derivatives candle lacks, with candle_nn's names and bits, twice differentiable.

use candle_core::{D, Result, Tensor};

use super::draws;
use super::norm::{layer_normalised, rms_normalised};
use super::value::with_derivative;
use crate::ops::custom;
use crate::ops::softmax;

/// The softmax over the last dimension, as `candle_nn::ops::softmax_last_dim`, which has no derivative.
///
/// # Errors
/// If the input is a scalar or isn't a float tensor.
pub fn softmax_last_dim(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 0 {
        candle_core::bail!("softmax_last_dim: expected at least one dimension, got a scalar");
    }
    if !custom(x) {
        return candle_nn::ops::softmax(x, D::Minus1);
    }
    let value = candle_nn::ops::softmax_last_dim(&x.detach().contiguous()?)?;
    with_derivative("softmax-last-dim", &[x], value, |_, y, g| {
        Ok(vec![Box::new(move || softmax::gradient(y, g))])
    })
}

/// Layer normalisation over the last dimension, as `candle_nn::ops::layer_norm`, which has no derivative. `alpha` and `beta`
/// are the weight and the bias, (size,).
///
/// # Errors
/// If shapes or types differ.
pub fn layer_norm(x: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    layer_normalised(x, alpha, beta, eps)
}

/// RMS normalisation over the last dimension, as `candle_nn::ops::rms_norm`, which has no derivative. `alpha` is the weight,
/// (size,).
///
/// # Errors
/// If shapes or types differ.
pub fn rms_norm(x: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    rms_normalised(x, alpha, eps)
}

/// `gamma · x` where x > 0, otherwise `gamma · alpha · (exp(x) − 1)`, as `candle_nn::ops::selu`, which refuses types other than
/// f32.
///
/// # Errors
/// If the input isn't a float tensor.
pub fn selu(x: &Tensor, alpha: f32, gamma: f32) -> Result<Tensor> {
    let positive = x.gt(0f64)?;
    let constant = |value: f32| Tensor::full(value, x.dims(), x.device())?.to_dtype(x.dtype());
    let alpha = constant(alpha)?;
    // A large x has an infinite exp(x), and the branch that isn't taken would make the gradient 0 · ∞.
    let negative = x.minimum(0f64)?.exp()?.mul(&alpha)?.sub(&alpha)?;
    positive.where_cond(x, &negative)?.mul(&constant(gamma)?)
}

/// The input with each value set to 0 with probability `drop_p`, and divided by 1 − `drop_p` otherwise, as
/// `candle_nn::ops::dropout`, with the conditions of [`Dropout`](super::Dropout).
///
/// # Errors
/// As [`Dropout::forward`](super::Dropout::forward) in training.
pub fn dropout(x: &Tensor, drop_p: f32) -> Result<Tensor> {
    draws::dropout(x, drop_p)
}
