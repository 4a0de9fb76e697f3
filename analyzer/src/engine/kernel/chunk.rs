//! One chunk of examples through the operations of a phase.

use std::ops::Range;

use hindcast_model::net::dropout_row;
use hindcast_model::objective::Draws;
use hindcast_model::task::LossKind;

use super::activation::{self, Curve};
use super::affine::{Layer, Operand, Scratch};
use super::layout::Layout;
use super::loss::{ChunkLoss, Room, Targets};
use super::norm::{Moments, Normalise, Rows, statistics, width};
use super::number::Number;
use super::plan::{Affine, Kind, Op, Plan, Work};
use super::point::Point;
use super::pool;

/// What is asked of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
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
    pub plan: &'a Plan,
    pub layout: &'a Layout,
    pub point: &'a Point<T>,
    pub examples: &'a Examples<'a, T>,
    pub moments: &'a [Moments],
    /// Where each norm's sums begin in a chunk's.
    pub sums_at: &'a [usize],
    pub loss: LossKind,
    pub pass: Pass,
}

/// A chunk's values.
#[derive(Default)]
pub(super) struct Store<T> {
    pub values: Vec<T>,
    pub winners: Vec<u32>,
}

/// A thread's scratch.
#[derive(Default)]
pub(super) struct Desk<T> {
    pub scratch: Scratch<T>,
    pub room: Room,
}

/// What a chunk works on and what it leaves.
pub(super) struct Chunk<'a, T> {
    /// Its place in the batch.
    pub examples: Range<usize>,
    pub store: &'a mut Store<T>,
    /// Sums of the norms: for each norm those of the way forward, then those of the way back.
    pub sums: &'a mut [f64],
    /// Accumulators: p values a direction, or once for a gradient.
    pub gradient: &'a mut [T],
    /// Losses of the chunk's examples and, `losses_by` further on each, their tangents.
    pub losses: &'a mut [f64],
    pub losses_by: usize,
}

/// Two places of one store, to read and to write.
fn pair<T>(all: &mut [T], read: Range<usize>, write: Range<usize>) -> (&[T], &mut [T]) {
    let [read, write] = all
        .get_disjoint_mut([read, write])
        .expect("the layout keeps what lives together apart");
    (read, write)
}

