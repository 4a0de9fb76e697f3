//! One tensor of a step, and how errors of its values change the step.

use std::ops::Range;

use crate::real::Real;
use crate::update::moments::bias_corrections;
use crate::update::settings::GroupHyper;
use crate::update::step::StepPoint;
use crate::vectors::norm_of;

/// Smallest share of an element's step that rounding must be able to change for a bound to be reported. Other elements
/// are as well determined as their gradients.
pub(super) const SHARE: f64 = 1.0 / 16.0;

/// One tensor of a step: the values that its bounds are computed from.
pub(super) struct Part<'a, T> {
    pub tensor: usize,
    pub range: Range<usize>,
    /// Number of rows of a matrix.
    pub rows: Option<usize>,
    pub hyper: GroupHyper,
    /// Number of updates before the step.
    pub done: u64,
    /// Every value of the state before the optimizer's first step.
    pub initial: f64,
    /// Factor of the gradient by clipping.
    pub scale: f64,
    /// δ.
    pub delta: f64,
    pub before: StepPoint<'a, T>,
    /// The state after the step.
    pub after: &'a [T],
}

impl<T: Real> Part<'_, T> {
    /// Quantity number `slot` of the state after the step.
    pub fn state(&self, slot: usize, i: usize) -> f64 {
        let p = self.before.parameters.len();
        self.after.get(slot * p + i).map_or(0.0, |x| x.wide())
    }

    /// Quantity number `slot` of the state from which the step starts: the initial state in the optimizer's first step.
    pub fn state_before(&self, slot: usize, i: usize) -> f64 {
        if self.done == 0 {
            return self.initial;
        }
        let p = self.before.parameters.len();
        self.before
            .state
            .get(slot * p + i)
            .map_or(0.0, |x| x.wide())
    }

    /// The gradient after clipping.
    pub fn clipped(&self, i: usize) -> f64 {
        self.scale * self.before.gradient[i].wide()
    }

    /// The gradient that the rule sees, with coupled decay.
    pub fn seen(&self, i: usize) -> f64 {
        self.clipped(i) + self.hyper.weight_decay * self.before.parameters[i].wide()
    }

    /// ‖θ‖.
    pub fn parameters(&self) -> f64 {
        norm_of(self.range.clone().map(|i| self.before.parameters[i].wide()))
    }
}

/// The change, or 0 if it is a small share of the step.
pub(super) fn notable(step: f64, spread: f64) -> f64 {
    if spread > SHARE * step { spread } else { 0.0 }
}

/// `m/(root + ε)`, and its largest change if m and the root are off by these amounts.
pub(super) fn spread((m, off): (f64, f64), (root, root_off): (f64, f64), eps: f64) -> (f64, f64) {
    let step = m / (root + eps);
    let farthest = (m + off) / ((root - root_off).max(0.0) + eps);
    // A root of 0 can only grow.
    let nearest = (m - off).max(0.0) / (root + root_off + eps);
    (step, (farthest - step).max(step - nearest))
}

/// Largest possible `|m̂|/√n̂` after `done + 1` steps, by the inequality of Cauchy and Schwarz: the root of the sum of
/// the squared weights of m̂ over the weights of n̂.
pub(super) fn longest(beta1: f64, beta2: f64, done: u64) -> f64 {
    let steps = i32::try_from(done.saturating_add(1)).unwrap_or(i32::MAX);
    let ratio = beta1 * beta1 / beta2;
    let sum = if (ratio - 1.0).abs() < 1e-9 {
        f64::from(steps)
    } else {
        (1.0 - ratio.powi(steps)) / (1.0 - ratio)
    };
    let (scale1, scale2) = bias_corrections(beta1, beta2, done);
    let first = (1.0 - beta1) * scale1;
    let longest = (first * first / ((1.0 - beta2) * scale2) * sum).sqrt();
    if longest.is_finite() {
        longest
    } else {
        f64::INFINITY
    }
}
