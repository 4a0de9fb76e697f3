//! Batch normalisation, with its statistics.
//!
//! With μ and σ² over a channel's n values, i = (σ² + ε)^−½ and x̂ = (x − μ) i: y = γ x̂ + β, and along a direction
//!
//! - μ̇ = mean(ẋ), (σ²)˙ = 2 mean((x − μ) ẋ), κ = ½ i² (σ²)˙,
//! - x̂˙ = (ẋ − μ̇) i − κ x̂, ẏ = γ̇ x̂ + γ x̂˙ + β̇;
//! - in the backward pass, with A = mean(g), B = mean(g x̂) and h = g − A − B x̂: g_x = γ i h and
//!   ġ_x = (γ̇ i − γ i κ) h + γ i (ġ − Ȧ − Ḃ x̂ − B x̂˙).
//!
//! The running statistics' adjoint ρ enters ġ_x as m ρ_μ/n + 2 m ρ_σ² (x − μ)/(n − 1), the derivative of the
//! running statistics after the step. In evaluation μ and σ² are constants: μ̇, κ, A, B and their tangents are 0.
//!
//! A chunk contributes sums. [`Moments`] computes statistics from the sums of all chunks, in the order of the
//! examples.

use super::number::{Number, sum, sum_of};
use super::program::Norm;

/// Numbers of a norm over a whole batch, per channel; one direction after the other.
#[derive(Debug, Default)]
pub(super) struct Moments {
    pub channels: usize,
    pub tangents: usize,
    /// Number of values per channel: n.
    pub count: f64,
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
    /// i.
    pub inverse: Vec<f64>,
    /// μ̇ and κ.
    pub mean_moved: Vec<f64>,
    pub kappa: Vec<f64>,
    /// Σ g, Σ g x̂ and their tangents, over the batch.
    pub sums: Vec<f64>,
    /// Factor of A and B: 1/n, or 0 in evaluation.
    pub share: f64,
    /// m ρ_μ/n and 2 m ρ_σ²/(n − 1).
    pub seed_mean: Vec<f64>,
    pub seed_variance: Vec<f64>,
}

/// Number of sums per channel that a chunk contributes in the forward pass, and again in the backward pass.
pub(super) fn width(tangents: usize) -> usize {
    2 * (1 + tangents)
}

impl Moments {
    /// Begins a step.
    pub fn begin(&mut self, channels: usize, tangents: usize, count: usize) {
        (self.channels, self.tangents, self.count) = (channels, tangents, count as f64);
        for (v, len) in [
            (&mut self.mean, channels),
            (&mut self.variance, channels),
            (&mut self.inverse, channels),
            (&mut self.mean_moved, channels * tangents),
            (&mut self.kappa, channels * tangents),
            (&mut self.sums, channels * width(tangents)),
            (&mut self.seed_mean, channels * tangents),
            (&mut self.seed_variance, channels * tangents),
        ] {
            v.clear();
            v.resize(len, 0.0);
        }
        self.share = 0.0;
    }

    /// Uses the running statistics unchanged, for evaluation.
    pub fn fixed(&mut self, mean: &[f64], variance: &[f64], eps: f64) {
        self.mean.copy_from_slice(mean);
        self.variance.copy_from_slice(variance);
        self.invert(eps);
    }

    fn invert(&mut self, eps: f64) {
        for (i, v) in self.inverse.iter_mut().zip(&self.variance) {
            *i = 1.0 / (v + eps).sqrt();
        }
    }

    /// Statistics of all chunks. `chunks` yields (values per channel, sums) in the order of the examples.
    pub fn gather<'a>(
        &mut self,
        chunks: impl Iterator<Item = (usize, &'a [f64])> + Clone,
        eps: f64,
    ) {
        let width = width(self.tangents);
        for c in 0..self.channels {
            let of = |sums: &'a [f64]| &sums[c * width..][..width];
            // Chan, Golub and LeVeque, "Updating formulae" (1979).
            let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for (count, sums) in chunks.clone() {
                let [m, s, ..] = *of(sums) else { continue };
                let (count, delta) = (count as f64, m - mean);
                n += count;
                mean += delta * count / n;
                squares += s + delta * delta * count * (n - count) / n;
            }
            self.mean[c] = mean;
            self.variance[c] = squares / n;
            let inverse = 1.0 / (squares / n + eps).sqrt();
            for q in 0..self.tangents {
                let (mut moved, mut spread) = (0.0, 0.0);
                for (_, sums) in chunks.clone() {
                    let sums = of(sums);
                    moved += sums[2 + 2 * q];
                    spread += sums[3 + 2 * q] + (sums[0] - mean) * sums[2 + 2 * q];
                }
                self.mean_moved[q * self.channels + c] = moved / n;
                self.kappa[q * self.channels + c] = inverse * inverse * spread / n;
            }
        }
        self.invert(eps);
        self.share = 1.0 / self.count;
    }

