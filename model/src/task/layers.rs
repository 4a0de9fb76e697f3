//! The `[model]` table of a Task.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The `[model]` table: what goes in and which layers follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Shape of one example: `[features]` or `[channels, height, width]`.
    pub input: Vec<usize>,
    /// The layers in order.
    #[serde(default)]
    pub layers: Vec<Layer>,
}

/// Height and width, written as one number where they are equal, else as `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Size {
    /// The same in both directions.
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

#[derive(Serialize, Deserialize)]
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

/// One layer. Shapes are those of one example; conventions are PyTorch's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Layer {
    /// `[n]` to `[out]`: `x Wᵀ + b`.
    Linear {
        /// Features that come out.
        out: usize,
        /// Whether there is a b.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// `[c, h, w]` to `[out, ⌊(h + 2 padding − kernel)/stride⌋ + 1, …]`.
    Conv2d {
        /// Channels that come out.
        out: usize,
        /// Kernel size.
        kernel: Size,
        /// Step of the kernel.
        #[serde(default = "one")]
        stride: Size,
        /// Zeros on every side.
        #[serde(default = "zero")]
        padding: Size,
        /// Whether each channel has a bias.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// `[c, h, w]` to `[out, (h − 1) stride − 2 padding + kernel + output_padding, …]`.
    ConvTranspose2d {
        /// Channels that come out.
        out: usize,
        /// Kernel size.
        kernel: Size,
        /// Distance of the inputs in the output.
        #[serde(default = "one")]
        stride: Size,
        /// Cut off on every side.
        #[serde(default = "zero")]
        padding: Size,
        /// Rows and columns added at the end.
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
    /// `x Φ(x)` with the normal distribution function itself, not an approximation.
    Gelu {},
    /// Maximum over windows.
    MaxPool2d {
        /// Window size.
        kernel: Size,
        /// Step of the window; the kernel unless said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Size>,
        /// Border on every side that never is the maximum.
        #[serde(default = "zero")]
        padding: Size,
    },
    /// Mean over windows.
    AvgPool2d {
        /// Window size.
        kernel: Size,
        /// Step of the window; the kernel unless said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Size>,
    },
    /// Batch normalisation of each feature of `[n]` or each channel of `[c, h, w]`, with scale and shift.
    BatchNorm {
        /// Share of the new batch in the running statistics.
        #[serde(default = "momentum")]
        momentum: f64,
        /// Added to the variance.
        #[serde(default = "eps")]
        eps: f64,
    },
    /// In training, sets each value to 0 with probability `p` and divides the rest by 1 − p. Masks are drawn for each
    /// example alone.
    Dropout {
        /// Probability of a 0.
        #[serde(default = "half")]
        p: f64,
    },
    /// `[c, h, w]` to `[c h w]`.
    Flatten {},
    /// The sum of what `layers` and `projection` make of the input; without a projection, of the input itself.
    Residual {
        /// The path with the layers.
        layers: Vec<Layer>,
        /// The shortcut.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        projection: Vec<Layer>,
    },
}

impl Layer {
    /// The name in a Task.
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
