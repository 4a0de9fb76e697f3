//! Pooling.
//!
//! Max pooling reads one element per window, whose position the values decide; tangents and cotangents use the same
//! positions. Average pooling is linear. Ties are broken as in training: the first in reading order wins, and a NaN
//! wins over numbers.

use std::ops::Range;

use super::number::Number;
use super::program::Windows;
use hindcast_model::wide::{Loop, wide};

impl Windows {
    /// Input rows of the window in output row `row`.
    fn rows(&self, row: usize) -> Range<usize> {
        span(row, self.stride.0, self.kernel.0, self.padding.0, self.h)
    }

    fn columns(&self, column: usize) -> Range<usize> {
        span(column, self.stride.1, self.kernel.1, self.padding.1, self.w)
    }

    /// Whether the windows are 2 x 2 and side by side.
    fn is_two_by_two(&self) -> bool {
        self.kernel == (2, 2) && self.stride == (2, 2) && self.padding == (0, 0)
    }
}

fn span(at: usize, stride: usize, kernel: usize, padding: usize, size: usize) -> Range<usize> {
    let start = at * stride;
    start.saturating_sub(padding)..(start + kernel).saturating_sub(padding).min(size)
}

/// Whether `v` replaces `best`: it is larger, or the first NaN. Without branches.
#[inline(always)]
fn beats<T: Number>(v: T, best: T) -> bool {
    (v > best) | (v.is_nan() & !best.is_nan())
}

/// Maxima and winners of a chunk's planes. `x` and `y` hold blocks of planes; the first block decides.
pub(super) fn max<T: Number>(s: &Windows, x: &[T], y: &mut [T], winners: &mut [u32]) {
    let (plane, windows) = (s.h * s.w, s.oh * s.ow);
    let planes = winners.len() / windows;
    let (y, tangents) = y.split_at_mut(planes * windows);
    wide::<Max, _>((s, x, y, &mut *winners));
    let moved = x.chunks_exact(planes * plane).skip(1);
    for (x, y) in moved.zip(tangents.chunks_exact_mut(planes * windows)) {
        for ((x, y), winners) in x
            .chunks_exact(plane)
            .zip(y.chunks_exact_mut(windows))
            .zip(winners.chunks_exact(windows))
        {
            for (y, &at) in y.iter_mut().zip(winners) {
                *y = x[at as usize];
            }
        }
    }
}

struct Max;

impl<'a, T: Number> Loop<(&'a Windows, &'a [T], &'a mut [T], &'a mut [u32])> for Max {
    #[inline(always)]
    fn run((s, x, y, winners): (&'a Windows, &'a [T], &'a mut [T], &'a mut [u32])) {
        let windows = s.oh * s.ow;
        for ((x, y), winners) in x
            .chunks_exact(s.h * s.w)
            .zip(y.chunks_exact_mut(windows))
            .zip(winners.chunks_exact_mut(windows))
        {
            if s.is_two_by_two() {
                max_of_two_by_two(s, x, y, winners);
            } else {
                max_of_plane(s, x, y, winners);
            }
        }
    }
}

#[inline(always)]
fn max_of_plane<T: Number>(s: &Windows, x: &[T], y: &mut [T], winners: &mut [u32]) {
    for (i, (y, winner)) in y.iter_mut().zip(winners).enumerate() {
        let mut best: Option<(T, usize)> = None;
        for r in s.rows(i / s.ow) {
            for c in s.columns(i % s.ow) {
                let v = x[r * s.w + c];
                if best.is_none_or(|(b, _)| beats(v, b)) {
                    best = Some((v, r * s.w + c));
                }
            }
        }
        if let Some((v, at)) = best {
            (*y, *winner) = (v, at as u32);
        }
    }
}

/// Number of windows decided at once.
const SIDE: usize = 4;

