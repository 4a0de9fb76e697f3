//! The net: a list of layers with the tensors that they use.

use crate::objective::TensorDef;
use crate::task::LossSpec;

/// A model with its loss, built from a Task. It holds no parameter values. Each pass provides them.
///
/// The name of a parameter contains the number and the kind of its layer, as in `0.conv2d.weight`. Numbers are padded
/// with zeros to equal length, so that sorting by name gives the order of the layers. Within a residual,
/// `2.residual.0.conv2d.weight` belongs to the main path and `2.residual.projection.0.conv2d.weight` to the shortcut.
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

/// One layer, with the positions of its tensors in the lists of parameters and buffers.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Number and kind, such as `0.conv2d`. The names of the layer's tensors begin with it.
    pub path: String,
    /// The operation.
    pub op: Op,
    /// Input shape of one example.
    pub input: Vec<usize>,
    /// Output shape of one example.
    pub output: Vec<usize>,
}

/// The operation of a layer. The fields `weight` and `bias` are positions in the list of parameters, `mean` and
/// `variance` in the list of buffers. Sizes are (height, width).
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
        /// Distance between kernel positions.
        stride: (usize, usize),
        /// Rows and columns of zeros on each side.
        padding: (usize, usize),
    },
    /// Transposed convolution with W (in, out, height, width).
    ConvTranspose2d {
        /// W.
        weight: usize,
        /// b.
        bias: Option<usize>,
        /// Distance between neighbouring inputs in the output.
        stride: (usize, usize),
        /// Rows and columns that are cut off on each side.
        padding: (usize, usize),
        /// Rows and columns that are added at the end.
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
        /// Distance between window positions.
        stride: (usize, usize),
        /// Rows and columns on each side that are never the maximum.
        padding: (usize, usize),
    },
    /// Mean over windows.
    AvgPool2d {
        /// Window size.
        kernel: (usize, usize),
        /// Distance between window positions.
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
        /// Weight of the new batch in the running statistics.
        momentum: f64,
        /// Number that is added to the variance.
        eps: f64,
    },
    /// Dropout.
    Dropout {
        /// Probability that a value is set to 0.
        p: f64,
        /// Number of the dropout layer, from 0: the index of its random stream
        /// [`Purpose::Dropout`](crate::random::Purpose::Dropout).
        stream: u32,
    },
    /// Reshapes an example to a vector.
    Flatten,
    /// `body(x) + projection(x)`, or `body(x) + x` if the projection is empty.
    Residual {
        /// The layers of the main path.
        body: Vec<Node>,
        /// The layers of the shortcut.
        projection: Vec<Node>,
    },
}

/// Initial values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// Uniform in [−bound, bound).
    Uniform(f64),
    /// The same value everywhere.
    Constant(f64),
}

impl Net {
    /// The layers in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The loss.
    pub fn loss(&self) -> &LossSpec {
        &self.loss
    }

    /// Input shape of one example.
    pub fn input_shape(&self) -> &[usize] {
        &self.input
    }

    /// Output shape of one example.
    pub fn output_shape(&self) -> &[usize] {
        &self.output
    }

    /// The path of the first batch norm whose input has a single value per channel and example. In training it needs at
    /// least two examples per batch.
    pub(crate) fn single_value_batch_norm(&self) -> Option<&str> {
        find_single_value_batch_norm(&self.nodes)
    }

    /// Number of values of all parameters, p.
    pub fn parameter_values(&self) -> usize {
        crate::objective::values(&self.parameters)
    }

    /// Number of values of all buffers.
    pub fn buffer_values(&self) -> usize {
        crate::objective::values(&self.buffers)
    }
}

fn find_single_value_batch_norm(nodes: &[Node]) -> Option<&str> {
    nodes.iter().find_map(|node| match &node.op {
        Op::BatchNorm { .. } => {
            let positions: usize = node.input.iter().skip(1).product();
            (positions == 1).then_some(node.path.as_str())
        }
        Op::Residual { body, projection } => {
            find_single_value_batch_norm(body).or_else(|| find_single_value_batch_norm(projection))
        }
        _ => None,
    })
}
