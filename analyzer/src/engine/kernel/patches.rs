//! The patch matrix of a convolution (im2col) and its transpose (col2im), for some rows of pixels of a chunk.
//!
//! Row (c, i, j) of the patch matrix holds, for each output position, the input element that kernel tap (i, j) of
//! channel c reads there, or 0 in the padding. Its columns are whole rows of output pixels, counted through all
//! examples.

use std::ops::Range;

use super::number::Number;
use super::program::Geometry;
use hindcast_model::wide::{Loop, wide};

/// Images. Element (channel, example, pixel) is at `channel * channel_by + example * example_by + pixel`.
#[derive(Clone, Copy)]
pub(super) struct Images<'a, T> {
    pub data: &'a [T],
    pub channel_by: usize,
    pub example_by: usize,
}

/// Output positions along one axis whose tap `k` is inside an input of `size`.
#[inline(always)]
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

/// Consecutive rows of output pixels of one example. The first is row `line` of the tile.
struct Stretch {
    example: usize,
    rows: Range<usize>,
    line: usize,
}

/// Splits a tile's rows by example.
#[derive(Clone, Copy)]
struct Stretches {
    oh: usize,
    rows: usize,
    example: usize,
    row: usize,
    line: usize,
}

impl Stretches {
    fn of(g: &Geometry, rows: &Range<usize>) -> Self {
        Self {
            oh: g.oh,
            rows: rows.len(),
            example: rows.start / g.oh,
            row: rows.start % g.oh,
            line: 0,
        }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<Stretch> {
        if self.line == self.rows {
            return None;
        }
        let end = self.oh.min(self.row + self.rows - self.line);
        let stretch = Stretch {
            example: self.example,
            rows: self.row..end,
            line: self.line,
        };
        self.line += end - self.row;
        (self.example, self.row) = (self.example + 1, 0);
        Some(stretch)
    }
}

/// Number of values copied at once.
const BLOCK: usize = 8;

/// `to = from`, without a call for short rows.
#[inline(always)]
fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    let n = to.len();
    let from = &from[..n];
    if n < BLOCK {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
        return;
    }
    let (blocks, _) = to.as_chunks_mut::<BLOCK>();
    for (to, from) in blocks.iter_mut().zip(from.as_chunks::<BLOCK>().0) {
        *to = *from;
    }
    // The last block overlaps the one before it.
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<BLOCK>(), from.last_chunk::<BLOCK>()) {
        *to = *from;
    }
}

/// `to += from`.
#[inline(always)]
fn add<T: Number>(to: &mut [T], from: &[T]) {
    let (blocks, rest) = to.as_chunks_mut::<BLOCK>();
    let (others, last) = from.as_chunks::<BLOCK>();
    for (to, from) in blocks.iter_mut().zip(others) {
        // Read completely before it is written, so that it becomes one vector operation.
        let mut sum = *to;
        for (to, &from) in sum.iter_mut().zip(from) {
            *to += from;
        }
        *to = sum;
    }
    for (to, &from) in rest.iter_mut().zip(last) {
        *to += from;
    }
}

/// What a tap reads for the output rows of a stretch. Rows after `before` and `inside` also read only padding.
struct Reads {
    /// Number of rows that read only the padding above the image.
    before: usize,
    /// Number of rows that read the image.
    inside: usize,
    /// Offset of the first row of the image that is read.
    at: usize,
}

#[inline(always)]
fn reads(g: &Geometry, s: &Stretch, i: usize, high: &Range<usize>, example_by: usize) -> Reads {
    let low = s.rows.start.max(high.start).min(s.rows.end);
    let end = s.rows.end.min(high.end).max(low);
    Reads {
        before: low - s.rows.start,
        inside: end - low,
        at: s.example * example_by + (low * g.stride.0 + i).saturating_sub(g.padding.0) * g.w,
    }
}

