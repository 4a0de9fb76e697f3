//! The update of the parameters.

mod adaptive;
mod momentum;

use super::clip::Clip;
use super::error::{UpdateError, check};
use super::moments::adagrad_factor;
use super::muon;
use super::rule::UpdateRule;
use super::settings::{Block, Blocks, GroupHyper, Settings};
use crate::real::Real;
use adaptive::Moments;

pub(super) use adaptive::trust_ratio;

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

/// The gradient that a rule sees: after clipping, and with the decay if that is coupled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<T> {
    scale: Option<T>,
    decay: Option<T>,
}

impl<T: Real> Seen<T> {
    pub fn new(clip: Option<Clip>, coupled: bool, hyper: GroupHyper) -> Self {
        let decays = coupled && hyper.weight_decay != 0.0;
        Seen {
            scale: clip.map(|c| T::of(c.scale)),
            decay: decays.then(|| T::of(hyper.weight_decay)),
        }
    }

    /// From an element of the gradient and its parameter.
    pub fn of(&self, g: T, x: T) -> T {
        let g = self.scale.map_or(g, |c| g * c);
        self.decay.map_or(g, |decay| g + decay * x)
    }
}

impl UpdateRule {
    /// Updates the parameters from θ_t to θ_{t+1}, and the optimizer's state, in place. The optimizer's first step starts
    /// from the initial state of the trained tensors, whatever `state` holds for them.
    ///
    /// Each operation is done in `T`, in the order of PyTorch and candle, so that the result depends only on the inputs.
    /// `parameters` and `gradient` are (p), `state` is ([`UpdateRule::state_values`]).
    ///
    /// # Errors
    /// [`UpdateError`] if lengths, flags or groups don't fit together; nothing is then changed. [`UpdateError::Matrix`] if
    /// a matrix product of Muon fails.
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
        let active = settings.active_blocks(blocks)?;
        let clip = settings.clip(&active, gradient);
        let p = blocks.values();
        for (block, hyper) in active {
            let range = block.range.clone();
            let seen = Seen::new(clip, self.couples_decay(), hyper);
            let seen = |g: T, x: T| seen.of(g, x);
            let theta = (&mut parameters[range.clone()], &gradient[range.clone()]);
            if settings.optimizer_step == 0 {
                // In the middle of a run, the counter 0 says that an optimizer restarted. Other tensors may belong to
                // an optimizer that takes turns with this one.
                for slot in state.chunks_mut(p.max(1)) {
                    slot[range.clone()].fill(T::of(self.initial_value()));
                }
            }
            // Each quantity of the state, of this tensor. A state without values has no chunks.
            let mut slots = state
                .chunks_mut(p.max(1))
                .map(|slot| &mut slot[range.clone()]);
            let mut next = || slots.next().unwrap_or_default();
            let done = settings.optimizer_step;
            self.step_tensor(block, (hyper, done), theta, &mut next, seen)?;
        }
        Ok(())
    }

    /// The step of one tensor. `next` returns the tensor's part of the quantities of the state, in order.
    fn step_tensor<'a, T: Real>(
        &self,
        block: &Block,
        (hyper, done): (GroupHyper, u64),
        theta: (&mut [T], &[T]),
        next: &mut dyn FnMut() -> &'a mut [T],
        seen: impl Fn(T, T) -> T,
    ) -> Result<(), UpdateError> {
        match *self {
            Self::Sgd { momentum: 0.0, .. } => {
                let eta = T::of(hyper.learning_rate);
                for (x, &g) in theta.0.iter_mut().zip(theta.1) {
                    *x -= eta * seen(g, *x);
                }
            }
            Self::Sgd {
                momentum,
                dampening,
                nesterov,
                ..
            } => momentum::sgd(
                (momentum, dampening, nesterov),
                (hyper, done),
                theta,
                next(),
                seen,
            ),
            Self::Adam {
                beta1, beta2, eps, ..
            }
            | Self::AdamW {
                beta1, beta2, eps, ..
            } => {
                let coupled = self.couples_decay();
                let constants = Moments { beta1, beta2, eps };
                let state = (next(), next());
                adaptive::adam(constants, (hyper, coupled, done), theta, state, seen);
            }
            Self::RmsProp {
                alpha,
                eps,
                momentum,
                centered,
                ..
            } => {
                let mean = centered.then(&mut *next);
                let velocity = (momentum > 0.0).then(&mut *next);
                let (constants, rate) = ((alpha, eps, momentum), hyper.learning_rate);
                adaptive::rmsprop(constants, rate, theta, next(), (mean, velocity), seen);
            }
            Self::Adagrad { lr_decay, eps, .. } => {
                let rate = hyper.learning_rate * adagrad_factor(lr_decay, done);
                adaptive::adagrad(eps, rate, theta, next(), seen);
            }
            Self::Lamb {
                beta1, beta2, eps, ..
            } => {
                let constants = Moments { beta1, beta2, eps };
                adaptive::lamb(constants, (hyper, done), theta, (next(), next()), seen);
            }
            Self::Lion { beta1, beta2, .. } => {
                momentum::lion((beta1, beta2), hyper, theta, next(), seen);
            }
            Self::Muon {
                momentum,
                nesterov,
                beta1,
                beta2,
                eps,
                ..
            } => match block.rows {
                Some(rows) => {
                    let form = (momentum, nesterov);
                    muon::step(form, (hyper, rows), theta, next(), seen)?;
                }
                None => {
                    let constants = Moments { beta1, beta2, eps };
                    let state = (next(), next());
                    adaptive::adam(constants, (hyper, false, done), theta, state, seen);
                }
            },
        }
        Ok(())
    }
}
