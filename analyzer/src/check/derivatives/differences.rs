//! Central differences that distinguish a wrong derivative from a kink and from rounding.

use std::ops::Range;

use hindcast_model::vectors::{norm, norm_of};

use crate::error::Result;

/// What differences in a float type can tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rounding of a value of the size 1, at most. A difference has this error, divided by h.
    pub rounding: f64,
    /// Largest relative error that passes.
    pub tolerance: f64,
    /// Largest relative error that passes at a small step size because rounding there may be as large: a kink can leave
    /// no larger step size. 0 if there is no such step size.
    pub forgiven: f64,
}

/// How well a derivative agrees with a difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Agreement {
    /// Relative error. If rounding hides errors of the size of the tolerance, an error within the rounding is given as that
    /// share of the tolerance.
    pub error: f64,
    /// The smallest relative error that would not have passed: the tolerance, or more if rounding hides more.
    pub visible: f64,
}

impl Agreement {
    /// Nothing was compared.
    const NONE: Agreement = Agreement {
        error: f64::INFINITY,
        visible: f64::INFINITY,
    };

    /// The larger one of both errors. Derivatives that rounding hides entirely don't count for what could be seen.
    pub(super) fn worst(all: &[Agreement]) -> Agreement {
        let error = all.iter().map(|a| a.error).fold(0.0, f64::max);
        let measured = all.iter().map(|a| a.visible).filter(|&v| v < 1.0);
        let visible = measured.reduce(f64::max);
        let hidden = || all.iter().map(|a| a.visible).fold(0.0, f64::max);
        Agreement {
            error,
            visible: visible.unwrap_or_else(hidden),
        }
    }
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

/// Agreement of derivatives with central differences of `f`, each at the step size h that agrees best.
pub(super) fn agreements(
    quantities: &[Quantity<'_>],
    limits: Limits,
    distances: &[f64],
    mut f: impl FnMut(f64) -> Result<Vec<f64>>,
) -> Result<Vec<Agreement>> {
    let largest = distances.iter().copied().fold(0.0, f64::max);
    let mut best = vec![Agreement::NONE; quantities.len()];
    for &h in distances {
        let (plus, minus) = (f(h)?, f(-h)?);
        for (quantity, best) in quantities.iter().zip(&mut best) {
            let (plus, minus) = (&plus[quantity.of.clone()], &minus[quantity.of.clone()]);
            let here = quantity.agreement(plus, minus, h, largest, limits);
            if here.error < best.error {
                *best = here;
            }
        }
        // Smooth and correct: the other step sizes would only take time.
        if best.iter().all(|a| a.error < 0.1 * limits.tolerance) {
            break;
        }
    }
    Ok(best)
}

impl Quantity<'_> {
    /// Agreement with the difference of the values at ±h.
    ///
    /// Rounding is forgiven as at the `largest` step size, where it is least: at the smallest one, any derivative that is
    /// small next to the values would pass.
    fn agreement(
        &self,
        plus: &[f64],
        minus: &[f64],
        h: f64,
        largest: f64,
        limits: Limits,
    ) -> Agreement {
        let slopes = || plus.iter().zip(minus).map(|(a, b)| (a - b) / (2.0 * h));
        let off = norm_of(self.exact.iter().zip(slopes()).map(|(a, b)| a - b));
        let size = norm(self.exact).max(norm_of(slopes())).max(self.size);
        let scale = plus.iter().fold(self.scale, |m, x| m.max(x.abs()));
        let rounding = limits.rounding * scale * (self.exact.len() as f64).sqrt();
        let (least, here) = (rounding / largest, rounding / h);
        if size == 0.0 {
            // Constant to the last bit, so rounding hides nothing.
            return Agreement {
                error: 0.0,
                visible: limits.tolerance,
            };
        }
        let passes = limits.tolerance * size;
        if off <= least && passes <= least {
            return Agreement {
                error: share(limits.tolerance * off, least),
                visible: share(least, size).max(limits.tolerance),
            };
        }
        let hidden = here.min(limits.forgiven * size);
        if off > passes && off <= hidden {
            return Agreement {
                error: share(limits.tolerance * off, hidden),
                visible: share(hidden, size),
            };
        }
        Agreement {
            error: off / size,
            visible: share(least, size).max(limits.tolerance),
        }
    }
}

/// a / b, where 0 / 0 is 0.
fn share(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a / b }
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

