//! How far rounding errors of the gradients can move a step.
//!
//! Adam divides by the root of the second moment. Where a gradient is zero up to rounding (the key biases of softmax
//! attention), rounding alone decides whether the step is +η or −η. A check of recorded steps must not call that an
//! error, and must not overlook a real one. [`Rounding`] follows the errors of the gradients through the moments.
//!
//! Let δ bound the error of each element of a step's gradient. The first moment is a weighted sum of gradients with
//! weights that are at least 0, so its error is at most the same sum of δ. The root of the second moment is a weighted
//! Euclidean norm of the gradients, so by the triangle inequality its error is at most the same norm of δ. The moved
//! distance is monotonic in both, so its largest change is at a corner.

use candle_core::DType;

use super::clip::Clip;
use super::error::{UpdateError, check};
use super::rule::UpdateRule;
use super::settings::{Blocks, Settings};
use super::step::bias_corrections;
use crate::real::Real;

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
}

impl Rounding {
    /// Bounds for steps that start from an exact state.
    pub fn new(blocks: &Blocks) -> Self {
        Self {
            first: vec![0.0; blocks.tensors()],
            second: vec![0.0; blocks.tensors()],
        }
    }

    /// The bounds of the next step: for each parameter, (p), the largest distance between two results of the step that
    /// rounding of the gradients explains. The bound is 0 where rounding changes less than a sixteenth of the step, and
    /// for rules that don't divide by a moment.
    ///
    /// `gradient` is G_t, (p), and `state` is the optimizer's state *after* the step.
    ///
    /// # Errors
    /// [`UpdateError`] if lengths, flags or groups don't fit together.
    pub fn step<T: Real>(
        &mut self,
        rule: &UpdateRule,
        blocks: &Blocks,
        settings: &Settings,
        gradient: &[T],
        state: &[T],
    ) -> Result<Vec<f64>, UpdateError> {
        let p = blocks.values();
        check("the gradient", p, gradient.len())?;
        check("the optimizer's state", rule.state_values(p), state.len())?;
        let (UpdateRule::Adam {
            beta1, beta2, eps, ..
        }
        | UpdateRule::AdamW {
            beta1, beta2, eps, ..
        }) = *rule
        else {
            return Ok(vec![0.0; p]);
        };
        if settings.optimizer_step == 0 {
            *self = Self::new(blocks);
        }
        let delta = error_of(blocks, settings, gradient)?;
        let (scale1, scale2) = bias_corrections(beta1, beta2, settings.optimizer_step);
        let longest = longest(beta1, beta2, settings.optimizer_step);
        let mut bounds = vec![0.0; p];
        let (first, second) = state.split_at(p);
        for (tensor, (block, &trained)) in blocks.iter().zip(&settings.trained).enumerate() {
            if !trained {
                continue;
            }
            let eta = settings.hyper(tensor, block)?.learning_rate;
            self.first[tensor] = beta1 * self.first[tensor] + (1.0 - beta1) * delta;
            self.second[tensor] = beta2 * self.second[tensor] + (1.0 - beta2) * delta * delta;
            let (off, root_off) = (
                self.first[tensor] * scale1,
                (self.second[tensor] * scale2).sqrt(),
            );
            for i in block.range.clone() {
                let m = first[i].wide().abs() * scale1;
                let root = (second[i].wide() * scale2).sqrt();
                bounds[i] = eta * spread((m, off), (root, root_off), eps).min(2.0 * longest);
            }
        }
        Ok(bounds)
    }
}

/// Largest change of `m/(root + ε)` if m and the root are off by these amounts. 0 if that is a small share of it.
fn spread((m, off): (f64, f64), (root, root_off): (f64, f64), eps: f64) -> f64 {
    let step = m / (root + eps);
    let farthest = (m + off) / ((root - root_off).max(0.0) + eps);
    let spread = farthest - step;
    if spread > SHARE * step { spread } else { 0.0 }
}

/// Bound of the error of each element of the gradient that enters the moments.
fn error_of<T: Real>(
    blocks: &Blocks,
    settings: &Settings,
    gradient: &[T],
) -> Result<f64, UpdateError> {
    let active = settings.active(blocks)?;
    let parts = || active.iter().map(|(range, _)| &gradient[range.clone()]);
    let largest = parts()
        .flatten()
        .fold(0.0_f64, |m, g| m.max(g.wide().abs()));
    let clip = match settings.clip_norm {
        None => None,
        threshold => Clip::of(Clip::norm(parts()), threshold),
    };
    let epsilon = if T::DTYPE == DType::F64 {
        f64::EPSILON
    } else {
        f64::from(f32::EPSILON)
    };
    Ok(PLACES * epsilon * largest * clip.map_or(1.0, |c| c.scale))
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
