//! One-dimensional convolutions with candle_nn's names and constructors, twice differentiable.
//!
//! The values are those of candle's kernels, with two exceptions on the CPU, where candle 0.11.1 computes other numbers than
//! the convolution: a weight that isn't contiguous is read in the wrong order, and a transposed convolution without padding
//! mixes the examples of a batch.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Conv1dConfig, ConvTranspose1dConfig, VarBuilder};

use super::value::with_derivative;
use crate::ops::{self, Conv, Convolution, InputGradient, WeightGradient, supported};

/// One-dimensional convolution of (B, C, L) tensors, a replacement of `candle_nn::Conv1d`, whose weight gets a wrong gradient on the CPU, and which has no second derivative.
#[derive(Debug, Clone)]
pub struct Conv1d(candle_nn::Conv1d);

impl Conv1d {
    /// A convolution. `weight` is (O, C / groups, K), `bias` is (O,).
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv1dConfig) -> Self {
        Self(candle_nn::Conv1d::new(weight, bias, config))
    }

    /// Padding, stride, dilation and groups.
    pub fn config(&self) -> &Conv1dConfig {
        self.0.config()
    }

    /// The weight, (O, C / groups, K).
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// The bias, (O,), if there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }
}

impl Module for Conv1d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let config = self.config();
        let sizes = Sizes {
            padding: config.padding,
            output_padding: 0,
            stride: config.stride,
            dilation: config.dilation,
        };
        let y = grouped(x, self.weight(), config.groups, |x, w| {
            convolved(x, w, sizes)
        })?;
        biased(y, self.bias())
    }
}

/// A convolution, with the same tensors as `candle_nn::conv1d`: `weight` and `bias`.
///
/// # Errors
/// If the builder doesn't return a tensor.
pub fn conv1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: Conv1dConfig,
    vb: VarBuilder<'_>,
) -> Result<Conv1d> {
    candle_nn::conv1d(in_channels, out_channels, kernel_size, config, vb).map(Conv1d)
}

/// A convolution without a bias, as `candle_nn::conv1d_no_bias`.
///
/// # Errors
/// If the builder doesn't return the tensor.
pub fn conv1d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: Conv1dConfig,
    vb: VarBuilder<'_>,
) -> Result<Conv1d> {
    candle_nn::conv1d_no_bias(in_channels, out_channels, kernel_size, config, vb).map(Conv1d)
}

/// One-dimensional transposed convolution of (B, C, L) tensors, a replacement of `candle_nn::ConvTranspose1d`, which has no
/// derivative.
#[derive(Debug, Clone)]
pub struct ConvTranspose1d(candle_nn::ConvTranspose1d);

impl ConvTranspose1d {
    /// A transposed convolution. `weight` is (C, O / groups, K), `bias` is (O,).
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: ConvTranspose1dConfig) -> Self {
        Self(candle_nn::ConvTranspose1d::new(weight, bias, config))
    }

    /// Paddings, stride, dilation and groups.
    pub fn config(&self) -> &ConvTranspose1dConfig {
        self.0.config()
    }

    /// The weight, (C, O / groups, K).
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// The bias, (O,), if there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }
}

impl Module for ConvTranspose1d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let config = self.config();
        let sizes = Sizes {
            padding: config.padding,
            output_padding: config.output_padding,
            stride: config.stride,
            dilation: config.dilation,
        };
        let y = grouped(x, self.weight(), config.groups, |x, w| {
            transposed(x, w, sizes)
        })?;
        biased(y, self.bias())
    }
}

/// A transposed convolution, with the same tensors as `candle_nn::conv_transpose1d`: `weight` and `bias`.
///
/// # Errors
/// If the builder doesn't return a tensor.
pub fn conv_transpose1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: ConvTranspose1dConfig,
    vb: VarBuilder<'_>,
) -> Result<ConvTranspose1d> {
    candle_nn::conv_transpose1d(in_channels, out_channels, kernel_size, config, vb)
        .map(ConvTranspose1d)
}

/// A transposed convolution without a bias, as `candle_nn::conv_transpose1d_no_bias`.
///
/// # Errors
/// If the builder doesn't return the tensor.
pub fn conv_transpose1d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: ConvTranspose1dConfig,
    vb: VarBuilder<'_>,
) -> Result<ConvTranspose1d> {
    candle_nn::conv_transpose1d_no_bias(in_channels, out_channels, kernel_size, config, vb)
        .map(ConvTranspose1d)
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    padding: usize,
    output_padding: usize,
    stride: usize,
    dilation: usize,
}

impl Sizes {
    /// As those of a two-dimensional convolution of height 1.
    fn flat(&self) -> [(usize, usize); 3] {
        [
            (1, self.stride),
            (0, self.padding),
            (0, self.output_padding),
        ]
    }

    fn check(&self, op: &str) -> Result<()> {
        if self.stride == 0 || self.dilation == 0 {
            candle_core::bail!(
                "{op}: stride and dilation must be at least 1, got {} and {}",
                self.stride,
                self.dilation
            );
        }
        Ok(())
    }
}

