//! The update of the parameters.

use super::clip::Clip;
use super::error::{UpdateError, check};
use super::rule::UpdateRule;
use super::settings::{Blocks, Settings};
use crate::real::Real;

/// The values from which a step starts.
#[derive(Debug, Clone, Copy)]
pub struct StepPoint<'a, T> {
    /// θ_t, (p).
    pub parameters: &'a [T],
    /// G_t, the gradient of the batch loss before clipping and decay, (p). Values of untrained tensors are ignored.
    pub gradient: &'a [T],
    /// The optimizer's state before the step ([`UpdateRule::state_values`]).
    pub state: &'a [T],
}

impl<T: Real> StepPoint<'_, T> {
    pub(super) fn check(&self, rule: &UpdateRule, blocks: &Blocks) -> Result<(), UpdateError> {
        let p = blocks.values();
        check("the parameter vector", p, self.parameters.len())?;
        check("the gradient", p, self.gradient.len())?;
        check(
            "the optimizer's state",
            rule.state_values(p),
            self.state.len(),
        )
    }
}

impl UpdateRule {
    /// Updates the parameters from θ_t to θ_{t+1}, and the optimizer's state, in place.
    ///
    /// Each operation is done in `T`, in the order of PyTorch and candle, so that the result depends only on the inputs.
    /// `parameters` and `gradient` are (p), `state` is ([`UpdateRule::state_values`]).
    ///
    /// # Errors
    /// [`UpdateError`] if lengths, flags or groups don't fit together. Nothing is then changed.
    pub fn step<T: Real>(
        &self,
        blocks: &Blocks,
        settings: &Settings,
        parameters: &mut [T],
        gradient: &[T],
        state: &mut [T],
    ) -> Result<(), UpdateError> {
        StepPoint {
            parameters,
            gradient,
            state,
        }
        .check(self, blocks)?;
        let active = settings.active(blocks)?;
        let clip = match settings.clip_norm {
            None => None,
            threshold => Clip::of(
                Clip::norm(active.iter().map(|(range, _)| &gradient[range.clone()])),
                threshold,
            ),
        };
        let scale = clip.map(|c| T::of(c.scale));
        let clipped = |g: T| scale.map_or(g, |c| g * c);
        let (one, p) = (T::of(1.0), blocks.values());
        let k = settings.optimizer_step;
        for (range, hyper) in active {
            let (eta, decay) = (T::of(hyper.learning_rate), T::of(hyper.weight_decay));
            let decays = hyper.weight_decay != 0.0;
            let theta = &mut parameters[range.clone()];
            let gradient = &gradient[range.clone()];
            match *self {
                Self::Sgd { momentum: 0.0, .. } => {
                    for (x, &g) in theta.iter_mut().zip(gradient) {
                        let mut g = clipped(g);
                        if decays {
                            g += decay * *x;
                        }
                        *x -= eta * g;
                    }
                }
                Self::Sgd {
                    momentum,
                    dampening,
                    nesterov,
                    ..
                } => {
                    let (mu, rest) = (T::of(momentum), T::of(1.0 - dampening));
                    let velocity = &mut state[range];
                    for ((x, &g), b) in theta.iter_mut().zip(gradient).zip(velocity) {
                        let mut g = clipped(g);
                        if decays {
                            g += decay * *x;
                        }
                        *b = if k == 0 { g } else { mu * *b + rest * g };
                        *x -= eta * if nesterov { g + mu * *b } else { *b };
                    }
                }
                Self::Adam {
                    beta1, beta2, eps, ..
                }
                | Self::AdamW {
                    beta1, beta2, eps, ..
                } => {
                    let coupled = matches!(self, Self::Adam { .. });
                    let (scale1, scale2) = bias_corrections(beta1, beta2, k);
                    let (scale1, scale2) = (T::of(scale1), T::of(scale2));
                    let keep = T::of(1.0 - hyper.learning_rate * hyper.weight_decay);
                    let (b1, b2, eps) = (T::of(beta1), T::of(beta2), T::of(eps));
                    let (c1, c2) = (T::of(1.0 - beta1), T::of(1.0 - beta2));
                    let (first, second) = state.split_at_mut(p);
                    let moments = first[range.clone()].iter_mut().zip(&mut second[range]);
                    for ((x, &g), (m, n)) in theta.iter_mut().zip(gradient).zip(moments) {
                        let mut g = clipped(g);
                        if coupled && decays {
                            g += decay * *x;
                        }
                        *m = *m * b1 + g * c1;
                        *n = *n * b2 + g * g * c2;
                        let move_ = *m * scale1 / ((*n * scale2).root() + eps);
                        *x = *x * if coupled { one } else { keep } - move_ * eta;
                    }
                }
            }
        }
        Ok(())
    }
}

/// `1/(1−β1^k)` and `1/(1−β2^k)` with k counted from 1, for an optimizer that has done `done` steps.
pub(super) fn bias_corrections(beta1: f64, beta2: f64, done: u64) -> (f64, f64) {
    let power = |beta: f64| {
        // The power becomes 0 in float64 long before the exponent exceeds i32.
        let k = i32::try_from(done.saturating_add(1)).unwrap_or(i32::MAX);
        1.0 / (1.0 - beta.powi(k))
    };
    (power(beta1), power(beta2))
}