    /// Adds up the cotangents' sums of all chunks.
    pub fn add_up<'a>(&mut self, chunks: impl Iterator<Item = &'a [f64]>) {
        self.sums.fill(0.0);
        for sums in chunks {
            for (total, x) in self.sums.iter_mut().zip(sums) {
                *total += x;
            }
        }
    }

    /// The adjoint ρ of the running statistics after the step, for one direction.
    pub fn seed(&mut self, q: usize, momentum: f64, mean: &[f64], variance: &[f64]) {
        let range = q * self.channels..(q + 1) * self.channels;
        for (seed, rho) in self.seed_mean[range.clone()].iter_mut().zip(mean) {
            *seed = momentum * rho / self.count;
        }
        for (seed, rho) in self.seed_variance[range].iter_mut().zip(variance) {
            *seed = 2.0 * momentum * rho / (self.count - 1.0);
        }
    }

    /// In evaluation: the loss's derivatives in a channel's running mean and variance (block 0), or their tangents
    /// along a direction. `scale` is γ and `moved` is γ̇.
    pub fn of_running(&self, block: usize, c: usize, scale: f64, moved: f64) -> (f64, f64) {
        let sums = &self.sums[c * width(self.tangents)..];
        let (g, gx) = (sums[0], sums[1]);
        let (a, b) = match block {
            0 => (scale * g, scale * gx),
            _ => (
                moved * g + scale * sums[2 * block],
                moved * gx + scale * sums[2 * block + 1],
            ),
        };
        let i = self.inverse[c];
        (-i * a, -0.5 * i * i * b)
    }

    fn channel<T: Number>(&self, c: usize, q: Option<usize>) -> Channel<T> {
        let at = q.map(|q| q * self.channels + c);
        let sums = &self.sums[c * width(self.tangents)..];
        let of = |v: &[f64]| at.map_or(T::ZERO, |at| T::of(v[at]));
        let mean_of = |i: usize| T::of(self.share * sums[i]);
        let moved = |i: usize| q.map_or(T::ZERO, |q| mean_of(2 + 2 * q + i));
        Channel {
            mean: T::of(self.mean[c]),
            inverse: T::of(self.inverse[c]),
            mean_moved: of(&self.mean_moved),
            kappa: of(&self.kappa),
            a: mean_of(0),
            b: mean_of(1),
            a_moved: moved(0),
            b_moved: moved(1),
            seed_mean: of(&self.seed_mean),
            seed_variance: of(&self.seed_variance),
        }
    }
}

/// Numbers of one channel.
struct Channel<T> {
    mean: T,
    inverse: T,
    mean_moved: T,
    kappa: T,
    a: T,
    b: T,
    a_moved: T,
    b_moved: T,
    seed_mean: T,
    seed_variance: T,
}

impl<T: Number> Channel<T> {
    fn normal(&self, x: T) -> T {
        (x - self.mean) * self.inverse
    }

    /// x̂˙ from x̂ and ẋ.
    fn normal_moved(&self, normal: T, moved: T) -> T {
        (moved - self.mean_moved) * self.inverse - self.kappa * normal
    }
}

/// Blocks of a chunk: values (channels x `row`) and, where the input moves, tangents.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub data: &'a [T],
    pub block: usize,
    /// Values of a channel in the chunk.
    pub row: usize,
    pub moves: bool,
}

impl<'a, T: Number> Rows<'a, T> {
    fn row(&self, block: usize, c: usize) -> &'a [T] {
        &self.data[block * self.block + c * self.row..][..self.row]
    }

    /// The row of tangents, if there is one.
    fn moved(&self, block: usize, c: usize) -> Option<&'a [T]> {
        self.moves.then(|| self.row(block, c))
    }
}

/// Mean, squared deviations from it, Σ ẋ and Σ (x − mean) ẋ of each channel of a chunk.
pub(super) fn statistics<T: Number>(x: Rows<'_, T>, tangents: usize, sums: &mut [f64]) {
    for (c, out) in sums.chunks_exact_mut(width(tangents)).enumerate() {
        let row = x.row(0, c);
        let mean = sum(row) / row.len() as f64;
        let at = T::of(mean);
        // The deviations are from the mean rounded to T. The second terms correct the sums to the unrounded mean.
        out[0] = mean;
        out[1] = sum_of(row, row, |x, _| (x - at) * (x - at))
            - (mean - at.wide()) * (mean - at.wide()) * row.len() as f64;
        for q in 0..tangents {
            let Some(moved) = x.moved(q + 1, c) else {
                out[2 + 2 * q..4 + 2 * q].fill(0.0);
                continue;
            };
            let total = sum(moved);
            out[2 + 2 * q] = total;
            out[3 + 2 * q] = sum_of(row, moved, |x, m| (x - at) * m) + (at.wide() - mean) * total;
        }
    }
}

