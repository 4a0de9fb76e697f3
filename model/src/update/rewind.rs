//! The state of an optimizer before a step, from the state after it.
//!
//! The averages and sums of a state can be solved for their old values, because the gradient is known. Division by a decay
//! rate β magnifies the rounding errors by 1/β per step, so [`UpdateRule::rewindable_steps`] limits the number of steps.
//! Where gradients are far larger than all earlier ones, rounding hides the old average of squares. [`Hidden`] keeps such
//! elements.

use super::error::UpdateError;
use super::rule::UpdateRule;
use super::settings::{Block, Blocks, Settings};
use super::step::{Seen, StepPoint};

/// Largest growth of the rounding errors of float64. They stay below 1e-11 of the largest value that was averaged.
const GROWTH: f64 = 1e4;

/// Largest growth of an average or a sum of squares over which it can be recovered: rounding then hides 1e-11 of it.
const LARGEST_GROWTH: f64 = 1e5;

/// The elements of the state before a step that can't be recovered from the states after it, because gradients from this
/// step on are far larger than the earlier ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hidden {
    /// Positions of parameters, ascending.
    elements: Vec<usize>,
    /// Each element's values of the state, one per quantity.
    values: Vec<f64>,
}

impl Hidden {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether all elements can be recovered.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Puts the elements into a state that was [rewound](UpdateRule::rewind) to before the step. `parameters` is the number
    /// of parameter values, p.
    pub fn restore(&self, parameters: usize, state: &mut [f64]) {
        let quantities = state.len() / parameters.max(1);
        let values = self.values.chunks(quantities.max(1));
        for (&i, values) in self.elements.iter().zip(values) {
            for (slot, value) in state.chunks_mut(parameters).zip(values) {
                slot[i] = *value;
            }
        }
    }
}

/// The parameters and the gradient of one tensor, one element of which is rewound at a time.
struct Tensor<'a> {
    parameters: &'a [f64],
    gradient: &'a [f64],
    seen: Seen<f64>,
}

impl Tensor<'_> {
    /// The gradient that the rule saw at element `i`: after clipping and coupled decay.
    fn seen(&self, i: usize) -> f64 {
        self.seen.of(self.gradient[i], self.parameters[i])
    }

    /// Rewinds the average `a ← βa + (1−β)new`. The old value of an average with β = 0 has no effect on any step.
    fn average(&self, beta: f64, values: &mut [f64], new: impl Fn(f64) -> f64) {
        for (i, a) in values.iter_mut().enumerate() {
            *a = divided(*a - (1.0 - beta) * new(self.seen(i)), beta);
        }
    }

    /// As [`average`](Self::average), of squares, which are at least 0.
    fn average_of_squares(&self, beta: f64, values: &mut [f64]) {
        self.average(beta, values, |g| g * g);
        values.iter_mut().for_each(|a| *a = a.max(0.0));
    }
}

fn divided(x: f64, by: f64) -> f64 {
    if by == 0.0 { 0.0 } else { x / by }
}

impl UpdateRule {
    /// Number of steps that [`rewind`](Self::rewind) can go back in a row before the rounding errors have grown by 1e4.
    /// At least 1.
    pub fn rewindable_steps(&self) -> u64 {
        let steps = |beta: f64| {
            if beta > 0.0 && beta < 1.0 {
                (GROWTH.ln() / -beta.ln()) as u64
            } else {
                u64::MAX
            }
        };
        let least = match *self {
            Self::Sgd { momentum, .. } => steps(momentum),
            Self::Adam { beta1, beta2, .. }
            | Self::AdamW { beta1, beta2, .. }
            | Self::Lamb { beta1, beta2, .. } => steps(beta1).min(steps(beta2)),
            Self::RmsProp {
                alpha, momentum, ..
            } => steps(alpha).min(steps(momentum)),
            Self::Adagrad { .. } => u64::MAX,
            Self::Lion { beta2, .. } => steps(beta2),
            Self::Muon {
                momentum,
                beta1,
                beta2,
                ..
            } => steps(momentum).min(steps(beta1)).min(steps(beta2)),
        };
        least.max(1)
    }

    /// The elements of the state before a step that [`rewind`](Self::rewind) can't recover from the states after it. The
    /// other arguments are those of [`UpdateRule::step`].
    ///
    /// The steps are visited in order, from one whose state is kept. `least` is then empty; afterwards it holds, for each
    /// parameter, the smallest average or sum of squares since its state was known.
    ///
    /// # Errors
    /// [`UpdateError`] if lengths, flags or groups don't fit together.
    pub fn hidden(
        &self,
        blocks: &Blocks,
        settings: &Settings,
        at: StepPoint<'_, f64>,
        least: &mut Vec<f64>,
    ) -> Result<Hidden, UpdateError> {
        at.check(self, blocks)?;
        let mut hidden = Hidden::default();
        let Some((slot, keep, new)) = self.squares() else {
            return Ok(hidden);
        };
        let p = blocks.values();
        if least.is_empty() {
            least.resize(p, f64::INFINITY);
        }
        let active = settings.active_blocks(blocks)?;
        let clip = settings.clip(&active, at.gradient);
        for (block, hyper) in active {
            if matches!(self, Self::Muon { .. }) && block.rows.is_some() {
                continue;
            }
            let seen = Seen::new(clip, self.couples_decay(), hyper);
            for i in block.range.clone() {
                let g = seen.of(at.gradient[i], at.parameters[i]);
                if settings.optimizer_step == 0 {
                    // The first step itself hides the states before it.
                    least[i] = keep * self.initial_value() + new * g * g;
                    continue;
                }
                let before = at.state[slot * p + i];
                let after = keep * before + new * g * g;
                least[i] = least[i].min(before);
                if after > LARGEST_GROWTH * least[i] {
                    hidden.elements.push(i);
                    hidden.values.extend(at.state.chunks(p).map(|slot| slot[i]));
                    least[i] = after;
                }
            }
        }
        Ok(hidden)
    }

