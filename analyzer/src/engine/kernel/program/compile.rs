//! From a net's nodes to operations on slots.

use std::ops::Range;

use hindcast_model::net::{Net, Node, Op as Layer};
use hindcast_model::objective::{Mode, Objective as _, TensorDef};

use crate::error::{AnalysisError, NoKernels, Result};

use super::{Affine, Barrier, Geometry, Norm, Op, OpKind, Program, Slot, Windows, Work};

impl Program {
    /// Compiles `net` as it is run in `mode`.
    ///
    /// # Errors
    /// [`NoKernels::Layer`] for a layer that has no kernels.
    pub fn new(net: &Net, mode: Mode) -> Result<Self> {
        let (channels, pixels) = planes(net.input_shape());
        let mut compiler = Compiler {
            train: mode == Mode::Train,
            shapes: net
                .parameters()
                .iter()
                .map(|def| def.shape.as_slice())
                .collect(),
            parameters: offsets(net.parameters()),
            buffers: offsets(net.buffers()),
            slots: Vec::new(),
            pinned: Vec::new(),
            ops: Vec::new(),
            masks: Vec::new(),
            winners: Vec::new(),
            stacked: 0,
        };
        let input = compiler.slot(Slot {
            channels,
            pixels,
            raw: true,
            moves: false,
            primal: false,
        });
        let mut output = compiler.chain(net.nodes(), input)?;
        if compiler.slots[output].pixels > 1 || compiler.slots[output].raw {
            output = compiler.flatten(output, "output");
        }
        let mut ops = compiler.ops;
        mark_additions(&mut ops, compiler.slots.len());
        let norms = (0..ops.len())
            .filter(|&i| matches!(ops[i].kind, OpKind::Norm(_)))
            .collect();
        let flops = ops
            .iter()
            .filter_map(|op| match &op.kind {
                OpKind::Convolution(a) | OpKind::Transposed(a) => Some(a.geometry),
                _ => None,
            })
            .map(|g| 2.0 * (g.o * g.taps() * g.oh * g.ow) as f64)
            .sum();
        Ok(Program {
            phases: phases(&ops, &compiler.slots),
            slots: compiler.slots,
            ops,
            output,
            masks: compiler.masks,
            winners: compiler.winners,
            norms,
            stacked: compiler.stacked,
            flops,
            parameters: net.parameter_values(),
        })
    }
}

/// (channels, pixels) of a shape.
fn planes(shape: &[usize]) -> (usize, usize) {
    match shape {
        [c, rest @ ..] => (*c, rest.iter().product()),
        [] => (1, 1),
    }
}

fn offsets(defs: &[TensorDef]) -> Vec<Range<usize>> {
    let mut at = 0;
    defs.iter()
        .map(|def| {
            let start = at;
            at += def.shape.iter().product::<usize>();
            start..at
        })
        .collect()
}

/// An operation adds to its input's cotangent if a later operation reads the same slot.
fn mark_additions(ops: &mut [Op], slots: usize) {
    let mut written = vec![false; slots];
    for op in ops.iter_mut().rev() {
        if op.in_place() {
            continue;
        }
        op.adds = std::mem::replace(&mut written[op.input], true);
        if let OpKind::Add { other, other_adds } = &mut op.kind {
            *other_adds = std::mem::replace(&mut written[*other], true);
        }
    }
}

fn phases(ops: &[Op], slots: &[Slot]) -> Vec<(Vec<Work>, Barrier)> {
    let mut phases = Vec::new();
    let mut works = Vec::new();
    for (i, op) in ops.iter().enumerate() {
        if matches!(&op.kind, OpKind::Norm(norm) if norm.batch) {
            works.push(Work::Statistics(i));
            phases.push((std::mem::take(&mut works), Barrier::Statistics(i)));
        }
        works.push(Work::Forward(i));
    }
    works.push(Work::Loss);
    for (i, op) in ops.iter().enumerate().rev() {
        if !slots[op.output].moves {
            continue;
        }
        if let OpKind::Norm(norm) = &op.kind {
            works.push(Work::Sums(i));
            if norm.batch {
                phases.push((std::mem::take(&mut works), Barrier::Sums(i)));
            }
        }
        works.push(Work::Backward(i));
    }
    phases.push((works, Barrier::End));
    phases
}

