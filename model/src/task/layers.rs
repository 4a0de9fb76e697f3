//! The `[model]` table of a Task.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The `[model]` table: the input shape and the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Shape of one example: `[features]` or `[channels, height, width]`.
    pub input: Vec<usize>,
    /// The layers in order.
    #[serde(default)]
    pub layers: Vec<Layer>,
}

/// Height and width. In a Task they are one number if they are equal, and `[height, width]` otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Size {
    /// A size with equal height and width.
    pub const fn square(side: usize) -> Self {
        Self {
            height: side,
            width: side,
        }
    }

    /// (height, width).
    pub fn pair(self) -> (usize, usize) {
        (self.height, self.width)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}", self.height, self.width)
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a number of pixels, or [height, width]"
)]
enum SizeText {
    Square(usize),
    Pair([usize; 2]),
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.height == self.width {
            SizeText::Square(self.height)
        } else {
            SizeText::Pair([self.height, self.width])
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match SizeText::deserialize(deserializer)? {
            SizeText::Square(side) => Self::square(side),
            SizeText::Pair([height, width]) => Self { height, width },
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        SizeText::json_schema(generator)
    }
}

fn one() -> Size {
    Size::square(1)
}

fn zero() -> Size {
    Size::square(0)
}

fn yes() -> bool {
    true
}

fn half() -> f64 {
    0.5
}

fn momentum() -> f64 {
    0.1
}

fn eps() -> f64 {
    1e-5
}

/// One layer. Shapes are those of one example. The conventions are PyTorch's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Layer {
    /// Fully connected, from `[n]` to `[out]`: `x Wᵀ + b`.
    Linear {
        /// Number of output features.
        out: usize,
        /// Whether the layer has a bias b.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// Convolution from `[c, h, w]` to `[out, ⌊(h + 2 padding − kernel)/stride⌋ + 1, …]`.
    Conv2d {
        /// Number of output channels.
        out: usize,
        /// Kernel size.
        kernel: Size,
        /// Distance between kernel positions, in pixels.
        #[serde(default = "one")]
        stride: Size,
        /// Number of rows and columns of zeros on each side.
        #[serde(default = "zero")]
        padding: Size,
        /// Whether each channel has a bias.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// Transposed convolution from `[c, h, w]` to `[out, (h − 1) stride − 2 padding + kernel + output_padding, …]`.
    ConvTranspose2d {
        /// Number of output channels.
        out: usize,
        /// Kernel size.
        kernel: Size,
        /// Distance between neighbouring inputs in the output, in pixels.
        #[serde(default = "one")]
        stride: Size,
        /// Number of rows and columns that are cut off on each side.
        #[serde(default = "zero")]
        padding: Size,
        /// Number of rows and columns that are added at the end.
        #[serde(default = "zero")]
        output_padding: Size,
        /// Whether each channel has a bias.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// `max(x, 0)`, with derivative 0 at 0.
    Relu {},
    /// Hyperbolic tangent.
    Tanh {},
    /// `1/(1 + e^−x)`.
    Sigmoid {},
    /// `x Φ(x)` with the exact normal distribution function, not an approximation.
    Gelu {},
    /// Maximum over windows.
    MaxPool2d {
        /// Window size.
        kernel: Size,
        /// Distance between window positions, in pixels. The default is the kernel size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Size>,
        /// Number of rows and columns on each side that are never the maximum.
        #[serde(default = "zero")]
        padding: Size,
    },
    /// Mean over windows.
    AvgPool2d {
        /// Window size.
        kernel: Size,
        /// Distance between window positions, in pixels. The default is the kernel size.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Size>,
    },
    /// Batch normalisation of each feature of `[n]` or each channel of `[c, h, w]`, followed by a scale and a shift.
    BatchNorm {
        /// Weight of the new batch in the running statistics.
        #[serde(default = "momentum")]
        momentum: f64,
        /// Number that is added to the variance.
        #[serde(default = "eps")]
        eps: f64,
    },
    /// In training, sets each value to 0 with probability `p` and divides the others by 1 − p. The mask of an example
    /// doesn't depend on the other examples.
    Dropout {
        /// Probability that a value is set to 0.
        #[serde(default = "half")]
        p: f64,
    },
    /// Reshapes `[c, h, w]` to `[c h w]`.
    Flatten {},
    /// The sum of two paths: the output of `layers`, and the output of `projection` or, if it is empty, the input itself.
    Residual {
        /// The layers of the main path.
        layers: Vec<Layer>,
        /// The layers of the shortcut.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        projection: Vec<Layer>,
    },
}

impl Layer {
    /// The name of the kind in a Task.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Conv2d { .. } => "conv2d",
            Self::ConvTranspose2d { .. } => "conv_transpose2d",
            Self::Relu {} => "relu",
            Self::Tanh {} => "tanh",
            Self::Sigmoid {} => "sigmoid",
            Self::Gelu {} => "gelu",
            Self::MaxPool2d { .. } => "max_pool2d",
            Self::AvgPool2d { .. } => "avg_pool2d",
            Self::BatchNorm { .. } => "batch_norm",
            Self::Dropout { .. } => "dropout",
            Self::Flatten {} => "flatten",
            Self::Residual { .. } => "residual",
        }
    }
}
