//! Layer mathematics on candle tensors, right to the second derivative.
//!
//! Influence needs gradients of gradients, and some of candle's own layers are wrong or missing there (max pooling's
//! gradient, gather's second derivative, pooling whose kernel differs from its stride). These functions are checked one by
//! one against differences in float64 by [`derivative_check`].
//!
//! On the CPU the heavy ones are custom operations: patch matrices and the `gemm` crate, spread over the current rayon
//! pool, in f32 and f64. Work is cut by shapes alone, so results have the same bits on any number of threads. On other
//! devices the same functions are composed of candle operations that are right.
//!
//! Layouts are PyTorch's: images (batch, channels, height, width), linear weights (out, in), convolution weights (out, in,
//! height, width), transposed convolution weights (in, out, height, width). Losses are (batch,).

mod activation;
mod block;
mod channel;
mod composed;
mod conv;
mod convolve;
mod derivatives;
mod element;
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
pub mod second_order;

pub use activation::{gelu, relu, sigmoid, softplus, tanh};
pub use block::{conv2d_relu, conv2d_relu_max_pool2d};
pub use conv::{conv_transpose2d, conv2d};
pub use derivatives::{DerivativeReport, check_derivatives, derivative_check};
pub use linear::{flatten, linear};
pub use loss::{binary_cross_entropy_with_logits, cross_entropy, log_softmax, mean_squared_error};
pub use norm::batch_norm;
pub(crate) use norm::{Normalising, normalised};
pub use pool::{avg_pool2d, max_pool2d, relu_max_pool2d};
