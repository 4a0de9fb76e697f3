//! The reverse of a step, as in reverse-mode differentiation: it converts a derivative with respect to θ_{t+1} to one
//! with respect to θ_t.
//!
//! An [`Adjoint`] holds u, the derivative of a query with respect to θ_{t+1}, and its derivative with respect to the
//! state of the optimizer after the step. [`Linearized::direction`] computes s, the derivative with respect to the
//! batch gradient G_t. The contribution of example j in this step is `w_j <s, g_j>`. [`Linearized::advance`] uses `H s`
//! to compute the derivatives with respect to θ_t and to the state before the step. docs/math.md derives the formulas.

use std::ops::Range;

use super::clip::Clip;
use super::error::{UpdateError, check};
use super::local::{Element, Local};
use super::rule::UpdateRule;
use super::settings::{Blocks, GroupHyper, Settings};
use super::step::StepPoint;
use crate::real::Real;

/// Derivatives of a query with respect to the parameters and the optimizer's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Adjoint {
    /// With respect to the parameters, (p).
    pub u: Vec<f64>,
    /// With respect to the optimizer's state, in the order of [`UpdateRule::state_tensors`]: for momentum v (p), for
    /// Adam p and then q (2p).
    pub state: Vec<f64>,
}

/// A query's derivative with respect to the gradient of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    /// With respect to the clipped gradient G̃, (p).
    clipped: Vec<f64>,
    /// With respect to G, if the step clipped the gradient.
    raw: Option<Vec<f64>>,
}

impl Direction {
    /// The direction s with respect to G_t, (p), for products with per-example gradients and with the Hessian. It is 0 for
    /// untrained tensors.
    pub fn s(&self) -> &[f64] {
        self.raw.as_deref().unwrap_or(&self.clipped)
    }
}

/// A step, linearised at the point where it was taken. It is the same for all queries.
#[derive(Debug, Clone)]
pub struct Linearized {
    rule: UpdateRule,
    /// The trained tensors.
    active: Vec<(Range<usize>, GroupHyper)>,
    /// Number of parameter values, p.
    values: usize,
    /// The clipping with the gradient G, if the step clipped it.
    clip: Option<(Clip, Vec<f64>)>,
    local: Local,
}

impl UpdateRule {
    /// The adjoint of a query at the end of a run. `query` is the gradient of the query at θ_T. The query doesn't depend on
    /// the last state of the optimizer.
    pub fn adjoint(&self, query: Vec<f64>) -> Adjoint {
        let state = vec![0.0; self.state_values(query.len())];
        Adjoint { u: query, state }
    }

    /// Whether the reverse of a step needs the batch gradient. If not, [`StepPoint::gradient`] can be empty.
    pub fn reverse_needs_gradient(&self, clip_norm: Option<f64>) -> bool {
        clip_norm.is_some() || self.reverse_needs_state()
    }

    /// Whether the reverse of a step needs the parameters and the optimizer's state before the step. If not,
    /// [`StepPoint::parameters`] and [`StepPoint::state`] can be empty.
    pub fn reverse_needs_state(&self) -> bool {
        !matches!(self, Self::Sgd { .. })
    }

    /// The reverse of the step that [`UpdateRule::step`] takes from `at` with the same settings.
    ///
    /// # Errors
    /// [`UpdateError`] if lengths, flags or groups don't fit together, or the rule has no adjoint
    /// ([`UpdateRule::no_adjoint`]).
    pub fn linearize<T: Real>(
        &self,
        blocks: &Blocks,
        settings: &Settings,
        at: StepPoint<'_, T>,
    ) -> Result<Linearized, UpdateError> {
        if let Some(why) = self.no_adjoint() {
            return Err(UpdateError::NoAdjoint {
                rule: self.describe(),
                why,
            });
        }
        let values = blocks.values();
        let active_blocks = settings.active_blocks(blocks)?;
        let active = settings.active(blocks)?;
        let mut gradient = Vec::new();
        let mut clip = None;
        if self.reverse_needs_gradient(settings.clip_norm) {
            check("the gradient", values, at.gradient.len())?;
            gradient = vec![0.0; values];
            for (range, _) in &active {
                let wide = at.gradient[range.clone()].iter().map(|g| g.wide());
                for (to, from) in gradient[range.clone()].iter_mut().zip(wide) {
                    *to = from;
                }
            }
            let norm = Clip::norm(active.iter().map(|(range, _)| &gradient[range.clone()]));
            clip = Clip::of(norm, settings.clip_norm).map(|c| (c, gradient.clone()));
        }
        let done = settings.optimizer_step;
        let local = if self.reverse_needs_state() {
            at.check(self, blocks)?;
            let scale = clip.as_ref().map_or(1.0, |(c, _)| c.scale);
            if clip.is_some() {
                gradient.iter_mut().for_each(|g| *g *= scale);
            }
            Local::new(self, &active_blocks, done, at, gradient)
        } else {
            Local::without_state(done)
        };
        Ok(Linearized {
            rule: self.clone(),
            active,
            values,
            clip,
            local,
        })
    }
}

