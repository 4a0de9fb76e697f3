//! Convolution and transposed convolution.
//!
//! A convolution y = x * w is linear in x and in w, so the sum <g, x * w> has three partial derivatives, and each is
//! again linear in the two operands that remain:
//!
//! - `Forward` (x, w) -> y-shaped,
//! - `InputGradient` (g, w) -> x-shaped, which is also the transposed convolution,
//! - `WeightGradient` (x, g) -> w-shaped.
//!
//! The backward pass of each is the other two, so derivatives of any order stay inside this file. On another device than
//! the CPU the same functions are built of candle's own operations (see [`super::composed`]).

use std::cell::RefCell;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::block::{self, Finish};
use super::channel;
use super::composed;
use super::element::{Element, by_dtype, elements, error, same_kind, storage};
use super::geometry::Conv;
use super::matmul::{Matrix, product};
use super::parallel::{for_rows, sum_over};
use super::patches;

/// Two-dimensional convolution (cross-correlation, as in PyTorch).
///
/// `x` (B, C, H, W), `w` (O, C, KH, KW), `bias` (O,) give (B, O, OH, OW) with
/// OH = ⌊(H + 2 padding − KH) / stride⌋ + 1, and OW likewise. Pairs are (vertical, horizontal).
///
/// # Errors
/// Shapes that do not fit, mixed or integer types, a stride of 0.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: (usize, usize),
    padding: (usize, usize),
) -> Result<Tensor> {
    const OP: &str = "conv2d";
    same_kind(OP, x, &[("the weight", w)])?;
    let g = Conv::forward(OP, x, w, stride, padding)?;
    match bias {
        Some(bias) => block::apply(OP, x, w, bias, g, Finish::Nothing),
        None if x.device().is_cpu() => x.apply_op2(w, Forward(g)),
        None => composed::conv2d(x, w, &g),
    }
}

/// Two-dimensional transposed convolution, the gradient of [`conv2d`] with respect to its input.
///
/// `x` (B, C, H, W), `w` (C, O, KH, KW), `bias` (O,) give (B, O, OH, OW) with
/// OH = (H − 1) stride − 2 padding + KH + output_padding, and OW likewise. Pairs are (vertical, horizontal).
///
/// # Errors
/// Shapes that do not fit, mixed or integer types, a stride of 0, an output padding that is not below the stride.
pub fn conv_transpose2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: (usize, usize),
    padding: (usize, usize),
    output_padding: (usize, usize),
) -> Result<Tensor> {
    const OP: &str = "conv_transpose2d";
    same_kind(OP, x, &[("the weight", w)])?;
    let g = Conv::transposed(OP, x, w, stride, padding, output_padding)?;
    let y = if x.device().is_cpu() {
        x.apply_op2(w, InputGradient(g))?
    } else {
        composed::conv_transpose2d(x, w, &g)?
    };
    match bias {
        Some(bias) => {
            one_each(OP, x, bias, g.c)?;
            channel::add_bias(&y, bias)
        }
        None => Ok(y),
    }
}

/// A bias has one value for each output channel.
pub(super) fn one_each(op: &str, x: &Tensor, bias: &Tensor, channels: usize) -> Result<()> {
    same_kind(op, x, &[("the bias", bias)])?;
    if bias.dims() == [channels] {
        return Ok(());
    }
    Err(error(
        op,
        format!(
            "the bias must have shape [{channels}], got {:?}",
            bias.dims()
        ),
    ))
}

/// (x, w) -> y.
pub(super) struct Forward(pub(super) Conv);
/// (g, w) -> x-shaped.
pub(super) struct InputGradient(pub(super) Conv);
/// (x, g) -> w-shaped.
pub(super) struct WeightGradient(pub(super) Conv);

