//! Layer norm and RMS norm with candle_nn's names, constructors and bits, twice differentiable.

use candle_core::{DType, Result, Tensor};
use candle_nn::{LayerNormConfig, Module, VarBuilder};

use super::value::with_derivative;
use crate::ops::columns;
use crate::ops::custom;
use crate::ops::row_norm::{self, Norm};

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
                layer_normalised(x, self.weight(), bias, self.eps() as f32)
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
            rms_normalised(x, self.weight(), self.eps() as f32)
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

/// `(x − mean) / √(var + eps) · weight + bias` over the last dimension. `eps` is a float32 in all float types, as in candle.
pub(super) fn layer_normalised(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<Tensor> {
    let value = match Kind::of(&[x, weight, bias]) {
        Kind::Composed => return candle_nn::ops::layer_norm_slow(x, weight, bias, eps),
        Kind::Slow => {
            candle_nn::ops::layer_norm_slow(&x.detach(), &weight.detach(), &bias.detach(), eps)?
        }
        Kind::Kernel => candle_nn::ops::layer_norm(
            &x.detach().contiguous()?,
            &weight.detach().contiguous()?,
            &bias.detach().contiguous()?,
            eps,
        )?,
    };
    let norm = Norm {
        eps: f64::from(eps),
        remove_mean: true,
    };
    with_derivative(
        "layer-norm",
        &[x, weight, bias],
        value,
        move |inputs, _, g| {
            let [x, weight, bias] = *inputs else {
                candle_core::bail!("layer-norm: expected three inputs, got {}", inputs.len())
            };
            Ok(vec![
                Box::new(move || gradient(norm, g, x, weight)),
                Box::new(move || weights_gradient(norm, g, x, weight)),
                Box::new(move || columns::sum(g)?.reshape(bias.dims())),
            ])
        },
    )
}

/// `x / √(mean(x²) + eps) · weight` over the last dimension, with `eps` as in [`layer_normalised`].
pub(super) fn rms_normalised(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let value = match Kind::of(&[x, weight]) {
        Kind::Composed => return candle_nn::ops::rms_norm_slow(x, weight, eps),
        Kind::Slow => candle_nn::ops::rms_norm_slow(&x.detach(), &weight.detach(), eps)?,
        Kind::Kernel => candle_nn::ops::rms_norm(
            &x.detach().contiguous()?,
            &weight.detach().contiguous()?,
            eps,
        )?,
    };
    let norm = Norm {
        eps: f64::from(eps),
        remove_mean: false,
    };
    with_derivative("rms-norm", &[x, weight], value, move |inputs, _, g| {
        let [x, weight] = *inputs else {
            candle_core::bail!("rms-norm: expected two inputs, got {}", inputs.len())
        };
        Ok(vec![
            Box::new(move || gradient(norm, g, x, weight)),
            Box::new(move || weights_gradient(norm, g, x, weight)),
        ])
    })
}

/// How the value of a norm is computed.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// f32, f16 and bf16 on the CPU: candle's kernel, and our derivatives.
    Kernel,
    /// f64 on the CPU, where candle has no kernel: its composed form, and our derivatives.
    Slow,
    /// Other devices: candle's composed form, and candle's derivatives.
    Composed,
}

impl Kind {
    fn of(inputs: &[&Tensor]) -> Self {
        let x = inputs[0];
        // If types or shapes don't fit, the composed operations say so. The kernel's message would only name the type of the weight.
        let fits = |input: &&Tensor| {
            input.dtype() == x.dtype() && x.dims().last().is_some_and(|&n| input.dims() == [n])
        };
        if !inputs[1..].iter().all(fits) || !custom(x) {
            return Self::Composed;
        }
        match x.dtype() {
            DType::F32 | DType::F16 | DType::BF16 => Self::Kernel,
            DType::F64 => Self::Slow,
            _ => Self::Composed,
        }
    }
}

/// The gradient of x for the gradient g of the result.
fn gradient(norm: Norm, g: &Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    row_norm::gradient(norm, &columns::scale(g, weight)?, x)
}

/// The gradient of the weight.
fn weights_gradient(norm: Norm, g: &Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    columns::dot(g, &row_norm::normalised(norm, x)?)?.reshape(weight.dims())
}
