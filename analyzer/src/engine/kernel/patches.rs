//! The patch matrix of a convolution (im2col) and its transpose (col2im), for some rows of pixels of a chunk.
//!
//! Row (c, i, j) of the patch matrix holds, for each output position, the input element that kernel tap (i, j) of channel
//! c reads there, or 0 in the padding. Its columns are whole rows of output pixels, counted through all examples.

use std::ops::Range;

use super::number::Number;
use super::plan::Geometry;

/// Images: element (channel, example, pixel) is at `channel * channel_by + example * example_by + pixel`.
#[derive(Clone, Copy)]
pub(super) struct Images<'a, T> {
    pub data: &'a [T],
    pub channel_by: usize,
    pub example_by: usize,
}

/// Output positions along one axis whose tap `k` lies inside an input of `size`.
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

/// Calls `f(row of the tile, where the input row begins)` for each output row whose tap (row `i` of the kernel) lies in the
/// input, and `outside(row of the tile)` for the others.
#[inline(always)]
fn for_rows(
    g: &Geometry,
    example_by: usize,
    rows: &Range<usize>,
    i: usize,
    mut f: impl FnMut(usize, usize),
    mut outside: impl FnMut(usize),
) {
    let inside = inside(i, g.stride.0, g.padding.0, g.h, g.oh);
    let (mut example, mut row) = (rows.start / g.oh, rows.start % g.oh);
    for line in 0..rows.len() {
        if inside.contains(&row) {
            let y = row * g.stride.0 + i - g.padding.0;
            f(line, example * example_by + y * g.w);
        } else {
            outside(line);
        }
        row += 1;
        if row == g.oh {
            (example, row) = (example + 1, 0);
        }
    }
}

/// Fills `patches` (taps x columns) for the output rows `rows`.
pub(super) fn gather<T: Number>(
    g: &Geometry,
    x: Images<'_, T>,
    rows: Range<usize>,
    patches: &mut [T],
) {
    let columns = rows.len() * g.ow;
    let mut lines = patches.chunks_exact_mut(columns);
    for c in 0..g.c {
        let plane = &x.data[c * x.channel_by..];
        for i in 0..g.kernel.0 {
            for j in 0..g.kernel.1 {
                let Some(line) = lines.next() else { return };
                let within = inside(j, g.stride.1, g.padding.1, g.w, g.ow);
                match g.ow {
                    8 if within == (0..8) && g.stride.1 == 1 => {
                        fixed::<T, 8>(g, x.example_by, &rows, (i, j), plane, line);
                    }
                    _ => any(g, x.example_by, &rows, (i, j), within, plane, line),
                }
            }
        }
    }
}

/// Rows of a length known when compiled: a call to memcpy costs more than they do.
#[inline(always)]
fn fixed<T: Number, const W: usize>(
    g: &Geometry,
    example_by: usize,
    rows: &Range<usize>,
    (i, j): (usize, usize),
    plane: &[T],
    line: &mut [T],
) {
    let (lines, _) = line.as_chunks_mut::<W>();
    let lines = std::cell::RefCell::new(lines);
    for_rows(
        g,
        example_by,
        rows,
        i,
        |row, at| {
            let from = &plane[at + j - g.padding.1..];
            if let (Some(to), Some(from)) =
                (lines.borrow_mut().get_mut(row), from.first_chunk::<W>())
            {
                *to = *from;
            }
        },
        |row| {
            if let Some(to) = lines.borrow_mut().get_mut(row) {
                *to = [T::ZERO; W];
            }
        },
    );
}

fn any<T: Number>(
    g: &Geometry,
    example_by: usize,
    rows: &Range<usize>,
    (i, j): (usize, usize),
    within: Range<usize>,
    plane: &[T],
    line: &mut [T],
) {
    let line = std::cell::RefCell::new(line);
    for_rows(
        g,
        example_by,
        rows,
        i,
        |row, at| {
            let mut line = line.borrow_mut();
            let to = &mut line[row * g.ow..][..g.ow];
            to[..within.start].fill(T::ZERO);
            to[within.end..].fill(T::ZERO);
            let to = &mut to[within.clone()];
            if to.is_empty() {
                return;
            }
            let from = &plane[at + within.start * g.stride.1 + j - g.padding.1..];
            if g.stride.1 == 1 {
                to.copy_from_slice(&from[..to.len()]);
            } else {
                for (to, &from) in to.iter_mut().zip(from.iter().step_by(g.stride.1)) {
                    *to = from;
                }
            }
        },
        |row| line.borrow_mut()[row * g.ow..][..g.ow].fill(T::ZERO),
    );
}

/// Adds `patches` (taps x columns) of the output rows `rows` to the places that they were read from, in images of
/// (channel, example, pixel) with `channel_by` and `example_by` between them.
pub(super) fn scatter<T: Number>(
    g: &Geometry,
    patches: &[T],
    rows: Range<usize>,
    x: &mut [T],
    channel_by: usize,
    example_by: usize,
) {
    let columns = rows.len() * g.ow;
    let mut lines = patches.chunks_exact(columns);
    for c in 0..g.c {
        let plane = &mut x[c * channel_by..];
        for i in 0..g.kernel.0 {
            for j in 0..g.kernel.1 {
                let Some(line) = lines.next() else { return };
                let within = inside(j, g.stride.1, g.padding.1, g.w, g.ow);
                if within.is_empty() {
                    continue;
                }
                for_rows(
                    g,
                    example_by,
                    &rows,
                    i,
                    |row, at| {
                        let from = &line[row * g.ow..][..g.ow][within.clone()];
                        let to = &mut plane[at + within.start * g.stride.1 + j - g.padding.1..];
                        if g.stride.1 == 1 {
                            for (to, &from) in to.iter_mut().zip(from) {
                                *to += from;
                            }
                        } else {
                            for (to, &from) in to.iter_mut().step_by(g.stride.1).zip(from) {
                                *to += from;
                            }
                        }
                    },
                    |_| {},
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <gather(x), p> = <x, scatter(p)>, and gather reads what its definition says.
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
                        let want = match y < h && z < w {
                            true => x[(c * n + row / g.oh) * h * w + y * w + z],
                            false => 0.0,
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