/// Fills `patches` (taps x columns) for the output rows `rows`.
pub(super) fn gather<T: Number>(
    g: &Geometry,
    x: Images<'_, T>,
    rows: Range<usize>,
    patches: &mut [T],
) {
    wide::<Gather, _>((g, x, &rows, patches));
}

type GatherOperands<'a, T> = (&'a Geometry, Images<'a, T>, &'a Range<usize>, &'a mut [T]);

struct Gather;

impl<'a, T: Number> Loop<GatherOperands<'a, T>> for Gather {
    #[inline(always)]
    fn run((g, x, rows, patches): GatherOperands<'a, T>) {
        let columns = rows.len() * g.ow;
        let mut lines = patches.chunks_exact_mut(columns);
        let stretches = Stretches::of(g, rows);
        if g.padding == (0, 0) && g.stride == (1, 1) {
            match g.ow {
                8 => return gather_whole::<T, 8>(g, x, stretches, columns, patches),
                16 => return gather_whole::<T, 16>(g, x, stretches, columns, patches),
                24 => return gather_whole::<T, 24>(g, x, stretches, columns, patches),
                32 => return gather_whole::<T, 32>(g, x, stretches, columns, patches),
                _ => {}
            }
        }
        for c in 0..g.c {
            let plane = &x.data[c * x.channel_by..];
            for i in 0..g.kernel.0 {
                let high = inside(i, g.stride.0, g.padding.0, g.h, g.oh);
                for j in 0..g.kernel.1 {
                    let Some(line) = lines.next() else { return };
                    let within = inside(j, g.stride.1, g.padding.1, g.w, g.ow);
                    let shift = (within.start * g.stride.1 + j).saturating_sub(g.padding.1);
                    let mut rest = stretches;
                    while let Some(s) = rest.next() {
                        let reads = reads(g, &s, i, &high, x.example_by);
                        let line = &mut line[s.line * g.ow..][..s.rows.len() * g.ow];
                        let (before, line) = line.split_at_mut(reads.before * g.ow);
                        let (line, after) = line.split_at_mut(reads.inside * g.ow);
                        before.fill(T::ZERO);
                        after.fill(T::ZERO);
                        if within.is_empty() {
                            line.fill(T::ZERO);
                            continue;
                        }
                        if reads.inside > 0 {
                            let from = &plane[reads.at + shift..];
                            copy_rows(line, g.ow, &within, from, g.stride.0 * g.w, g.stride.1);
                        }
                    }
                }
            }
        }
    }
}

/// Like [`Gather`], for taps that read whole rows of `W` pixels, one below the other. Copying a row takes about two
/// instructions, so the bookkeeping is done once for all taps of a channel.
#[inline(always)]
fn gather_whole<T: Number, const W: usize>(
    g: &Geometry,
    x: Images<'_, T>,
    stretches: Stretches,
    columns: usize,
    patches: &mut [T],
) {
    let taps = g.kernel.0 * g.kernel.1;
    for (c, lines) in patches
        .chunks_exact_mut(taps * columns)
        .take(g.c)
        .enumerate()
    {
        let plane = &x.data[c * x.channel_by..];
        let mut rest = stretches;
        while let Some(s) = rest.next() {
            let from = &plane[s.example * x.example_by + s.rows.start * g.w..];
            let span = s.line * W..(s.line + s.rows.len()) * W;
            let mut lines = lines.chunks_exact_mut(columns);
            for i in 0..g.kernel.0 {
                for (j, line) in lines.by_ref().take(g.kernel.1).enumerate() {
                    copy_whole_rows::<T, W>(&mut line[span.clone()], &from[i * g.w + j..], g.w);
                }
            }
        }
    }
}

