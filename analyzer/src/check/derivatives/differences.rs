//! Central differences that distinguish a wrong derivative from a kink and from rounding.

use std::ops::Range;

use hindcast_model::vectors::{norm, norm_of};

use crate::error::Result;

/// Rounding error that a difference may have, in units of ε |f| / h.
const ROUNDING: f64 = 64.0;

/// The rounding of the values that are subtracted, and the error that passes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Spacing of the float type's numbers at 1.
    pub epsilon: f64,
    /// Largest relative error that passes.
    pub tolerance: f64,
}

/// A derivative along a line, to be compared with the slope of some of the values of a function.
pub(super) struct Quantity<'a> {
    /// The derivative at 0.
    pub exact: &'a [f64],
    /// Which of the function's values it is the derivative of; as many as `exact`.
    pub of: Range<usize>,
    /// Size of the function's values, which determines the rounding of a difference.
    pub scale: f64,
    /// Errors are relative to this size, or to that of the derivative or of the slope if one of them is larger.
    pub size: f64,
}

/// Relative errors of derivatives against central differences of `f`, each at the step size h that agrees best.
pub(super) fn agreements(
    quantities: &[Quantity<'_>],
    limits: Limits,
    distances: &[f64],
    mut f: impl FnMut(f64) -> Result<Vec<f64>>,
) -> Result<Vec<f64>> {
    let mut best = vec![f64::INFINITY; quantities.len()];
    for &h in distances {
        let (plus, minus) = (f(h)?, f(-h)?);
        for (quantity, best) in quantities.iter().zip(&mut best) {
            let (plus, minus) = (&plus[quantity.of.clone()], &minus[quantity.of.clone()]);
            *best = best.min(quantity.error(plus, minus, h, limits));
        }
        // Smooth and correct: the other step sizes would only take time.
        if best.iter().all(|&error| error < 0.1 * limits.tolerance) {
            break;
        }
    }
    Ok(best)
}

impl Quantity<'_> {
    /// Relative error against the difference of the values at ±h.
    fn error(&self, plus: &[f64], minus: &[f64], h: f64, limits: Limits) -> f64 {
        let slopes = || plus.iter().zip(minus).map(|(a, b)| (a - b) / (2.0 * h));
        let off = norm_of(self.exact.iter().zip(slopes()).map(|(a, b)| a - b));
        let size = norm(self.exact).max(norm_of(slopes())).max(self.size);
        let largest = plus.iter().fold(self.scale, |m, x| m.max(x.abs()));
        let count = (self.exact.len() as f64).sqrt();
        let noise = ROUNDING * limits.epsilon * largest * count / h;
        match off {
            off if off <= noise && size * limits.tolerance <= noise => 0.0,
            off => off / size,
        }
    }
}

/// `x + h v`.
pub(super) fn moved(x: &[f64], v: &[f64], h: f64) -> Vec<f64> {
    x.iter().zip(v).map(|(x, v)| x + h * v).collect()
}

/// Deterministic noise (SplitMix64), so that a check always has the same result.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Noise(seed)
    }

    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `n` values uniform in ±`size`.
    pub(super) fn vector(&mut self, n: usize, size: f64) -> Vec<f64> {
        (0..n).map(|_| size * (2.0 * self.unit() - 1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(exact: &[f64], f: impl FnMut(f64) -> Result<Vec<f64>>) -> f64 {
        let quantity = Quantity {
            exact,
            of: 0..exact.len(),
            scale: 1.0,
            size: 0.0,
        };
        let limits = Limits {
            epsilon: f64::EPSILON,
            tolerance: 1e-5,
        };
        agreements(&[quantity], limits, &[1e-5, 1e-6, 1e-4, 1e-7], f).unwrap()[0]
    }

    #[test]
    fn a_kink_is_forgiven_and_a_wrong_slope_is_not() {
        // |x − 3e-6| at 0: the slope is −1, and at two step sizes the points lie on both sides of the kink.
        let kink = |h: f64| Ok(vec![(h - 3e-6).abs()]);
        assert!(agreement(&[-1.0], kink) < 1e-7);
        assert!(agreement(&[-0.25], kink) > 0.1);
    }

    #[test]
    fn the_derivative_of_a_constant_must_be_zero() {
        assert_eq!(agreement(&[0.0], |_| Ok(vec![0.7])), 0.0);
        assert!(agreement(&[0.1], |_| Ok(vec![0.7])) > 0.5);
        assert!(agreement(&[f64::NAN], |h| Ok(vec![h])).is_infinite());
    }

    #[test]
    fn each_quantity_is_compared_with_its_own_values() {
        let quantity = |exact, of| Quantity {
            exact,
            of,
            scale: 1.0,
            size: 0.0,
        };
        let limits = Limits {
            epsilon: f64::EPSILON,
            tolerance: 1e-5,
        };
        let line = |h: f64| Ok(vec![2.0 * h, h.sin(), 5.0 * h]);
        let both = [quantity(&[2.0, 1.0], 0..2), quantity(&[4.0], 2..3)];
        let errors = agreements(&both, limits, &[1e-5, 1e-6], line).unwrap();
        assert!(
            errors[0] < 1e-7 && (errors[1] - 0.2).abs() < 1e-6,
            "{errors:?}"
        );
    }
}
