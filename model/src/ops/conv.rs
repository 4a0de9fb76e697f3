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
use super::parallel::{rows, sum_over};
use super::patches::{self, Columns};

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
            let (y, _) = block::forward(g, &Finish::Nothing, &x, &w, None);
            Ok((storage(y), g.y_shape().into()))
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

/// Columns of patches that a product has at least, where examples can be put side by side: with fewer, laying out the weight for
/// gemm's kernels costs as much as a third of the product itself.
const COLUMNS: usize = 256;

/// Examples whose patches stand side by side in one product.
pub(super) fn together(g: &Conv) -> usize {
    if g.is_pointwise() {
        return 1;
    }
    (COLUMNS / g.pixels().max(1)).clamp(1, g.b.max(1))
}

/// Where example `i` of `n` stands.
pub(super) fn columns(g: &Conv, n: usize, i: usize) -> Columns {
    Columns {
        by: n * g.pixels(),
        at: i * g.pixels(),
    }
}

/// The patches of some examples side by side, (taps, n pixels), laid out in `room` where they have to be.
pub(super) fn patches_of<'a, T: Element>(g: &Conv, x: &'a [T], room: &'a mut [T]) -> Matrix<'a, T> {
    let n = x.len() / g.input_len();
    if g.is_pointwise() {
        return Matrix::new(x, g.taps(), g.pixels());
    }
    for (i, x) in x.chunks_exact(g.input_len()).enumerate() {
        patches::gather(g, x, room, columns(g, n, i));
    }
    Matrix::new(room, g.taps(), n * g.pixels())
}

/// Some examples' outputs side by side, (o, n pixels), laid out in `room` where they have to be.
fn outputs_of<'a, T: Element>(g: &Conv, y: &'a [T], room: &'a mut [T]) -> Matrix<'a, T> {
    let (n, pixels) = (y.len() / g.output_len(), g.pixels());
    if n == 1 {
        return Matrix::new(y, g.o, pixels);
    }
    for (i, y) in y.chunks_exact(g.output_len()).enumerate() {
        for (row, plane) in room
            .chunks_exact_mut(n * pixels)
            .zip(y.chunks_exact(pixels))
        {
            row[i * pixels..(i + 1) * pixels].copy_from_slice(plane);
        }
    }
    Matrix::new(room, g.o, n * pixels)
}

fn input_gradient<T: Element + bytemuck::Pod>(g: &Conv, gy: &[T], w: &[T]) -> Vec<T> {
    let (taps, pixels) = (g.taps(), g.pixels());
    let weight = Matrix::new(w, g.o, taps).t();
    let group = together(g);
    let (len, row) = (g.b * g.input_len(), group * g.input_len());
    rows(len, row, 2 * g.o * taps * pixels * group, |i, out| {
        let n = out.len() / g.input_len();
        let gy = &gy[i * group * g.output_len()..][..n * g.output_len()];
        if g.is_pointwise() {
            product(out, weight, Matrix::new(gy, g.o, pixels), false);
            return;
        }
        with_scratch((taps + g.o) * n * pixels, |room: &mut [T]| {
            let (cols, room) = room.split_at_mut(taps * n * pixels);
            product(cols, weight, outputs_of(g, gy, room), false);
            for (i, out) in out.chunks_exact_mut(g.input_len()).enumerate() {
                patches::scatter_add(g, cols, columns(g, n, i), out);
            }
        });
    })
}