/// Fills rows of `ow` values. Those `within` are read from `from`, where rows are `down` apart and values `across`; the
/// others are 0.
#[inline(always)]
fn copy_rows<T: Number>(
    line: &mut [T],
    ow: usize,
    within: &Range<usize>,
    from: &[T],
    down: usize,
    across: usize,
) {
    if across == 1 && within.len() == ow {
        // Common lengths, known at compile time.
        match ow {
            8 => return copy_whole_rows::<T, 8>(line, from, down),
            16 => return copy_whole_rows::<T, 16>(line, from, down),
            24 => return copy_whole_rows::<T, 24>(line, from, down),
            32 => return copy_whole_rows::<T, 32>(line, from, down),
            _ => {}
        }
    }
    for (r, to) in line.chunks_exact_mut(ow).enumerate() {
        let from = &from[r * down..];
        if within.len() < ow {
            to[..within.start].fill(T::ZERO);
            to[within.end..].fill(T::ZERO);
        }
        let to = &mut to[within.clone()];
        if across == 1 {
            copy(to, from);
        } else {
            for (to, &from) in to.iter_mut().zip(from.iter().step_by(across)) {
                *to = from;
            }
        }
    }
}

#[inline(always)]
fn copy_whole_rows<T: Number, const W: usize>(line: &mut [T], from: &[T], down: usize) {
    let (rows, _) = line.as_chunks_mut::<W>();
    for (to, from) in rows.iter_mut().zip(from.chunks(down)) {
        if let Some(from) = from.first_chunk::<W>() {
            *to = *from;
        }
    }
}

/// Adds `patches` (taps x columns) of the output rows `rows` to the positions that they were read from, in images of
/// (channel, example, pixel) with strides `channel_by` and `example_by`.
pub(super) fn scatter<T: Number>(
    g: &Geometry,
    patches: &[T],
    rows: Range<usize>,
    x: &mut [T],
    channel_by: usize,
    example_by: usize,
) {
    wide::<Scatter, _>((g, patches, &rows, x, (channel_by, example_by)));
}

type ScatterOperands<'a, T> = (
    &'a Geometry,
    &'a [T],
    &'a Range<usize>,
    &'a mut [T],
    (usize, usize),
);

struct Scatter;

