//! The reverse of a step, as in reverse-mode differentiation: it converts a derivative with respect to θ_{t+1} to one
//! with respect to θ_t.
//!
//! An [`Adjoint`] holds u, the derivative of a query with respect to θ_{t+1}, and its derivative with respect to the
//! state of the optimizer after the step. [`Linearized::reverse`] computes s, the derivative with respect to the batch
//! gradient G_t, and turns the adjoint into the one before the step, without the part through the gradient. The
//! contribution of example j in this step is `w_j <s, g_j>`. The part through the gradient is `H s`, which is added to u.
//! docs/math.md derives the formulas.

use std::ops::Range;

use super::clip::Clip;
use super::error::{UpdateError, check};
use super::local::{Local, OfQuery};
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
            clip = settings
                .clip(&active_blocks, &gradient)
                .map(|c| (c, gradient.clone()));
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
    /// Returns s, (p): the derivative of a query with respect to the gradient of this step. It is 0 for untrained tensors.
    /// Turns the adjoint after the step into the one before it, except for `H_t s`, which has to be added to u.
    ///
    /// # Errors
    /// [`UpdateError::Length`] if the adjoint belongs to other parameters or another rule; [`UpdateError::Matrix`] if a
    /// matrix product of Muon fails.
    pub fn reverse(&self, adjoint: &mut Adjoint) -> Result<Vec<f64>, UpdateError> {
        check("the adjoint u", self.values, adjoint.u.len())?;
        check(
            "the adjoint of the optimizer's state",
            self.rule.state_values(self.values),
            adjoint.state.len(),
        )?;
        let mut s = vec![0.0; self.values];
        for (k, (range, hyper)) in self.active.iter().enumerate() {
            let (u, s) = (&mut adjoint.u[range.clone()], &mut s[range.clone()]);
            // SGD without momentum: in a small net, the general loops would take as long as the products with the Hessian.
            if matches!(self.rule, UpdateRule::Sgd { momentum: 0.0, .. }) {
                for (s, u) in s.iter_mut().zip(u) {
                    *s = -hyper.learning_rate * *u;
                    *u += hyper.weight_decay * *s;
                }
                continue;
            }
            let slots = adjoint.state.chunks_mut(self.values.max(1));
            let state = slots.map(|slot| &mut slot[range.clone()]).collect();
            let query = OfQuery { u, state, s };
            self.local.tensor(&self.rule, (k, range, hyper), query)?;
        }
        if let Some((clip, gradient)) = &self.clip {
            let product: f64 = gradient.iter().zip(&s).map(|(g, s)| g * s).sum();
            for (range, _) in &self.active {
                clip.pull_back(&gradient[range.clone()], product, &mut s[range.clone()]);
            }
        }
        Ok(s)
    }
}
