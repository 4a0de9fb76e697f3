//! The numbers of one step in the kernels' type: parameters, directions, and the weights as the kernels read them.

use super::number::Number;
use super::plan::Plan;
use crate::engine::flat::power_of_two_scale;

/// Parameters and directions.
#[derive(Default)]
pub(super) struct Point<T> {
    /// p.
    pub parameters: usize,
    /// θ, then the scaled directions, p values each.
    blocks: Vec<T>,
    /// For each direction (once where there is none), [Wᵀ Ẇᵀ] of each layer: (taps, 2 o).
    stacked: Vec<T>,
    stacked_len: usize,
    /// What each direction was multiplied by, a power of two, so that f32 neither overflows nor loses it.
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

    /// Takes a step's numbers. Nothing is allocated once it has held as many.
    pub fn set(&mut self, plan: &Plan, theta: &[f64], directions: &[Vec<f64>], rho: &[Vec<f64>]) {
        self.parameters = plan.parameters;
        self.stacked_len = plan.stacked;
        self.scales.clear();
        self.blocks.clear();
        self.blocks.extend(theta.iter().map(|&x| T::of(x)));
        for (s, rho) in directions.iter().zip(rho) {
            let scale = power_of_two_scale(&[s, rho]);
            self.scales.push(scale);
            self.blocks.extend(s.iter().map(|&x| T::of(x * scale)));
        }
        let stacks = directions.len().max(1);
        self.stacked.resize(stacks * self.stacked_len, T::ZERO);
        if self.stacked_len == 0 {
            return;
        }
        for (q, stack) in self.stacked.chunks_exact_mut(self.stacked_len).enumerate() {
            for (op, affine) in plan.affine() {
                let g = &affine.geometry;
                let transposed = matches!(op.kind, super::plan::Kind::Transposed(_));
                if !(transposed || plan.slots[op.input].moves) {
                    continue;
                }
                let to = &mut stack[affine.stacked..][..2 * g.o * g.taps()];
                for half in 0..2.min(1 + directions.len()) {
                    let block = if half == 0 { 0 } else { q + 1 };
                    let from = &self.blocks[block * self.parameters..][affine.weight.clone()];
                    transpose(from, g.o, g.taps(), &mut to[half * g.o..], 2 * g.o);
                }
            }
        }
    }
}

/// `to[j * by + i] = from[i * columns + j]`, some rows at a time so that reads and writes both stay in cache.
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
