//! One chunk of examples through the operations of a phase.

mod backward;
mod rearrange;

use std::ops::Range;

use hindcast_model::net::dropout_row;
use hindcast_model::objective::Draws;
use hindcast_model::task::LossKind;

use super::activation;
use super::activation::Curve;
use super::affine::{AffineScratch, Layer, Operand};
use super::layout::ChunkLayout;
use super::loss::{ChunkLoss, LossScratch, Targets};
use super::norm::{Moments, Normalise, Rows, statistics, width};
use super::number::Number;
use super::point::Point;
use super::pool;
use super::program::{Affine, Op, OpKind, Program, Work};
use rearrange::{add, flatten, rearrange};

/// What a pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Only the examples' losses.
    Losses,
    /// The gradient of the batch loss.
    Gradient,
    /// Products with directions.
    Products,
}

/// A batch's examples.
pub(super) struct Examples<'a, T> {
    /// (examples, values).
    pub inputs: &'a [T],
    pub targets: Targets<'a, T>,
    pub weights: &'a [f64],
    pub indices: &'a [u64],
    pub occurrences: Vec<u64>,
    pub draws: Draws,
}

/// What all chunks of a batch share during a phase.
pub(super) struct Shared<'a, T> {
    pub program: &'a Program,
    pub layout: &'a ChunkLayout,
    pub point: &'a Point<T>,
    pub examples: &'a Examples<'a, T>,
    pub moments: &'a [Moments],
    /// Offset of each norm's sums within those of a chunk.
    pub sums_at: &'a [usize],
    pub loss: LossKind,
    pub goal: Goal,
}

/// A chunk's values.
#[derive(Default)]
pub(super) struct Store<T> {
    pub values: Vec<T>,
    pub winners: Vec<u32>,
}

/// A thread's scratch.
#[derive(Default)]
pub(super) struct Scratch<T> {
    pub affine: AffineScratch<T>,
    pub loss: LossScratch,
}

/// A chunk's inputs and results.
pub(super) struct Chunk<'a, T> {
    /// Its position in the batch.
    pub examples: Range<usize>,
    pub store: &'a mut Store<T>,
    /// Sums of the norms: for each norm, those of the forward pass and then those of the backward pass.
    pub sums: &'a mut [f64],
    /// Accumulators, as [`super::totals`] describes them.
    pub gradient: &'a mut [T],
    /// Losses of the chunk's examples, and their tangents at multiples of `losses_by`.
    pub losses: &'a mut [f64],
    pub losses_by: usize,
    /// Outputs of the chunk's examples, one after the other; empty if they are not needed.
    pub outputs: &'a mut [T],
}

/// Two disjoint ranges of one store, one to read and one to write.
fn pair<T>(all: &mut [T], read: Range<usize>, write: Range<usize>) -> (&[T], &mut [T]) {
    let [read, write] = all
        .get_disjoint_mut([read, write])
        .expect("the layout gives slots in use disjoint ranges");
    (read, write)
}

