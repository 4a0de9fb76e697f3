//! The patch matrix of a convolution (im2col) and its transpose (col2im), for one example at a time.
//!
//! Row (c, i, j) of the patch matrix holds, for each output position, the input element that kernel tap (i, j) of
//! channel c reads there, or 0 in the padding. A convolution is the weight (o x taps) times this matrix.

use std::ops::Range;

use super::element::Element;
use super::geometry::Conv;

/// Output positions along one axis whose tap `k` is inside an input of `size`.
#[inline]
fn inside(k: usize, stride: usize, padding: usize, size: usize, positions: usize) -> Range<usize> {
    // i * stride + k - padding must lie in 0..size.
    let first = padding.saturating_sub(k).div_ceil(stride);
    let last = match (size + padding).checked_sub(k + 1) {
        Some(room) => room / stride + 1,
        None => 0,
    };
    let last = last.min(positions);
    first.min(last)..last
}

/// Copies a short row. A length of 8 is unrolled, because a call to memcpy would cost more than the copy.
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

/// The columns of one example in a patch matrix of several: they begin at column `at` of rows that are `by` elements
/// apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    pub by: usize,
    pub at: usize,
}

/// The values that a tap of the kernel reads: output rows and columns, and the position of the first value in the plane.
struct Reads {
    rows: Range<usize>,
    columns: Range<usize>,
    from: usize,
}

impl Reads {
    /// `None` if the tap reads only padding.
    #[inline(always)]
    fn of(g: &Conv, ki: usize, kj: usize) -> Option<Reads> {
        let rows = inside(ki, g.stride.0, g.padding.0, g.h, g.oh);
        let columns = inside(kj, g.stride.1, g.padding.1, g.w, g.ow);
        if rows.is_empty() || columns.is_empty() {
            return None;
        }
        let row = rows.start * g.stride.0 + ki - g.padding.0;
        let column = columns.start * g.stride.1 + kj - g.padding.1;
        Some(Reads {
            from: row * g.w + column,
            rows,
            columns,
        })
    }

    /// The contiguous range of the patch row that a tap fills. It exists if the output is as wide as the input and the
    /// stride is 1. Columns at the edge then hold values of neighbouring rows, which [`Reads::clear_edges`] removes.
    #[inline(always)]
    fn run(&self, g: &Conv) -> Option<Range<usize>> {
        (g.stride == (1, 1) && g.ow == g.w).then(|| {
            self.rows.start * g.w + self.columns.start..(self.rows.end - 1) * g.w + self.columns.end
        })
    }

    /// Sets the edge columns inside the range to 0.
    #[inline(always)]
    fn clear_edges<T: Element>(&self, g: &Conv, row: &mut [T]) {
        let (left, right) = (self.columns.start, g.ow - self.columns.end);
        if left + right == 0 {
            return;
        }
        // From the last valid column of a row to the first of the next row.
        for i in self.rows.start + 1..self.rows.end {
            row[i * g.ow - right..i * g.ow + left].fill(T::ZERO);
        }
    }
}

/// Fills the columns of one example in the patch matrix (taps x pixels) from its input (c x h x w).
pub(crate) fn gather<T: Element>(g: &Conv, x: &[T], patches: &mut [T], to: Columns) {
    let pixels = g.pixels();
    if pixels == 0 {
        return;
    }
    let mut rows = patches.chunks_mut(to.by);
    for plane in x.chunks_exact(g.h * g.w) {
        for ki in 0..g.kernel.0 {
            for kj in 0..g.kernel.1 {
                let Some(row) = rows.next() else { return };
                let row = &mut row[to.at..to.at + pixels];
                let Some(reads) = Reads::of(g, ki, kj) else {
                    row.fill(T::ZERO);
                    continue;
                };
                if let Some(run) = reads.run(g) {
                    row[..run.start].fill(T::ZERO);
                    row[run.end..].fill(T::ZERO);
                    let length = run.len();
                    row[run].copy_from_slice(&plane[reads.from..reads.from + length]);
                    reads.clear_edges(g, row);
                    continue;
                }
                let (is, js) = (reads.rows, reads.columns);
                row[..is.start * g.ow].fill(T::ZERO);
                row[is.end * g.ow..].fill(T::ZERO);
                for (r, i) in is.enumerate() {
                    let out = &mut row[i * g.ow..(i + 1) * g.ow];
                    let source = &plane[reads.from + r * g.stride.0 * g.w..];
                    out[..js.start].fill(T::ZERO);
                    out[js.end..].fill(T::ZERO);
                    let out = &mut out[js.clone()];
                    if g.stride.1 == 1 {
                        copy(out, &source[..js.len()]);
                    } else {
                        for (o, s) in out.iter_mut().zip(source.iter().step_by(g.stride.1)) {
                            *o = *s;
                        }
                    }
                }
            }
        }
    }
}

/// Adds the columns of one example in the patch matrix (taps x pixels) to the input elements (c x h x w) from which they
/// were read. Values at padding positions are dropped, and may be overwritten in `patches`.
pub(crate) fn scatter_add<T: Element>(g: &Conv, patches: &mut [T], of: Columns, x: &mut [T]) {
    let pixels = g.pixels();
    if pixels == 0 {
        return;
    }
    let mut rows = patches.chunks_mut(of.by);
    for plane in x.chunks_exact_mut(g.h * g.w) {
        for ki in 0..g.kernel.0 {
            for kj in 0..g.kernel.1 {
                let Some(row) = rows.next() else { return };
                let Some(reads) = Reads::of(g, ki, kj) else {
                    continue;
                };
                let row = &mut row[of.at..of.at + pixels];
                if let Some(run) = reads.run(g) {
                    reads.clear_edges(g, row);
                    for (o, s) in plane[reads.from..].iter_mut().zip(&row[run]) {
                        *o += *s;
                    }
                    continue;
                }
                let (is, js) = (reads.rows, reads.columns);
                for (r, i) in is.enumerate() {
                    let source = &row[i * g.ow..(i + 1) * g.ow][js.clone()];
                    let line = &mut plane[reads.from + r * g.stride.0 * g.w..];
                    if g.stride.1 == 1 {
                        for (o, s) in line.iter_mut().zip(source) {
                            *o += *s;
                        }
                    } else {
                        for (o, s) in line.iter_mut().step_by(g.stride.1).zip(source) {
                            *o += *s;
                        }
                    }
                }
            }
        }
    }
}
