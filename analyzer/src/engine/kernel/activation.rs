//! Activations, and the mask of dropout.
//!
//! With y = f(x): ẏ = f' ẋ, g_x = f' g and ġ_x = f' ġ + f'' ẋ g. Activations whose f' and f'' are functions of y work
//! in place.

use super::number::Number;
use hindcast_model::wide::{Loop, wide};

/// Replaces x and ẋ, blocks of `block` values back to back, by y and ẏ.
pub(super) fn relu<T: Number>(values: &mut [T], block: usize) {
    let (y, tangents) = values.split_at_mut(block);
    wide::<Gate, _>((&mut *tangents, &*y));
    wide::<Cut, _>(y);
}

struct Cut;

impl<T: Number> Loop<&mut [T]> for Cut {
    #[inline(always)]
    fn run(x: &mut [T]) {
        for x in x {
            // NaN stays NaN.
            let stays = (*x > T::ZERO) | x.is_nan();
            *x = x.kept_if(stays);
        }
    }
}

/// Turns the cotangents of y into those of x, in all given blocks.
pub(super) fn relu_back<T: Number>(y: &[T], cotangents: &mut [T]) {
    wide::<Gate, _>((cotangents, y));
}

/// Zeroes `x` where `y` is not above 0, block by block: the derivative at 0 is 0.
struct Gate;

impl<'a, T: Number> Loop<(&'a mut [T], &'a [T])> for Gate {
    #[inline(always)]
    fn run((x, y): (&'a mut [T], &'a [T])) {
        for x in x.chunks_exact_mut(y.len()) {
            for (x, &y) in x.iter_mut().zip(y) {
                *x = x.kept_if(y > T::ZERO);
            }
        }
    }
}

/// An activation whose derivatives are functions of its output.
#[derive(Clone, Copy)]
pub(super) enum Curve {
    Tanh,
    Sigmoid,
}

impl Curve {
    /// (f', f''/f') at y.
    fn slopes<T: Number>(self, y: T) -> (T, T) {
        let two = T::ONE + T::ONE;
        match self {
            Self::Tanh => (T::ONE - y * y, -(two * y)),
            Self::Sigmoid => (y * (T::ONE - y), T::ONE - two * y),
        }
    }

    pub fn forward<T: Number>(self, values: &mut [T], block: usize) {
        let (y, tangents) = values.split_at_mut(block);
        for y in y.iter_mut() {
            *y = match self {
                Self::Tanh => y.tanh(),
                Self::Sigmoid => y.logistic(),
            };
        }
        for tangent in tangents.chunks_exact_mut(block) {
            for (t, &y) in tangent.iter_mut().zip(&*y) {
                *t *= self.slopes(y).0;
            }
        }
    }

    /// `values` are y and ẏ; ẏ = f' ẋ, so f'' ẋ = (f''/f') ẏ.
    pub fn backward<T: Number>(self, values: &[T], block: usize, cotangents: &mut [T]) {
        let (y, moved) = values.split_at(block);
        let (g, tangents) = cotangents.split_at_mut(block);
        for (tangent, moved) in tangents
            .chunks_exact_mut(block)
            .zip(moved.chunks_exact(block))
        {
            for (((t, &g), &y), &moved) in tangent.iter_mut().zip(&*g).zip(y).zip(moved) {
                let (first, ratio) = self.slopes(y);
                *t = first * *t + ratio * moved * g;
            }
        }
        for (g, &y) in g.iter_mut().zip(y) {
            *g *= self.slopes(y).0;
        }
    }
}

/// (Φ(x), φ(x)) of the normal distribution.
fn normal<T: Number>(x: T) -> (T, T) {
    let half = T::of(0.5);
    let cdf = half + half * (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf();
    let density = (-(half * x * x)).exp() * T::of(0.398_942_280_401_432_7);
    (cdf, density)
}

/// y = x Φ(x) and ẏ.
pub(super) fn gelu<T: Number>(x: &[T], block: usize, y: &mut [T]) {
    let (x, moved) = x.split_at(block);
    let (y, tangents) = y.split_at_mut(block);
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x * normal(x).0;
    }
    for (tangent, moved) in tangents
        .chunks_exact_mut(block)
        .zip(moved.chunks_exact(block))
    {
        for ((t, &x), &moved) in tangent.iter_mut().zip(x).zip(moved) {
            let (cdf, density) = normal(x);
            *t = (cdf + x * density) * moved;
        }
    }
}

/// Turns the cotangents of y into those of x, with f' = Φ + x φ and f'' = φ (2 − x²).
pub(super) fn gelu_back<T: Number>(x: &[T], block: usize, cotangents: &mut [T]) {
    let (x, moved) = x.split_at(block);
    let (g, tangents) = cotangents.split_at_mut(block);
    let two = T::ONE + T::ONE;
    for (tangent, moved) in tangents
        .chunks_exact_mut(block)
        .zip(moved.chunks_exact(block))
    {
        for (((t, &g), &x), &moved) in tangent.iter_mut().zip(&*g).zip(x).zip(moved) {
            let (cdf, density) = normal(x);
            *t = (cdf + x * density) * *t + density * (two - x * x) * moved * g;
        }
    }
    for (g, &x) in g.iter_mut().zip(x) {
        let (cdf, density) = normal(x);
        *g *= cdf + x * density;
    }
}

/// Multiplies each block by the mask.
pub(super) fn masked<T: Number>(mask: &[T], blocks: &mut [T]) {
    for block in blocks.chunks_exact_mut(mask.len()) {
        for (x, &m) in block.iter_mut().zip(mask) {
            *x *= m;
        }
    }
}
