//! The two float types that the kernels run in.

use std::ops::Neg;

use hindcast_model::real::Real;

/// f32 or f64, with the functions that layers are made of.
pub(super) trait Number: Real + Neg<Output = Self> {
    const ZERO: Self;
    const ONE: Self;
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    fn is_nan(self) -> bool;
    /// `self` if `pass`, otherwise 0. It has no branch and no masked store, which would be slow.
    fn kept_if(self, pass: bool) -> Self;

    /// 1/(1 + e^−x); the exponent is never positive, so nothing overflows.
    fn logistic(self) -> Self {
        if self >= Self::ZERO {
            Self::ONE / (Self::ONE + (-self).exp())
        } else {
            let e = self.exp();
            e / (Self::ONE + e)
        }
    }
}

macro_rules! number {
    ($t:ty, $bits:ty, $erf:path) => {
        impl Number for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
            fn erf(self) -> Self {
                $erf(self)
            }
            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }
            #[inline(always)]
            fn kept_if(self, pass: bool) -> Self {
                <$t>::from_bits(self.to_bits() & <$bits>::from(pass).wrapping_neg())
            }
        }
    };
}
number!(f32, u32, libm::erff);
number!(f64, u64, libm::erf);

/// Number of running sums side by side: they vectorise, and shorter sums round less.
const LANES: usize = 16;
/// Number of elements that are summed in the kernels' own type before float64 takes over.
const BLOCK: usize = 1024;

/// Σ x in a fixed order.
pub(super) fn sum<T: Number>(x: &[T]) -> f64 {
    x.chunks(BLOCK)
        .map(|x| {
            let mut lanes = [T::ZERO; LANES];
            let (whole, rest) = x.as_chunks::<LANES>();
            for x in whole {
                for (lane, &x) in lanes.iter_mut().zip(x) {
                    *lane += x;
                }
            }
            for (lane, &x) in lanes.iter_mut().zip(rest) {
                *lane += x;
            }
            fold(lanes)
        })
        .sum()
}

/// Σ f(x_i, y_i) in a fixed order.
pub(super) fn sum_of<T: Number>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> f64 {
    x.chunks(BLOCK)
        .zip(y.chunks(BLOCK))
        .map(|(x, y)| {
            let mut lanes = [T::ZERO; LANES];
            let (xs, x) = x.as_chunks::<LANES>();
            let (ys, y) = y.as_chunks::<LANES>();
            for (x, y) in xs.iter().zip(ys) {
                for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                    *lane += f(x, y);
                }
            }
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += f(x, y);
            }
            fold(lanes)
        })
        .sum()
}

fn fold<T: Number>(lanes: [T; LANES]) -> f64 {
    lanes.iter().map(|x| x.wide()).sum()
}
