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
use super::rule::UpdateRule;
use super::settings::{Blocks, GroupHyper, Settings};
use super::step::{StepPoint, bias_corrections};
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
    /// Whether this is the optimizer's first step.
    first: bool,
    /// The clipping with the gradient G, if the step clipped it.
    clip: Option<(Clip, Vec<f64>)>,
    adam: Option<Adam>,
}

/// Values of the step that Adam's derivatives need.
#[derive(Debug, Clone)]
struct Adam {
    /// The gradient that entered the moments: after clipping and coupled decay.
    seen: Vec<f64>,
    /// `D/(1−β1^k)` with `D = 1/(√n̂+ε)`.
    d: Vec<f64>,
    /// `S/(1−β2^k)` with `S = m̂/(2√n̂(√n̂+ε)²)`.
    s: Vec<f64>,
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
        matches!(self, Self::Adam { .. } | Self::AdamW { .. })
    }

    /// The reverse of the step that [`UpdateRule::step`] takes from `at` with the same settings.
    ///
    /// # Errors
    /// [`UpdateError`] if lengths, flags or groups don't fit together.
    pub fn linearize<T: Real>(
        &self,
        blocks: &Blocks,
        settings: &Settings,
        at: StepPoint<'_, T>,
    ) -> Result<Linearized, UpdateError> {
        let values = blocks.values();
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
        let adam = if self.reverse_needs_state() {
            at.check(self, blocks)?;
            let scale = clip.as_ref().map_or(1.0, |(c, _)| c.scale);
            gradient.iter_mut().for_each(|g| *g *= scale);
            Some(self.adam(&active, settings.optimizer_step, at, gradient))
        } else {
            None
        };
        Ok(Linearized {
            rule: self.clone(),
            active,
            values,
            first: settings.optimizer_step == 0,
            clip,
            adam,
        })
    }

    /// Computes the moments after the step in float64, and from them D and S.
    fn adam<T: Real>(
        &self,
        active: &[(Range<usize>, GroupHyper)],
        done: u64,
        at: StepPoint<'_, T>,
        mut seen: Vec<f64>,
    ) -> Adam {
        let p = seen.len();
        let (mut d, mut s) = (vec![0.0; p], vec![0.0; p]);
        if let Self::Adam {
            beta1, beta2, eps, ..
        }
        | Self::AdamW {
            beta1, beta2, eps, ..
        } = *self
        {
            let coupled = matches!(self, Self::Adam { .. });
            let (scale1, scale2) = bias_corrections(beta1, beta2, done);
            for (range, hyper) in active {
                for i in range.clone() {
                    if coupled {
                        seen[i] += hyper.weight_decay * at.parameters[i].wide();
                    }
                    let g = seen[i];
                    let m = beta1 * at.state[i].wide() + (1.0 - beta1) * g;
                    let n = beta2 * at.state[p + i].wide() + (1.0 - beta2) * g * g;
                    let (m, root) = (m * scale1, (n * scale2).sqrt());
                    let inverse = 1.0 / (root + eps);
                    d[i] = inverse * scale1;
                    // The root has no derivative at 0. It is 0 only if the gradient was 0 in all steps so far.
                    if root > 0.0 {
                        s[i] = m * inverse * inverse / (2.0 * root) * scale2;
                    }
                }
            }
        }
        Adam { seen, d, s }
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
        for (range, hyper) in &self.active {
            let eta = hyper.learning_rate;
            for i in range.clone() {
                let u = adjoint.u[i];
                s[i] = match self.rule {
                    UpdateRule::Sgd { momentum: 0.0, .. } => -eta * u,
                    UpdateRule::Sgd {
                        dampening,
                        nesterov,
                        ..
                    } => {
                        let v = self.velocity(hyper, u, adjoint.state[i]);
                        let through = if self.first { v } else { (1.0 - dampening) * v };
                        if nesterov { through - eta * u } else { through }
                    }
                    UpdateRule::Adam { beta1, beta2, .. }
                    | UpdateRule::AdamW { beta1, beta2, .. } => {
                        let (p, q, seen) = self.moments(hyper, adjoint, i);
                        (1.0 - beta1) * p + 2.0 * (1.0 - beta2) * seen * q
                    }
                };
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
        for (range, hyper) in &self.active {
            let (eta, decay) = (hyper.learning_rate, hyper.weight_decay);
            for i in range.clone() {
                let u = adjoint.u[i];
                // Decay is added after clipping, so its derivative uses the direction with respect to the clipped gradient.
                let mut before = u + decay * direction.clipped[i];
                match self.rule {
                    UpdateRule::Sgd { momentum, .. } => {
                        if momentum != 0.0 {
                            let v = self.velocity(hyper, u, adjoint.state[i]);
                            adjoint.state[i] = if self.first { 0.0 } else { momentum * v };
                        }
                    }
                    UpdateRule::Adam { beta1, beta2, .. }
                    | UpdateRule::AdamW { beta1, beta2, .. } => {
                        if matches!(self.rule, UpdateRule::AdamW { .. }) {
                            before = (1.0 - eta * decay) * u;
                        }
                        let (p, q, _) = self.moments(hyper, adjoint, i);
                        adjoint.state[i] = beta1 * p;
                        adjoint.state[self.values + i] = beta2 * q;
                    }
                }
                adjoint.u[i] = before;
            }
        }
        for (u, h) in adjoint.u.iter_mut().zip(hessian_product) {
            *u += h;
        }
        Ok(())
    }

    /// v̂: the derivative with respect to the velocity after the step, including its use in this step.
    fn velocity(&self, hyper: &GroupHyper, u: f64, v: f64) -> f64 {
        match self.rule {
            UpdateRule::Sgd {
                momentum,
                nesterov: true,
                ..
            } => v - hyper.learning_rate * momentum * u,
            _ => v - hyper.learning_rate * u,
        }
    }

    /// p̂, q̂ and the gradient that entered the moments.
    fn moments(&self, hyper: &GroupHyper, adjoint: &Adjoint, i: usize) -> (f64, f64, f64) {
        let (p, q) = (adjoint.state[i], adjoint.state[self.values + i]);
        match &self.adam {
            Some(adam) => {
                let move_ = hyper.learning_rate * adjoint.u[i];
                (p - move_ * adam.d[i], q + move_ * adam.s[i], adam.seen[i])
            }
            None => (p, q, 0.0),
        }
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