    /// Position of the average or sum of squares among the quantities of the state, and the factors with which a step keeps
    /// it and adds a new square; `None` for rules without one.
    fn squares(&self) -> Option<(usize, f64, f64)> {
        match *self {
            Self::Sgd { .. } | Self::Lion { .. } => None,
            Self::Adam { beta2, .. }
            | Self::AdamW { beta2, .. }
            | Self::Lamb { beta2, .. }
            | Self::Muon { beta2, .. } => Some((1, beta2, 1.0 - beta2)),
            Self::RmsProp { alpha, .. } => Some((self.slots().len() - 1, alpha, 1.0 - alpha)),
            Self::Adagrad { .. } => Some((0, 1.0, 1.0)),
        }
    }

    /// Turns the optimizer's state after a step into the one before it, in place, up to rounding. `parameters` and
    /// `gradient` are those of [`UpdateRule::step`], (p): θ_t and G_t.
    ///
    /// A step with the counter 0 hides the state before it, so the trained tensors then get the initial state. Elements that
    /// the step's gradient hides are inexact until [`Hidden::restore`].
    ///
    /// # Errors
    /// [`UpdateError`] if lengths, flags or groups don't fit together; nothing is then changed.
    pub fn rewind(
        &self,
        blocks: &Blocks,
        settings: &Settings,
        parameters: &[f64],
        gradient: &[f64],
        state: &mut [f64],
    ) -> Result<(), UpdateError> {
        let at = StepPoint {
            parameters,
            gradient,
            state,
        };
        at.check(self, blocks)?;
        let p = blocks.values();
        let active = settings.active_blocks(blocks)?;
        let clip = settings.clip(&active, gradient);
        for (block, hyper) in active {
            let range = block.range.clone();
            let slots = state.chunks_mut(p.max(1));
            let mut slots: Vec<&mut [f64]> = slots.map(|slot| &mut slot[range.clone()]).collect();
            if settings.optimizer_step == 0 {
                for slot in slots {
                    slot.fill(self.initial_value());
                }
                continue;
            }
            let tensor = Tensor {
                parameters: &parameters[range.clone()],
                gradient: &gradient[range.clone()],
                seen: Seen::new(clip, self.couples_decay(), hyper),
            };
            self.rewind_tensor(block, &tensor, &mut slots);
        }
        Ok(())
    }

    /// `slots` are the tensor's quantities of the state, in order. A tensor without values may have none.
    fn rewind_tensor(&self, block: &Block, tensor: &Tensor<'_>, slots: &mut [&mut [f64]]) {
        match (self, slots) {
            (
                Self::Sgd {
                    momentum,
                    dampening,
                    ..
                },
                [velocity],
            ) => {
                for (i, v) in velocity.iter_mut().enumerate() {
                    *v = divided(*v - (1.0 - dampening) * tensor.seen(i), *momentum);
                }
            }
            (
                Self::Adam { beta1, beta2, .. }
                | Self::AdamW { beta1, beta2, .. }
                | Self::Lamb { beta1, beta2, .. },
                [first, second],
            ) => {
                tensor.average(*beta1, first, |g| g);
                tensor.average_of_squares(*beta2, second);
            }
            (
                Self::Muon {
                    momentum,
                    beta1,
                    beta2,
                    ..
                },
                [first, second],
            ) => {
                if block.rows.is_some() {
                    tensor.average(*momentum, first, |g| g);
                } else {
                    tensor.average(*beta1, first, |g| g);
                    tensor.average_of_squares(*beta2, second);
                }
            }
            (Self::Lion { beta2, .. }, [average]) => tensor.average(*beta2, average, |g| g),
            (Self::Adagrad { .. }, [sum]) => {
                for (i, s) in sum.iter_mut().enumerate() {
                    let g = tensor.seen(i);
                    *s = (*s - g * g).max(self.initial_value());
                }
            }
            (
                Self::RmsProp {
                    alpha,
                    eps,
                    momentum,
                    centered,
                    ..
                },
                slots,
            ) => rewind_rmsprop(tensor, (*alpha, *eps, *momentum), *centered, slots),
            _ => {}
        }
    }
}

/// The momentum sums directions, which depend on the mean square and the mean after the step. So it goes first.
fn rewind_rmsprop(
    tensor: &Tensor<'_>,
    (alpha, eps, momentum): (f64, f64, f64),
    centered: bool,
    slots: &mut [&mut [f64]],
) {
    let Some((square, others)) = slots.split_last_mut() else {
        return;
    };
    let (mean, velocity) = others.split_at_mut(usize::from(centered));
    for velocity in velocity {
        for (i, v) in velocity.iter_mut().enumerate() {
            let mean = mean.first().map_or(0.0, |mean| mean[i]);
            let root = (square[i] - mean * mean).sqrt();
            *v = divided(*v - tensor.seen(i) / (root + eps), momentum);
        }
    }
    for mean in mean {
        tensor.average(alpha, mean, |g| g);
    }
    tensor.average_of_squares(alpha, square);
}
