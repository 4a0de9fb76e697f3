//! Layers and losses on candle tensors, with correct first and second derivatives.
//!
//! Influence needs gradients of gradients. Some of candle's layers have wrong or missing ones: the gradient of max pooling,
//! the second derivative of gather, and pooling with a stride other than its kernel. [`derivative_check`] checks each
//! function here against finite differences in float64.
//!
//! On the CPU, the expensive functions are custom operations in f32 and f64. They use patch matrices and the `gemm` crate,
//! and run on the current rayon pool. Work is divided according to shapes only, so that results have the same bits on any
//! number of threads. On other devices, the functions are composed of candle operations with correct derivatives.
//!
//! Layouts are PyTorch's: images (batch, channels, height, width), linear weights (out, in), convolution weights (out, in,
//! height, width), transposed convolution weights (in, out, height, width). Losses are (batch,).

mod activation;
mod attention;
mod block;
mod channel;
pub(crate) mod columns;
mod composed;
mod conv;
mod convolve;
mod derivatives;
mod element;
mod environment;
mod form;
mod gelu;
mod geometry;
mod linear;
mod loss;
mod matmul;
mod norm;
mod normalise;
mod operand;
mod parallel;
mod patches;
mod pool;
mod products;
pub(crate) mod row_norm;
pub mod second_order;
mod sequence;
pub(crate) mod softmax;
pub mod threads;

pub use activation::{relu, sigmoid, softplus, tanh};
pub use attention::self_attention;
pub use block::{conv2d_relu, conv2d_relu_max_pool2d};
pub use conv::{conv_transpose2d, conv2d};
pub use derivatives::{DerivativeReport, check_derivatives, derivative_check, derivative_check_on};
pub(crate) use element::supported;
pub use form::compose_on_cpu;
pub(crate) use form::custom;
pub use gelu::gelu;
pub(crate) use geometry::Conv;
pub(crate) use linear::affine;
pub use linear::{flatten, linear};
pub use loss::{binary_cross_entropy_with_logits, cross_entropy, log_softmax, mean_squared_error};
pub use norm::batch_norm;
pub(crate) use norm::{Normalising, normalised};
pub(crate) use operand::wanted;
pub use pool::{avg_pool2d, max_pool2d, relu_max_pool2d};
pub(crate) use products::{Convolution, InputGradient, WeightGradient};
pub use sequence::{sequence_cross_entropy, token_cross_entropy};