impl<T: Number> Shared<'_, T> {
    /// Does a phase's works on a chunk.
    pub fn run(&self, works: &[Work], chunk: &mut Chunk<'_, T>, desk: &mut Desk<T>) {
        for work in works {
            match *work {
                Work::Forward(op) => self.forward(&self.plan.ops[op], chunk, desk),
                Work::Statistics(op) => self.statistics(op, chunk),
                Work::Loss => {
                    self.loss(chunk, desk);
                    if self.pass == Pass::Losses {
                        return;
                    }
                }
                Work::Sums(op) => self.sums(op, chunk),
                Work::Backward(op) => self.backward(&self.plan.ops[op], chunk, desk),
            }
        }
    }

    /// Blocks of a slot's values.
    fn blocks(&self, slot: usize) -> Range<usize> {
        match self.plan.slots[slot].moves {
            true => 0..1 + self.layout.tangents,
            false => 0..1,
        }
    }

    /// Blocks of a slot's cotangents that this pass needs.
    fn wanted(&self, slot: usize) -> Range<usize> {
        match self.pass {
            Pass::Products if !self.plan.slots[slot].primal => 1..1 + self.layout.tangents,
            _ => 0..1 + self.layout.tangents,
        }
    }

    fn values(&self, slot: usize, n: usize) -> Range<usize> {
        self.layout.values(slot, self.blocks(slot), n)
    }

    fn cotangents(&self, slot: usize, n: usize) -> Range<usize> {
        self.layout.cotangents(slot, self.wanted(slot), n)
    }

    /// All blocks of a slot's cotangents, wanted or not.
    fn all_cotangents(&self, slot: usize, n: usize) -> Range<usize> {
        self.layout.cotangents(slot, 0..1 + self.layout.tangents, n)
    }

    fn forward(&self, op: &Op, chunk: &mut Chunk<'_, T>, desk: &mut Desk<T>) {
        let n = chunk.examples.len();
        let (from, to) = (&self.plan.slots[op.input], &self.plan.slots[op.output]);
        let output = self.values(op.output, n);
        let input = match from.raw {
            true => 0..0,
            false => self.values(op.input, n),
        };
        let block = to.size() * n;
        match &op.kind {
            Kind::Load => {
                let raw = self.raw(&chunk.examples, op.input);
                rearrange(
                    raw,
                    n,
                    from.channels,
                    from.pixels,
                    &mut chunk.store.values[output],
                );
            }
            Kind::Convolution(affine) | Kind::Transposed(affine) => {
                let layer = self.layer(affine, n);
                let (x, y) = pair(&mut chunk.store.values, input, output);
                let x = match from.raw {
                    true => raw_operand(
                        self.raw(&chunk.examples, op.input),
                        from.size(),
                        from.pixels,
                    ),
                    false => Operand::slot(x, from.channels, from.pixels, n, from.moves),
                };
                match &op.kind {
                    Kind::Transposed(_) => layer.forward_transposed(x, y, &mut desk.scratch),
                    _ => layer.forward(x, y, &mut desk.scratch),
                }
            }
            Kind::Relu | Kind::Tanh | Kind::Sigmoid | Kind::Dropout { .. } => {
                if !op.in_place() {
                    chunk.store.values.copy_within(input, output.start);
                }
                match op.kind {
                    Kind::Relu => activation::relu(&mut chunk.store.values[output], block),
                    Kind::Tanh => Curve::Tanh.forward(&mut chunk.store.values[output], block),
                    Kind::Sigmoid => Curve::Sigmoid.forward(&mut chunk.store.values[output], block),
                    Kind::Dropout { p, stream, mask } => {
                        let place = self.layout.mask(mask, n);
                        self.draw(
                            p,
                            stream,
                            to.pixels,
                            &chunk.examples,
                            &mut chunk.store.values[place.clone()],
                        );
                        let (mask, y) = pair(&mut chunk.store.values, place, output);
                        activation::masked(mask, y);
                    }
                    _ => {}
                }
            }
            Kind::Gelu => {
                let (x, y) = pair(&mut chunk.store.values, input, output);
                activation::gelu(x, block, y);
            }
            Kind::MaxPool(windows, index) => {
                let winners = &mut chunk.store.winners[self.layout.winners(*index, n)];
                let (x, y) = pair(&mut chunk.store.values, input, output);
                pool::max(windows, x, y, winners);
            }
            Kind::AveragePool(windows) => {
                let (x, y) = pair(&mut chunk.store.values, input, output);
                pool::average(windows, x, y);
            }
            Kind::Norm(norm) => {
                let (x, y) = pair(&mut chunk.store.values, input, output);
                let x = rows(x, from.size(), from.pixels, n, from.moves);
                self.normalise(norm).forward(x, y);
            }
            Kind::Flatten => {
                let (x, y) = pair(&mut chunk.store.values, input, output);
                for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
                    flatten(x, n, from.pixels, y);
                }
            }
            Kind::Add { other, .. } => {
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

    fn backward(&self, op: &Op, chunk: &mut Chunk<'_, T>, desk: &mut Desk<T>) {
        let n = chunk.examples.len();
        let from = &self.plan.slots[op.input];
        match &op.kind {
            Kind::Convolution(affine) | Kind::Transposed(affine) => {
                self.affine_back(op, affine, chunk, desk);
                return;
            }
            Kind::Norm(norm) => {
                self.norm_back(op, norm, chunk);
                return;
            }
            _ => {}
        }
        // The rest turns its output's cotangents in place, and then hands them on.
        let out = self.cotangents(op.output, n);
        let values = &mut chunk.store.values;
        match op.kind {
            Kind::Relu => {
                let (y, g) = pair(values, self.layout.values(op.output, 0..1, n), out.clone());
                activation::relu_back(y, g);
            }
            Kind::Tanh | Kind::Sigmoid => {
                let curve = match op.kind {
                    Kind::Tanh => Curve::Tanh,
                    _ => Curve::Sigmoid,
                };
                let (y, g) = pair(values, self.values(op.output, n), out.clone());
                curve.backward(y, self.plan.slots[op.output].size() * n, g);
            }
            Kind::Gelu => {
                let (x, g) = pair(values, self.values(op.input, n), out.clone());
                activation::gelu_back(x, from.size() * n, g);
            }
            Kind::Dropout { mask, .. } => {
                let (mask, g) = pair(values, self.layout.mask(mask, n), out.clone());
                activation::masked(mask, g);
            }
            _ => {}
        }
        if op.in_place() || !from.moves {
            if let Kind::Add { other, other_adds } = op.kind {
                self.hand_on(op.output, other, other_adds, chunk);
            }
            return;
        }
        match &op.kind {
            Kind::MaxPool(..) | Kind::AveragePool(_) => {
                let wanted = self.wanted(op.input);
                let to = self.cotangents(op.input, n);
                let out = self.layout.cotangents(op.output, wanted, n);
                let (g, x) = pair(&mut chunk.store.values, out, to);
                if !op.adds {
                    x.fill(T::ZERO);
                }
                match &op.kind {
                    Kind::MaxPool(windows, index) => {
                        let winners = &chunk.store.winners[self.layout.winners(*index, n)];
                        pool::max_back(windows, winners, g, x);
                    }
                    Kind::AveragePool(windows) => pool::average_back(windows, g, x),
                    _ => {}
                }
            }
            Kind::Flatten => {
                let to = self.cotangents(op.input, n);
                let out = self.layout.cotangents(op.output, self.wanted(op.input), n);
                let (g, x) = pair(&mut chunk.store.values, out, to);
                let block = from.size() * n;
                for (g, x) in g.chunks_exact(block).zip(x.chunks_exact_mut(block)) {
                    unflatten(g, n, from.pixels, x, op.adds);
                }
            }
            Kind::Add { other, other_adds } => {
                // In the order of the flags: the other slot comes second.
                self.hand_on(op.output, op.input, op.adds, chunk);
                self.hand_on(op.output, *other, *other_adds, chunk);
            }
            _ => self.hand_on(op.output, op.input, op.adds, chunk),
        }
    }

    /// Copies or adds cotangents to those of a slot of the same shape.
    fn hand_on(&self, from: usize, to: usize, adds: bool, chunk: &mut Chunk<'_, T>) {
        if !self.plan.slots[to].moves {
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

    fn affine_back(&self, op: &Op, affine: &Affine, chunk: &mut Chunk<'_, T>, desk: &mut Desk<T>) {
        let n = chunk.examples.len();
        let from = &self.plan.slots[op.input];
        let input = match from.raw {
            true => 0..0,
            false => self.values(op.input, n),
        };
        let to = match from.moves {
            true => self.all_cotangents(op.input, n),
            false => 0..0,
        };
        let [x, out, back] = chunk
            .store
            .values
            .get_disjoint_mut([input, self.all_cotangents(op.output, n), to])
            .expect("the layout keeps what lives together apart");
        let x = match from.raw {
            true => raw_operand(
                self.raw(&chunk.examples, op.input),
                from.size(),
                from.pixels,
            ),
            false => Operand::slot(x, from.channels, from.pixels, n, from.moves),
        };
        let back = from.moves.then(|| (back, self.wanted(op.input)));
        let layer = self.layer(affine, n);
        let (gradient, scratch) = (&mut *chunk.gradient, &mut desk.scratch);
        match op.kind {
            Kind::Transposed(_) => {
                layer.backward_transposed(x, out, back, op.adds, gradient, scratch);
            }
            _ => layer.backward(x, out, back, op.adds, gradient, scratch),
        }
    }

    fn norm_back(&self, op: &Op, norm: &super::plan::Norm, chunk: &mut Chunk<'_, T>) {
        let n = chunk.examples.len();
        let from = &self.plan.slots[op.input];
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
            .expect("the layout keeps what lives together apart");
        let x = rows(x, from.size(), from.pixels, n, true);
        let out = rows(out, from.size(), from.pixels, n, true);
        let first = self.wanted(op.input).start;
        self.normalise(norm).backward(x, out, back, first, op.adds);
    }

    fn statistics(&self, op: usize, chunk: &mut Chunk<'_, T>) {
        let n = chunk.examples.len();
        let (input, norm) = (self.plan.ops[op].input, self.plan.norm(op));
        let from = &self.plan.slots[input];
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
        let (op, norm) = (&self.plan.ops[op], self.plan.norm(op));
        let from = &self.plan.slots[op.input];
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

    fn loss(&self, chunk: &mut Chunk<'_, T>, desk: &mut Desk<T>) {
        let n = chunk.examples.len();
        let output = self.plan.output;
        let loss = ChunkLoss {
            kind: self.loss,
            targets: &self.examples.targets,
            weights: &self.examples.weights[chunk.examples.clone()],
            first: chunk.examples.start,
            outputs: self.plan.slots[output].size(),
        };
        let (z, g) = pair(
            &mut chunk.store.values,
            self.values(output, n),
            self.all_cotangents(output, n),
        );
        let wanted = self.pass != Pass::Losses;
        loss.run(
            z,
            wanted.then_some(g),
            chunk.losses,
            chunk.losses_by,
            &mut desk.room,
        );
    }

    fn layer<'s>(&'s self, affine: &'s Affine, n: usize) -> Layer<'s, T> {
        Layer {
            affine,
            point: self.point,
            tangents: self.layout.tangents,
            n,
        }
    }

    fn normalise<'s>(&'s self, norm: &'s super::plan::Norm) -> Normalise<'s, T> {
        Normalise {
            norm,
            moments: &self.moments[norm.index],
            point: self.point,
        }
    }

    fn raw(&self, examples: &Range<usize>, slot: usize) -> &[T] {
        let size = self.plan.slots[slot].size();
        &self.examples.inputs[examples.start * size..examples.end * size]
    }

    /// Draws the mask of a chunk: each example's is its own, whoever stands beside it.
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

fn add<T: Number>(x: &[T], y: &mut [T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// (examples, channels, pixels) to (channels, examples, pixels).
fn rearrange<T: Copy>(x: &[T], n: usize, channels: usize, pixels: usize, y: &mut [T]) {
    for (e, x) in x.chunks_exact(channels * pixels).enumerate() {
        for (c, x) in x.chunks_exact(pixels).enumerate() {
            y[(c * n + e) * pixels..][..pixels].copy_from_slice(x);
        }
    }
}

/// (channels, examples, pixels) to (channels pixels, examples).
fn flatten<T: Copy>(x: &[T], n: usize, pixels: usize, y: &mut [T]) {
    for (x, y) in x
        .chunks_exact(n * pixels)
        .zip(y.chunks_exact_mut(n * pixels))
    {
        for (e, x) in x.chunks_exact(pixels).enumerate() {
            for (p, &x) in x.iter().enumerate() {
                y[p * n + e] = x;
            }
        }
    }
}

/// The way back.
fn unflatten<T: Number>(y: &[T], n: usize, pixels: usize, x: &mut [T], adds: bool) {
    for (x, y) in x
        .chunks_exact_mut(n * pixels)
        .zip(y.chunks_exact(n * pixels))
    {
        for (e, x) in x.chunks_exact_mut(pixels).enumerate() {
            for (p, x) in x.iter_mut().enumerate() {
                let y = y[p * n + e];
                *x = if adds { *x + y } else { y };
            }
        }
    }
}