fn weight_gradient<T: Element + bytemuck::Pod>(g: &Conv, x: &[T], gy: &[T]) -> Vec<T> {
    let (taps, pixels) = (g.taps(), g.pixels());
    let group = together(g);
    if g.input_len() == 0 || g.output_len() == 0 {
        return vec![T::ZERO; g.o * taps];
    }
    // The sum is kept as (taps, o): then it is the outputs' gradient that has to be laid out for gemm's kernels, instead of the
    // patches, which are many times larger.
    let work = 2 * g.o * taps * pixels;
    let sum: Vec<T> = sum_over(g.b, g.o * taps, work, |range, part| {
        let x =
            x[range.start * g.input_len()..range.end * g.input_len()].chunks(group * g.input_len());
        let gy = gy[range.start * g.output_len()..range.end * g.output_len()]
            .chunks(group * g.output_len());
        for (x, gy) in x.zip(gy) {
            let n = x.len() / g.input_len();
            with_scratch((taps + g.o) * n * pixels, |room: &mut [T]| {
                let (cols, room) = room.split_at_mut(taps * n * pixels);
                let (x, gy) = (patches_of(g, x, cols), outputs_of(g, gy, room));
                product(part, x, gy.t(), true);
            });
        }
    });
    let mut gw = Vec::with_capacity(sum.len());
    for o in 0..g.o {
        gw.extend(sum[o..].iter().step_by(g.o));
    }
    gw
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn wave(dims: &[usize], by: f64) -> Tensor {
        let n = dims.iter().product::<usize>() as f64;
        let t = Tensor::arange(0f64, n, &Device::Cpu).unwrap();
        (t * by).unwrap().sin().unwrap().reshape(dims).unwrap()
    }

    /// Output and gradients of Σ y² of a convolution, alone or with what follows it.
    fn all(x: &Tensor, w: &Tensor, b: &Tensor, padding: usize, finish: usize) -> [Tensor; 4] {
        let v = [x, w, b].map(|t| Var::from_tensor(t).unwrap());
        let (one, pad) = ((1, 1), (padding, padding));
        let y = match finish {
            0 => conv2d(&v[0], &v[1], None, one, pad),
            1 => conv2d(&v[0], &v[1], Some(&v[2]), one, pad),
            2 => block::conv2d_relu(&v[0], &v[1], Some(&v[2]), one, pad),
            _ => {
                let two = (2, 2);
                block::conv2d_relu_max_pool2d(&v[0], &v[1], Some(&v[2]), one, pad, two, two, (0, 0))
            }
        }
        .unwrap();
        let store = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let of = |v: &Var| match store.get(v.as_tensor()) {
            Some(gradient) => gradient.clone(),
            None => v.zeros_like().unwrap(),
        };
        [of(&v[0]), of(&v[1]), of(&v[2]), y]
    }

    #[test]
    fn examples_side_by_side_give_what_they_give_alone() {
        // Planes of 64 and 80 positions: four or three examples share a product, and the last product has fewer.
        let x = wave(&[7, 2, 8, 10], 1.3);
        for (kernel, padding) in [((3, 3), 1), ((1, 3), 0), ((5, 5), 2), ((2, 2), 1)] {
            let w = wave(&[3, 2, kernel.0, kernel.1], 0.7);
            let b = wave(&[3], 2.0);
            for finish in 0..4 {
                let [gx, gw, gb, y] = all(&x, &w, &b, padding, finish);
                let alone: Vec<[Tensor; 4]> = (0..7)
                    .map(|i| all(&x.narrow(0, i, 1).unwrap(), &w, &b, padding, finish))
                    .collect();
                let joined = |k: usize| {
                    Tensor::cat(&alone.iter().map(|a| &a[k]).collect::<Vec<_>>(), 0).unwrap()
                };
                let sum = |k: usize| {
                    let first = alone[0][k].zeros_like().unwrap();
                    alone.iter().fold(first, |s, a| (s + &a[k]).unwrap())
                };
                for (got, want) in [(gx, joined(0)), (gw, sum(1)), (gb, sum(2)), (y, joined(3))] {
                    let off = (got - want).unwrap().abs().unwrap().max_all().unwrap();
                    let off: f64 = off.to_scalar().unwrap();
                    assert!(off < 1e-12, "kernel {kernel:?}, finish {finish}: {off}");
                }
            }
        }
    }
}