impl<T: Number> Shared<'_, T> {
    /// Runs a phase on a chunk.
    pub fn run(&self, works: &[Work], chunk: &mut Chunk<'_, T>, scratch: &mut Scratch<T>) {
        for work in works {
            match *work {
                Work::Forward(op) => self.forward(&self.program.ops[op], chunk, scratch),
                Work::Statistics(op) => self.statistics(op, chunk),
                Work::Loss => {
                    self.loss(chunk, scratch);
                    if self.goal == Goal::Losses {
                        return;
                    }
                }
                Work::Sums(op) => self.sums(op, chunk),
                Work::Backward(op) => self.backward(&self.program.ops[op], chunk, scratch),
            }
        }
    }

    /// Blocks of a slot's values.
    fn blocks(&self, slot: usize) -> Range<usize> {
        if self.program.slots[slot].moves {
            0..1 + self.layout.tangents
        } else {
            0..1
        }
    }

    /// Blocks of a slot's cotangents that this pass needs.
    fn wanted(&self, slot: usize) -> Range<usize> {
        match self.goal {
            Goal::Products if !self.program.slots[slot].primal => 1..1 + self.layout.tangents,
            _ => 0..1 + self.layout.tangents,
        }
    }

    fn values(&self, slot: usize, n: usize) -> Range<usize> {
        self.layout.values(slot, self.blocks(slot), n)
    }

    fn cotangents(&self, slot: usize, n: usize) -> Range<usize> {
        self.layout.cotangents(slot, self.wanted(slot), n)
    }

    /// All blocks of a slot's cotangents, whether this pass needs them or not.
    fn all_cotangents(&self, slot: usize, n: usize) -> Range<usize> {
        self.layout.cotangents(slot, 0..1 + self.layout.tangents, n)
    }

    fn forward(&self, op: &Op, chunk: &mut Chunk<'_, T>, scratch: &mut Scratch<T>) {
        let n = chunk.examples.len();
        let (from, to) = (
            &self.program.slots[op.input],
            &self.program.slots[op.output],
        );
        let output = self.values(op.output, n);
        let input = if from.raw {
            0..0
        } else {
            self.values(op.input, n)
        };
        let block = to.size() * n;
        match &op.kind {
            OpKind::Load => {
                let raw = self.raw(&chunk.examples, op.input);
                rearrange(
                    raw,
                    n,
                    from.channels,
                    from.pixels,
                    &mut chunk.store.values[output],
                );
            }
            OpKind::Convolution(affine) | OpKind::Transposed(affine) => {
                let layer = self.layer(affine, n);
                let (x, y) = pair(&mut chunk.store.values, input, output);
                let x = if from.raw {
                    raw_operand(
                        self.raw(&chunk.examples, op.input),
                        from.size(),
                        from.pixels,
                    )
                } else {
                    Operand::slot(x, from.channels, from.pixels, n, from.moves)
                };
                match &op.kind {
                    OpKind::Transposed(_) => layer.forward_transposed(x, y, &mut scratch.affine),
                    _ => layer.forward(x, y, &mut scratch.affine),
                }
            }
            OpKind::Relu | OpKind::Tanh | OpKind::Sigmoid | OpKind::Dropout { .. } => {
                self.elementwise(op, chunk, input, output);
            }
            OpKind::Gelu => {
                let (x, y) = pair(&mut chunk.store.values, input, output);
                activation::gelu(x, block, y);
            }
            OpKind::MaxPool(windows, index) => {
                let winners = &mut chunk.store.winners[self.layout.winners(*index, n)];
                let (x, y) = pair(&mut chunk.store.values, input, output);
                pool::max(windows, x, y, winners);
            }
            OpKind::AveragePool(windows) => {
                let (x, y) = pair(&mut chunk.store.values, input, output);
                pool::average(windows, x, y);
            }
            OpKind::Norm(norm) => {
                let (x, y) = pair(&mut chunk.store.values, input, output);
                let x = rows(x, from.size(), from.pixels, n, from.moves);
                self.normalise(norm).forward(x, y);
            }
            OpKind::Flatten => {
                let (x, y) = pair(&mut chunk.store.values, input, output);
                for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
                    flatten(x, n, from.pixels, y);
                }
            }
            OpKind::Add { other, .. } => {
                let other = self.values(*other, n);
                let values = &mut chunk.store.values;
                values[output.clone()].fill(T::ZERO);
                for part in [input, other] {
                    let (x, y) = pair(values, part, output.clone());
                    add(x, y);
                }
            }
        }
    }

    /// Runs an operation whose output may overwrite its input.
    fn elementwise(
        &self,
        op: &Op,
        chunk: &mut Chunk<'_, T>,
        input: Range<usize>,
        output: Range<usize>,
    ) {
        let n = chunk.examples.len();
        let to = &self.program.slots[op.output];
        let block = to.size() * n;
        let values = &mut chunk.store.values;
        if !op.in_place() {
            values.copy_within(input, output.start);
        }
        match op.kind {
            OpKind::Relu => activation::relu(&mut values[output], block),
            OpKind::Tanh => Curve::Tanh.forward(&mut values[output], block),
            OpKind::Sigmoid => Curve::Sigmoid.forward(&mut values[output], block),
            OpKind::Dropout { p, stream, mask } => {
                let place = self.layout.mask(mask, n);
                let drawn = &mut values[place.clone()];
                self.draw(p, stream, to.pixels, &chunk.examples, drawn);
                let (mask, y) = pair(values, place, output);
                activation::masked(mask, y);
            }
            _ => {}
        }
    }

    fn statistics(&self, op: usize, chunk: &mut Chunk<'_, T>) {
        let n = chunk.examples.len();
        let (input, norm) = (self.program.ops[op].input, self.program.norm(op));
        let from = &self.program.slots[input];
        let x = &chunk.store.values[self.values(input, n)];
        let half = from.channels * width(self.layout.tangents);
        let sums = &mut chunk.sums[self.sums_at[norm.index]..][..half];
        statistics(
            rows(x, from.size(), from.pixels, n, from.moves),
            self.layout.tangents,
            sums,
        );
    }

    fn sums(&self, op: usize, chunk: &mut Chunk<'_, T>) {
        let n = chunk.examples.len();
        let (op, norm) = (&self.program.ops[op], self.program.norm(op));
        let from = &self.program.slots[op.input];
        let half = from.channels * width(self.layout.tangents);
        let x = rows(
            &chunk.store.values[self.values(op.input, n)],
            from.size(),
            from.pixels,
            n,
            from.moves,
        );
        let out = &chunk.store.values[self.all_cotangents(op.output, n)];
        let out = rows(out, from.size(), from.pixels, n, true);
        let sums = &mut chunk.sums[self.sums_at[norm.index] + half..][..half];
        self.normalise(norm).sums(x, out, sums, chunk.gradient);
    }

    fn loss(&self, chunk: &mut Chunk<'_, T>, scratch: &mut Scratch<T>) {
        let n = chunk.examples.len();
        let output = self.program.output;
        let loss = ChunkLoss {
            kind: self.loss,
            targets: &self.examples.targets,
            weights: &self.examples.weights[chunk.examples.clone()],
            first: chunk.examples.start,
            outputs: self.program.slots[output].size(),
        };
        let (z, g) = pair(
            &mut chunk.store.values,
            self.values(output, n),
            self.all_cotangents(output, n),
        );
        let wanted = self.goal != Goal::Losses;
        loss.run(
            z,
            wanted.then_some(g),
            chunk.losses,
            chunk.losses_by,
            &mut scratch.loss,
        );
        let size = loss.outputs;
        for (e, to) in chunk.outputs.chunks_exact_mut(size).take(n).enumerate() {
            for (to, z) in to.iter_mut().zip(z.iter().skip(e).step_by(n)) {
                *to = *z;
            }
        }
    }

    fn layer<'s>(&'s self, affine: &'s Affine, n: usize) -> Layer<'s, T> {
        Layer {
            affine,
            point: self.point,
            tangents: self.layout.tangents,
            n,
        }
    }

    fn normalise<'s>(&'s self, norm: &'s super::program::Norm) -> Normalise<'s, T> {
        Normalise {
            norm,
            moments: &self.moments[norm.index],
            point: self.point,
        }
    }

    fn raw(&self, examples: &Range<usize>, slot: usize) -> &[T] {
        let size = self.program.slots[slot].size();
        &self.examples.inputs[examples.start * size..examples.end * size]
    }

    /// Draws the mask of a chunk. An example's mask doesn't depend on the other examples.
    fn draw(&self, p: f64, stream: u32, pixels: usize, examples: &Range<usize>, mask: &mut [T]) {
        let n = examples.len();
        for (e, row) in examples.clone().enumerate() {
            let drawn = dropout_row(
                self.examples.draws,
                self.examples.indices[row],
                self.examples.occurrences[row],
                p,
                stream,
            );
            let places = mask
                .chunks_exact_mut(n * pixels)
                .flat_map(|channel| &mut channel[e * pixels..(e + 1) * pixels]);
            for (to, value) in places.zip(drawn) {
                *to = value;
            }
        }
    }
}

fn raw_operand<T>(data: &[T], size: usize, pixels: usize) -> Operand<'_, T> {
    Operand {
        data,
        block: data.len(),
        channel_by: pixels,
        example_by: size,
        moves: false,
    }
}

fn rows<T>(data: &[T], size: usize, pixels: usize, n: usize, moves: bool) -> Rows<'_, T> {
    Rows {
        data,
        block: size * n,
        row: pixels * n,
        moves,
    }
}
