//! A net compiled into what is done to each chunk of examples, and in which order.
//!
//! Values live in *slots*: (channels, examples, pixels) with the examples of a chunk side by side, so that a layer is a
//! matrix product over a whole chunk and a channel is one contiguous row. A vector has one pixel. The batch's inputs stay
//! where they are, example after example.

mod compile;

use std::ops::Range;

use super::part::part;

/// Values between layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub channels: usize,
    /// Positions of a channel: height x width, or 1.
    pub pixels: usize,
    /// The batch's own inputs: (examples, channels, pixels).
    pub raw: bool,
    /// Depends on parameters, so that it has tangents and cotangents.
    pub moves: bool,
    /// The tangent pass reads the slot's own cotangent, not only that cotangent's tangents. Below the first layer with
    /// parameters nobody does as long as everything in between is linear in pieces.
    pub primal: bool,
}

impl Slot {
    /// Values of an example.
    pub fn size(&self) -> usize {
        self.channels * self.pixels
    }
}

/// A convolution of `c` channels of `h` x `w` to `o` channels of `oh` x `ow`; a transposed one is the same thing read
/// from output to input, and a linear layer one of 1 x 1 pixels.
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
    /// Values that an output value reads: rows of the patch matrix.
    pub fn taps(&self) -> usize {
        self.c * self.kernel.0 * self.kernel.1
    }

    /// Whether the patch matrix is the input itself.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == (1, 1) && self.padding == (0, 0)
    }

    /// Rows of pixels whose patches are laid out at once, at most: rows are counted through all examples of a chunk.
    pub fn most_rows(&self, rows: usize, width: usize) -> usize {
        if self.is_pointwise() {
            return rows;
        }
        let columns = (TILE_BYTES / (self.taps() * width)).max(TILE_COLUMNS);
        (columns / self.ow).clamp(1, rows)
    }

    /// The rows of a chunk in nearly equal tiles: a function of the shape and the type alone.
    pub fn tiles(
        &self,
        rows: usize,
        width: usize,
    ) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
        let tiles = rows.div_ceil(self.most_rows(rows, width).max(1));
        (0..tiles).map(move |i| part(rows, i, tiles))
    }
}

/// Largest patch matrix that is laid out at once: it is read several times, so it should stay in a core's own cache.
const TILE_BYTES: usize = 256 << 10;
/// Columns that are worked on at once even where their patches are larger: the weights are read again for each tile, and a chunk
/// of a small net whose patches are one tile lays them out once for both ways.
const TILE_COLUMNS: usize = 512;

/// Weights of a layer with a matrix product.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub geometry: Geometry,
    /// (o, taps), in the parameters.
    pub weight: Range<usize>,
    pub bias: Option<Range<usize>>,
    /// Where [`super::point::Point::stacked`] has the transposes of weight and direction.
    pub stacked: usize,
}

impl Affine {
    /// Whether products of all directions' cotangents with the same patches are one: it fills the vectors that a few channels
    /// leave half empty. For single rows and for small results gemm has kernels that sum in another order, and a query's
    /// numbers must not depend on what is asked beside it.
    pub fn joins(&self) -> bool {
        let o = self.geometry.o;
        o > 1 && o * self.geometry.taps() > SMALL_RESULT && !o.is_multiple_of(FULL_VECTORS)
    }

    /// Where the accumulators of direction `q` of so many begin, and how far one tap's `o` values lie from the next tap's. They
    /// hold the transpose of the weight's gradient, (taps, o): that is what gemm's kernels write side by side.
    pub fn accumulators(&self, q: usize, directions: usize) -> (usize, usize) {
        let (start, o) = (directions * self.weight.start, self.geometry.o);
        if self.joins() {
            (start + q * o, directions * o)
        } else {
            (start + q * self.weight.len(), o)
        }
    }
}

/// Elements of a result for which gemm has kernels of their own.
const SMALL_RESULT: usize = 256;
/// Rows of a result that fill gemm's vectors, whatever their width.
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
    /// Its number among the norms.
    pub index: usize,
    pub scale: Range<usize>,
    pub shift: Range<usize>,
    /// Running statistics, in the buffers.
    pub mean: Range<usize>,
    pub variance: Range<usize>,
    pub momentum: f64,
    pub eps: f64,
    /// By the batch's statistics, which all chunks have to wait for.
    pub batch: bool,
}

/// What an operation does.
#[derive(Debug, Clone)]
pub(super) enum OpKind {
    /// Lays raw inputs out as a slot.
    Load,
    Convolution(Affine),
    Transposed(Affine),
    Relu,
    Tanh,
    Sigmoid,
    Gelu,
    /// Multiplies by the mask of this number.
    Dropout {
        p: f64,
        stream: u32,
        mask: usize,
    },
    /// Keeps its winners under this number.
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
    /// The same as `input` where it works in place.
    pub output: usize,
    /// An operation that comes earlier in the backward pass has written the input's cotangent already.
    pub adds: bool,
    /// The layer, for messages.
    pub path: String,
}

impl Op {
    pub fn in_place(&self) -> bool {
        self.input == self.output
    }
}

/// What is done to a chunk.
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

/// What all chunks have to be done with before the next phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barrier {
    Statistics(usize),
    Sums(usize),
    End,
}

/// A net in one mode.
pub(super) struct Plan {
    pub slots: Vec<Slot>,
    pub ops: Vec<Op>,
    /// The slot that the loss reads; its pixels are 1.
    pub output: usize,
    /// The loss's cotangent goes into slot `output`; an operation per entry.
    pub phases: Vec<(Vec<Work>, Barrier)>,
    pub masks: Vec<usize>,
    /// Values an example that each max pooling puts out.
    pub winners: Vec<usize>,
    /// The operations that are norms.
    pub norms: Vec<usize>,
    /// Values of [`super::point::Point::stacked`] for a direction.
    pub stacked: usize,
    /// Operations of one product of each kind for an example.
    pub flops: f64,
    pub parameters: usize,
}

impl Plan {
    /// Whether chunks have to wait for one another, and so must keep their values.
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

    /// The norm that operation `op` is.
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
    fn tiles_are_nearly_equal_and_never_larger_than_the_room_for_them() {
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
                // Room is made once, for the largest chunk.
                assert!(sizes().max().unwrap() <= g.most_rows(200, 4));
                assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
            }
        }
    }
}