/// [`max_of_plane`] for windows of 2 x 2 side by side.
#[inline(always)]
fn max_of_two_by_two<T: Number>(s: &Windows, x: &[T], y: &mut [T], winners: &mut [u32]) {
    let rows = y.chunks_exact_mut(s.ow).zip(winners.chunks_exact_mut(s.ow));
    let below = s.w as u32;
    for (row, (y, winners)) in rows.enumerate() {
        let start = 2 * row * s.w;
        let (top, bottom) = x[start..start + 2 * s.w].split_at(s.w);
        let mut at = start as u32;
        let (ys, y) = y.as_chunks_mut::<SIDE>();
        let (wins, winners) = winners.as_chunks_mut::<SIDE>();
        let (tops, bottoms) = (
            top.as_chunks::<{ 2 * SIDE }>().0,
            bottom.as_chunks::<{ 2 * SIDE }>().0,
        );
        for (((y, wins), top), bottom) in ys.iter_mut().zip(wins).zip(tops).zip(bottoms) {
            let (mut best, mut place) = ([T::ZERO; SIDE], [0; SIDE]);
            for i in 0..SIDE {
                (best[i], place[i]) = (top[2 * i], at + 2 * i as u32);
            }
            for (values, odd, add) in [(top, 1, 1), (bottom, 0, below), (bottom, 1, below + 1)] {
                for i in 0..SIDE {
                    let v = values[2 * i + odd];
                    let wins = beats(v, best[i]);
                    best[i] = if wins { v } else { best[i] };
                    place[i] = if wins {
                        at + 2 * i as u32 + add
                    } else {
                        place[i]
                    };
                }
            }
            (*y, *wins) = (best, place);
            at += 2 * SIDE as u32;
        }
        let done = (at as usize - start) / 2;
        let windows = top[2 * done..]
            .as_chunks::<2>()
            .0
            .iter()
            .zip(bottom[2 * done..].as_chunks::<2>().0);
        for ((y, winner), (top, bottom)) in y.iter_mut().zip(winners).zip(windows) {
            let mut best = (top[0], at);
            for (v, at) in [
                (top[1], at + 1),
                (bottom[0], at + below),
                (bottom[1], at + below + 1),
            ] {
                if beats(v, best.0) {
                    best = (v, at);
                }
            }
            (*y, *winner) = best;
            at += 2;
        }
    }
}

/// Writes the cotangents of y to their winners' positions, block by block. Other positions become 0, or keep their
/// values if `adds`.
pub(super) fn max_back<T: Number>(s: &Windows, winners: &[u32], y: &[T], x: &mut [T], adds: bool) {
    wide::<Back, _>((s, winners, y, x, adds));
}

struct Back;

type BackOperands<'a, T> = (&'a Windows, &'a [u32], &'a [T], &'a mut [T], bool);

impl<'a, T: Number> Loop<BackOperands<'a, T>> for Back {
    #[inline(always)]
    fn run((s, winners, y, x, adds): BackOperands<'a, T>) {
        let windows = s.oh * s.ow;
        let covers = s.is_two_by_two() && s.h.is_multiple_of(2) && s.w.is_multiple_of(2 * SIDE);
        if !adds && !covers {
            x.fill(T::ZERO);
        }
        for ((y, x), winners) in y
            .chunks_exact(windows)
            .zip(x.chunks_exact_mut(s.h * s.w))
            .zip(winners.chunks_exact(windows).cycle())
        {
            if covers {
                back_of_two_by_two(s, winners, y, x, adds);
                continue;
            }
            for (&y, &at) in y.iter().zip(winners) {
                x[at as usize] += y;
            }
        }
    }
}

/// Windows of 2 x 2 side by side, in whole blocks. It writes all positions that the windows read, which is faster
/// than addressing the winners.
#[inline(always)]
fn back_of_two_by_two<T: Number>(s: &Windows, winners: &[u32], y: &[T], x: &mut [T], adds: bool) {
    let (ys, wins) = (y.as_chunks::<SIDE>().0, winners.as_chunks::<SIDE>().0);
    let (xs, across) = (x.as_chunks_mut::<{ 2 * SIDE }>().0, s.ow / SIDE);
    let rows = ys.chunks_exact(across).zip(wins.chunks_exact(across));
    for (row, ((ys, wins), xs)) in rows.zip(xs.chunks_exact_mut(2 * across)).enumerate() {
        let (tops, bottoms) = xs.split_at_mut(across);
        let mut at = (2 * row * s.w) as u32;
        for (((y, wins), top), bottom) in ys.iter().zip(wins).zip(tops).zip(bottoms) {
            put(top, spread(y, wins, at), adds);
            put(bottom, spread(y, wins, at + s.w as u32), adds);
            at += 2 * SIDE as u32;
        }
    }
}