/// One convolution per group of channels, as candle divides them.
fn grouped(
    x: &Tensor,
    weight: &Tensor,
    groups: usize,
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (_, channels, _) = x.dims3()?;
    if groups == 0 || channels % groups != 0 || weight.dim(0)? % groups != 0 {
        candle_core::bail!(
            "convolution: {groups} groups don't divide an input {:?} and a weight {:?}",
            x.dims(),
            weight.dims()
        );
    }
    if groups == 1 {
        return f(x, weight);
    }
    let parts = x.chunk(groups, 1)?;
    let weights = weight.chunk(groups, 0)?;
    let outputs = parts
        .iter()
        .zip(&weights)
        .map(|(x, w)| f(x, w))
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&outputs, 1)
}

fn biased(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        None => Ok(y),
        Some(bias) => y.broadcast_add(&bias.reshape((1, bias.dims1()?, 1))?),
    }
}

/// The convolution of one group, (B, C, L) and (O, C, K) to (B, O, L').
fn convolved(x: &Tensor, w: &Tensor, sizes: Sizes) -> Result<Tensor> {
    const OP: &str = "conv1d";
    sizes.check(OP)?;
    let [stride, padding, _] = sizes.flat();
    let (x4, w4) = (x.unsqueeze(2)?, dilated(w, sizes.dilation)?);
    if !supported(x) {
        return ops::conv2d(&x4, &w4, None, stride, padding)?.squeeze(2);
    }
    let geometry = Conv::forward(OP, &x4, &w4, stride, padding)?;
    let Sizes {
        padding,
        stride,
        dilation,
        ..
    } = sizes;
    let value = x
        .detach()
        .conv1d(&w.detach().contiguous()?, padding, stride, dilation, 1)?;
    with_derivative(OP, &[x, w], value, move |inputs, _, g| {
        let [x, w] = *inputs else {
            candle_core::bail!("{OP}: expected two inputs, got {}", inputs.len())
        };
        Ok(vec![
            Box::new(move || {
                let w = dilated(w, dilation)?;
                g.unsqueeze(2)?
                    .apply_op2(&w, InputGradient(geometry))?
                    .squeeze(2)
            }),
            Box::new(move || {
                let gw = x
                    .unsqueeze(2)?
                    .apply_op2(&g.unsqueeze(2)?, WeightGradient(geometry))?;
                undilated(&gw, dilation)
            }),
        ])
    })
}

/// The transposed convolution of one group, (B, C, L) and (C, O, K) to (B, O, L').
fn transposed(x: &Tensor, w: &Tensor, sizes: Sizes) -> Result<Tensor> {
    const OP: &str = "conv_transpose1d";
    sizes.check(OP)?;
    let [stride, padding, output_padding] = sizes.flat();
    let (x4, w4) = (x.unsqueeze(2)?, dilated(w, sizes.dilation)?);
    if !supported(x) {
        return ops::conv_transpose2d(&x4, &w4, None, stride, padding, output_padding)?.squeeze(2);
    }
    let geometry = Conv::transposed(OP, &x4, &w4, stride, padding, output_padding)?;
    let dilation = sizes.dilation;
    // candle multiplies the transposed input with the weight, and reads all examples of a batch as one matrix. That is right
    // only if the transposed input is contiguous.
    let rows = x.detach().transpose(1, 2)?.contiguous()?.transpose(1, 2)?;
    let value = rows.conv_transpose1d(
        &w.detach().contiguous()?,
        sizes.padding,
        sizes.output_padding,
        sizes.stride,
        dilation,
        1,
    )?;
    with_derivative(OP, &[x, w], value, move |inputs, _, g| {
        let [x, w] = *inputs else {
            candle_core::bail!("{OP}: expected two inputs, got {}", inputs.len())
        };
        Ok(vec![
            Box::new(move || {
                let w = dilated(w, dilation)?;
                g.unsqueeze(2)?
                    .apply_op2(&w, Convolution(geometry))?
                    .squeeze(2)
            }),
            Box::new(move || {
                let gw = g
                    .unsqueeze(2)?
                    .apply_op2(&x.unsqueeze(2)?, WeightGradient(geometry))?;
                undilated(&gw, dilation)
            }),
        ])
    })
}

/// (O, C, K) with `dilation` − 1 zeros between neighbours, as the weight of a two-dimensional convolution: (O, C, 1, (K − 1)
/// dilation + 1).
fn dilated(w: &Tensor, dilation: usize) -> Result<Tensor> {
    let (o, c, k) = w.dims3()?;
    if dilation == 1 || k == 0 {
        return w.unsqueeze(2);
    }
    w.unsqueeze(3)?
        .pad_with_zeros(3, 0, dilation - 1)?
        .reshape((o, c, k * dilation))?
        .narrow(2, 0, (k - 1) * dilation + 1)?
        .unsqueeze(2)
}

/// The transpose of [`dilated`].
fn undilated(w: &Tensor, dilation: usize) -> Result<Tensor> {
    let w = w.squeeze(2)?;
    if dilation == 1 {
        return Ok(w);
    }
    let (o, c, spread) = w.dims3()?;
    w.pad_with_zeros(2, 0, dilation - 1)?
        .reshape((o, c, spread.div_ceil(dilation), dilation))?
        .narrow(3, 0, 1)?
        .squeeze(3)
}
