//! Layers that are matrix products: linear layers, convolutions and transposed convolutions.
//!
//! With y = W x and dots for tangents along a direction, the forward pass computes ẏ = Ẇ x + W ẋ. The backward pass
//! computes the cotangents g_x = Wᵀ g and ġ_x = Wᵀ ġ + Ẇᵀ g; the weight's gradient g xᵀ has the tangent ġ xᵀ + g ẋᵀ.
//! For a convolution, x is its patch matrix, which is built one tile at a time.
//!
//! The shape of a product depends on the number of directions only where that changes no sum ([`Affine::joins`]). So
//! a query's numbers have the same bits whatever other queries are computed in the same pass.

use std::ops::Range;

use super::matrix::{Matrix, MatrixMut, product};
use super::number::{Number, sum};
use super::patches::{Images, gather, scatter};
use super::point::Point;
use super::program::{Affine, Geometry};

/// Scratch of one thread.
#[derive(Default)]
pub(super) struct AffineScratch<T> {
    /// A tile of the patch matrix, and of its tangent along the current direction.
    patches: Tile<T>,
    moved: Tile<T>,
    /// A tile of the patch matrix's cotangent.
    back: Vec<T>,
    /// A tile [ġ; g] of cotangents, or [ẋ; x] of values.
    pair: Vec<T>,
}

/// A tile of a patch matrix, and what it was last filled with. The backward pass starts with the tile that the forward
/// pass filled last. So if a chunk's patches fit into one tile, as in small nets, the last convolution builds them once
/// for both passes.
#[derive(Default)]
struct Tile<T> {
    values: Vec<T>,
    contents: Option<Contents>,
}

/// Identifies the columns of a patch matrix: the images, the block, the rows of pixels, and the layer.
#[derive(PartialEq, Eq)]
struct Contents {
    images: usize,
    block: usize,
    rows: Range<usize>,
    weight: usize,
}

impl<T: Number> AffineScratch<T> {
    /// Starts a pass: the tiles' contents belong to another one.
    pub fn begin(&mut self) {
        self.patches.contents = None;
        self.moved.contents = None;
    }

    /// Makes room for a layer on chunks of up to `n` examples.
    pub fn fit(&mut self, g: &Geometry, n: usize, transposed: bool) {
        let columns = g.most_rows(n * g.oh, size_of::<T>()) * g.ow;
        let grow = |v: &mut Vec<T>, len: usize| {
            if v.len() < len {
                v.resize(len, T::ZERO);
            }
        };
        if !g.is_pointwise() {
            grow(&mut self.patches.values, g.taps() * columns);
            grow(&mut self.moved.values, g.taps() * columns);
        }
        if transposed || !g.is_pointwise() {
            grow(&mut self.back, g.taps() * columns);
        }
        grow(&mut self.pair, 2 * g.o * columns);
    }
}

/// A slot's values and tangents in a chunk of `n` examples.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a, T> {
    /// Blocks back to back.
    pub data: &'a [T],
    /// Elements of a block.
    pub block: usize,
    pub channel_by: usize,
    pub example_by: usize,
    /// Whether there are tangents.
    pub moves: bool,
}

impl<'a, T: Number> Operand<'a, T> {
    /// A slot of a chunk.
    pub fn slot(data: &'a [T], channels: usize, pixels: usize, n: usize, moves: bool) -> Self {
        Self {
            data,
            block: channels * pixels * n,
            channel_by: pixels * n,
            example_by: pixels,
            moves,
        }
    }

    fn images(&self, block: usize) -> Images<'a, T> {
        Images {
            data: &self.data[block * self.block..][..self.block],
            channel_by: self.channel_by,
            example_by: self.example_by,
        }
    }

    /// (channels x columns) of a pointwise layer, without a copy.
    fn direct(
        &self,
        block: usize,
        channels: usize,
        pixels: usize,
        columns: usize,
    ) -> Matrix<'a, T> {
        let by = if pixels == 1 { self.example_by } else { 1 };
        let data = &self.data[block * self.block..][..self.block];
        Matrix::new(data, (channels, columns), (self.channel_by, by))
    }

    /// Columns of the patch matrix for some output rows, built in `tile` unless a view is enough. In the
    /// `backward` pass the tile may already contain them, because the images haven't changed since the forward pass.
    fn columns(
        &self,
        block: usize,
        affine: &Affine,
        rows: &Range<usize>,
        tile: &'a mut Tile<T>,
        backward: bool,
    ) -> Matrix<'a, T> {
        let g = &affine.geometry;
        let columns = rows.len() * g.ow;
        if g.is_pointwise() {
            return self.direct(block, g.c, g.h * g.w, columns);
        }
        let contents = Contents {
            images: self.data.as_ptr().addr(),
            block,
            rows: rows.clone(),
            weight: affine.weight.start,
        };
        let values = &mut tile.values[..g.taps() * columns];
        if !backward || tile.contents.as_ref() != Some(&contents) {
            gather(g, self.images(block), rows.clone(), values);
            tile.contents = Some(contents);
        }
        Matrix::rows(values, g.taps(), columns)
    }
}

