//! Layer norm and RMS norm with candle_nn's names, constructors and bits, twice differentiable.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{LayerNormConfig, Module, VarBuilder};

use super::value::with_derivative;
use crate::ops::columns;
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
    let kind = Kind::of(&[x, weight, bias]);
    let value = match kind {
        Kind::Composed => return candle_nn::ops::layer_norm_slow(x, weight, bias, eps),
        Kind::Slow => {
            candle_nn::ops::layer_norm_slow(&x.detach(), &weight.detach(), &bias.detach(), eps)?
        }
        Kind::Kernel | Kind::Half => candle_nn::ops::layer_norm(
            &x.detach().contiguous()?,
            &weight.detach().contiguous()?,
            &bias.detach().contiguous()?,
            eps,
        )?,
    };
    let norm = Normal::new(kind, true, f64::from(eps));
    with_derivative(
        "layer-norm",
        &[x, weight, bias],
        value,
        move |inputs, _, g| {
            let [x, weight, bias] = *inputs else {
                candle_core::bail!("layer-norm: expected three inputs, got {}", inputs.len())
            };
            Ok(vec![
                Box::new(move || norm.gradient(g, x, weight)),
                Box::new(move || norm.weights_gradient(g, x, weight)),
                Box::new(move || columns::sum(g)?.reshape(bias.dims())),
            ])
        },
    )
}

/// `x / √(mean(x²) + eps) · weight` over the last dimension, with `eps` as in [`layer_normalised`].
pub(super) fn rms_normalised(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let kind = Kind::of(&[x, weight]);
    let value = match kind {
        Kind::Composed => return candle_nn::ops::rms_norm_slow(x, weight, eps),
        Kind::Slow => candle_nn::ops::rms_norm_slow(&x.detach(), &weight.detach(), eps)?,
        Kind::Kernel | Kind::Half => candle_nn::ops::rms_norm(
            &x.detach().contiguous()?,
            &weight.detach().contiguous()?,
            eps,
        )?,
    };
    let norm = Normal::new(kind, false, f64::from(eps));
    with_derivative("rms-norm", &[x, weight], value, move |inputs, _, g| {
        let [x, weight] = *inputs else {
            candle_core::bail!("rms-norm: expected two inputs, got {}", inputs.len())
        };
        Ok(vec![
            Box::new(move || norm.gradient(g, x, weight)),
            Box::new(move || norm.weights_gradient(g, x, weight)),
        ])
    })
}

/// How the values and the derivatives of a norm are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// f32 on the CPU: candle's kernel, and our derivatives.
    Kernel,
    /// f64 on the CPU, where candle has no kernel: its composed form, and our derivatives.
    Slow,
    /// f16 and bf16 on the CPU: candle's kernel, and derivatives composed of its operations.
    Half,
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
        if !inputs[1..].iter().all(fits) || !x.device().is_cpu() {
            return Self::Composed;
        }
        match x.dtype() {
            DType::F32 => Self::Kernel,
            DType::F64 => Self::Slow,
            DType::F16 | DType::BF16 => Self::Half,
            _ => Self::Composed,
        }
    }
}

/// The normalisation of rows, before the weight.
#[derive(Debug, Clone, Copy)]
struct Normal {
    norm: Norm,
    /// Whether the derivatives are composed of candle's operations.
    composed: bool,
}

impl Normal {
    fn new(kind: Kind, remove_mean: bool, eps: f64) -> Self {
        Self {
            norm: Norm { eps, remove_mean },
            composed: kind == Kind::Half,
        }
    }

    /// The gradient of x for the gradient g of the result.
    fn gradient(self, g: &Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let h = columns::scale(g, weight)?;
        if self.composed {
            Rows::of(x, self.norm)?.pulled(&h, self.norm)
        } else {
            row_norm::pulled(self.norm, &h, x)
        }
    }

    /// The gradient of the weight.
    fn weights_gradient(self, g: &Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let rows = if self.composed {
            Rows::of(x, self.norm)?.value
        } else {
            row_norm::normalised(self.norm, x)?
        };
        columns::dot(g, &rows)?.reshape(weight.dims())
    }
}

/// The normalised rows, composed of candle's operations.
struct Rows {
    value: Tensor,
    /// 1 / √(var + eps), with a last dimension of 1.
    inverse: Tensor,
}

impl Rows {
    fn of(x: &Tensor, norm: Norm) -> Result<Self> {
        let x = if norm.remove_mean {
            x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?
        } else {
            x.clone()
        };
        let inverse = (x.sqr()?.mean_keepdim(D::Minus1)? + norm.eps)?
            .sqrt()?
            .recip()?;
        Ok(Self {
            value: x.broadcast_mul(&inverse)?,
            inverse,
        })
    }

    /// The gradient in x for the gradient h of the normalised n: (h − mean(h) − n mean(h n)) / √(var + eps). RMS norm has no
    /// mean(h).
    fn pulled(&self, h: &Tensor, norm: Norm) -> Result<Tensor> {
        let along = h.mul(&self.value)?.mean_keepdim(D::Minus1)?;
        let mut out = h.sub(&self.value.broadcast_mul(&along)?)?;
        if norm.remove_mean {
            out = out.broadcast_sub(&h.mean_keepdim(D::Minus1)?)?;
        }
        out.broadcast_mul(&self.inverse)
    }
}
