//! Max pooling and average pooling.
//!
//! For each window, max pooling reads one element, the winner, whose position is fixed after the forward pass. `Gather`
//! (x -> y) reads the winners and `Spread` (y-shaped -> x-shaped) is its transpose, so each is the backward pass of the
//! other. Average pooling is linear and pairs with its transpose in the same way. candle's max pooling isn't used, because
//! it scales the gradient by the number of elements in the window.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

use super::composed;
use super::element::{Element, by_dtype, elements, error, same_kind, storage};
use super::form::custom;
use super::geometry::Pooling;
use super::parallel::{row_pairs, rows};

/// Maximum over windows: (B, C, H, W) to (B, C, OH, OW) with OH = ⌊(H + 2 padding − KH) / stride⌋ + 1. Padding never
/// wins. If several elements of a window are largest, the first in row-major order gets the gradient. A NaN wins, as in
/// PyTorch.
///
/// # Errors
/// If the tensor isn't (B, C, H, W), a window doesn't fit, a stride is 0, or the padding is above half of the kernel.
pub fn max_pool2d(
    x: &Tensor,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Result<Tensor> {
    max_pool("max_pool2d", x, kernel, stride, padding, false)
}

/// `max_pool2d(relu(x))` in one pass, with the same values and derivatives.
///
/// # Errors
/// As [`max_pool2d`].
pub fn relu_max_pool2d(
    x: &Tensor,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Result<Tensor> {
    max_pool("relu_max_pool2d", x, kernel, stride, padding, true)
}

fn max_pool(
    op: &'static str,
    x: &Tensor,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
    relu: bool,
) -> Result<Tensor> {
    same_kind(op, x, &[])?;
    let shape = Pooling::new(op, x, kernel, stride, padding)?;
    if !custom(x) {
        let y = composed::max_pool2d(x, &shape)?;
        return if relu { composed::relu(&y) } else { Ok(y) };
    }
    x.apply_op1(Max {
        shape,
        relu,
        winners: OnceLock::new(),
    })
}

/// Mean over windows, without padding: (B, C, H, W) to (B, C, OH, OW) with OH = ⌊(H − KH) / stride⌋ + 1.
///
/// # Errors
/// If the tensor isn't (B, C, H, W), a window doesn't fit, or a stride is 0.
pub fn avg_pool2d(x: &Tensor, kernel: (usize, usize), stride: (usize, usize)) -> Result<Tensor> {
    const OP: &str = "avg_pool2d";
    same_kind(OP, x, &[])?;
    let shape = Pooling::new(OP, x, kernel, stride, (0, 0))?;
    if custom(x) {
        x.apply_op1(Average(shape))
    } else {
        composed::avg_pool2d(x, &shape)
    }
}

/// Marks a window without a winner: with a preceding ReLU, none of its elements is above 0.
const NO_WINNER: u32 = u32::MAX;

/// Finds the winners and reads them.
struct Max {
    shape: Pooling,
    relu: bool,
    /// Position of the winner of each window in its plane. The forward pass sets it.
    winners: OnceLock<Arc<Vec<u32>>>,
}

/// Reads the winners: x-shaped -> y-shaped.
struct Gather(Pooling, Arc<Vec<u32>>);
/// Adds to the winners: y-shaped -> x-shaped.
pub(super) struct Spread(pub(super) Pooling, pub(super) Arc<Vec<u32>>);

impl CustomOp1 for Max {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = &self.shape;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            let (y, winners) = reduce(s, self.relu, &x);
            let _ = self.winners.set(Arc::new(winners));
            Ok((storage(y), s.y_shape().into()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let winners = self
            .winners
            .get()
            .ok_or_else(|| error(self.name(), "the backward pass ran before the forward pass"))?;
        g.apply_op1(Spread(self.shape, winners.clone())).map(Some)
    }
}

impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "max_pool2d gather"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            Ok((storage(gather(&self.0, &self.1, &x)), self.0.y_shape().into()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op1(Spread(self.0, self.1.clone())).map(Some)
    }
}

impl CustomOp1 for Spread {
    fn name(&self) -> &'static str {
        "max_pool2d spread"
    }

    fn cpu_fwd(&self, y: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), y, T => {
            let y = elements::<T>(self.name(), y, l)?;
            Ok((storage(spread(&self.0, &self.1, &y)), self.0.x_shape().into()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op1(Gather(self.0, self.1.clone())).map(Some)
    }
}

/// Values and winners of all windows.
fn reduce<T: Element>(s: &Pooling, relu: bool, x: &[T]) -> (Vec<T>, Vec<u32>) {
    let (windows, plane) = (s.oh * s.ow, s.h * s.w);
    // A row holds all channels of an example, which is enough work for a thread.
    let work = plane * s.c;
    row_pairs(s.b * s.c * windows, windows * s.c, work, |b, y, winners| {
        for ((y, winners), plane) in y
            .chunks_exact_mut(windows)
            .zip(winners.chunks_exact_mut(windows))
            .zip(x[b * s.c * plane..].chunks_exact(plane))
        {
            reduce_plane(s, relu, plane, y, winners);
        }
    })
}

/// Values and winners of one plane's windows.
pub(super) fn reduce_plane<T: Element>(
    s: &Pooling,
    relu: bool,
    plane: &[T],
    y: &mut [T],
    winners: &mut [u32],
) {
    let halves = s.kernel == (2, 2) && s.stride == (2, 2) && s.padding == (0, 0);
    for (row, (y, winners)) in y
        .chunks_exact_mut(s.ow)
        .zip(winners.chunks_exact_mut(s.ow))
        .enumerate()
    {
        if halves {
            let start = 2 * row * s.w;
            let (top, bottom) = plane[start..start + 2 * s.w].split_at(s.w);
            let windows = top.chunks_exact(2).zip(bottom.chunks_exact(2));
            for (column, ((y, winner), (top, bottom))) in
                y.iter_mut().zip(winners).zip(windows).enumerate()
            {
                let at = (start + 2 * column) as u32;
                let mut best = (top[0], at);
                for (v, at) in [
                    (top[1], at + 1),
                    (bottom[0], at + s.w as u32),
                    (bottom[1], at + s.w as u32 + 1),
                ] {
                    // The first NaN wins over all numbers.
                    if v > best.0 || (v.is_nan() && !best.0.is_nan()) {
                        best = (v, at);
                    }
                }
                (*y, *winner) = if relu && best.0 <= T::ZERO {
                    (T::ZERO, NO_WINNER)
                } else {
                    best
                };
            }
            continue;
        }
        for (column, (y, winner)) in y.iter_mut().zip(winners).enumerate() {
            *winner = winner_of(s, relu, plane, row, column);
            *y = plane.get(*winner as usize).copied().unwrap_or(T::ZERO);
        }
    }
}

#[inline]
fn winner_of<T: Element>(s: &Pooling, relu: bool, plane: &[T], row: usize, column: usize) -> u32 {
    let mut best: Option<(T, usize)> = None;
    for r in s.rows(row) {
        for c in s.columns(column) {
            let v = plane[r * s.w + c];
            let wins = match best {
                None => true,
                // The first NaN wins over all numbers.
                Some((b, _)) => v > b || (v.is_nan() && !b.is_nan()),
            };
            if wins {
                best = Some((v, r * s.w + c));
            }
        }
    }
    match best {
        Some((v, at)) if !relu || v > T::ZERO || v.is_nan() => at as u32,
        _ => NO_WINNER,
    }
}

fn gather<T: Element>(s: &Pooling, winners: &[u32], x: &[T]) -> Vec<T> {
    let windows = s.oh * s.ow;
    rows(winners.len(), windows * s.c, windows * s.c, |b, out| {
        let mine = &winners[b * windows * s.c..];
        for (c, (out, mine)) in out
            .chunks_exact_mut(windows)
            .zip(mine.chunks_exact(windows))
            .enumerate()
        {
            let plane = &x[(b * s.c + c) * s.h * s.w..][..s.h * s.w];
            for (o, &at) in out.iter_mut().zip(mine) {
                *o = plane.get(at as usize).copied().unwrap_or(T::ZERO);
            }
        }
    })
}

fn spread<T: Element>(s: &Pooling, winners: &[u32], y: &[T]) -> Vec<T> {
    let (windows, plane) = (s.oh * s.ow, s.h * s.w);
    let len = s.b * s.c * plane;
    rows(len, plane * s.c, plane * s.c, |b, out| {
        for (c, out) in out.chunks_exact_mut(plane).enumerate() {
            let start = (b * s.c + c) * windows;
            let (mine, y) = (&winners[start..][..windows], &y[start..][..windows]);
            for (&at, &v) in mine.iter().zip(y) {
                if let Some(o) = out.get_mut(at as usize) {
                    *o += v;
                }
            }
        }
    })
}

/// x -> y.
struct Average(Pooling);
/// y-shaped -> x-shaped.
struct AverageTransposed(Pooling);

impl CustomOp1 for Average {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = &self.0;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            let share = T::from_f64(1.0 / (s.kernel.0 * s.kernel.1) as f64);
            let work = s.oh * s.ow * s.kernel.0 * s.kernel.1;
            let y = rows(s.b * s.c * s.oh * s.ow, s.oh * s.ow, work, |i, out| {
                let plane = &x[i * s.h * s.w..][..s.h * s.w];
                for (row, line) in out.chunks_exact_mut(s.ow).enumerate() {
                    for (column, o) in line.iter_mut().enumerate() {
                        let mut total = T::ZERO;
                        for r in s.rows(row) {
                            for c in s.columns(column) {
                                total += plane[r * s.w + c];
                            }
                        }
                        *o = total * share;
                    }
                }
            });
            Ok((storage(y), s.y_shape().into()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op1(AverageTransposed(self.0)).map(Some)
    }
}

impl CustomOp1 for AverageTransposed {
    fn name(&self) -> &'static str {
        "avg_pool2d transposed"
    }

    fn cpu_fwd(&self, y: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = &self.0;
        by_dtype!(self.name(), y, T => {
            let y = elements::<T>(self.name(), y, l)?;
            let share = T::from_f64(1.0 / (s.kernel.0 * s.kernel.1) as f64);
            let work = s.oh * s.ow * s.kernel.0 * s.kernel.1;
            let x = rows(s.b * s.c * s.h * s.w, s.h * s.w, work, |i, out: &mut [T]| {
                let y = &y[i * s.oh * s.ow..][..s.oh * s.ow];
                for (row, line) in y.chunks_exact(s.ow).enumerate() {
                    for (column, &v) in line.iter().enumerate() {
                        for r in s.rows(row) {
                            for c in s.columns(column) {
                                out[r * s.w + c] += v * share;
                            }
                        }
                    }
                }
            });
            Ok((storage(x), s.x_shape().into()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op1(Average(self.0)).map(Some)
    }
}
