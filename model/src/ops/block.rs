//! A convolution fused with the operations that usually follow it: bias, ReLU, max pooling.
//!
//! Values and derivatives are those of the separate operations. Fusion saves memory traffic. The convolution of an example
//! stays in cache until it is pooled, and candle keeps one small tensor and its gradient instead of four large ones.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::activation::ReluGate;
use super::channel;
use super::composed;
use super::convolve::{self, Finish};
use super::element::{by_dtype, elements, error, same_kind, storage};
use super::form::custom;
use super::geometry::{Conv, Pooling};
use super::operand::{check_bias, wanted};
use super::pool::Spread;
use super::products::{InputGradient, WeightGradient};

/// `relu(conv2d(x, w, bias))` in one pass, with the same values and derivatives.
///
/// # Errors
/// As [`super::conv2d`].
pub fn conv2d_relu(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: (usize, usize),
    padding: (usize, usize),
) -> Result<Tensor> {
    const OP: &str = "conv2d_relu";
    same_kind(OP, x, &[("the weight", w)])?;
    let g = Conv::forward(OP, x, w, stride, padding)?;
    apply(OP, x, w, &or_zeros(bias, &g, x)?, g, Finish::Relu)
}

/// `max_pool2d(relu(conv2d(x, w, bias)))` in one pass, with the same values and derivatives.
///
/// # Errors
/// As [`super::conv2d`] and [`super::max_pool2d`].
#[expect(
    clippy::too_many_arguments,
    reason = "the operands of three layers, as their own functions take them"
)]
pub fn conv2d_relu_max_pool2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: (usize, usize),
    padding: (usize, usize),
    pool_kernel: (usize, usize),
    pool_stride: (usize, usize),
    pool_padding: (usize, usize),
) -> Result<Tensor> {
    const OP: &str = "conv2d_relu_max_pool2d";
    same_kind(OP, x, &[("the weight", w)])?;
    let g = Conv::forward(OP, x, w, stride, padding)?;
    let pool = Pooling::of(OP, g.y_shape(), pool_kernel, pool_stride, pool_padding)?;
    apply(
        OP,
        x,
        w,
        &or_zeros(bias, &g, x)?,
        g,
        Finish::ReluMaxPool(pool),
    )
}

fn or_zeros(bias: Option<&Tensor>, g: &Conv, x: &Tensor) -> Result<Tensor> {
    match bias {
        Some(bias) => Ok(bias.clone()),
        None => Tensor::zeros(g.o, x.dtype(), x.device()),
    }
}

/// The convolution, its bias and `finish`.
pub(super) fn apply(
    op: &'static str,
    x: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    conv: Conv,
    finish: Finish,
) -> Result<Tensor> {
    check_bias(op, x, bias, conv.o)?;
    if custom(x) {
        let winners = OnceLock::new();
        return x.apply_op3(
            w,
            bias,
            ConvBlock {
                op,
                conv,
                finish,
                winners,
            },
        );
    }
    let y = channel::add_bias(&composed::conv2d(x, w, &conv)?, bias)?;
    match finish {
        Finish::Nothing => Ok(y),
        Finish::Relu => composed::relu(&y),
        Finish::ReluMaxPool(pool) => composed::relu(&composed::max_pool2d(&y, &pool)?),
    }
}

/// (x, w, bias) -> y.
struct ConvBlock {
    op: &'static str,
    conv: Conv,
    finish: Finish,
    /// Position of the largest element of each pooling window. The forward pass sets it.
    winners: OnceLock<Arc<Vec<u32>>>,
}

impl CustomOp3 for ConvBlock {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.op, x, T => {
            let x = elements::<T>(self.op, x, xl)?;
            let w = elements::<T>(self.op, w, wl)?;
            let b = elements::<T>(self.op, b, bl)?;
            let shape = match &self.finish {
                Finish::ReluMaxPool(pool) => pool.y_shape(),
                _ => self.conv.y_shape(),
            };
            let (y, winners) = convolve::forward(&self.conv, &self.finish, &x, &w, Some(&b));
            let _ = self.winners.set(Arc::new(winners));
            Ok((storage(y), shape.into()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        // The gradient with respect to the convolution's own output, then as for a convolution.
        let g = match &self.finish {
            Finish::Nothing => g.clone(),
            Finish::Relu => g.apply_op1(ReluGate { y: y.detach() })?,
            Finish::ReluMaxPool(pool) => {
                let winners = self.winners.get().ok_or_else(|| {
                    error(self.op, "the backward pass ran before the forward pass")
                })?;
                g.apply_op1(Spread(*pool, winners.clone()))?
            }
        };
        Ok((
            wanted(x, || g.apply_op2(w, InputGradient(self.conv)))?,
            wanted(w, || x.apply_op2(&g, WeightGradient(self.conv)))?,
            wanted(b, || channel::sum(&g))?,
        ))
    }
}
