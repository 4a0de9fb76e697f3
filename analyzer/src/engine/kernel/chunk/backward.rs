//! The backward pass of an operation.

use super::super::activation;
use super::super::activation::Curve;
use super::super::affine::{Back, Operand};
use super::super::number::Number;
use super::super::pool;
use super::super::program::{Affine, Norm, Op, OpKind};
use super::rearrange::{add, unflatten};
use super::{Chunk, Scratch, Shared, pair, raw_operand, rows};

impl<T: Number> Shared<'_, T> {
    pub(super) fn backward(&self, op: &Op, chunk: &mut Chunk<'_, T>, scratch: &mut Scratch<T>) {
        let n = chunk.examples.len();
        let from = &self.program.slots[op.input];
        match &op.kind {
            OpKind::Convolution(affine) | OpKind::Transposed(affine) => {
                self.affine_back(op, affine, chunk, scratch);
                return;
            }
            OpKind::Norm(norm) => {
                self.norm_back(op, norm, chunk);
                return;
            }
            _ => {}
        }
        // The other operations transform their output's cotangents in place and then pass them to their input.
        let out = self.cotangents(op.output, n);
        let values = &mut chunk.store.values;
        match op.kind {
            OpKind::Relu => {
                let (y, g) = pair(values, self.layout.values(op.output, 0..1, n), out.clone());
                activation::relu_back(y, g);
            }
            OpKind::Tanh | OpKind::Sigmoid => {
                let curve = match op.kind {
                    OpKind::Tanh => Curve::Tanh,
                    _ => Curve::Sigmoid,
                };
                let (y, g) = pair(values, self.values(op.output, n), out.clone());
                curve.backward(y, self.program.slots[op.output].size() * n, g);
            }
            OpKind::Gelu => {
                let (x, g) = pair(values, self.values(op.input, n), out.clone());
                activation::gelu_back(x, from.size() * n, g);
            }
            OpKind::Dropout { mask, .. } => {
                let (mask, g) = pair(values, self.layout.mask(mask, n), out.clone());
                activation::masked(mask, g);
            }
            _ => {}
        }
        if op.in_place() || !from.moves {
            if let OpKind::Add { other, other_adds } = op.kind {
                self.pass_cotangents(op.output, other, other_adds, chunk);
            }
            return;
        }
        match &op.kind {
            OpKind::MaxPool(..) | OpKind::AveragePool(_) => {
                let wanted = self.wanted(op.input);
                let to = self.cotangents(op.input, n);
                let out = self.layout.cotangents(op.output, wanted, n);
                let (g, x) = pair(&mut chunk.store.values, out, to);
                match &op.kind {
                    OpKind::MaxPool(windows, index) => {
                        let winners = &chunk.store.winners[self.layout.winners(*index, n)];
                        pool::max_back(windows, winners, g, x, op.adds);
                    }
                    OpKind::AveragePool(windows) => pool::average_back(windows, g, x, op.adds),
                    _ => {}
                }
            }
            OpKind::Flatten => {
                let to = self.cotangents(op.input, n);
                let out = self.layout.cotangents(op.output, self.wanted(op.input), n);
                let (g, x) = pair(&mut chunk.store.values, out, to);
                let block = from.size() * n;
                for (g, x) in g.chunks_exact(block).zip(x.chunks_exact_mut(block)) {
                    unflatten(g, n, from.pixels, x, op.adds);
                }
            }
            OpKind::Add { other, other_adds } => {
                // In this order, which `adds` and `other_adds` assume.
                self.pass_cotangents(op.output, op.input, op.adds, chunk);
                self.pass_cotangents(op.output, *other, *other_adds, chunk);
            }
            _ => self.pass_cotangents(op.output, op.input, op.adds, chunk),
        }
    }

    /// Copies the cotangents of slot `from` to slot `to`, which has the same shape, or adds them.
    fn pass_cotangents(&self, from: usize, to: usize, adds: bool, chunk: &mut Chunk<'_, T>) {
        if !self.program.slots[to].moves {
            return;
        }
        let n = chunk.examples.len();
        let write = self.cotangents(to, n);
        let read = self.layout.cotangents(from, self.wanted(to), n);
        let (g, x) = pair(&mut chunk.store.values, read, write);
        if adds {
            add(g, x);
        } else {
            x.copy_from_slice(g);
        }
    }

    fn affine_back(
        &self,
        op: &Op,
        affine: &Affine,
        chunk: &mut Chunk<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        let n = chunk.examples.len();
        let from = &self.program.slots[op.input];
        let input = if from.raw {
            0..0
        } else {
            self.values(op.input, n)
        };
        let to = if from.moves {
            self.all_cotangents(op.input, n)
        } else {
            0..0
        };
        let [x, out, back] = chunk
            .store
            .values
            .get_disjoint_mut([input, self.all_cotangents(op.output, n), to])
            .expect("the layout gives slots in use disjoint ranges");
        let x = if from.raw {
            raw_operand(
                self.raw(&chunk.examples, op.input),
                from.size(),
                from.pixels,
            )
        } else {
            Operand::slot(x, from.channels, from.pixels, n, from.moves)
        };
        let back = from.moves.then(|| Back {
            to: back,
            wanted: self.wanted(op.input),
            adds: op.adds,
        });
        let layer = self.layer(affine, n);
        let (gradient, scratch) = (&mut *chunk.gradient, &mut scratch.affine);
        match op.kind {
            OpKind::Transposed(_) => {
                layer.backward_transposed(x, out, back, gradient, scratch);
            }
            _ => layer.backward(x, out, back, gradient, scratch),
        }
    }

    fn norm_back(&self, op: &Op, norm: &Norm, chunk: &mut Chunk<'_, T>) {
        let n = chunk.examples.len();
        let from = &self.program.slots[op.input];
        if !from.moves {
            return;
        }
        let [x, out, back] = chunk
            .store
            .values
            .get_disjoint_mut([
                self.values(op.input, n),
                self.all_cotangents(op.output, n),
                self.all_cotangents(op.input, n),
            ])
            .expect("the layout gives slots in use disjoint ranges");
        let x = rows(x, from.size(), from.pixels, n, true);
        let out = rows(out, from.size(), from.pixels, n, true);
        let first = self.wanted(op.input).start;
        self.normalise(norm).backward(x, out, back, first, op.adds);
    }
}
