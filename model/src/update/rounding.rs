//! How far rounding errors of the gradients can move a step.
//!
//! Where a gradient is zero up to rounding (a bias before batch norm, the key biases of softmax attention), rounding alone decides
//! the direction of the step. Adam and its relatives divide by the root of a second moment, so that the step is a whole +η or
//! −η there. A check of recorded steps must not call that an error, and must not overlook a real one. [`Rounding`] follows the errors of the gradients through the moments.
//!
//! Let δ bound the error of each element of a step's gradient. The first moment is a weighted sum of gradients with
//! weights that are at least 0, so its error is at most the same sum of δ. The root of the second moment is a weighted
//! Euclidean norm of the gradients, so by the triangle inequality its error is at most the same norm of δ. The moved
//! distance is monotonic in both, so its largest change is at a corner.

mod errors;
mod part;

use super::clip::Clip;
use super::error::{UpdateError, check};
use super::rule::UpdateRule;
use super::settings::{Blocks, Settings};
use super::step::StepPoint;
use crate::real::Real;
use errors::Errors;
use part::{Part, SHARE};

/// δ in units of the last place of the gradient's largest element. A sum over a batch rounds its terms, which may be
/// much larger than the sum. The largest element of the whole gradient measures the size of such terms.
const PLACES: f64 = 64.0;

/// Bounds the effect of rounding on the steps of a run, from a step at which the optimizer's state is known.
#[derive(Debug, Clone)]
pub struct Rounding {
    errors: Errors,
}

impl Rounding {
    /// Bounds for steps that start from an exact state.
    pub fn new(blocks: &Blocks) -> Self {
        Self {
            errors: Errors::new(blocks),
        }
    }

    /// The bounds of the next step: for each parameter, (p), the largest distance between two results of the step that
    /// rounding of the gradients explains. The bound is 0 where rounding changes less than a sixteenth of the step, as it does
    /// for most elements. A matrix of Muon has a bound only if rounding decides the matrix as a whole, not if it decides its
    /// small singular values.
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
        let mut bounds = vec![0.0; p];
        // In types of 16 bits, δ is of the gradient's own size, and a bound would excuse all elements of SGD's steps.
        if matches!(rule, UpdateRule::Sgd { .. }) && PLACES * T::SPACING >= SHARE {
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
                rows: block.rows,
                hyper: settings.hyper(tensor, block)?,
                done: settings.optimizer_step,
                initial: rule.initial_value(),
                scale,
                delta,
                before,
                after,
            };
            if part.done == 0 {
                // Other tensors may belong to an optimizer that takes turns with this one.
                self.errors.clear(&part);
            }
            self.tensor(rule, &part, &mut bounds[block.range.clone()]);
        }
        // Both results of a step are rounded, too.
        for (bound, x) in bounds.iter_mut().zip(before.parameters) {
            if *bound > 0.0 {
                *bound += 4.0 * T::SPACING * (x.wide().abs() + *bound);
            }
        }
        Ok(bounds)
    }

    /// The bounds of one tensor.
    fn tensor<T: Real>(&mut self, rule: &UpdateRule, part: &Part<'_, T>, to: &mut [f64]) {
        let errors = &mut self.errors;
        match *rule {
            UpdateRule::Sgd {
                momentum,
                dampening,
                nesterov,
                ..
            } => errors.sgd((momentum, dampening, nesterov), part, to),
            UpdateRule::Muon {
                momentum, nesterov, ..
            } if part.rows.is_some() => errors.matrix((momentum, nesterov), part, to),
            UpdateRule::Adam {
                beta1, beta2, eps, ..
            }
            | UpdateRule::AdamW {
                beta1, beta2, eps, ..
            }
            | UpdateRule::Muon {
                beta1, beta2, eps, ..
            } => errors.adam((beta1, beta2, eps), part, to),
            UpdateRule::Lamb {
                beta1, beta2, eps, ..
            } => errors.lamb((beta1, beta2, eps), part, to),
            UpdateRule::RmsProp {
                alpha,
                eps,
                momentum,
                centered,
                ..
            } => errors.rmsprop((alpha, eps, momentum, centered), part, to),
            UpdateRule::Adagrad { lr_decay, eps, .. } => errors.adagrad((lr_decay, eps), part, to),
            UpdateRule::Lion { beta1, beta2, .. } => errors.lion((beta1, beta2), part, to),
        }
    }
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
    Ok((PLACES * T::SPACING * largest * scale, scale))
}
