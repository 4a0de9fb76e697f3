//! The errors of an optimizer's state, and the bounds of each rule's step.

use super::part::{Part, SHARE, longest, notable, spread};
use crate::real::Real;
use crate::update::moments::{adagrad_factor, bias_corrections};
use crate::update::muon::{LONGEST, shape_factor};
use crate::update::settings::Blocks;
use crate::update::step::trust_ratio;
use crate::vectors::norm_of;

/// The errors that a state has collected from those of the gradients.
#[derive(Debug, Clone)]
pub(super) struct Errors {
    /// Error of the first moment, one per tensor.
    first: Vec<f64>,
    /// Square of the error of the root of the second moment, without bias correction, one per tensor.
    second: Vec<f64>,
    /// Error of RMSprop's velocity, (p); empty until it is needed.
    velocity: Vec<f64>,
}

impl Errors {
    pub fn new(blocks: &Blocks) -> Self {
        Self {
            first: vec![0.0; blocks.tensors()],
            second: vec![0.0; blocks.tensors()],
            velocity: Vec::new(),
        }
    }

    /// The state of a tensor is exact before its optimizer's first step.
    pub fn clear<T>(&mut self, part: &Part<'_, T>) {
        (self.first[part.tensor], self.second[part.tensor]) = (0.0, 0.0);
        if let Some(velocity) = self.velocity.get_mut(part.range.clone()) {
            velocity.fill(0.0);
        }
    }

    /// The directions `m̂/(√n̂+ε)` of a tensor, and how far rounding can move each.
    fn moments<T: Real>(
        &mut self,
        (beta1, beta2, eps): (f64, f64, f64),
        part: &Part<'_, T>,
    ) -> (Vec<f64>, Vec<f64>) {
        let (first, second) = (&mut self.first[part.tensor], &mut self.second[part.tensor]);
        *first = beta1 * *first + (1.0 - beta1) * part.delta;
        *second = beta2 * *second + (1.0 - beta2) * part.delta * part.delta;
        let (scale1, scale2) = bias_corrections(beta1, beta2, part.done);
        let (off, root_off) = (*first * scale1, (*second * scale2).sqrt());
        let farthest = 2.0 * longest(beta1, beta2, part.done);
        let directions = part.range.clone().map(|i| {
            let m = part.state(0, i) * scale1;
            let root = (part.state(1, i) * scale2).sqrt();
            let (step, spread) = spread((m.abs(), off), (root, root_off), eps);
            (step.copysign(m), spread.min(farthest))
        });
        directions.unzip()
    }

    /// SGD: (μ, τ, Nesterov). The gradient decides all steps but those of elements whose gradient is zero up to rounding.
    pub fn sgd<T: Real>(
        &mut self,
        (momentum, dampening, nesterov): (f64, f64, bool),
        part: &Part<'_, T>,
        to: &mut [f64],
    ) {
        let first = &mut self.first[part.tensor];
        let new = if part.done == 0 { 1.0 } else { 1.0 - dampening };
        *first = momentum * *first + new * part.delta;
        // The shares of the gradient and of the momentum in the step.
        let (direct, share) = match (momentum > 0.0, nesterov) {
            (false, _) => (1.0, 0.0),
            (true, false) => (0.0, 1.0),
            (true, true) => (1.0, momentum),
        };
        let off = direct * part.delta + share * *first;
        for (to, i) in to.iter_mut().zip(part.range.clone()) {
            let step = direct * part.seen(i) + share * part.state(0, i);
            *to = part.hyper.learning_rate * notable(step.abs(), off);
        }
    }

    /// Adam, AdamW, and AdamW for Muon's vectors.
    pub fn adam<T: Real>(
        &mut self,
        constants: (f64, f64, f64),
        part: &Part<'_, T>,
        to: &mut [f64],
    ) {
        let (steps, spreads) = self.moments(constants, part);
        for (to, (step, spread)) in to.iter_mut().zip(steps.iter().zip(spreads)) {
            *to = part.hyper.learning_rate * notable(step.abs(), spread);
        }
    }

    pub fn lamb<T: Real>(
        &mut self,
        constants: (f64, f64, f64),
        part: &Part<'_, T>,
        to: &mut [f64],
    ) {
        let (mut directions, spreads) = self.moments(constants, part);
        for (a, i) in directions.iter_mut().zip(part.range.clone()) {
            *a += part.hyper.weight_decay * part.before.parameters[i].wide();
        }
        let (theta, a) = (part.parameters(), norm_of(directions.iter().copied()));
        let eta = part.hyper.learning_rate;
        // If rounding decides the length of the direction, it also decides the ratio of the norms. No step is longer than
        // η‖θ‖. For a tensor that is zero, the ratio is 1 whatever the direction is.
        let share = norm_of(spreads.iter().copied()) / a;
        let decided = share.is_nan() || share > SHARE;
        let rate = eta * trust_ratio(theta, a);
        for (to, (a, spread)) in to.iter_mut().zip(directions.iter().zip(spreads)) {
            *to = if theta == 0.0 {
                eta * notable(a.abs(), spread)
            } else if decided {
                2.0 * eta * theta
            } else {
                // With the change of the ratio, which is at most 1/(1 − share).
                let spread = (spread + share * a.abs()) / (1.0 - share);
                rate * notable(a.abs(), spread)
            };
        }
    }