/// Values of a row of windows from position `at` on: y at the winners' positions, else 0.
#[inline(always)]
fn spread<T: Number>(y: &[T; SIDE], winners: &[u32; SIDE], at: u32) -> [T; 2 * SIDE] {
    let mut row = [T::ZERO; 2 * SIDE];
    for odd in 0..2 {
        for i in 0..SIDE {
            // All values are read before the choice, so that there are no branches.
            let place = at + (2 * i + odd) as u32;
            let (v, wins) = (y[i], winners[i] == place);
            row[2 * i + odd] = if wins { v } else { T::ZERO };
        }
    }
    row
}

#[inline(always)]
fn put<T: Number>(to: &mut [T; 2 * SIDE], values: [T; 2 * SIDE], adds: bool) {
    let mut sum = *to;
    for (to, value) in sum.iter_mut().zip(values) {
        *to = if adds { *to + value } else { value };
    }
    *to = sum;
}

/// Means of all planes.
pub(super) fn average<T: Number>(s: &Windows, x: &[T], y: &mut [T]) {
    let share = T::of(1.0 / (s.kernel.0 * s.kernel.1) as f64);
    for (x, y) in x
        .chunks_exact(s.h * s.w)
        .zip(y.chunks_exact_mut(s.oh * s.ow))
    {
        for (i, y) in y.iter_mut().enumerate() {
            let mut total = T::ZERO;
            for r in s.rows(i / s.ow) {
                for c in s.columns(i % s.ow) {
                    total += x[r * s.w + c];
                }
            }
            *y = total * share;
        }
    }
}

/// Spreads each cotangent over its window. Overwrites the existing values, or adds to them if `adds`.
pub(super) fn average_back<T: Number>(s: &Windows, y: &[T], x: &mut [T], adds: bool) {
    if !adds {
        x.fill(T::ZERO);
    }
    let share = T::of(1.0 / (s.kernel.0 * s.kernel.1) as f64);
    for (y, x) in y
        .chunks_exact(s.oh * s.ow)
        .zip(x.chunks_exact_mut(s.h * s.w))
    {
        for (i, &y) in y.iter().enumerate() {
            for r in s.rows(i / s.ow) {
                for c in s.columns(i % s.ow) {
                    x[r * s.w + c] += y * share;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `<ẏ, g> = <ẋ, back(g)>`, on planes that 2 x 2 windows cover in whole blocks and on others.
    #[test]
    fn the_backward_pass_is_the_transpose_of_the_forward_pass() {
        for (h, w, kernel, stride, padding) in [
            (8, 8, 2, 2, 0),
            (6, 24, 2, 2, 0),
            (7, 8, 2, 2, 0),
            (4, 12, 2, 2, 0),
            (5, 9, 2, 2, 0),
            (8, 8, 3, 2, 1),
            (6, 6, 3, 1, 0),
        ] {
            let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
            let s = Windows {
                h,
                w,
                oh: out(h),
                ow: out(w),
                kernel: (kernel, kernel),
                stride: (stride, stride),
                padding: (padding, padding),
            };
            let (planes, blocks) = (3, 2);
            let (plane, windows) = (h * w, s.oh * s.ow);
            let noise = |n: usize, by: f64| (0..n).map(|i| (by * i as f64).sin()).collect();
            let x: Vec<f64> = noise(blocks * planes * plane, 1.7);
            let g: Vec<f64> = noise(blocks * planes * windows, 2.3);
            let mut y = vec![f64::NAN; g.len()];
            let mut winners = vec![u32::MAX; planes * windows];
            max(&s, &x, &mut y, &mut winners);
            for adds in [false, true] {
                let mut back = if adds {
                    vec![0.25; x.len()]
                } else {
                    vec![f64::NAN; x.len()]
                };
                max_back(&s, &winners, &g, &mut back, adds);
                let there = if adds { 0.25 } else { 0.0 };
                for block in 0..blocks {
                    let of = |v: &[f64], n: usize| v[block * n..(block + 1) * n].to_vec();
                    let dot = |a: Vec<f64>, b: Vec<f64>| -> f64 {
                        a.iter().zip(&b).map(|(a, b)| a * b).sum()
                    };
                    let want = dot(of(&y, planes * windows), of(&g, planes * windows));
                    let back = of(&back, planes * plane);
                    let got = dot(
                        of(&x, planes * plane),
                        back.iter().map(|b| b - there).collect(),
                    );
                    assert!((want - got).abs() < 1e-12, "{s:?}, adds {adds}");
                    // Only winners received a cotangent.
                    let touched = back.iter().filter(|b| **b != there).count();
                    assert!(touched <= planes * windows, "{s:?}, adds {adds}");
                }
            }
        }
    }
}
