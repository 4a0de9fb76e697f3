//! How far rounding errors of the gradients can move a step.
//!
//! Adam and its relatives divide by the root of a second moment. Where a gradient is zero up to rounding (the key biases of softmax
//! attention), rounding alone decides whether the step is +η or −η. A check of recorded steps must not call that an
//! error, and must not overlook a real one. [`Rounding`] follows the errors of the gradients through the moments.
//!
//! Let δ bound the error of each element of a step's gradient. The first moment is a weighted sum of gradients with
//! weights that are at least 0, so its error is at most the same sum of δ. The root of the second moment is a weighted
//! Euclidean norm of the gradients, so by the triangle inequality its error is at most the same norm of δ. The moved
//! distance is monotonic in both, so its largest change is at a corner.

use std::ops::Range;

use candle_core::DType;

use super::clip::Clip;
use super::error::{UpdateError, check};
use super::moments::{adagrad_factor, bias_corrections};
use super::rule::UpdateRule;
use super::settings::{Blocks, GroupHyper, Settings};
use super::step::{StepPoint, trust_ratio};
use crate::real::Real;
use crate::vectors::norm_of;

/// δ in units of the last place of the gradient's largest element. A sum over a batch rounds its terms, which may be
/// much larger than the sum. The largest element of the whole gradient measures the size of such terms.
const PLACES: f64 = 64.0;

/// Smallest share of an element's step that rounding must be able to change for a bound to be reported. Other elements
/// are as well determined as those of plain SGD.
const SHARE: f64 = 1.0 / 16.0;

/// Bounds the effect of rounding on the steps of a run, from a step at which the optimizer's state is known.
#[derive(Debug, Clone)]
pub struct Rounding {
    /// Error of the first moment, one per tensor.
    first: Vec<f64>,
    /// Square of the error of the root of the second moment, without bias correction, one per tensor.
    second: Vec<f64>,
    /// Error of RMSprop's velocity, (p); empty until it is needed.
    velocity: Vec<f64>,
}

/// One tensor of a step: the values that its bounds are computed from.
struct Part<'a, T> {
    tensor: usize,
    range: Range<usize>,
    hyper: GroupHyper,
    /// Number of updates before the step.
    done: u64,
    /// Factor of the gradient by clipping.
    scale: f64,
    /// δ.
    delta: f64,
    before: StepPoint<'a, T>,
    /// The state after the step.
    after: &'a [T],
}

impl<T: Real> Part<'_, T> {
    /// Quantity number `slot` of the state after the step.
    fn state(&self, slot: usize, i: usize) -> f64 {
        let p = self.before.parameters.len();
        self.after.get(slot * p + i).map_or(0.0, |x| x.wide())
    }

    /// The gradient that the rule sees, with coupled decay.
    fn seen(&self, i: usize) -> f64 {
        let decay = self.hyper.weight_decay * self.before.parameters[i].wide();
        self.scale * self.before.gradient[i].wide() + decay
    }

    fn parameters(&self) -> f64 {
        norm_of(self.range.clone().map(|i| self.before.parameters[i].wide()))
    }
}

impl Rounding {
    /// Bounds for steps that start from an exact state.
    pub fn new(blocks: &Blocks) -> Self {
        Self {
            first: vec![0.0; blocks.tensors()],
            second: vec![0.0; blocks.tensors()],
            velocity: Vec::new(),
        }
    }

