//! A net compiled into the operations on each chunk of examples, and their order.
//!
//! Values live in *slots*: (channels, examples, pixels), with the examples of a chunk side by side. A layer is one
//! matrix product over the whole chunk, and a channel is one contiguous row. A vector has one pixel. The batch's
//! inputs are not rearranged: they stay one example after the other.

mod compile;

use std::ops::Range;

use super::part::part;

/// Values between layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub channels: usize,
    /// Positions per channel: height x width, or 1.
    pub pixels: usize,
    /// Whether these are the batch's own inputs: (examples, channels, pixels).
    pub raw: bool,
    /// Whether it depends on parameters and so has tangents and cotangents.
    pub moves: bool,
    /// Whether the tangent pass reads the slot's own cotangent, not only that cotangent's tangents. Below the first
    /// layer with parameters no operation does, as long as everything in between is piecewise linear.
    pub primal: bool,
}

impl Slot {
    /// Values per example.
    pub fn size(&self) -> usize {
        self.channels * self.pixels
    }
}

/// A convolution of `c` channels of `h` x `w` to `o` channels of `oh` x `ow`. A transposed convolution is the same
/// thing read from output to input, and a linear layer is a convolution of 1 x 1 pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub c: usize,
    pub h: usize,
    pub w: usize,
    pub o: usize,
    pub oh: usize,
    pub ow: usize,
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub padding: (usize, usize),
}

impl Geometry {
    /// Input values per output value: rows of the patch matrix.
    pub fn taps(&self) -> usize {
        self.c * self.kernel.0 * self.kernel.1
    }

    /// Whether the patch matrix is the input itself.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == (1, 1) && self.padding == (0, 0)
    }

    /// Largest number of pixel rows whose patches are built at once. Rows are counted through all examples of a
    /// chunk.
    pub fn most_rows(&self, rows: usize, width: usize) -> usize {
        if self.is_pointwise() {
            return rows;
        }
        let columns = (TILE_BYTES / (self.taps() * width)).max(TILE_COLUMNS);
        (columns / self.ow).clamp(1, rows)
    }

    /// The rows of a chunk in nearly equal tiles, which depend on the shape and the type alone.
    pub fn tiles(
        &self,
        rows: usize,
        width: usize,
    ) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
        let tiles = rows.div_ceil(self.most_rows(rows, width).max(1));
        (0..tiles).map(move |i| part(rows, i, tiles))
    }
}

/// Largest patch matrix that is built at once. It is read several times, so it should stay in a core's own cache.
const TILE_BYTES: usize = 256 << 10;
/// Smallest number of columns in a tile, even if their patches exceed [`TILE_BYTES`]. Fewer tiles read the weights less
/// often, and if a chunk's patches are one tile, as in small nets, they are built once for both passes.
const TILE_COLUMNS: usize = 512;

/// The weight and bias of a layer with a matrix product.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub geometry: Geometry,
    /// (o, taps), in the parameters.
    pub weight: Range<usize>,
    pub bias: Option<Range<usize>>,
    /// Offset of the transposes of weight and direction in [`super::point::Point::stacked`].
    pub stacked: usize,
}

impl Affine {
    /// Whether the products of all directions' cotangents with the same patches are computed as one: it fills the
    /// vectors that a few channels leave half empty. For single rows and small results gemm has kernels that sum in
    /// another order, and a query's numbers must not depend on the other queries.
    pub fn joins(&self) -> bool {
        let o = self.geometry.o;
        o > 1 && o * self.geometry.taps() > SMALL_RESULT && !o.is_multiple_of(FULL_VECTORS)
    }

    /// Offset of direction `q`'s accumulators among those of `directions`, and the stride from one tap's `o` values
    /// to the next tap's. They hold the transpose of the weight's gradient, (taps, o), which gemm's kernels write
    /// contiguously.
    pub fn accumulators(&self, q: usize, directions: usize) -> (usize, usize) {
        let (start, o) = (directions * self.weight.start, self.geometry.o);
        if self.joins() {
            (start + q * o, directions * o)
        } else {
            (start + q * self.weight.len(), o)
        }
    }
}

/// Largest number of elements of a result for which gemm has special kernels.
const SMALL_RESULT: usize = 256;
/// Number of rows of a result that fills gemm's vectors, whatever their width.
const FULL_VECTORS: usize = 32;

