//! Central differences that distinguish a wrong derivative from a kink and from rounding.

use hindcast_model::vectors::{norm, norm_of};

use crate::error::Result;

/// Step sizes h of the differences, relative to the size of the moved values. The first is best for smooth functions.
pub(super) const DISTANCES: [f64; 4] = [1e-5, 1e-6, 1e-4, 1e-7];

/// Rounding error that a difference may have, in units of ε |f| / h.
const ROUNDING: f64 = 64.0;

/// Relative error of `exact`, the derivative of `f` along a line at 0, against central differences at the step
/// size that agrees best. `scale` is the size of f's values, which determines the rounding of a difference.
pub(super) fn agreement(
    exact: &[f64],
    scale: f64,
    mut f: impl FnMut(f64) -> Result<Vec<f64>>,
) -> Result<f64> {
    let mut best = f64::INFINITY;
    for h in DISTANCES {
        let (plus, minus) = (f(h)?, f(-h)?);
        let slope: Vec<f64> = plus
            .iter()
            .zip(&minus)
            .map(|(a, b)| (a - b) / (2.0 * h))
            .collect();
        let off = norm_of(exact.iter().zip(&slope).map(|(a, b)| a - b));
        let size = norm(exact).max(norm(&slope));
        let largest = plus.iter().fold(scale, |m, x| m.max(x.abs()));
        let noise = ROUNDING * f64::EPSILON * largest * (exact.len() as f64).sqrt() / h;
        let error = match off {
            off if off <= noise && size <= 1e5 * noise => 0.0,
            off => off / size,
        };
        best = best.min(error);
        // Smooth and correct: the other step sizes would only take time.
        if best < 1e-7 {
            break;
        }
    }
    Ok(best)
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

    #[test]
    fn a_kink_is_forgiven_and_a_wrong_slope_is_not() {
        // |x − 3e-6| at 0: the slope is −1, and at two step sizes the points lie on both sides of the kink.
        let kink = |h: f64| Ok(vec![(h - 3e-6).abs()]);
        assert!(agreement(&[-1.0], 1.0, kink).unwrap() < 1e-7);
        assert!(agreement(&[-0.25], 1.0, kink).unwrap() > 0.1);
    }

    #[test]
    fn the_derivative_of_a_constant_must_be_zero() {
        assert_eq!(agreement(&[0.0], 1.0, |_| Ok(vec![0.7])).unwrap(), 0.0);
        assert!(agreement(&[0.1], 1.0, |_| Ok(vec![0.7])).unwrap() > 0.5);
        assert!(
            agreement(&[f64::NAN], 1.0, |h| Ok(vec![h]))
                .unwrap()
                .is_infinite()
        );
    }
}