/// `Some(f())` where the operand leads to a variable: candle wants no gradient for others, and data needs none.
pub(crate) fn wanted(
    operand: &Tensor,
    f: impl FnOnce() -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    operand.track_op().then(f).transpose()
}

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let w = elements::<T>(self.name(), w, wl)?;
            Ok((storage(forward(g, &x, &w)), g.y_shape().into()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(x, || gy.apply_op2(w, InputGradient(self.0)))?,
            wanted(w, || x.apply_op2(gy, WeightGradient(self.0)))?,
        ))
    }
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn cpu_fwd(
        &self,
        gy: &CpuStorage,
        gl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        by_dtype!(self.name(), gy, T => {
            let gy = elements::<T>(self.name(), gy, gl)?;
            let w = elements::<T>(self.name(), w, wl)?;
            Ok((storage(input_gradient(g, &gy, &w)), g.x_shape().into()))
        })
    }

    fn bwd(
        &self,
        gy: &Tensor,
        w: &Tensor,
        _x: &Tensor,
        gx: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(gy, || gx.apply_op2(w, Forward(self.0)))?,
            wanted(w, || gx.apply_op2(gy, WeightGradient(self.0)))?,
        ))
    }
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d weight gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        gy: &CpuStorage,
        gl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let gy = elements::<T>(self.name(), gy, gl)?;
            Ok((storage(weight_gradient(g, &x, &gy)), g.w_shape().into()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        gy: &Tensor,
        _w: &Tensor,
        gw: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(x, || gy.apply_op2(gw, InputGradient(self.0)))?,
            wanted(gy, || x.apply_op2(gw, Forward(self.0)))?,
        ))
    }
}

thread_local! {
    /// Each thread's patch matrix, kept between calls.
    static PATCHES: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with this thread's scratch memory of `len` elements, whose contents are arbitrary.
pub(super) fn with_scratch<T: Element + bytemuck::Pod, R>(
    len: usize,
    f: impl FnOnce(&mut [T]) -> R,
) -> R {
    PATCHES.with_borrow_mut(|words| {
        let need = (len * size_of::<T>()).div_ceil(size_of::<u64>());
        if words.len() < need {
            words.resize(need, 0);
        }
        let all: &mut [T] = bytemuck::cast_slice_mut(words);
        f(&mut all[..len])
    })
}

fn forward<T: Element + bytemuck::Pod>(g: &Conv, x: &[T], w: &[T]) -> Vec<T> {
    let (taps, pixels) = (g.taps(), g.pixels());
    let weight = Matrix::new(w, g.o, taps);
    let mut y = vec![T::ZERO; g.b * g.output_len()];
    let work = 2 * g.o * taps * pixels;
    for_rows(&mut y, g.output_len(), work, |i, out| {
        let x = &x[i * g.input_len()..][..g.input_len()];
        if g.is_pointwise() {
            product(out, weight, Matrix::new(x, taps, pixels), false);
        } else {
            with_scratch(taps * pixels, |cols: &mut [T]| {
                patches::gather(g, x, cols);
                product(out, weight, Matrix::new(cols, taps, pixels), false);
            });
        }
    });
    y
}

fn input_gradient<T: Element + bytemuck::Pod>(g: &Conv, gy: &[T], w: &[T]) -> Vec<T> {
    let (taps, pixels) = (g.taps(), g.pixels());
    let weight = Matrix::new(w, g.o, taps).t();
    let mut gx = vec![T::ZERO; g.b * g.input_len()];
    let work = 2 * g.o * taps * pixels;
    for_rows(&mut gx, g.input_len(), work, |i, out| {
        let gy = Matrix::new(&gy[i * g.output_len()..][..g.output_len()], g.o, pixels);
        if g.is_pointwise() {
            product(out, weight, gy, false);
        } else {
            with_scratch(taps * pixels, |cols: &mut [T]| {
                product(cols, weight, gy, false);
                patches::scatter_add(g, cols, out);
            });
        }
    });
    gx
}

fn weight_gradient<T: Element + bytemuck::Pod>(g: &Conv, x: &[T], gy: &[T]) -> Vec<T> {
    let (taps, pixels) = (g.taps(), g.pixels());
    sum_over(g.b, g.o * taps, 2 * g.o * taps * pixels, |range, part| {
        for i in range {
            let x = &x[i * g.input_len()..][..g.input_len()];
            let gy = Matrix::new(&gy[i * g.output_len()..][..g.output_len()], g.o, pixels);
            if g.is_pointwise() {
                product(part, gy, Matrix::new(x, taps, pixels).t(), true);
            } else {
                with_scratch(taps * pixels, |cols: &mut [T]| {
                    patches::gather(g, x, cols);
                    product(part, gy, Matrix::new(cols, taps, pixels).t(), true);
                });
            }
        }
    })
}