/// What the kernels of one layer share within a chunk.
pub(super) struct Layer<'a, T> {
    pub affine: &'a Affine,
    pub point: &'a Point<T>,
    /// Number of directions.
    pub tangents: usize,
    /// Examples of the chunk.
    pub n: usize,
}

/// Where the cotangents of a layer's input go.
pub(super) struct Back<'a, T> {
    pub to: &'a mut [T],
    /// Blocks to compute.
    pub wanted: Range<usize>,
    /// Whether to add to the existing values instead of overwriting them.
    pub adds: bool,
}

impl<T: Number> Layer<'_, T> {
    fn tiles(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + use<T> {
        let g = &self.affine.geometry;
        g.tiles(self.n * g.oh, size_of::<T>())
    }

    /// The weight (block 0) or its direction (blocks 1 to Q), (o, taps).
    fn weight(&self, block: usize) -> Matrix<'_, T> {
        let g = &self.affine.geometry;
        let data = &self.point.block(block)[self.affine.weight.clone()];
        Matrix::rows(data, g.o, g.taps())
    }

    /// [Wᵀ Ẇᵀ] of direction `q`: (taps, 2 o).
    fn pair_of_transposes(&self, q: usize) -> &[T] {
        let g = &self.affine.geometry;
        &self.point.stacked(q)[self.affine.stacked..][..2 * g.o * g.taps()]
    }

    /// [Wᵀ Ẇᵀ] of direction `q` as a matrix.
    fn both_transposes(&self, q: usize) -> Matrix<'_, T> {
        let g = &self.affine.geometry;
        Matrix::rows(self.pair_of_transposes(q), g.taps(), 2 * g.o)
    }

    /// Wᵀ.
    fn transpose(&self) -> Matrix<'_, T> {
        let g = &self.affine.geometry;
        Matrix::new(self.pair_of_transposes(0), (g.taps(), g.o), (2 * g.o, 1))
    }

    /// Ẇᵀ.
    fn moved_transpose(&self, q: usize) -> Matrix<'_, T> {
        let g = &self.affine.geometry;
        let data = &self.pair_of_transposes(q)[g.o..];
        Matrix::new(data, (g.taps(), g.o), (2 * g.o, 1))
    }

    /// The bias of a block's channel; 0 if the layer has no bias.
    fn bias(&self, block: usize, channel: usize) -> T {
        match &self.affine.bias {
            Some(bias) => self.point.block(block)[bias.start + channel],
            None => T::ZERO,
        }
    }

    /// Adds `of` `with`ᵀ to the weight's gradient along the directions from `first` on, `o` rows of `of` for each.
    fn add_weight_gradient(
        &self,
        first: usize,
        of: Matrix<'_, T>,
        with: Matrix<'_, T>,
        gradient: &mut [T],
    ) {
        let shape = (of.height(), self.affine.geometry.taps());
        let (start, by) = self.affine.accumulators(first, self.tangents.max(1));
        let to = MatrixMut::new(&mut gradient[start..], shape, (1, by));
        product(to, of, with.t(), true);
    }

    /// Groups of blocks whose rows are multiplied by the same matrix in one product: all directions if they may be
    /// joined, or the block of values if there are no directions. Otherwise each direction has a product of its own.
    fn joint(&self) -> Option<Range<usize>> {
        match self.tangents {
            0 => Some(0..1),
            n => self.affine.joins().then_some(1..n + 1),
        }
    }

    /// y and ẏ of a convolution, blocks back to back.
    pub fn forward(&self, x: Operand<'_, T>, y: &mut [T], scratch: &mut AffineScratch<T>) {
        let g = &self.affine.geometry;
        let all = self.n * g.oh * g.ow;
        for rows in self.tiles() {
            let columns = rows.start * g.ow..rows.end * g.ow;
            for (block, y) in y.chunks_exact_mut(g.o * all).enumerate() {
                for (channel, line) in y.chunks_exact_mut(all).enumerate() {
                    line[columns.clone()].fill(self.bias(block, channel));
                }
            }
            let mut add = |block: usize, a: Matrix<'_, T>, b: Matrix<'_, T>| {
                let y = &mut y[block * g.o * all..][..g.o * all][columns.start..];
                product(
                    MatrixMut::new(y, (g.o, columns.len()), (all, 1)),
                    a,
                    b,
                    true,
                );
            };
            let patches = x.columns(0, self.affine, &rows, &mut scratch.patches, false);
            for block in 0..=self.tangents {
                add(block, self.weight(block), patches);
            }
            if x.moves {
                for block in 1..=self.tangents {
                    let moved = x.columns(block, self.affine, &rows, &mut scratch.moved, false);
                    add(block, self.weight(0), moved);
                }
            }
        }
    }

    /// Backward pass of a convolution. `out` are the cotangents of y. Adds to the accumulators of `gradient` and
    /// passes the cotangents of x on.
    pub fn backward(
        &self,
        x: Operand<'_, T>,
        out: &[T],
        mut back: Option<Back<'_, T>>,
        gradient: &mut [T],
        scratch: &mut AffineScratch<T>,
    ) {
        let g = &self.affine.geometry;
        let (all, taps) = (self.n * g.oh * g.ow, g.taps());
        self.bias_gradient(out, g.o, all, gradient);
        let adds = back.as_ref().is_some_and(|back| back.adds);
        if let (Some(back), false) = (&mut back, adds || g.is_pointwise()) {
            back.to[back.wanted.start * x.block..back.wanted.end * x.block].fill(T::ZERO);
        }
        // From the end: the forward pass filled the tile with the last rows.
        for rows in self.tiles().rev() {
            let columns = rows.start * g.ow..rows.end * g.ow;
            let width = columns.len();
            let half = g.o * width;
            let pair = &mut scratch.pair[..2 * half];
            let copy = |block: usize, to: &mut [T]| {
                let from = &out[block * g.o * all..][..g.o * all];
                for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(all)) {
                    to.copy_from_slice(&from[columns.clone()]);
                }
            };
            let patches = x.columns(0, self.affine, &rows, &mut scratch.patches, true);
            let cotangents = |blocks: Range<usize>| {
                let rows = g.o * blocks.start..g.o * blocks.end;
                let data = &out[rows.start * all..rows.end * all][columns.start..];
                Matrix::new(data, (rows.len(), width), (all, 1))
            };
            let joint = self.joint();
            if let Some(blocks) = &joint {
                self.add_weight_gradient(0, cotangents(blocks.clone()), patches, gradient);
            }
            // The cotangent of the patches goes directly to its place, or through a tile.
            let room = &mut scratch.back;
            let mut send =
                |block: usize, back: &mut [T], a: Matrix<'_, T>, b: &[T], inner: usize| {
                    let to = &mut back[block * x.block..][..x.block];
                    let b = Matrix::rows(b, inner, width);
                    if g.is_pointwise() {
                        product(MatrixMut::rows(to, taps, width), a, b, adds);
                    } else {
                        let tile = &mut room[..taps * width];
                        product(MatrixMut::rows(tile, taps, width), a, b, false);
                        scatter(g, tile, rows.clone(), to, x.channel_by, x.example_by);
                    }
                };
            if back.is_some() {
                copy(0, &mut pair[half..]);
            }
            for q in (0..self.tangents).rev() {
                if joint.is_none() {
                    self.add_weight_gradient(q, cotangents(q + 1..q + 2), patches, gradient);
                }
                if x.moves {
                    let moved = x.columns(q + 1, self.affine, &rows, &mut scratch.moved, true);
                    self.add_weight_gradient(q, cotangents(0..1), moved, gradient);
                }
                if let Some(back) = &mut back {
                    copy(q + 1, &mut pair[..half]);
                    send(q + 1, back.to, self.both_transposes(q), pair, 2 * g.o);
                }
            }
            if let Some(back) = &mut back
                && back.wanted.start == 0
            {
                send(0, back.to, self.transpose(), &pair[half..], g.o);
            }
        }
    }

    /// The tangents of the bias's gradient, or the gradient itself: sums over the rows of the cotangents of y.
    fn bias_gradient(&self, out: &[T], channels: usize, row: usize, gradient: &mut [T]) {
        let Some(bias) = &self.affine.bias else {
            return;
        };
        let all = self.tangents.max(1);
        let to = &mut gradient[all * bias.start..all * bias.end];
        for (at, to) in to.chunks_exact_mut(channels).enumerate() {
            let block = at + usize::from(self.tangents > 0);
            let lines = out[block * channels * row..][..channels * row].chunks_exact(row);
            for (to, line) in to.iter_mut().zip(lines) {
                *to += T::of(sum(line));
            }
        }
    }

    /// y and ẏ of a transposed convolution; its geometry is that of the convolution from y to x.
    pub fn forward_transposed(
        &self,
        x: Operand<'_, T>,
        y: &mut [T],
        scratch: &mut AffineScratch<T>,
    ) {
        let g = &self.affine.geometry;
        let (all, plane) = (self.n * g.oh * g.ow, g.h * g.w);
        let row = self.n * plane;
        for (block, y) in y.chunks_exact_mut(g.c * row).enumerate() {
            for (channel, line) in y.chunks_exact_mut(row).enumerate() {
                line.fill(self.bias(block, channel));
            }
        }
        for rows in self.tiles() {
            let columns = rows.start * g.ow..rows.end * g.ow;
            let width = columns.len();
            let half = g.o * width;
            let pair = &mut scratch.pair[..2 * half];
            let copy = |block: usize, to: &mut [T]| {
                let from = &x.data[block * x.block..][..x.block];
                for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(all)) {
                    to.copy_from_slice(&from[columns.clone()]);
                }
            };
            let mut spread = |block: usize, a: Matrix<'_, T>, b: Matrix<'_, T>| {
                let tile = &mut scratch.back[..g.taps() * width];
                product(MatrixMut::rows(tile, g.taps(), width), a, b, false);
                let y = &mut y[block * g.c * row..][..g.c * row];
                scatter(g, tile, rows.clone(), y, row, plane);
            };
            copy(0, &mut pair[half..]);
            let lower = Matrix::rows(&pair[half..], g.o, width);
            spread(0, self.transpose(), lower);
            for q in 0..self.tangents {
                if x.moves {
                    copy(q + 1, &mut pair[..half]);
                    spread(
                        q + 1,
                        self.both_transposes(q),
                        Matrix::rows(pair, 2 * g.o, width),
                    );
                } else {
                    let lower = Matrix::rows(&pair[half..], g.o, width);
                    spread(q + 1, self.moved_transpose(q), lower);
                }
            }
        }
    }

    /// Backward pass of a transposed convolution; see [`Layer::backward`].
    pub fn backward_transposed(
        &self,
        x: Operand<'_, T>,
        out: &[T],
        mut back: Option<Back<'_, T>>,
        gradient: &mut [T],
        scratch: &mut AffineScratch<T>,
    ) {
        let g = &self.affine.geometry;
        let (all, plane) = (self.n * g.oh * g.ow, g.h * g.w);
        self.bias_gradient(out, g.c, self.n * plane, gradient);
        let out = Operand::slot(out, g.c, plane, self.n, true);
        for rows in self.tiles() {
            let columns = rows.start * g.ow..rows.end * g.ow;
            let width = columns.len();
            let values = |blocks: Range<usize>| {
                let from = &x.data[blocks.start * x.block..blocks.end * x.block];
                Matrix::new(
                    &from[columns.start..],
                    (blocks.len() * g.o, width),
                    (all, 1),
                )
            };
            let send = |block, back: &mut [T], a: Matrix<'_, T>, b: Matrix<'_, T>, add: bool| {
                let to = &mut back[block * x.block..][..x.block][columns.start..];
                product(MatrixMut::new(to, (g.o, width), (all, 1)), a, b, add);
            };
            let own = self.tangents == 0 || x.moves;
            let patches =
                own.then(|| out.columns(0, self.affine, &rows, &mut scratch.patches, false));
            let joint = self.joint();
            if let (Some(patches), Some(blocks)) = (patches, &joint) {
                self.add_weight_gradient(0, values(blocks.clone()), patches, gradient);
            }
            for q in 0..self.tangents {
                if let (Some(patches), None) = (patches, &joint) {
                    self.add_weight_gradient(q, values(q + 1..q + 2), patches, gradient);
                }
                let moved = out.columns(q + 1, self.affine, &rows, &mut scratch.moved, false);
                self.add_weight_gradient(q, values(0..1), moved, gradient);
                if let (Some(patches), true, Some(back)) = (patches, x.moves, &mut back) {
                    send(q + 1, back.to, self.weight(0), moved, back.adds);
                    send(q + 1, back.to, self.weight(q + 1), patches, true);
                }
            }
            if let (Some(back), Some(patches)) = (&mut back, patches)
                && back.wanted.start == 0
            {
                send(0, back.to, self.weight(0), patches, back.adds);
            }
        }
    }
}