    const LIMITS: Limits = Limits {
        rounding: 64.0 * f64::EPSILON,
        tolerance: 1e-5,
        forgiven: 0.0,
    };

    fn whole(exact: &[f64]) -> Quantity<'_> {
        Quantity {
            exact,
            of: 0..exact.len(),
            scale: 1.0,
            size: 0.0,
        }
    }

    fn agreement(exact: &[f64], f: impl FnMut(f64) -> Result<Vec<f64>>) -> f64 {
        agreements(&[whole(exact)], LIMITS, &[1e-5, 1e-6, 1e-4, 1e-7], f).unwrap()[0].error
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
    fn rounding_hides_no_more_than_at_the_largest_step_size() {
        let limits = Limits {
            rounding: 64.0 * f64::from(f32::EPSILON),
            tolerance: 1e-2,
            forgiven: 0.0,
        };
        // At 1e-3, rounding may be 7.6e-3, which is more than this slope. At 3e-2 it is 2.5e-4.
        let line = |h: f64| Ok(vec![1.0 + 5e-3 * h]);
        let of = |exact: f64| {
            agreements(&[whole(&[exact])], limits, &[1e-2, 3e-2, 1e-3], line).unwrap()[0]
        };
        assert!(of(0.0).error > 0.9, "{:?}", of(0.0));
        assert!(of(4e-3).error > 0.1, "{:?}", of(4e-3));
        // An error of 4 % of the slope is hidden, and the result says that errors of up to 5 % are.
        let hidden = of(4.8e-3);
        assert!(hidden.error < 1e-2 && hidden.error > 1e-3, "{hidden:?}");
        assert!((hidden.visible - 0.05).abs() < 2e-3, "{hidden:?}");
        // With a kink at every step size but the smallest, an error is forgiven there up to a limit.
        let kinked = |h: f64| Ok(vec![1.0 + 5e-2 * h + if h > 2e-3 { h } else { 0.0 }]);
        let limits = Limits {
            forgiven: 0.1,
            ..limits
        };
        let of = |exact: f64| {
            agreements(&[whole(&[exact])], limits, &[1e-2, 3e-2, 1e-3], kinked).unwrap()[0].error
        };
        assert!(of(4.7e-2) <= 1e-2, "{}", of(4.7e-2));
        assert!(of(4e-2) > 0.1, "{}", of(4e-2));
    }

    #[test]
    fn derivatives_that_rounding_hides_entirely_do_not_count() {
        let of = |error, visible| Agreement { error, visible };
        let worst = Agreement::worst(&[of(1e-3, 0.02), of(5e-3, 7.0), of(2e-3, 0.01)]);
        assert_eq!(worst, of(5e-3, 0.02));
        assert_eq!(Agreement::worst(&[of(0.0, 7.0)]), of(0.0, 7.0));
    }

    #[test]
    fn each_quantity_is_compared_with_its_own_values() {
        let quantity = |exact, of| Quantity {
            exact,
            of,
            scale: 1.0,
            size: 0.0,
        };
        let line = |h: f64| Ok(vec![2.0 * h, h.sin(), 5.0 * h]);
        let both = [quantity(&[2.0, 1.0], 0..2), quantity(&[4.0], 2..3)];
        let found = agreements(&both, LIMITS, &[1e-5, 1e-6], line).unwrap();
        assert!(
            found[0].error < 1e-7 && (found[1].error - 0.2).abs() < 1e-6,
            "{found:?}"
        );
    }
}
