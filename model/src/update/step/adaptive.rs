//! The steps of the rules that divide by a root of squared gradients, for one tensor.

use super::super::moments::bias_corrections;
use super::super::settings::GroupHyper;
use crate::real::Real;
use crate::vectors::norm_of;

/// The constants of Adam's moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
}

/// Adam and AdamW. `seen` turns an element of the gradient and its parameter into what enters the moments.
pub(super) fn adam<T: Real>(
    constants: Moments,
    (hyper, coupled, done): (GroupHyper, bool, u64),
    (theta, gradient): (&mut [T], &[T]),
    (first, second): (&mut [T], &mut [T]),
    seen: impl Fn(T, T) -> T,
) {
    let Moments { beta1, beta2, eps } = constants;
    let eta = T::of(hyper.learning_rate);
    let (scale1, scale2) = bias_corrections(beta1, beta2, done);
    let (scale1, scale2) = (T::of(scale1), T::of(scale2));
    let keep = if coupled {
        T::of(1.0)
    } else {
        T::of(1.0 - hyper.learning_rate * hyper.weight_decay)
    };
    let (b1, b2, eps) = (T::of(beta1), T::of(beta2), T::of(eps));
    let (c1, c2) = (T::of(1.0 - beta1), T::of(1.0 - beta2));
    let moments = first.iter_mut().zip(second);
    for ((x, &g), (m, n)) in theta.iter_mut().zip(gradient).zip(moments) {
        let g = seen(g, *x);
        *m = *m * b1 + g * c1;
        *n = *n * b2 + g * g * c2;
        let move_ = *m * scale1 / ((*n * scale2).root() + eps);
        *x = *x * keep - move_ * eta;
    }
}

/// LAMB. The ratio of the norms is computed in float64.
pub(super) fn lamb<T: Real>(
    constants: Moments,
    (hyper, done): (GroupHyper, u64),
    (theta, gradient): (&mut [T], &[T]),
    (first, second): (&mut [T], &mut [T]),
    seen: impl Fn(T, T) -> T,
) {
    let Moments { beta1, beta2, eps } = constants;
    let (scale1, scale2) = bias_corrections(beta1, beta2, done);
    let (scale1, scale2) = (T::of(scale1), T::of(scale2));
    let (b1, b2, eps) = (T::of(beta1), T::of(beta2), T::of(eps));
    let (c1, c2) = (T::of(1.0 - beta1), T::of(1.0 - beta2));
    let decay = T::of(hyper.weight_decay);
    let moments = first.iter_mut().zip(second);
    let direction: Vec<T> = theta
        .iter()
        .zip(gradient)
        .zip(moments)
        .map(|((&x, &g), (m, n))| {
            let g = seen(g, x);
            *m = *m * b1 + g * c1;
            *n = *n * b2 + g * g * c2;
            *m * scale1 / ((*n * scale2).root() + eps) + decay * x
        })
        .collect();
    let ratio = trust_ratio(
        norm_of(theta.iter().map(|x| x.wide())),
        norm_of(direction.iter().map(|a| a.wide())),
    );
    let rate = T::of(hyper.learning_rate * ratio);
    for (x, a) in theta.iter_mut().zip(direction) {
        *x -= rate * a;
    }
}

/// LAMB's factor of the learning rate of a tensor: the norm of its parameters over that of its direction.
pub(in super::super) fn trust_ratio(parameters: f64, direction: f64) -> f64 {
    if parameters > 0.0 && direction > 0.0 {
        parameters / direction
    } else {
        1.0
    }
}

/// RMSprop. `mean` and `momentum` are absent for rules without them.
pub(super) fn rmsprop<T: Real>(
    (alpha, eps, mu): (f64, f64, f64),
    learning_rate: f64,
    (theta, gradient): (&mut [T], &[T]),
    square: &mut [T],
    (mut mean, mut momentum): (Option<&mut [T]>, Option<&mut [T]>),
    seen: impl Fn(T, T) -> T,
) {
    let (eta, eps, mu) = (T::of(learning_rate), T::of(eps), T::of(mu));
    let (keep, new) = (T::of(alpha), T::of(1.0 - alpha));
    let elements = theta.iter_mut().zip(gradient).zip(square);
    for (i, ((x, &g), v)) in elements.enumerate() {
        let g = seen(g, *x);
        *v = *v * keep + g * g * new;
        let root = match mean.as_deref_mut().and_then(|mean| mean.get_mut(i)) {
            Some(mean) => {
                *mean += (g - *mean) * new;
                (*v - *mean * *mean).root()
            }
            None => v.root(),
        };
        let direction = g / (root + eps);
        match momentum.as_deref_mut().and_then(|b| b.get_mut(i)) {
            Some(b) => {
                *b = *b * mu + direction;
                *x -= eta * *b;
            }
            None => *x -= eta * direction,
        }
    }
}

/// Adagrad. The learning rate already contains the rule's own decay.
pub(super) fn adagrad<T: Real>(
    eps: f64,
    learning_rate: f64,
    (theta, gradient): (&mut [T], &[T]),
    sum: &mut [T],
    seen: impl Fn(T, T) -> T,
) {
    let (eta, eps) = (T::of(learning_rate), T::of(eps));
    for ((x, &g), sum) in theta.iter_mut().zip(gradient).zip(sum) {
        let g = seen(g, *x);
        *sum += g * g;
        *x -= eta * (g / (sum.root() + eps));
    }
}
