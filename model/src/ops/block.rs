//! A convolution with what follows it in most nets, in one pass: bias, ReLU, max pooling.
//!
//! The values and derivatives are those of the separate operations. What is saved is memory traffic: an example's
//! convolution stays in cache until it has been pooled, and candle keeps (and adds up gradients for) one small tensor in
//! place of four large ones.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::activation::ReluGate;
use super::channel;
use super::composed;
use super::conv::{
    InputGradient, WeightGradient, one_each, patches_of, together, wanted, with_scratch,
};
use super::element::{Element, by_dtype, elements, error, same_kind, storage};
use super::geometry::{Conv, Pool};
use super::matmul::{Matrix, product};
use super::parallel::{row_pairs, rows};
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
            let (y, winners) = forward(&self.conv, &self.finish, &x, &w, Some(&b));
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

/// The convolution, its bias where there is one, and `finish`; for max pooling the winners, too.
pub(super) fn forward<T: Element + bytemuck::Pod>(
    g: &Conv,
    finish: &Finish,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
) -> (Vec<T>, Vec<u32>) {
    let (taps, pixels) = (g.taps(), g.pixels());
    let weight = Matrix::new(w, g.o, taps);
    let group = together(g);
    let work = 2 * g.o * taps * pixels * group;
    // The convolution of `n` examples from the `first` on into `out`, (o, n pixels).
    let convolve = |first: usize, n: usize, cols: &mut [T], out: &mut [T]| {
        let x = &x[first * g.input_len()..][..n * g.input_len()];
        if let Some(bias) = bias {
            for (line, &b) in out.chunks_exact_mut(n * pixels).zip(bias) {
                line.fill(b);
            }
        }
        product(out, weight, patches_of(g, x, cols), bias.is_some());
    };
    let relu = matches!(finish, Finish::Relu);
    let rectified = |v: T| if relu && v <= T::ZERO { T::ZERO } else { v };
    let Finish::ReluMaxPool(pool) = finish else {
        let len = g.output_len();
        let y = rows(g.b * len, group * len, work, |i, y| {
            let n = y.len() / len;
            with_scratch((taps + g.o) * n * pixels, |scratch| {
                let (cols, out) = scratch.split_at_mut(taps * n * pixels);
                if n == 1 {
                    convolve(i * group, 1, cols, y);
                    if relu {
                        y.iter_mut().for_each(|v| *v = rectified(*v));
                    }
                    return;
                }
                convolve(i * group, n, cols, out);
                for (channel, planes) in out.chunks_exact(n * pixels).enumerate() {
                    for (y, plane) in y.chunks_exact_mut(len).zip(planes.chunks_exact(pixels)) {
                        let y = &mut y[channel * pixels..][..pixels];
                        y.iter_mut()
                            .zip(plane)
                            .for_each(|(y, &v)| *y = rectified(v));
                    }
                }
            });
        });
        return (y, Vec::new());
    };
    let windows = pool.oh * pool.ow;
    let len = pool.c * windows;
    row_pairs(g.b * len, group * len, work, |i, y, winners| {
        let n = y.len() / len;
        with_scratch((taps + g.o) * n * pixels, |scratch| {
            let (cols, out) = scratch.split_at_mut(taps * n * pixels);
            convolve(i * group, n, cols, out);
            for (channel, planes) in out.chunks_exact(n * pixels).enumerate() {
                for (i, plane) in planes.chunks_exact(pixels).enumerate() {
                    let at = i * len + channel * windows..i * len + (channel + 1) * windows;
                    let (y, winners) = (&mut y[at.clone()], &mut winners[at]);
                    pool::reduce_plane(pool, true, plane, y, winners);
                }
            }
        });
    })
}
