//! A convolution with what follows it in most nets, in one pass: bias, ReLU, max pooling.
//!
//! The values and derivatives are those of the separate operations. What is saved is memory traffic: an example's
//! convolution stays in cache until it has been pooled, and candle keeps (and adds up gradients for) one small tensor in
//! place of four large ones.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::activation::ReluGate;
use super::channel;
use super::composed;
use super::conv::{InputGradient, WeightGradient, one_each, wanted, with_scratch};
use super::element::{Element, by_dtype, elements, error, same_kind, storage};
use super::geometry::{Conv, Pool};
use super::matmul::{Matrix, product};
use super::patches;
use super::pool::{self, Spread};

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
#[allow(clippy::too_many_arguments)] // The operands of three layers.
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
    let pool = Pool::of(OP, g.y_shape(), pool_kernel, pool_stride, pool_padding)?;
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

/// What follows a convolution and its bias.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finish {
    Nothing,
    Relu,
    ReluMaxPool(Pool),
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
    one_each(op, x, bias, conv.o)?;
    if x.device().is_cpu() {
        let winners = OnceLock::new();
        return x.apply_op3(
            w,
            bias,
            Block {
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
struct Block {
    op: &'static str,
    conv: Conv,
    finish: Finish,
    /// As in [`pool`]: each window's winner, known once the forward pass has run.
    winners: OnceLock<Arc<Vec<u32>>>,
}

impl CustomOp3 for Block {
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
            let (y, winners) = forward(&self.conv, &self.finish, &x, &w, &b);
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

fn forward<T: Element + bytemuck::Pod>(
    g: &Conv,
    finish: &Finish,
    x: &[T],
    w: &[T],
    bias: &[T],
) -> (Vec<T>, Vec<u32>) {
    let (taps, pixels) = (g.taps(), g.pixels());
    let weight = Matrix::new(w, g.o, taps);
    // One example's convolution into `out`.
    let convolve = |i: usize, cols: &mut [T], out: &mut [T]| {
        let x = &x[i * g.input_len()..][..g.input_len()];
        for (line, &b) in out.chunks_exact_mut(pixels).zip(bias) {
            line.fill(b);
        }
        if g.is_pointwise() {
            product(out, weight, Matrix::new(x, taps, pixels), true);
        } else {
            patches::gather(g, x, cols);
            product(out, weight, Matrix::new(cols, taps, pixels), true);
        }
    };
    let Finish::ReluMaxPool(pool) = finish else {
        let mut y = vec![T::ZERO; g.b * g.output_len()];
        if !y.is_empty() {
            y.par_chunks_mut(g.output_len())
                .enumerate()
                .for_each(|(i, out)| {
                    with_scratch(taps * pixels, |cols| convolve(i, cols, out));
                    if matches!(finish, Finish::Relu) {
                        for v in out {
                            *v = if *v <= T::ZERO { T::ZERO } else { *v };
                        }
                    }
                });
        }
        return (y, Vec::new());
    };
    let windows = pool.oh * pool.ow;
    let len = pool.c * windows;
    let mut y = vec![T::ZERO; g.b * len];
    let mut winners = vec![0u32; g.b * len];
    if !y.is_empty() {
        y.par_chunks_mut(len)
            .zip(winners.par_chunks_mut(len))
            .enumerate()
            .for_each(|(i, (y, winners))| {
                with_scratch(taps * pixels + g.output_len(), |scratch| {
                    let (cols, out) = scratch.split_at_mut(taps * pixels);
                    convolve(i, cols, out);
                    for ((plane, y), winners) in out
                        .chunks_exact(pixels)
                        .zip(y.chunks_exact_mut(windows))
                        .zip(winners.chunks_exact_mut(windows))
                    {
                        pool::reduce_plane(pool, true, plane, y, winners);
                    }
                });
            });
    }
    (y, winners)
}
