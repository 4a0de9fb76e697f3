//! Arithmetic on vectors of float64 values.
//!
//! Sums run from the first element to the last, so that a result has the same bits everywhere. If two vectors differ in
//! length, the rest of the longer one is ignored.

/// `Σ_i a_i b_i`.
#[inline]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Euclidean norm of a vector.
#[inline]
pub fn norm(x: &[f64]) -> f64 {
    norm_of(x.iter().copied())
}

/// Euclidean norm of the values that an iterator yields.
#[inline]
pub fn norm_of(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// `to += x`.
#[inline]
pub fn add(to: &mut [f64], x: &[f64]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to += x;
    }
}

/// `to += factor x`.
#[inline]
pub fn add_scaled(to: &mut [f64], factor: f64, x: &[f64]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to += factor * x;
    }
}
