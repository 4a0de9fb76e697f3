//! The steps of SGD and Lion, for one tensor.

use super::super::settings::GroupHyper;
use crate::real::Real;

/// SGD with momentum: (μ, τ, Nesterov).
pub(super) fn sgd<T: Real>(
    (momentum, dampening, nesterov): (f64, f64, bool),
    (hyper, done): (GroupHyper, u64),
    (theta, gradient): (&mut [T], &[T]),
    velocity: &mut [T],
    seen: impl Fn(T, T) -> T,
) {
    let eta = T::of(hyper.learning_rate);
    let (mu, rest) = (T::of(momentum), T::of(1.0 - dampening));
    for ((x, &g), b) in theta.iter_mut().zip(gradient).zip(velocity) {
        let g = seen(g, *x);
        *b = if done == 0 { g } else { mu * *b + rest * g };
        *x -= eta * if nesterov { g + mu * *b } else { *b };
    }
}

/// Lion: (β1, β2).
pub(super) fn lion<T: Real>(
    (beta1, beta2): (f64, f64),
    hyper: GroupHyper,
    (theta, gradient): (&mut [T], &[T]),
    momentum: &mut [T],
    seen: impl Fn(T, T) -> T,
) {
    let eta = T::of(hyper.learning_rate);
    let keep = T::of(1.0 - hyper.learning_rate * hyper.weight_decay);
    let (b1, c1) = (T::of(beta1), T::of(1.0 - beta1));
    let (b2, c2) = (T::of(beta2), T::of(1.0 - beta2));
    for ((x, &g), m) in theta.iter_mut().zip(gradient).zip(momentum) {
        let g = seen(g, *x);
        let direction = *m * b1 + g * c1;
        *m = *m * b2 + g * c2;
        *x = *x * keep - eta * sign(direction);
    }
}

/// −1, 0 or 1; NaN for NaN.
fn sign<T: Real>(x: T) -> T {
    let wide = x.wide();
    if wide > 0.0 {
        T::of(1.0)
    } else if wide < 0.0 {
        T::of(-1.0)
    } else {
        // 0 and NaN.
        x
    }
}