impl<'a, T: Number> Loop<ScatterOperands<'a, T>> for Scatter {
    #[inline(always)]
    fn run((g, patches, rows, x, by): ScatterOperands<'a, T>) {
        let columns = rows.len() * g.ow;
        let mut lines = patches.chunks_exact(columns);
        let stretches = Stretches::of(g, rows);
        if g.padding == (0, 0) && g.stride == (1, 1) {
            match g.ow {
                8 => return scatter_whole::<T, 8>(g, patches, stretches, columns, x, by),
                16 => return scatter_whole::<T, 16>(g, patches, stretches, columns, x, by),
                24 => return scatter_whole::<T, 24>(g, patches, stretches, columns, x, by),
                32 => return scatter_whole::<T, 32>(g, patches, stretches, columns, x, by),
                _ => {}
            }
        }
        for c in 0..g.c {
            let plane = &mut x[c * by.0..];
            for i in 0..g.kernel.0 {
                let high = inside(i, g.stride.0, g.padding.0, g.h, g.oh);
                for j in 0..g.kernel.1 {
                    let Some(line) = lines.next() else { return };
                    let within = inside(j, g.stride.1, g.padding.1, g.w, g.ow);
                    if within.is_empty() {
                        continue;
                    }
                    let shift = (within.start * g.stride.1 + j).saturating_sub(g.padding.1);
                    let mut rest = stretches;
                    while let Some(s) = rest.next() {
                        let reads = reads(g, &s, i, &high, by.1);
                        let line = &line[(s.line + reads.before) * g.ow..][..reads.inside * g.ow];
                        for (r, from) in line.chunks_exact(g.ow).enumerate() {
                            let to = &mut plane[reads.at + shift + r * g.stride.0 * g.w..];
                            let from = &from[within.clone()];
                            if g.stride.1 == 1 {
                                add(&mut to[..from.len()], from);
                            } else {
                                for (to, &from) in to.iter_mut().step_by(g.stride.1).zip(from) {
                                    *to += from;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Like [`Scatter`], for taps that read whole rows of `W` pixels. Each element's sum has the same order.
#[inline(always)]
fn scatter_whole<T: Number, const W: usize>(
    g: &Geometry,
    patches: &[T],
    stretches: Stretches,
    columns: usize,
    x: &mut [T],
    by: (usize, usize),
) {
    let taps = g.kernel.0 * g.kernel.1;
    for (c, lines) in patches.chunks_exact(taps * columns).take(g.c).enumerate() {
        let plane = &mut x[c * by.0..];
        let mut rest = stretches;
        while let Some(s) = rest.next() {
            let to = &mut plane[s.example * by.1 + s.rows.start * g.w..];
            let span = s.line * W..(s.line + s.rows.len()) * W;
            let mut lines = lines.chunks_exact(columns);
            for i in 0..g.kernel.0 {
                for (j, line) in lines.by_ref().take(g.kernel.1).enumerate() {
                    add_whole_rows::<T, W>(&mut to[i * g.w + j..], &line[span.clone()], g.w);
                }
            }
        }
    }
}

#[inline(always)]
fn add_whole_rows<T: Number, const W: usize>(to: &mut [T], from: &[T], down: usize) {
    for (to, from) in to.chunks_mut(down).zip(from.as_chunks::<W>().0) {
        if let Some(to) = to.first_chunk_mut::<W>() {
            // Read completely before it is written, so that it becomes one vector operation.
            let mut sum = *to;
            for (to, &from) in sum.iter_mut().zip(from) {
                *to += from;
            }
            *to = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <gather(x), p> = <x, scatter(p)>, and gather reads the elements that its definition names.
    #[test]
    fn gather_and_scatter_are_transposes() {
        for (kernel, stride, padding, (h, w)) in [
            ((1, 1), (1, 1), (0, 0), (3, 4)),
            ((3, 3), (1, 1), (1, 1), (5, 8)),
            ((3, 1), (2, 1), (0, 0), (5, 8)),
            ((5, 5), (1, 1), (0, 0), (6, 12)),
            ((2, 3), (2, 3), (1, 2), (5, 7)),
            ((1, 4), (1, 2), (0, 3), (2, 3)),
        ] {
            let g = Geometry {
                c: 2,
                h,
                w,
                o: 1,
                oh: (h + 2 * padding.0 - kernel.0) / stride.0 + 1,
                ow: (w + 2 * padding.1 - kernel.1) / stride.1 + 1,
                kernel,
                stride,
                padding,
            };
            let n = 3;
            let x: Vec<f64> = (0..2 * n * h * w).map(|i| (i as f64).sin()).collect();
            for rows in [0..n * g.oh, 1..n * g.oh - 1] {
                let columns = rows.len() * g.ow;
                let mut col = vec![f64::NAN; g.taps() * columns];
                let images = Images {
                    data: &x,
                    channel_by: n * h * w,
                    example_by: h * w,
                };
                gather(&g, images, rows.clone(), &mut col);
                for (k, line) in col.chunks(columns).enumerate() {
                    let (c, i, j) = (
                        k / (kernel.0 * kernel.1),
                        k / kernel.1 % kernel.0,
                        k % kernel.1,
                    );
                    for (at, &got) in line.iter().enumerate() {
                        let (row, column) = (rows.start + at / g.ow, at % g.ow);
                        let y = (row % g.oh * stride.0 + i).wrapping_sub(padding.0);
                        let z = (column * stride.1 + j).wrapping_sub(padding.1);
                        let want = if y < h && z < w {
                            x[(c * n + row / g.oh) * h * w + y * w + z]
                        } else {
                            0.0
                        };
                        assert_eq!(got, want);
                    }
                }
                let p: Vec<f64> = (0..col.len()).map(|i| (i as f64).cos()).collect();
                let mut back = vec![0.0; x.len()];
                scatter(&g, &p, rows, &mut back, n * h * w, h * w);
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                assert!((dot(&col, &p) - dot(&x, &back)).abs() < 1e-10);
            }
        }
    }
}
