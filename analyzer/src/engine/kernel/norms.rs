//! All norms of a net over a batch: statistics from the chunks' sums, and the update of the running statistics.

use super::lanes::Lanes;
use super::norm::{Moments, width};
use super::number::Number;
use super::point::Point;
use super::program::Program;
use crate::error::{AnalysisError, Result};

/// Statistics of all norms; reused from step to step.
#[derive(Default)]
pub(super) struct Norms {
    pub moments: Vec<Moments>,
    /// Offset of each norm's sums within those of a chunk.
    pub at: Vec<usize>,
    /// Number of sums per chunk: of each norm, those of the forward pass and then those of the backward pass.
    pub len: usize,
    /// The sums of one norm in all chunks, in order, and the chunks' sizes.
    sums: Vec<f64>,
    sizes: Vec<usize>,
}

impl Norms {
    /// Begins a batch of `n` examples; `rho` are the adjoints of the running statistics after it.
    ///
    /// # Errors
    /// A channel has a single value, which has no variance.
    pub fn begin<T: Number>(
        &mut self,
        program: &Program,
        n: usize,
        buffers: &[f64],
        rho: &[Vec<f64>],
        point: &Point<T>,
    ) -> Result<()> {
        let tangents = point.scales.len();
        self.at.clear();
        self.len = 0;
        while self.moments.len() < program.norms.len() {
            self.moments.push(Moments::default());
        }
        for (moments, &op) in self.moments.iter_mut().zip(&program.norms) {
            let (norm, input) = (program.norm(op), &program.slots[program.ops[op].input]);
            self.at.push(self.len);
            self.len += 2 * input.channels * width(tangents);
            let count = n * input.pixels;
            moments.begin(input.channels, tangents, count);
            if !norm.batch {
                let (mean, variance) = (norm.mean.clone(), norm.variance.clone());
                moments.fixed(&buffers[mean], &buffers[variance], norm.eps);
                continue;
            }
            if count < 2 {
                return Err(AnalysisError::BatchNorm {
                    layer: program.ops[op].path.clone(),
                    values: count,
                    batch: n,
                });
            }
            for (q, (rho, scale)) in rho.iter().zip(&point.scales).enumerate() {
                let (mean, variance) = (&rho[norm.mean.clone()], &rho[norm.variance.clone()]);
                moments.seed(q, norm.momentum * scale, mean, variance);
            }
        }
        Ok(())
    }

    /// Computes the batch's statistics after all chunks have summed.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn gather<T: Number>(
        &mut self,
        program: &Program,
        op: usize,
        lanes: &mut Lanes<T>,
    ) -> Result<()> {
        let norm = program.norm(op);
        let half = self.collect(norm.index, false, lanes)?;
        let pixels = program.slots[program.ops[op].input].pixels;
        let chunks = self.sums.chunks_exact(half).zip(&self.sizes);
        let chunks = chunks.map(|(sums, n)| (n * pixels, sums));
        self.moments[norm.index].gather(chunks, norm.eps);
        Ok(())
    }

    /// Computes the batch's sums of cotangents after all chunks have summed.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn add_up<T: Number>(
        &mut self,
        program: &Program,
        op: usize,
        lanes: &mut Lanes<T>,
    ) -> Result<()> {
        let index = program.norm(op).index;
        let half = self.collect(index, true, lanes)?;
        self.moments[index].add_up(self.sums.chunks_exact(half));
        Ok(())
    }

    /// Collects a norm's sums of one pass from all chunks. Returns the number of sums per chunk.
    ///
    /// # Errors
    /// If a rank is gone.
    fn collect<T: Number>(
        &mut self,
        index: usize,
        back: bool,
        lanes: &mut Lanes<T>,
    ) -> Result<usize> {
        let moments = &self.moments[index];
        let half = moments.channels * width(moments.tangents);
        let at = self.at[index] + if back { half } else { 0 };
        let len = self.len;
        lanes.share(
            |lane| lane.chunks.len() * half,
            |lane, to| {
                for sums in lane.sums.chunks_exact(len) {
                    to.extend_from_slice(&sums[at..at + half]);
                }
            },
            |lane, from| {
                let chunks = lane.sums.chunks_exact_mut(len);
                for (sums, from) in chunks.zip(from.chunks_exact(half)) {
                    sums[at..at + half].copy_from_slice(from);
                }
            },
        )?;
        self.sums.clear();
        self.sizes.clear();
        for lane in lanes.in_order() {
            for sums in lane.sums.chunks_exact(self.len) {
                self.sums.extend_from_slice(&sums[at..at + half]);
            }
            self.sizes.extend(lane.chunks.iter().map(|c| c.len()));
        }
        Ok(half)
    }

    /// Running statistics after a training batch, from those before it.
    pub fn advance<T: Number>(&self, program: &Program, buffers: &mut [f64]) {
        for (moments, &op) in self.moments.iter().zip(&program.norms) {
            let norm = program.norm(op);
            if !norm.batch {
                continue;
            }
            let m = norm.momentum;
            let unbiased = moments.count / (moments.count - 1.0);
            for (range, new, factor) in [
                (&norm.mean, &moments.mean, 1.0),
                (&norm.variance, &moments.variance, unbiased),
            ] {
                for (r, new) in buffers[range.clone()].iter_mut().zip(new) {
                    *r = T::of((1.0 - m) * *r + m * factor * new).wide();
                }
            }
        }
    }

    /// Carries direction `q`'s adjoint of the running statistics from after the batch to before it.
    pub fn adjoint<T: Number>(
        &self,
        program: &Program,
        point: &Point<T>,
        q: usize,
        rho: &mut [f64],
    ) {
        for (moments, &op) in self.moments.iter().zip(&program.norms) {
            let norm = program.norm(op);
            if norm.batch {
                for range in [&norm.mean, &norm.variance] {
                    for r in &mut rho[range.clone()] {
                        *r *= 1.0 - norm.momentum;
                    }
                }
                continue;
            }
            let back = 1.0 / point.scales[q];
            for c in 0..moments.channels {
                let at = norm.scale.start + c;
                let (scale, moved) = (point.block(0)[at].wide(), point.block(q + 1)[at].wide());
                let (mean, variance) = moments.of_running(q + 1, c, scale, moved);
                rho[norm.mean.start + c] += back * mean;
                rho[norm.variance.start + c] += back * variance;
            }
        }
    }

    /// Adds the loss's derivative in the running statistics before the batch: 0 in training.
    pub fn gradient<T: Number>(&self, program: &Program, point: &Point<T>, out: &mut [f64]) {
        for (moments, &op) in self.moments.iter().zip(&program.norms) {
            let norm = program.norm(op);
            if norm.batch {
                continue;
            }
            for c in 0..moments.channels {
                let scale = point.block(0)[norm.scale.start + c].wide();
                let (mean, variance) = moments.of_running(0, c, scale, 0.0);
                out[norm.mean.start + c] += mean;
                out[norm.variance.start + c] += variance;
            }
        }
    }
}
