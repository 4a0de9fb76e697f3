//! Layer norm and RMS norm with candle_nn's names, constructors and bits, twice differentiable.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{LayerNormConfig, Module, VarBuilder};

use super::value::with_derivative;

/// Layer normalisation over the last dimension, a replacement of `candle_nn::LayerNorm`.
///
/// candle_nn's layer computes contiguous inputs with a kernel that has no derivative: parameters before it get no gradient,
/// without an error. This one gets the same bits, and its derivatives are right.
#[derive(Debug, Clone)]
pub struct LayerNorm(candle_nn::LayerNorm);

impl LayerNorm {
    /// A layer norm with a bias. `weight` and `bias` are (size,).
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self(candle_nn::LayerNorm::new(weight, bias, eps))
    }

    /// A layer norm without a bias.
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        Self(candle_nn::LayerNorm::new_no_bias(weight, eps))
    }

    /// An RMS norm: the mean isn't subtracted.
    pub fn rms_norm(weight: Tensor, eps: f64) -> Self {
        Self(candle_nn::LayerNorm::rms_norm(weight, eps))
    }

    /// The weight, (size,).
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// The bias, (size,), if there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }

    /// The number that is added to the variance.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// Whether the mean is subtracted.
    pub fn remove_mean(&self) -> bool {
        self.0.remove_mean()
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.bias() {
            Some(bias) if x.is_contiguous() && self.remove_mean() => {
                layer_normalised(x, self.weight(), bias, self.eps())
            }
            // candle composes these cases of operations whose derivatives are right.
            _ => self.0.forward(x),
        }
    }
}

/// A layer norm, with the same tensors as `candle_nn::layer_norm`: `weight` and, if the configuration is affine, `bias`.
///
/// # Errors
/// If the builder doesn't return a tensor.
pub fn layer_norm(
    size: usize,
    config: impl Into<LayerNormConfig>,
    vb: VarBuilder<'_>,
) -> Result<LayerNorm> {
    candle_nn::layer_norm(size, config, vb).map(LayerNorm)
}

/// A layer norm without a bias, as `candle_nn::layer_norm_no_bias`.
///
/// # Errors
/// If the builder doesn't return a tensor.
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder<'_>) -> Result<LayerNorm> {
    candle_nn::layer_norm_no_bias(size, eps, vb).map(LayerNorm)
}

/// RMS normalisation over the last dimension, a replacement of `candle_nn::RmsNorm`.
#[derive(Debug, Clone)]
pub struct RmsNorm(LayerNorm);

impl RmsNorm {
    /// An RMS norm. `weight` is (size,).
    pub fn new(weight: Tensor, eps: f64) -> Self {
        Self(LayerNorm::rms_norm(weight, eps))
    }

    /// The norm as a [`LayerNorm`] that doesn't subtract the mean.
    pub fn into_inner(self) -> LayerNorm {
        self.0
    }

    /// The weight, (size,).
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// The number that is added to the mean square.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// candle_nn's composed form. Its rounding differs from that of the forward pass.
    ///
    /// # Errors
    /// If shapes or types differ.
    pub fn forward_diff(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.is_contiguous() {
            rms_normalised(x, self.weight(), self.eps())
        } else {
            self.0.forward(x)
        }
    }
}

/// An RMS norm, with the same tensor as `candle_nn::rms_norm`: `weight`.
///
/// # Errors
/// If the builder doesn't return the tensor.
pub fn rms_norm(size: usize, eps: f64, vb: VarBuilder<'_>) -> Result<RmsNorm> {
    let weight = candle_nn::rms_norm(size, eps, vb)?.into_inner();
    Ok(RmsNorm(LayerNorm(weight)))
}

/// `(x − mean) / √(var + eps) · weight + bias` over the last dimension.
pub(super) fn layer_normalised(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    if !has_kernel(&[x, weight, bias]) {
        return candle_nn::ops::layer_norm_slow(x, weight, bias, eps as f32);
    }
    let value = candle_nn::ops::layer_norm(
        &x.detach().contiguous()?,
        &weight.detach().contiguous()?,
        &bias.detach().contiguous()?,
        eps as f32,
    )?;
    with_derivative(
        "layer-norm",
        &[x, weight, bias],
        value,
        move |inputs, _, g| {
            let [x, weight, bias] = *inputs else {
                candle_core::bail!("layer-norm: expected three inputs, got {}", inputs.len())
            };
            Ok(vec![
                Box::new(move || Normal::of(x, true, eps)?.gradient(g, weight, true)),
                Box::new(move || over_rows(&g.mul(&Normal::of(x, true, eps)?.value)?, weight)),
                Box::new(move || over_rows(g, bias)),
            ])
        },
    )
}

/// `x / √(mean(x²) + eps) · weight` over the last dimension.
pub(super) fn rms_normalised(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if !has_kernel(&[x, weight]) {
        return candle_nn::ops::rms_norm_slow(x, weight, eps as f32);
    }
    let value = candle_nn::ops::rms_norm(
        &x.detach().contiguous()?,
        &weight.detach().contiguous()?,
        eps as f32,
    )?;
    with_derivative("rms-norm", &[x, weight], value, move |inputs, _, g| {
        let [x, weight] = *inputs else {
            candle_core::bail!("rms-norm: expected two inputs, got {}", inputs.len())
        };
        Ok(vec![
            Box::new(move || Normal::of(x, false, eps)?.gradient(g, weight, false)),
            Box::new(move || over_rows(&g.mul(&Normal::of(x, false, eps)?.value)?, weight)),
        ])
    })
}

/// candle's kernels of both norms don't exist in f64. There, and on other devices, the composed form is used.
fn has_kernel(inputs: &[&Tensor]) -> bool {
    let x = inputs[0];
    // If the types differ, the composed operations say so. The kernel's message would only name the type of the weight.
    let same = inputs.iter().all(|input| input.dtype() == x.dtype());
    same && x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// The normalised rows, before the weight.
struct Normal {
    value: Tensor,
    /// 1 / √(var + eps), with a last dimension of 1.
    inverse: Tensor,
}

impl Normal {
    fn of(x: &Tensor, remove_mean: bool, eps: f64) -> Result<Self> {
        let x = if remove_mean {
            x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?
        } else {
            x.clone()
        };
        let inverse = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
        Ok(Self {
            value: x.broadcast_mul(&inverse)?,
            inverse,
        })
    }

    /// The gradient in x: with h = g · weight and the normalised n, it is (h − mean(h) − n mean(h n)) / √(var + eps). RMS
    /// norm has no mean(h).
    fn gradient(&self, g: &Tensor, weight: &Tensor, remove_mean: bool) -> Result<Tensor> {
        let h = g.broadcast_mul(weight)?;
        let along = h.mul(&self.value)?.mean_keepdim(D::Minus1)?;
        let mut out = h.sub(&self.value.broadcast_mul(&along)?)?;
        if remove_mean {
            out = out.broadcast_sub(&h.mean_keepdim(D::Minus1)?)?;
        }
        out.broadcast_mul(&self.inverse)
    }
}

/// The sum over all dimensions but the last, in the shape of `like`.
fn over_rows(g: &Tensor, like: &Tensor) -> Result<Tensor> {
    let size = g.dim(D::Minus1)?;
    g.reshape(((), size))?.sum(0)?.reshape(like.dims())
}