    /// RMSprop: (α, ε, μ, centred).
    pub fn rmsprop<T: Real>(
        &mut self,
        (alpha, eps, momentum, centered): (f64, f64, f64, bool),
        part: &Part<'_, T>,
        to: &mut [f64],
    ) {
        let second = &mut self.second[part.tensor];
        *second = alpha * *second + (1.0 - alpha) * part.delta * part.delta;
        let off = second.sqrt();
        let slot = usize::from(centered) + usize::from(momentum > 0.0);
        // The direction's largest length: v is at least (1−α)g². If it is centred, nothing limits it: v − ḡ² goes to 0 if
        // all gradients are equal.
        let farthest = if centered {
            f64::INFINITY
        } else {
            2.0 / (1.0 - alpha).sqrt()
        };
        if momentum > 0.0 && self.velocity.is_empty() {
            self.velocity = vec![0.0; part.before.parameters.len()];
        }
        for (to, i) in to.iter_mut().zip(part.range.clone()) {
            let (root, off) = if centered {
                // Both terms of the difference are averages of 1/(1−α) steps, each rounded.
                let (square, mean) = (part.state(slot, i), part.state(0, i));
                let error = 4.0 * T::SPACING * square / (1.0 - alpha);
                let difference = (square - mean * mean).max(0.0);
                let root = difference.sqrt();
                let less = root - (difference - error).max(0.0).sqrt();
                let more = (difference + error).sqrt() - root;
                (root, off + less.max(more))
            } else {
                (part.state(slot, i).sqrt(), off)
            };
            let g = part.seen(i).abs();
            let (mut step, spread) = spread((g, part.delta), (root, off), eps);
            let mut spread = spread.min(farthest);
            if let Some(velocity) = self.velocity.get_mut(i) {
                *velocity = momentum * *velocity + spread;
                (step, spread) = (part.state(slot - 1, i).abs(), *velocity);
            }
            *to = part.hyper.learning_rate * notable(step, spread);
        }
    }

    pub fn adagrad<T: Real>(
        &mut self,
        (lr_decay, eps): (f64, f64),
        part: &Part<'_, T>,
        to: &mut [f64],
    ) {
        let second = &mut self.second[part.tensor];
        *second += part.delta * part.delta;
        let off = second.sqrt();
        let rate = part.hyper.learning_rate * adagrad_factor(lr_decay, part.done);
        for (to, i) in to.iter_mut().zip(part.range.clone()) {
            let root = part.state(0, i).sqrt();
            let (step, spread) = spread((part.seen(i).abs(), part.delta), (root, off), eps);
            *to = rate * notable(step, spread.min(2.0));
        }
    }

    pub fn lion<T: Real>(
        &mut self,
        (beta1, beta2): (f64, f64),
        part: &Part<'_, T>,
        to: &mut [f64],
    ) {
        let first = &mut self.first[part.tensor];
        let off = beta1 * *first + (1.0 - beta1) * part.delta;
        *first = beta2 * *first + (1.0 - beta2) * part.delta;
        for (to, i) in to.iter_mut().zip(part.range.clone()) {
            let direction = beta1 * part.state_before(0, i) + (1.0 - beta1) * part.clipped(i);
            if direction.abs() <= off {
                *to = 2.0 * part.hyper.learning_rate;
            }
        }
    }

    /// A matrix of Muon: (μ, Nesterov). The step depends on `U/‖U‖`, so rounding decides it if it decides U. A bound is
    /// reported for all elements then, and for none otherwise.
    pub fn matrix<T: Real>(
        &mut self,
        (momentum, nesterov): (f64, bool),
        part: &Part<'_, T>,
        to: &mut [f64],
    ) {
        let first = &mut self.first[part.tensor];
        *first = momentum * *first + (1.0 - momentum) * part.delta;
        let (direct, share) = if nesterov {
            (1.0 - momentum, momentum)
        } else {
            (0.0, 1.0)
        };
        let off = direct * part.delta + share * *first;
        let update = part.range.clone();
        let update = update.map(|i| direct * part.clipped(i) + share * part.state(0, i));
        let len = part.range.len();
        if off * (len as f64).sqrt() > SHARE * norm_of(update) {
            let factor = shape_factor(part.rows.unwrap_or(1), len);
            to.fill(2.0 * LONGEST * part.hyper.learning_rate * factor);
        }
    }
}
