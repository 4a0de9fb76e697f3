//! The patch matrix of a convolution (im2col) and its transpose (col2im), for one example.
//!
//! Row (c, i, j) of the patch matrix holds, for each output position, the input element that kernel tap (i, j) of
//! channel c reads there, or 0 in the padding. A convolution is the weight (o x taps) times this matrix.

use super::element::Element;
use super::geometry::Conv;

/// Output positions along one axis whose tap `k` lies inside an input of `size`.
#[inline]
fn inside(
    k: usize,
    stride: usize,
    padding: usize,
    size: usize,
    positions: usize,
) -> std::ops::Range<usize> {
    // i * stride + k - padding must lie in 0..size.
    let first = padding.saturating_sub(k).div_ceil(stride);
    let last = match (size + padding).checked_sub(k + 1) {
        Some(room) => room / stride + 1,
        None => 0,
    };
    let last = last.min(positions);
    first.min(last)..last
}

/// Copies a short row; lengths that occur in small nets are unrolled, since a call to memcpy costs more than they do.
#[inline(always)]
fn copy<T: Element>(to: &mut [T], from: &[T]) {
    if to.len() == 8 && from.len() == 8 {
        for (t, f) in to.iter_mut().take(8).zip(from) {
            *t = *f;
        }
        return;
    }
    to.copy_from_slice(from);
}

/// Fills `patches` (taps x pixels) from one example's input (c x h x w).
pub(crate) fn gather<T: Element>(g: &Conv, x: &[T], patches: &mut [T]) {
    let pixels = g.pixels();
    if pixels == 0 {
        return;
    }
    let mut rows = patches.chunks_exact_mut(pixels);
    for plane in x.chunks_exact(g.h * g.w) {
        for ki in 0..g.kernel.0 {
            let is = inside(ki, g.stride.0, g.padding.0, g.h, g.oh);
            for kj in 0..g.kernel.1 {
                let Some(row) = rows.next() else { return };
                let js = inside(kj, g.stride.1, g.padding.1, g.w, g.ow);
                if js.is_empty() || is.is_empty() {
                    row.fill(T::ZERO);
                    continue;
                }
                row[..is.start * g.ow].fill(T::ZERO);
                row[is.end * g.ow..].fill(T::ZERO);
                let first = js.start * g.stride.1 + kj - g.padding.1;
                for i in is.clone() {
                    let out = &mut row[i * g.ow..(i + 1) * g.ow];
                    let source = &plane[(i * g.stride.0 + ki - g.padding.0) * g.w..][..g.w];
                    out[..js.start].fill(T::ZERO);
                    out[js.end..].fill(T::ZERO);
                    let out = &mut out[js.clone()];
                    if g.stride.1 == 1 {
                        copy(out, &source[first..first + js.len()]);
                    } else {
                        for (o, s) in out
                            .iter_mut()
                            .zip(source[first..].iter().step_by(g.stride.1))
                        {
                            *o = *s;
                        }
                    }
                }
            }
        }
    }
}

/// Adds `patches` (taps x pixels) back to the input elements (c x h x w) that they were read from.
pub(crate) fn scatter_add<T: Element>(g: &Conv, patches: &[T], x: &mut [T]) {
    let pixels = g.pixels();
    if pixels == 0 {
        return;
    }
    let mut rows = patches.chunks_exact(pixels);
    for plane in x.chunks_exact_mut(g.h * g.w) {
        for ki in 0..g.kernel.0 {
            let is = inside(ki, g.stride.0, g.padding.0, g.h, g.oh);
            for kj in 0..g.kernel.1 {
                let Some(row) = rows.next() else { return };
                let js = inside(kj, g.stride.1, g.padding.1, g.w, g.ow);
                if js.is_empty() || is.is_empty() {
                    continue;
                }
                let first = js.start * g.stride.1 + kj - g.padding.1;
                for i in is.clone() {
                    let source = &row[i * g.ow..(i + 1) * g.ow][js.clone()];
                    let line = &mut plane[(i * g.stride.0 + ki - g.padding.0) * g.w..][..g.w];
                    if g.stride.1 == 1 {
                        for (o, s) in line[first..first + js.len()].iter_mut().zip(source) {
                            *o += *s;
                        }
                    } else {
                        for (o, s) in line[first..].iter_mut().step_by(g.stride.1).zip(source) {
                            *o += *s;
                        }
                    }
                }
            }
        }
    }
}