/// A pooling of planes of `h` x `w` to `oh` x `ow`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub h: usize,
    pub w: usize,
    pub oh: usize,
    pub ow: usize,
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub padding: (usize, usize),
}

/// Batch normalisation.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    /// Its position in [`Program::norms`].
    pub index: usize,
    pub scale: Range<usize>,
    pub shift: Range<usize>,
    /// Running statistics, in the buffers.
    pub mean: Range<usize>,
    pub variance: Range<usize>,
    pub momentum: f64,
    pub eps: f64,
    /// Whether it normalises by the batch's statistics, which all chunks have to wait for.
    pub batch: bool,
}

/// What an operation does.
#[derive(Debug, Clone)]
pub(super) enum OpKind {
    /// Copies raw inputs into a slot.
    Load,
    Convolution(Affine),
    Transposed(Affine),
    Relu,
    Tanh,
    Sigmoid,
    Gelu,
    /// Multiplies by a mask; `mask` is its position in [`Program::masks`].
    Dropout {
        p: f64,
        stream: u32,
        mask: usize,
    },
    /// Stores its winners; the number is the position in [`Program::winners`].
    MaxPool(Windows, usize),
    AveragePool(Windows),
    Norm(Norm),
    Flatten,
    /// Adds another slot.
    Add {
        other: usize,
        /// As [`Op::adds`], for the other slot.
        other_adds: bool,
    },
}

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub kind: OpKind,
    pub input: usize,
    /// Equal to `input` if it works in place.
    pub output: usize,
    /// Whether an earlier operation of the backward pass has already written the input's cotangent.
    pub adds: bool,
    /// The layer's path, for messages.
    pub path: String,
}

impl Op {
    pub fn in_place(&self) -> bool {
        self.input == self.output
    }
}

/// One unit of work on a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Forward(usize),
    /// A batch norm's sums over the chunk's values.
    Statistics(usize),
    Loss,
    Backward(usize),
    /// A batch norm's sums over the chunk's cotangents.
    Sums(usize),
}

/// What all chunks must finish before the next phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barrier {
    Statistics(usize),
    Sums(usize),
    End,
}

/// A net compiled for one mode.
pub(super) struct Program {
    pub slots: Vec<Slot>,
    pub ops: Vec<Op>,
    /// The slot that the loss reads. It has one pixel per channel.
    pub output: usize,
    /// The work between barriers. The loss writes its cotangent into slot `output`.
    pub phases: Vec<(Vec<Work>, Barrier)>,
    /// Values per example of each dropout mask.
    pub masks: Vec<usize>,
    /// Output values per example of each max pooling.
    pub winners: Vec<usize>,
    /// Positions of the operations that are norms.
    pub norms: Vec<usize>,
    /// Size of [`super::point::Point::stacked`] for one direction.
    pub stacked: usize,
    /// Floating-point operations of one product of each layer for one example.
    pub flops: f64,
    pub parameters: usize,
}

impl Program {
    /// Whether chunks have to wait for one another and so must keep their values.
    pub fn has_barriers(&self) -> bool {
        self.phases.len() > 1
    }

    /// Layers with a matrix product.
    pub fn affine(&self) -> impl Iterator<Item = (&Op, &Affine)> {
        self.ops.iter().filter_map(|op| match &op.kind {
            OpKind::Convolution(a) | OpKind::Transposed(a) => Some((op, a)),
            _ => None,
        })
    }

    /// The norm of operation `op`, which must be one.
    pub fn norm(&self, op: usize) -> &Norm {
        match &self.ops[op].kind {
            OpKind::Norm(norm) => norm,
            other => unreachable!("operation {op} is a norm, not {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_nearly_equal_and_fit_their_memory() {
        for (c, ow) in [(1, 24), (20, 8), (64, 16), (500, 1)] {
            let g = Geometry {
                c,
                h: ow + 4,
                w: ow + 4,
                o: 20,
                oh: ow,
                ow,
                kernel: (5, 5),
                stride: (1, 1),
                padding: (0, 0),
            };
            for rows in 1..200 {
                let tiles: Vec<_> = g.tiles(rows, 4).collect();
                let sizes = || tiles.iter().map(|t| t.len());
                assert_eq!(sizes().sum::<usize>(), rows);
                assert!(tiles.windows(2).all(|t| t[0].end == t[1].start));
                // Memory is allocated once, for the largest chunk.
                assert!(sizes().max().unwrap() <= g.most_rows(200, 4));
                assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
            }
        }
    }
}
