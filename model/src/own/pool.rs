//! Pooling of (B, C, H, W) tensors with the arguments and bits of candle's methods, twice differentiable.
//!
//! [`crate::ops`] has the same operations with padding.

use candle_core::{Result, Tensor, ToUsize2};

use crate::ops;

/// The maximum of each window, as `x.max_pool2d(size)`. The gradient goes to the first largest value; candle divides it by
/// the number of values in the window.
///
/// # Errors
/// If the tensor isn't (B, C, H, W), or the window doesn't fit.
pub fn max_pool2d(x: &Tensor, size: impl ToUsize2) -> Result<Tensor> {
    let size = size.to_usize2();
    ops::max_pool2d(x, size, size, (0, 0))
}

/// The maximum of each window, as `x.max_pool2d_with_stride(size, stride)`.
///
/// # Errors
/// As [`max_pool2d`], and if a stride is 0.
pub fn max_pool2d_with_stride(
    x: &Tensor,
    size: impl ToUsize2,
    stride: impl ToUsize2,
) -> Result<Tensor> {
    ops::max_pool2d(x, size.to_usize2(), stride.to_usize2(), (0, 0))
}

/// The mean of each window, as `x.avg_pool2d(size)`.
///
/// # Errors
/// As [`max_pool2d`].
pub fn avg_pool2d(x: &Tensor, size: impl ToUsize2) -> Result<Tensor> {
    let size = size.to_usize2();
    ops::avg_pool2d(x, size, size)
}

/// The mean of each window, as `x.avg_pool2d_with_stride(size, stride)`.
///
/// # Errors
/// As [`max_pool2d_with_stride`].
pub fn avg_pool2d_with_stride(
    x: &Tensor,
    size: impl ToUsize2,
    stride: impl ToUsize2,
) -> Result<Tensor> {
    ops::avg_pool2d(x, size.to_usize2(), stride.to_usize2())
}
