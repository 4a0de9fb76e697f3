//! The arithmetic of convolutions on slices: the convolution, fused with the operations that follow it, and its two
//! gradients.
//!
//! Each is a matrix product with the patch matrix of one or several examples (see [`super::patches`]).

use std::cell::RefCell;

use super::element::Element;
use super::geometry::{Conv, Pooling};
use super::matmul::{Matrix, product};
use super::parallel::{row_pairs, rows, sum_over};
use super::patches::{self, Columns};
use super::pool;

/// The operations after a convolution and its bias.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finish {
    Nothing,
    Relu,
    ReluMaxPool(Pooling),
}

/// The convolution, its bias if there is one, and `finish`. For max pooling, also the position of the largest element
/// of each window.
pub(super) fn forward<T: Element + bytemuck::Pod>(
    g: &Conv,
    finish: &Finish,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
) -> (Vec<T>, Vec<u32>) {
    let (taps, pixels) = (g.taps(), g.pixels());
    let weight = Matrix::new(w, g.o, taps);
    let group = examples_per_product(g);
    let work = 2 * g.o * taps * pixels * group;
    // Writes the convolution of `n` examples, beginning with example `first`, to `out`, (o, n pixels).
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

thread_local! {
    /// Scratch memory of each thread, kept between calls.
    static PATCHES: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` elements of this thread's scratch memory. Their values are arbitrary.
fn with_scratch<T: Element + bytemuck::Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    PATCHES.with_borrow_mut(|words| {
        let need = (len * size_of::<T>()).div_ceil(size_of::<u64>());
        if words.len() < need {
            words.resize(need, 0);
        }
        let all: &mut [T] = bytemuck::cast_slice_mut(words);
        f(&mut all[..len])
    })
}

/// Number of patch columns up to which several examples share a product. With fewer columns, packing the weight for gemm's
/// kernels costs up to a third of the product itself.
const COLUMNS: usize = 256;

/// Number of examples whose patches share a product.
fn examples_per_product(g: &Conv) -> usize {
    if g.is_pointwise() {
        return 1;
    }
    (COLUMNS / g.pixels().max(1)).clamp(1, g.b.max(1))
}

/// The columns of example `i` of `n`.
fn columns(g: &Conv, n: usize, i: usize) -> Columns {
    Columns {
        by: n * g.pixels(),
        at: i * g.pixels(),
    }
}

/// The patches of n examples side by side, (taps, n pixels). They are written to `room` unless `x` already has this layout.
fn patches_of<'a, T: Element>(g: &Conv, x: &'a [T], room: &'a mut [T]) -> Matrix<'a, T> {
    let n = x.len() / g.input_len();
    if g.is_pointwise() {
        return Matrix::new(x, g.taps(), g.pixels());
    }
    for (i, x) in x.chunks_exact(g.input_len()).enumerate() {
        patches::gather(g, x, room, columns(g, n, i));
    }
    Matrix::new(room, g.taps(), n * g.pixels())
}

/// The outputs of n examples side by side, (o, n pixels). They are written to `room` unless `y` already has this layout.
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

/// Gradient with respect to the input, from the gradient `gy` of the output.
pub(super) fn input_gradient<T: Element + bytemuck::Pod>(g: &Conv, gy: &[T], w: &[T]) -> Vec<T> {
    let (taps, pixels) = (g.taps(), g.pixels());
    let weight = Matrix::new(w, g.o, taps).t();
    let group = examples_per_product(g);
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

/// Gradient with respect to the weight, summed over all examples.
pub(super) fn weight_gradient<T: Element + bytemuck::Pod>(g: &Conv, x: &[T], gy: &[T]) -> Vec<T> {
    let (taps, pixels) = (g.taps(), g.pixels());
    let group = examples_per_product(g);
    if g.input_len() == 0 || g.output_len() == 0 {
        return vec![T::ZERO; g.o * taps];
    }
    // The sum has the layout (taps, o). gemm then packs the gradient of the outputs instead of the patches, which are many
    // times larger.
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