/// The geometry of a convolution from `x` to `y`.
fn convolution(
    x: &[usize],
    y: &[usize],
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Geometry {
    let ((c, h, w), (o, oh, ow)) = (image(x), image(y));
    Geometry {
        c,
        h,
        w,
        o,
        oh,
        ow,
        kernel,
        stride,
        padding,
    }
}

fn windows(
    x: &[usize],
    y: &[usize],
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Windows {
    let ((_, h, w), (_, oh, ow)) = (image(x), image(y));
    Windows {
        h,
        w,
        oh,
        ow,
        kernel,
        stride,
        padding,
    }
}

fn image(shape: &[usize]) -> (usize, usize, usize) {
    match *shape {
        [c, h, w] => (c, h, w),
        ref other => unreachable!("an image has three dimensions, not {other:?}"),
    }
}

struct Compiler<'a> {
    train: bool,
    shapes: Vec<&'a [usize]>,
    parameters: Vec<Range<usize>>,
    buffers: Vec<Range<usize>>,
    slots: Vec<Slot>,
    /// Slots whose values are still read, so that no operation may overwrite them.
    pinned: Vec<bool>,
    ops: Vec<Op>,
    masks: Vec<usize>,
    winners: Vec<usize>,
    stacked: usize,
}

impl Compiler<'_> {
    fn slot(&mut self, slot: Slot) -> usize {
        self.slots.push(slot);
        self.pinned.push(slot.raw);
        self.slots.len() - 1
    }

    fn op(&mut self, kind: OpKind, input: usize, output: usize, path: &str) -> usize {
        self.ops.push(Op {
            kind,
            input,
            output,
            adds: false,
            path: path.to_owned(),
        });
        output
    }

    /// Compiles layers one after the other. Returns the slot of the last one's output.
    fn chain(&mut self, nodes: &[Node], mut at: usize) -> Result<usize> {
        let mut rest = nodes;
        while let Some((node, after)) = rest.split_first() {
            rest = after;
            match (&node.op, after.first()) {
                // max(relu(x)) = relu(max(x)), with the same derivatives everywhere, on fewer values.
                (
                    Layer::Relu,
                    Some(
                        pool @ Node {
                            op: Layer::MaxPool2d { .. },
                            ..
                        },
                    ),
                ) => {
                    at = self.node(pool, at)?;
                    at = self.node_like(node, &pool.output, at)?;
                    rest = &after[1..];
                }
                _ => at = self.node(node, at)?,
            }
        }
        Ok(at)
    }

    fn node(&mut self, node: &Node, at: usize) -> Result<usize> {
        self.node_like(node, &node.output, at)
    }

    fn node_like(&mut self, node: &Node, output: &[usize], at: usize) -> Result<usize> {
        let path = node.path.as_str();
        Ok(match &node.op {
            Layer::Linear { weight, bias } => {
                let (o, c) = (planes(&node.output).0, planes(&node.input).0);
                let geometry = convolution(&[c, 1, 1], &[o, 1, 1], (1, 1), (1, 1), (0, 0));
                self.affine(geometry, *weight, *bias, false, at, path)
            }
            Layer::Conv2d {
                weight,
                bias,
                stride,
                padding,
            } => {
                let kernel = self.kernel(*weight);
                let geometry = convolution(&node.input, &node.output, kernel, *stride, *padding);
                self.affine(geometry, *weight, *bias, false, at, path)
            }
            Layer::ConvTranspose2d {
                weight,
                bias,
                stride,
                padding,
                ..
            } => {
                let kernel = self.kernel(*weight);
                let geometry = convolution(&node.output, &node.input, kernel, *stride, *padding);
                self.affine(geometry, *weight, *bias, true, at, path)
            }
            Layer::Relu => self.elementwise(OpKind::Relu, at, path),
            Layer::Tanh => self.elementwise(OpKind::Tanh, at, path),
            Layer::Sigmoid => self.elementwise(OpKind::Sigmoid, at, path),
            Layer::Gelu => self.gelu(at, path),
            Layer::MaxPool2d {
                kernel,
                stride,
                padding,
            } => {
                let windows = windows(&node.input, output, *kernel, *stride, *padding);
                self.winners.push(output.iter().product());
                let kind = OpKind::MaxPool(windows, self.winners.len() - 1);
                self.reshaped(kind, output, at, path)
            }
            Layer::AvgPool2d { kernel, stride } => {
                let windows = windows(&node.input, output, *kernel, *stride, (0, 0));
                self.reshaped(OpKind::AveragePool(windows), output, at, path)
            }
            Layer::BatchNorm {
                weight,
                bias,
                mean,
                variance,
                momentum,
                eps,
            } => {
                let norm = Norm {
                    index: self.norms(),
                    scale: self.parameters[*weight].clone(),
                    shift: self.parameters[*bias].clone(),
                    mean: self.buffers[*mean].clone(),
                    variance: self.buffers[*variance].clone(),
                    momentum: *momentum,
                    eps: *eps,
                    batch: self.train,
                };
                self.norm(norm, at, path)
            }
            Layer::Dropout { p, stream } => {
                if !self.train || *p == 0.0 {
                    return Ok(at);
                }
                self.masks.push(self.slots[at].size());
                let (p, stream, mask) = (*p, *stream, self.masks.len() - 1);
                self.elementwise(OpKind::Dropout { p, stream, mask }, at, path)
            }
            Layer::Flatten => self.flatten(at, path),
            Layer::Residual { body, projection } => self.residual(body, projection, at, path)?,
            _ => {
                return Err(AnalysisError::NoKernels(NoKernels::Layer(path.to_owned())));
            }
        })
    }

    fn gelu(&mut self, at: usize, path: &str) -> usize {
        // Its second derivative reads its input.
        let at = self.loaded(at, path);
        let from = self.slots[at];
        let to = self.slot(Slot {
            primal: from.moves,
            ..from
        });
        self.op(OpKind::Gelu, at, to, path)
    }

    /// Number of norms so far.
    fn norms(&self) -> usize {
        let norms = self.ops.iter();
        norms
            .filter(|op| matches!(op.kind, OpKind::Norm(_)))
            .count()
    }

    fn norm(&mut self, norm: Norm, at: usize, path: &str) -> usize {
        let at = self.loaded(at, path);
        let to = self.slot(Slot {
            moves: true,
            primal: true,
            ..self.slots[at]
        });
        self.op(OpKind::Norm(norm), at, to, path)
    }

    /// The sum of two chains that begin at the same slot.
    fn residual(
        &mut self,
        body: &[Node],
        projection: &[Node],
        at: usize,
        path: &str,
    ) -> Result<usize> {
        self.pinned[at] = true;
        let a = self.chain(body, at)?;
        let b = self.chain(projection, at)?;
        let (a, b) = (self.loaded(a, path), self.loaded(b, path));
        let (x, y) = (self.slots[a], self.slots[b]);
        let to = self.slot(Slot {
            moves: x.moves || y.moves,
            primal: x.primal || y.primal,
            ..x
        });
        let kind = OpKind::Add {
            other: b,
            other_adds: false,
        };
        Ok(self.op(kind, a, to, path))
    }

    /// (height, width) of a convolution's kernel, from the weight's shape.
    fn kernel(&self, weight: usize) -> (usize, usize) {
        match *self.shapes[weight] {
            [_, _, height, width] => (height, width),
            ref other => unreachable!("a convolution's weight has four dimensions, not {other:?}"),
        }
    }

    fn affine(
        &mut self,
        geometry: Geometry,
        weight: usize,
        bias: Option<usize>,
        transposed: bool,
        at: usize,
        path: &str,
    ) -> usize {
        // Patch matrices read raw images directly, and products read raw vectors. A transposed convolution needs its
        // input as a slot.
        let direct = !transposed && (!geometry.is_pointwise() || self.slots[at].pixels == 1);
        let at = if direct { at } else { self.loaded(at, path) };
        let affine = Affine {
            geometry,
            weight: self.parameters[weight].clone(),
            bias: bias.map(|b| self.parameters[b].clone()),
            stacked: self.stacked,
        };
        let moves = self.slots[at].moves;
        // The backward pass reads the transposes; a transposed convolution reads them in the forward pass.
        if moves || transposed {
            self.stacked += 2 * geometry.o * geometry.taps();
        }
        let (channels, pixels) = if transposed {
            (geometry.c, geometry.h * geometry.w)
        } else {
            (geometry.o, geometry.oh * geometry.ow)
        };
        let to = self.slot(Slot {
            channels,
            pixels,
            raw: false,
            moves: true,
            primal: moves,
        });
        let kind = if transposed {
            OpKind::Transposed(affine)
        } else {
            OpKind::Convolution(affine)
        };
        self.op(kind, at, to, path)
    }

    /// Works in place unless the input is still read.
    fn elementwise(&mut self, kind: OpKind, at: usize, path: &str) -> usize {
        let at = self.loaded(at, path);
        let curved = matches!(kind, OpKind::Tanh | OpKind::Sigmoid) && self.slots[at].moves;
        let to = if self.pinned[at] {
            self.slot(self.slots[at])
        } else {
            at
        };
        self.slots[to].primal |= curved;
        // The backward pass reads the output of these.
        self.pinned[to] |= !matches!(kind, OpKind::Dropout { .. });
        self.op(kind, at, to, path)
    }

    fn reshaped(&mut self, kind: OpKind, output: &[usize], at: usize, path: &str) -> usize {
        let at = self.loaded(at, path);
        let (channels, pixels) = planes(output);
        let to = self.slot(Slot {
            channels,
            pixels,
            ..self.slots[at]
        });
        self.op(kind, at, to, path)
    }

    fn flatten(&mut self, at: usize, path: &str) -> usize {
        let from = self.slots[at];
        let flat = Slot {
            channels: from.size(),
            pixels: 1,
            ..from
        };
        if from.pixels == 1 {
            return at;
        }
        if from.raw {
            // The same values in the same places.
            return self.slot(flat);
        }
        let to = self.slot(flat);
        self.op(OpKind::Flatten, at, to, path)
    }

    /// The slot itself, or a slot with a copy of raw inputs.
    fn loaded(&mut self, at: usize, path: &str) -> usize {
        if !self.slots[at].raw {
            return at;
        }
        let to = self.slot(Slot {
            raw: false,
            ..self.slots[at]
        });
        self.op(OpKind::Load, at, to, path)
    }
}