    /// The bounds of the next step: for each parameter, (p), the largest distance between two results of the step that
    /// rounding of the gradients explains. The bound is 0 where rounding changes less than a sixteenth of the step, and
    /// for steps that are as well determined as their gradients, such as those of SGD.
    ///
    /// `after` is the optimizer's state after the step from `before`.
    ///
    /// # Errors
    /// [`UpdateError`] if lengths, flags or groups don't fit together.
    pub fn step<T: Real>(
        &mut self,
        rule: &UpdateRule,
        blocks: &Blocks,
        settings: &Settings,
        before: StepPoint<'_, T>,
        after: &[T],
    ) -> Result<Vec<f64>, UpdateError> {
        before.check(rule, blocks)?;
        let p = blocks.values();
        check("the optimizer's state", rule.state_values(p), after.len())?;
        let done = settings.optimizer_step;
        if done == 0 {
            *self = Self::new(blocks);
        }
        let mut bounds = vec![0.0; p];
        if matches!(rule, UpdateRule::Sgd { .. }) {
            return Ok(bounds);
        }
        let (delta, scale) = error_of(blocks, settings, before.gradient)?;
        for (tensor, (block, &trained)) in blocks.iter().zip(&settings.trained).enumerate() {
            if !trained {
                continue;
            }
            let part = Part {
                tensor,
                range: block.range.clone(),
                hyper: settings.hyper(tensor, block)?,
                done,
                scale,
                delta,
                before,
                after,
            };
            let to = &mut bounds[block.range.clone()];
            match *rule {
                UpdateRule::Muon { .. } if block.rows.is_some() => {}
                UpdateRule::Adam {
                    beta1, beta2, eps, ..
                }
                | UpdateRule::AdamW {
                    beta1, beta2, eps, ..
                }
                | UpdateRule::Muon {
                    beta1, beta2, eps, ..
                } => {
                    let (steps, spreads) = self.moments((beta1, beta2, eps), &part);
                    for (to, (step, spread)) in to.iter_mut().zip(steps.iter().zip(spreads)) {
                        *to = part.hyper.learning_rate * notable(step.abs(), spread);
                    }
                }
                UpdateRule::Lamb {
                    beta1, beta2, eps, ..
                } => self.lamb((beta1, beta2, eps), &part, to),
                UpdateRule::RmsProp {
                    alpha,
                    eps,
                    momentum,
                    centered,
                    ..
                } => self.rmsprop((alpha, eps, momentum, centered), &part, to),
                UpdateRule::Adagrad { lr_decay, eps, .. } => {
                    self.second[tensor] += delta * delta;
                    let off = self.second[tensor].sqrt();
                    let rate = part.hyper.learning_rate * adagrad_factor(lr_decay, done);
                    for (to, i) in to.iter_mut().zip(part.range.clone()) {
                        let root = part.state(0, i).sqrt();
                        let g = part.seen(i).abs();
                        let (step, spread) = spread((g, delta), (root, off), eps);
                        *to = rate * notable(step, spread.min(2.0));
                    }
                }
                UpdateRule::Lion { beta1, beta2, .. } => {
                    let off = beta1 * self.first[tensor] + (1.0 - beta1) * delta;
                    self.first[tensor] = beta2 * self.first[tensor] + (1.0 - beta2) * delta;
                    for (to, i) in to.iter_mut().zip(part.range.clone()) {
                        let g = scale * before.gradient[i].wide();
                        let direction = beta1 * before.state[i].wide() + (1.0 - beta1) * g;
                        if direction.abs() <= off {
                            *to = 2.0 * part.hyper.learning_rate;
                        }
                    }
                }
                UpdateRule::Sgd { .. } => {}
            }
        }
        // Both results of a step are rounded, too.
        for (bound, x) in bounds.iter_mut().zip(before.parameters) {
            if *bound > 0.0 {
                *bound += 4.0 * epsilon::<T>() * (x.wide().abs() + *bound);
            }
        }
        Ok(bounds)
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

    fn lamb<T: Real>(&mut self, constants: (f64, f64, f64), part: &Part<'_, T>, to: &mut [f64]) {
        let (mut directions, spreads) = self.moments(constants, part);
        for (a, i) in directions.iter_mut().zip(part.range.clone()) {
            *a += part.hyper.weight_decay * part.before.parameters[i].wide();
        }
        let (theta, a) = (part.parameters(), norm_of(directions.iter().copied()));
        let eta = part.hyper.learning_rate;
        // If rounding decides the length of the direction, it also decides the ratio of the norms. No step is longer than
        // η‖θ‖.
        let share = norm_of(spreads.iter().copied()) / a;
        let decided = theta > 0.0 && (share.is_nan() || share > SHARE);
        let rate = eta * trust_ratio(theta, a);
        for (to, (a, spread)) in to.iter_mut().zip(directions.iter().zip(spreads)) {
            *to = if decided {
                2.0 * eta * theta
            } else {
                // With the change of the ratio, which is at most 1/(1 − share).
                let spread = (spread + share * a.abs()) / (1.0 - share);
                rate * notable(a.abs(), spread)
            };
        }
    }

    fn rmsprop<T: Real>(
        &mut self,
        (alpha, eps, momentum, centered): (f64, f64, f64, bool),
        part: &Part<'_, T>,
        to: &mut [f64],
    ) {
        let second = &mut self.second[part.tensor];
        *second = alpha * *second + (1.0 - alpha) * part.delta * part.delta;
        let off = second.sqrt();
        let slot = usize::from(centered) + usize::from(momentum > 0.0);
        // The direction's largest length: c is at least α(1−α)g² if centred, and at least (1−α)g² otherwise.
        let least = (1.0 - alpha) * if centered { alpha } else { 1.0 };
        let farthest = 2.0 / least.sqrt();
        if momentum > 0.0 && self.velocity.is_empty() {
            self.velocity = vec![0.0; part.before.parameters.len()];
        }
        for (to, i) in to.iter_mut().zip(part.range.clone()) {
            let mean = if centered { part.state(0, i) } else { 0.0 };
            let root = (part.state(slot, i) - mean * mean).max(0.0).sqrt();
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
}

/// The change, or 0 if it is a small share of the step.
fn notable(step: f64, spread: f64) -> f64 {
    if spread > SHARE * step { spread } else { 0.0 }
}

/// `m/(root + ε)`, and its largest change if m and the root are off by these amounts.
fn spread((m, off): (f64, f64), (root, root_off): (f64, f64), eps: f64) -> (f64, f64) {
    let step = m / (root + eps);
    let farthest = (m + off) / ((root - root_off).max(0.0) + eps);
    (step, farthest - step)
}

/// Bound of the error of each element of the clipped gradient, and the factor of clipping.
fn error_of<T: Real>(
    blocks: &Blocks,
    settings: &Settings,
    gradient: &[T],
) -> Result<(f64, f64), UpdateError> {
    let active = settings.active(blocks)?;
    let parts = || active.iter().map(|(range, _)| &gradient[range.clone()]);
    let largest = parts()
        .flatten()
        .fold(0.0_f64, |m, g| m.max(g.wide().abs()));
    let clip = match settings.clip_norm {
        None => None,
        threshold => Clip::of(Clip::norm(parts()), threshold),
    };
    let scale = clip.map_or(1.0, |c| c.scale);
    Ok((PLACES * epsilon::<T>() * largest * scale, scale))
}

/// Distance from 1 to the next number of the type.
fn epsilon<T: Real>() -> f64 {
    if T::DTYPE == DType::F64 {
        f64::EPSILON
    } else {
        f64::from(f32::EPSILON)
    }
}

/// Largest possible `|m̂|/√n̂` after `done + 1` steps, by the inequality of Cauchy and Schwarz: the root of the sum of
/// the squared weights of m̂ over the weights of n̂.
fn longest(beta1: f64, beta2: f64, done: u64) -> f64 {
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