/// What the kernels of a norm share.
pub(super) struct Normalise<'a, T> {
    pub norm: &'a Norm,
    pub moments: &'a Moments,
    pub point: &'a super::point::Point<T>,
}

impl<T: Number> Normalise<'_, T> {
    fn scale(&self, block: usize, c: usize) -> T {
        self.point.block(block)[self.norm.scale.start + c]
    }

    fn shift(&self, block: usize, c: usize) -> T {
        self.point.block(block)[self.norm.shift.start + c]
    }

    /// y and ẏ, blocks back to back.
    pub fn forward(&self, x: Rows<'_, T>, y: &mut [T]) {
        for (block, y) in y.chunks_exact_mut(x.block).enumerate() {
            for (c, y) in y.chunks_exact_mut(x.row).enumerate() {
                let of = self.moments.channel::<T>(c, block.checked_sub(1));
                let (scale, shift) = (self.scale(0, c), self.shift(block, c));
                let row = x.row(0, c);
                if block == 0 {
                    for (y, &x) in y.iter_mut().zip(row) {
                        *y = scale * of.normal(x) + shift;
                    }
                    continue;
                }
                let scale_moved = self.scale(block, c);
                match x.moved(block, c) {
                    Some(moved) => {
                        for ((y, &x), &moved) in y.iter_mut().zip(row).zip(moved) {
                            let normal = of.normal(x);
                            *y = scale_moved * normal
                                + scale * of.normal_moved(normal, moved)
                                + shift;
                        }
                    }
                    None => {
                        for (y, &x) in y.iter_mut().zip(row) {
                            *y = scale_moved * of.normal(x) + shift;
                        }
                    }
                }
            }
        }
    }

    /// Σ g, Σ g x̂ and their tangents Σ ġ, Σ (ġ x̂ + g x̂˙) of a chunk. They are also the gradients of β and γ (block
    /// 0) and the tangents of these, and are added to the accumulators.
    pub fn sums(&self, x: Rows<'_, T>, out: Rows<'_, T>, sums: &mut [f64], gradient: &mut [T]) {
        let tangents = self.moments.tangents;
        let channels = self.moments.channels;
        for (c, sums) in sums.chunks_exact_mut(width(tangents)).enumerate() {
            let (row, g) = (x.row(0, c), out.row(0, c));
            for block in 0..=tangents {
                let of = self.moments.channel::<T>(c, block.checked_sub(1));
                let here = out.row(block, c);
                let mut along = sum_of(row, here, |x, g| of.normal(x) * g);
                if block > 0
                    && let Some(moved) = x.moved(block, c)
                {
                    // Σ g x̂˙ = i (Σ g ẋ − μ̇ Σ g) − κ Σ g x̂.
                    along += of.inverse.wide()
                        * (sum_of(g, moved, |g, m| g * m) - of.mean_moved.wide() * sums[0])
                        - of.kappa.wide() * sums[1];
                }
                sums[2 * block] = sum(here);
                sums[2 * block + 1] = along;
                let at = match (block, tangents) {
                    (0, 0) => 0,
                    (0, _) => continue,
                    _ => block - 1,
                };
                for (range, sum) in [
                    (&self.norm.shift, sums[2 * block]),
                    (&self.norm.scale, along),
                ] {
                    gradient[tangents.max(1) * range.start + at * channels + c] += T::of(sum);
                }
            }
        }
    }

    /// The cotangents of x in the blocks from `first` on.
    pub fn backward(
        &self,
        x: Rows<'_, T>,
        out: Rows<'_, T>,
        back: &mut [T],
        first: usize,
        adds: bool,
    ) {
        for (block, back) in back.chunks_exact_mut(x.block).enumerate().skip(first) {
            for (c, back) in back.chunks_exact_mut(x.row).enumerate() {
                let of = self.moments.channel::<T>(c, block.checked_sub(1));
                if !adds {
                    back.fill(T::ZERO);
                }
                let slope = self.scale(0, c) * of.inverse;
                let (row, g) = (x.row(0, c), out.row(0, c));
                let still = |x: T, g: T| g - of.a - of.b * of.normal(x);
                if block == 0 {
                    for ((back, &x), &g) in back.iter_mut().zip(row).zip(g) {
                        *back += slope * still(x, g);
                    }
                    continue;
                }
                let slope_moved = self.scale(block, c) * of.inverse - slope * of.kappa;
                let here = out.row(block, c);
                let Some(moved) = x.moved(block, c) else {
                    continue;
                };
                for ((((back, &x), &g), &here), &moved) in
                    back.iter_mut().zip(row).zip(g).zip(here).zip(moved)
                {
                    let normal = of.normal(x);
                    let turned = here
                        - of.a_moved
                        - of.b_moved * normal
                        - of.b * of.normal_moved(normal, moved);
                    *back += slope_moved * still(x, g)
                        + slope * turned
                        + of.seed_mean
                        + of.seed_variance * (x - of.mean);
                }
            }
        }
    }
}
