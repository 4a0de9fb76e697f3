//! A net as a list of layers, with the tensors that they use.

use crate::objective::TensorDef;
use crate::task::LossSpec;

/// A model with its loss, built from a Task. It holds no values: they come with each pass.
///
/// Parameters are called by their layer's number and kind, as `0.conv2d.weight`, numbers being padded with zeros to
/// one length, so that the order by name is the order of the layers. Inside a residual, `2.residual.0.conv2d.weight`
/// is on its path and `2.residual.projection.0.conv2d.weight` on its shortcut.
#[derive(Debug, Clone)]
pub struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) parameters: Vec<TensorDef>,
    pub(super) starts: Vec<Start>,
    pub(super) buffers: Vec<TensorDef>,
    pub(super) buffer_starts: Vec<f64>,
    pub(super) input: Vec<usize>,
    pub(super) output: Vec<usize>,
    pub(super) loss: LossSpec,
}

/// One layer with its place in the lists of tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Number and kind, as `0.conv2d`: the beginning of its tensors' names.
    pub path: String,
    /// What it does.
    pub op: Op,
    /// Shape of one example that comes in.
    pub input: Vec<usize>,
    /// Shape of one example that goes out.
    pub output: Vec<usize>,
}

/// What a layer does. Numbers called `weight`, `bias`, `mean` and `variance` are positions in the lists of parameters
/// and buffers; sizes are (height, width).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// `x Wᵀ + b`, W (out, in).
    Linear {
        /// W.
        weight: usize,
        /// b.
        bias: Option<usize>,
    },
    /// Convolution with W (out, in, height, width).
    Conv2d {
        /// W.
        weight: usize,
        /// b.
        bias: Option<usize>,
        /// Step of the kernel.
        stride: (usize, usize),
        /// Zeros on every side.
        padding: (usize, usize),
    },
    /// Transposed convolution with W (in, out, height, width).
    ConvTranspose2d {
        /// W.
        weight: usize,
        /// b.
        bias: Option<usize>,
        /// Distance of the inputs in the output.
        stride: (usize, usize),
        /// Cut off on every side.
        padding: (usize, usize),
        /// Added at the end.
        output_padding: (usize, usize),
    },
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1/(1 + e^−x)`.
    Sigmoid,
    /// `x Φ(x)`.
    Gelu,
    /// Maximum over windows.
    MaxPool2d {
        /// Window size.
        kernel: (usize, usize),
        /// Step of the window.
        stride: (usize, usize),
        /// Border.
        padding: (usize, usize),
    },
    /// Mean over windows.
    AvgPool2d {
        /// Window size.
        kernel: (usize, usize),
        /// Step of the window.
        stride: (usize, usize),
    },
    /// Batch normalisation.
    BatchNorm {
        /// Scale γ.
        weight: usize,
        /// Shift β.
        bias: usize,
        /// Running mean.
        mean: usize,
        /// Running variance.
        variance: usize,
        /// Share of the new batch in the running statistics.
        momentum: f64,
        /// Added to the variance.
        eps: f64,
    },
    /// Dropout with a stream of its own.
    Dropout {
        /// Probability of a 0.
        p: f64,
        /// Index of [`Purpose::Dropout`](crate::random::Purpose::Dropout): the dropout layers counted from 0.
        stream: u32,
    },
    /// To a vector.
    Flatten,
    /// `body(x) + projection(x)`, with an empty projection `body(x) + x`.
    Residual {
        /// The path with the layers.
        body: Vec<Node>,
        /// The shortcut.
        projection: Vec<Node>,
    },
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// Uniform in ±bound.
    Uniform(f64),
    /// The same everywhere.
    Constant(f64),
}

impl Net {
    /// The layers in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Each example's loss.
    pub fn loss(&self) -> &LossSpec {
        &self.loss
    }

    /// Shape of one example.
    pub fn input_shape(&self) -> &[usize] {
        &self.input
    }

    /// Shape of one example's output.
    pub fn output_shape(&self) -> &[usize] {
        &self.output
    }

    /// The first batch norm with one value per channel and example. It needs at least two examples per batch.
    pub(crate) fn batch_norm_of_pairs(&self) -> Option<&str> {
        lone_batch_norm(&self.nodes)
    }

    /// Values of all parameters together: p.
    pub fn parameter_values(&self) -> usize {
        crate::objective::values(&self.parameters)
    }

    /// Values of all buffers together.
    pub fn buffer_values(&self) -> usize {
        crate::objective::values(&self.buffers)
    }
}

fn lone_batch_norm(nodes: &[Node]) -> Option<&str> {
    nodes.iter().find_map(|node| match &node.op {
        Op::BatchNorm { .. } => {
            let positions: usize = node.input.iter().skip(1).product();
            (positions == 1).then_some(node.path.as_str())
        }
        Op::Residual { body, projection } => {
            lone_batch_norm(body).or_else(|| lone_batch_norm(projection))
        }
        _ => None,
    })
}
