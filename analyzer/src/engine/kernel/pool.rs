//! Pooling.
//!
//! Max pooling reads, for each window, one element whose position the values decide; tangents and cotangents go through the
//! same positions. Average pooling is linear. Ties are broken as in training: the first in reading order; a NaN wins.

use std::ops::Range;

use super::number::Number;
use super::plan::Windows;
use super::wide::{Loop, wide};

impl Windows {
    /// Input rows of the window in output row `row`.
    fn rows(&self, row: usize) -> Range<usize> {
        span(row, self.stride.0, self.kernel.0, self.padding.0, self.h)
    }

    fn columns(&self, column: usize) -> Range<usize> {
        span(column, self.stride.1, self.kernel.1, self.padding.1, self.w)
    }

    fn halves(&self) -> bool {
        self.kernel == (2, 2) && self.stride == (2, 2) && self.padding == (0, 0)
    }
}

fn span(at: usize, stride: usize, kernel: usize, padding: usize, size: usize) -> Range<usize> {
    let start = at * stride;
    start.saturating_sub(padding)..(start + kernel).saturating_sub(padding).min(size)
}

/// Larger, or the first NaN; without branches.
#[inline(always)]
fn beats<T: Number>(v: T, best: T) -> bool {
    (v > best) | (v.is_nan() & !best.is_nan())
}

/// Maxima and winners of a chunk's planes; `x` and `y` hold blocks of planes, of which the first decides.
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
            if s.halves() {
                max_of_halves(s, x, y, winners);
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

/// Windows that are decided at once.
const SIDE: usize = 4;

/// Windows of 2 x 2 side by side.
#[inline(always)]
fn max_of_halves<T: Number>(s: &Windows, x: &[T], y: &mut [T], winners: &mut [u32]) {
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

/// Adds cotangents of y to their winners, block by block.
pub(super) fn max_back<T: Number>(s: &Windows, winners: &[u32], y: &[T], x: &mut [T]) {
    let (plane, windows) = (s.h * s.w, s.oh * s.ow);
    let winners = winners.chunks_exact(windows);
    for ((y, x), winners) in y
        .chunks_exact(windows)
        .zip(x.chunks_exact_mut(plane))
        .zip(winners.cycle())
    {
        for (&y, &at) in y.iter().zip(winners) {
            x[at as usize] += y;
        }
    }
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

/// Adds each cotangent's share to its window.
pub(super) fn average_back<T: Number>(s: &Windows, y: &[T], x: &mut [T]) {
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
