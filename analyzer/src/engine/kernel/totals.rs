//! Sums over the accumulators of all lanes, in float64 and in the order of the lanes. A sum over ranks goes from rank to rank in
//! the same order.
//!
//! Accumulators follow the parameters, tensor by tensor. A tensor's range holds its values along each direction, one
//! after the other; for a weight, see [`Affine::accumulators`].

use std::ops::Range;

use super::number::Number;
use super::program::{Affine, OpKind, Program};
use crate::error::Result;
use crate::ranks::Ranks;

/// Accumulators of a pass.
pub(super) struct Totals<'a, T> {
    pub program: &'a Program,
    /// The accumulators of each lane.
    pub lanes: Vec<&'a [T]>,
    /// Number of directions, or 1 for the gradient itself.
    pub directions: usize,
    /// The processes that have the other lanes.
    pub ranks: Option<&'a Ranks>,
}

/// Number of a weight's values that are summed before they are transposed.
const ROOM: usize = 1 << 10;

/// The same for ranks, which exchange them in one message.
const ROOM_OF_RANKS: usize = 1 << 16;

impl<T: Number> Totals<'_, T> {
    /// Adds direction `q`'s sums, multiplied by `factor`, to `out` (p).
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn add(&self, q: usize, factor: f64, out: &mut [f64]) -> Result<()> {
        let mut room = Vec::new();
        for op in &self.program.ops {
            match &op.kind {
                OpKind::Convolution(affine) | OpKind::Transposed(affine) => {
                    self.add_weight(affine, q, factor, &mut room, out)?;
                    if let Some(bias) = &affine.bias {
                        self.add_vector(bias, q, factor, &mut room, out)?;
                    }
                }
                OpKind::Norm(norm) => {
                    self.add_vector(&norm.scale, q, factor, &mut room, out)?;
                    self.add_vector(&norm.shift, q, factor, &mut room, out)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add_vector(
        &self,
        range: &Range<usize>,
        q: usize,
        factor: f64,
        room: &mut Vec<f64>,
        out: &mut [f64],
    ) -> Result<()> {
        let at = self.directions * range.start + q * range.len();
        self.total(at, (1, range.len()), 0, room)?;
        for (out, total) in out[range.clone()].iter_mut().zip(room) {
            *out += factor * *total;
        }
        Ok(())
    }

    fn add_weight(
        &self,
        affine: &Affine,
        q: usize,
        factor: f64,
        room: &mut Vec<f64>,
        out: &mut [f64],
    ) -> Result<()> {
        let (o, taps) = (affine.geometry.o, affine.geometry.taps());
        let (start, by) = affine.accumulators(q, self.directions);
        let out = &mut out[affine.weight.clone()];
        let most = if self.ranks.is_some() {
            ROOM_OF_RANKS
        } else {
            ROOM
        };
        let step = (most / o.max(1)).max(1);
        for top in (0..taps).step_by(step) {
            let rows = step.min(taps - top);
            self.total(start + top * by, (rows, o), by, room)?;
            for (i, out) in out.chunks_exact_mut(taps).enumerate() {
                let column = room[i..].iter().step_by(o);
                for (out, total) in out[top..][..rows].iter_mut().zip(column) {
                    *out += factor * total;
                }
            }
        }
        Ok(())
    }

    /// Sums `rows` rows of `columns` values that start at `at` with stride `by`.
    fn total(
        &self,
        at: usize,
        (rows, columns): (usize, usize),
        by: usize,
        room: &mut Vec<f64>,
    ) -> Result<()> {
        room.clear();
        room.resize(rows * columns, 0.0);
        if let Some(ranks) = self.ranks {
            ranks.receive_sum(room)?;
        }
        // Contiguous rows are one row.
        let (rows, columns) = if by == columns {
            (1, rows * columns)
        } else {
            (rows, columns)
        };
        for lane in &self.lanes {
            for (r, room) in room.chunks_exact_mut(columns.max(1)).take(rows).enumerate() {
                for (total, x) in room.iter_mut().zip(&lane[at + r * by..][..columns]) {
                    *total += x.wide();
                }
            }
        }
        match self.ranks {
            Some(ranks) => ranks.pass_sum(room),
            None => Ok(()),
        }
    }
}