impl Linearized {
    /// The direction s: the derivative of the query with respect to the gradient of this step.
    ///
    /// # Errors
    /// [`UpdateError::Length`] if the adjoint belongs to other parameters or another rule.
    pub fn direction(&self, adjoint: &Adjoint) -> Result<Direction, UpdateError> {
        self.check(adjoint)?;
        let mut s = vec![0.0; self.values];
        let slots: Vec<&[f64]> = adjoint.state.chunks(self.values.max(1)).collect();
        for (k, (range, hyper)) in self.active.iter().enumerate() {
            if self.is_plain() {
                let u = &adjoint.u[range.clone()];
                for (s, u) in s[range.clone()].iter_mut().zip(u) {
                    *s = -hyper.learning_rate * u;
                }
                continue;
            }
            let whole = self.local.whole(k, (range, hyper), &adjoint.u)?;
            for (within, i) in range.clone().enumerate() {
                let after = (adjoint.u[i], state_of(&slots, i));
                let at = (i, within);
                s[i] = self.local.element(&self.rule, &whole, hyper, at, after).s;
            }
        }
        let raw = self.clip.as_ref().map(|(clip, gradient)| {
            let mut raw = s.clone();
            let product: f64 = gradient.iter().zip(&s).map(|(g, s)| g * s).sum();
            for (range, _) in &self.active {
                clip.pull_back(&gradient[range.clone()], product, &mut raw[range.clone()]);
            }
            raw
        });
        Ok(Direction { clipped: s, raw })
    }

    /// Propagates the adjoint from after the step to before it. `hessian_product` is `H_t s`, (p), with the direction's
    /// [`s`](Direction::s).
    ///
    /// # Errors
    /// [`UpdateError::Length`] if the length of a vector differs from that of the parameters.
    pub fn advance(
        &self,
        adjoint: &mut Adjoint,
        direction: &Direction,
        hessian_product: &[f64],
    ) -> Result<(), UpdateError> {
        self.check(adjoint)?;
        check("H s", self.values, hessian_product.len())?;
        check("the direction", self.values, direction.clipped.len())?;
        let Adjoint { u: all, state } = adjoint;
        let mut slots: Vec<&mut [f64]> = state.chunks_mut(self.values.max(1)).collect();
        for (k, (range, hyper)) in self.active.iter().enumerate() {
            if self.is_plain() {
                let s = &direction.clipped[range.clone()];
                for (u, s) in all[range.clone()].iter_mut().zip(s) {
                    *u += hyper.weight_decay * s;
                }
                continue;
            }
            let whole = self.local.whole(k, (range, hyper), all)?;
            for (within, i) in range.clone().enumerate() {
                let after = (all[i], state_of(&slots, i));
                let at = (i, within);
                let Element { u, state, .. } =
                    self.local.element(&self.rule, &whole, hyper, at, after);
                all[i] = u;
                for (slot, value) in slots.iter_mut().zip(state) {
                    slot[i] = value;
                }
            }
        }
        for (u, h) in all.iter_mut().zip(hessian_product) {
            *u += h;
        }
        Ok(())
    }

    /// Whether the rule is SGD without momentum. Its loops are separate, because in a small net they would otherwise take
    /// as long as the products with the Hessian.
    fn is_plain(&self) -> bool {
        matches!(self.rule, UpdateRule::Sgd { momentum: 0.0, .. })
    }

    fn check(&self, adjoint: &Adjoint) -> Result<(), UpdateError> {
        check("the adjoint u", self.values, adjoint.u.len())?;
        check(
            "the adjoint of the optimizer's state",
            self.rule.state_values(self.values),
            adjoint.state.len(),
        )
    }
}

/// The derivatives with respect to the state of parameter `i`, from those of each quantity of the state.
fn state_of<S: AsRef<[f64]>>(slots: &[S], i: usize) -> [f64; 3] {
    let mut state = [0.0; 3];
    for (to, slot) in state.iter_mut().zip(slots) {
        *to = slot.as_ref()[i];
    }
    state
}
