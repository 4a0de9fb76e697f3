//! Copies values into another order, or adds them.

use super::super::number::Number;

/// `y += x`.
pub(super) fn add<T: Number>(x: &[T], y: &mut [T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// (examples, channels, pixels) to (channels, examples, pixels).
pub(super) fn rearrange<T: Copy>(x: &[T], n: usize, channels: usize, pixels: usize, y: &mut [T]) {
    for (e, x) in x.chunks_exact(channels * pixels).enumerate() {
        for (c, x) in x.chunks_exact(pixels).enumerate() {
            y[(c * n + e) * pixels..][..pixels].copy_from_slice(x);
        }
    }
}

/// (channels, examples, pixels) to (channels pixels, examples).
pub(super) fn flatten<T: Copy>(x: &[T], n: usize, pixels: usize, y: &mut [T]) {
    for (x, y) in x
        .chunks_exact(n * pixels)
        .zip(y.chunks_exact_mut(n * pixels))
    {
        for (e, x) in x.chunks_exact(pixels).enumerate() {
            for (p, &x) in x.iter().enumerate() {
                y[p * n + e] = x;
            }
        }
    }
}

/// The inverse of [`flatten`]. Overwrites `x`, or adds to it if `adds`.
pub(super) fn unflatten<T: Number>(y: &[T], n: usize, pixels: usize, x: &mut [T], adds: bool) {
    for (x, y) in x
        .chunks_exact_mut(n * pixels)
        .zip(y.chunks_exact(n * pixels))
    {
        for (e, x) in x.chunks_exact_mut(pixels).enumerate() {
            for (p, x) in x.iter_mut().enumerate() {
                let y = y[p * n + e];
                *x = if adds { *x + y } else { y };
            }
        }
    }
}
