//! The numbers of one step in the kernels' type: parameters, directions, and the weights in the order in which the
//! kernels read them.

use rayon::prelude::*;

use super::number::Number;
use super::program::Program;
use crate::engine::flat::power_of_two_scale;
use crate::run::floats::FloatSlice;

/// Parameters and directions.
#[derive(Default)]
pub(super) struct Point<T> {
    /// p, the number of parameters.
    pub parameters: usize,
    /// θ, then the scaled directions, p values each.
    blocks: Vec<T>,
    /// For each direction (once if there is none), [Wᵀ Ẇᵀ] of each layer: (taps, 2 o).
    stacked: Vec<T>,
    stacked_len: usize,
    /// The factor of each direction, a power of two, so that f32 neither overflows nor underflows.
    pub scales: Vec<f64>,
}

impl<T: Number> Point<T> {
    /// θ (block 0) or a direction (blocks 1 to Q).
    pub fn block(&self, block: usize) -> &[T] {
        &self.blocks[block * self.parameters..][..self.parameters]
    }

    /// The transposes for direction `q`.
    pub fn stacked(&self, q: usize) -> &[T] {
        &self.stacked[q * self.stacked_len..][..self.stacked_len]
    }

    /// Sets a step's numbers. Threads of the current rayon pool share the work if there are many directions.
    /// Allocates nothing if an earlier step had at least as many directions.
    pub fn set(
        &mut self,
        program: &Program,
        theta: FloatSlice<'_>,
        directions: &[&[f64]],
        rho: &[Vec<f64>],
    ) {
        let p = program.parameters;
        let shared = directions.len() > 1 && directions.len() * p >= SHARED_VALUES;
        self.parameters = p;
        self.blocks.resize((1 + directions.len()) * p, T::ZERO);
        let (still, moved) = self.blocks.split_at_mut(p);
        theta.copy_to(still);
        let take = |(to, (s, rho)): (&mut [T], (&&[f64], &Vec<f64>))| {
            let scale = power_of_two_scale(&[s, rho]);
            fill(to, s, scale);
            scale
        };
        if shared {
            moved
                .par_chunks_exact_mut(p)
                .zip(directions.par_iter().zip(rho))
                .map(take)
                .collect_into_vec(&mut self.scales);
        } else {
            let moved = moved.chunks_exact_mut(p.max(1));
            self.scales.clear();
            self.scales
                .extend(moved.zip(directions.iter().zip(rho)).map(take));
        }
        self.stacked_len = program.stacked;
        self.stacked
            .resize(directions.len().max(1) * program.stacked, T::ZERO);
        if program.stacked == 0 {
            return;
        }
        let blocks = &self.blocks;
        let transpose_weights = |(q, stack): (usize, &mut [T])| {
            for (op, affine) in program.affine() {
                let g = &affine.geometry;
                let transposed = matches!(op.kind, super::program::OpKind::Transposed(_));
                if !(transposed || program.slots[op.input].moves) {
                    continue;
                }
                let to = &mut stack[affine.stacked..][..2 * g.o * g.taps()];
                for half in 0..2.min(1 + directions.len()) {
                    let block = if half == 0 { 0 } else { q + 1 };
                    let from = &blocks[block * p..][affine.weight.clone()];
                    transpose(from, g.o, g.taps(), &mut to[half * g.o..], 2 * g.o);
                }
            }
        };
        if shared {
            let stacks = self.stacked.par_chunks_exact_mut(program.stacked);
            stacks.enumerate().for_each(transpose_weights);
        } else {
            let stacks = self.stacked.chunks_exact_mut(program.stacked);
            stacks.enumerate().for_each(transpose_weights);
        }
    }
}

/// Threads share the work if all directions together have at least this many values.
const SHARED_VALUES: usize = 1 << 16;

fn fill<T: Number>(to: &mut [T], from: &[f64], scale: f64) {
    for (to, x) in to.iter_mut().zip(from) {
        *to = T::of(x * scale);
    }
}

/// `to[j * by + i] = from[i * columns + j]`, `SIDE` rows at a time so that reads and writes both stay in cache.
pub(super) fn transpose<T: Copy>(from: &[T], rows: usize, columns: usize, to: &mut [T], by: usize) {
    const SIDE: usize = 16;
    for top in (0..rows).step_by(SIDE) {
        let bottom = (top + SIDE).min(rows);
        for j in 0..columns {
            let to = &mut to[j * by..];
            for i in top..bottom {
                to[i] = from[i * columns + j];
            }
        }
    }
}
