//! A step of each rule, linearised where it was taken.

use std::ops::Range;

use super::error::UpdateError;
use super::moments::{adagrad_factor, bias_corrections};
use super::muon;
use super::rule::UpdateRule;
use super::settings::{Block, GroupHyper};
use super::step::{StepPoint, trust_ratio};
use crate::real::Real;
use crate::vectors::norm_of;

/// Derivatives with respect to one parameter and the N values of the state that belong to it.
#[derive(Debug, Clone, Copy)]
struct Element<const N: usize> {
    /// With respect to the clipped gradient.
    s: f64,
    /// With respect to the parameter before the step, without the part through the gradient.
    u: f64,
    /// With respect to the state before the step, in the order of the rule's quantities.
    state: [f64; N],
}

/// One query's derivatives with respect to the values of one tensor.
pub(super) struct OfQuery<'a> {
    /// With respect to the parameters after the step. [`Local::tensor`] turns them into those before it, without the part
    /// through the gradient.
    pub u: &'a mut [f64],
    /// With respect to each quantity of the state after the step, turned into those before it.
    pub state: Vec<&'a mut [f64]>,
    /// With respect to the clipped gradient, which [`Local::tensor`] sets.
    pub s: &'a mut [f64],
}

impl OfQuery<'_> {
    fn again(&mut self) -> OfQuery<'_> {
        OfQuery {
            u: self.u,
            state: self.state.iter_mut().map(|slot| &mut **slot).collect(),
            s: self.s,
        }
    }

    /// Computes each element from its position in the tensor and from the derivatives after the step.
    fn each<const N: usize>(self, of: impl Fn(usize, f64, [f64; N]) -> Element<N>) {
        let Ok(state) = <[&mut [f64]; N]>::try_from(self.state) else {
            unreachable!("a rule has one number of quantities");
        };
        for (i, (u, s)) in self.u.iter_mut().zip(self.s).enumerate() {
            let before = of(i, *u, std::array::from_fn(|slot| state[slot][i]));
            (*u, *s) = (before.u, before.s);
            for (slot, value) in before.state.into_iter().enumerate() {
                state[slot][i] = value;
            }
        }
    }
}

/// Values of a step that its derivatives need. A vector that a rule doesn't need is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Local {
    /// Number of parameter values, p.
    values: usize,
    /// Number of updates before the step.
    done: u64,
    /// The gradient that the rule sees: after clipping and coupled decay.
    seen: Vec<f64>,
    /// Derivative of the direction with respect to its numerator (the first moment or the gradient) after the step.
    d: Vec<f64>,
    /// Minus the derivative of the direction with respect to the average or sum of squares after the step.
    s: Vec<f64>,
    /// RMSprop: ḡ after the step, if it is centred.
    mean: Vec<f64>,
    /// LAMB: the direction a, and θ.
    direction: Vec<f64>,
    theta: Vec<f64>,
    /// What whole tensors need, in the order of the trained tensors.
    tensors: Vec<OfTensor>,
}

/// What a whole tensor needs.
#[derive(Debug, Clone)]
enum OfTensor {
    Nothing,
    /// LAMB: ‖θ‖ and ‖a‖.
    Norms(f64, f64),
    /// Muon's matrices.
    Matrix(muon::Linear),
}

/// What one query's adjoint gives for a whole tensor.
enum Whole {
    Nothing,
    /// LAMB: the ratio of the norms, `<u, a>/‖a‖²` and `<u, a>/(‖θ‖‖a‖)`. The last two are 0 for a fixed ratio.
    Trust(f64, f64, f64),
    /// Muon: the derivative with respect to U.
    Matrix(Vec<f64>),
}

impl Local {
    /// The values for a step from `at`, where `seen` is the clipped gradient, (p).
    pub fn new<T: Real>(
        rule: &UpdateRule,
        active: &[(&Block, GroupHyper)],
        done: u64,
        at: StepPoint<'_, T>,
        mut seen: Vec<f64>,
    ) -> Self {
        let p = seen.len();
        if rule.couples_decay() {
            for (block, hyper) in active {
                for i in block.range.clone() {
                    seen[i] += hyper.weight_decay * at.parameters[i].wide();
                }
            }
        }
        let mut local = Local {
            values: p,
            done,
            seen,
            ..Local::default()
        };
        // The first step starts from the initial state, whatever the state is.
        let initial = (done == 0).then(|| rule.initial_value());
        let state =
            |slot: usize, i: usize| initial.unwrap_or_else(|| at.state[slot * p + i].wide());
        match *rule {
            UpdateRule::Sgd { .. } | UpdateRule::Lion { .. } => {}
            UpdateRule::Adam {
                beta1, beta2, eps, ..
            }
            | UpdateRule::AdamW {
                beta1, beta2, eps, ..
            }
            | UpdateRule::Muon {
                beta1, beta2, eps, ..
            } => {
                local.moments((beta1, beta2, eps), active, &state, None);
            }
            UpdateRule::Lamb {
                beta1, beta2, eps, ..
            } => {
                let mut direction = vec![0.0; p];
                local.moments((beta1, beta2, eps), active, &state, Some(&mut direction));
                local.direction = direction;
                local.theta = at.parameters.iter().map(|x| x.wide()).collect();
            }
            UpdateRule::RmsProp {
                alpha,
                eps,
                centered,
                momentum,
                ..
            } => {
                let square = usize::from(centered) + usize::from(momentum > 0.0);
                if centered {
                    local.mean = vec![0.0; p];
                }
                local.rooted(active, eps, |i, g, mean| {
                    let v = alpha * state(square, i) + (1.0 - alpha) * g * g;
                    match mean {
                        Some(mean) => {
                            *mean = alpha * state(0, i) + (1.0 - alpha) * g;
                            v - *mean * *mean
                        }
                        None => v,
                    }
                });
            }
            UpdateRule::Adagrad { eps, .. } => {
                local.rooted(active, eps, |i, g, _| state(0, i) + g * g);
            }
        }
        local.tensors = local.of_tensors(rule, active, &state);
        local
    }

    /// The values for SGD, whose derivatives need none.
    pub fn without_state(done: u64) -> Self {
        Local {
            done,
            ..Local::default()
        }
    }

    /// Sets d and s for a direction `m̂/(√n̂+ε)`, and the direction itself if it is needed.
    fn moments(
        &mut self,
        (beta1, beta2, eps): (f64, f64, f64),
        active: &[(&Block, GroupHyper)],
        state: &impl Fn(usize, usize) -> f64,
        mut direction: Option<&mut [f64]>,
    ) {
        let p = self.values;
        (self.d, self.s) = (vec![0.0; p], vec![0.0; p]);
        let (scale1, scale2) = bias_corrections(beta1, beta2, self.done);
        for i in active.iter().flat_map(|(b, _)| b.range.clone()) {
            let g = self.seen[i];
            let m = beta1 * state(0, i) + (1.0 - beta1) * g;
            let n = beta2 * state(1, i) + (1.0 - beta2) * g * g;
            let (m, root) = (m * scale1, (n * scale2).sqrt());
            let inverse = 1.0 / (root + eps);
            self.d[i] = inverse * scale1;
            // The root has no derivative at 0. It is 0 only if the gradient was 0 in all steps so far.
            if root > 0.0 {
                self.s[i] = m * inverse * inverse / (2.0 * root) * scale2;
            }
            if let Some(direction) = direction.as_deref_mut() {
                direction[i] = m * inverse;
            }
        }
    }

    /// Sets d and s for a direction `g/(√c+ε)`. `square` computes c from an element and its gradient, and sets ḡ.
    fn rooted(
        &mut self,
        active: &[(&Block, GroupHyper)],
        eps: f64,
        square: impl Fn(usize, f64, Option<&mut f64>) -> f64,
    ) {
        (self.d, self.s) = (vec![0.0; self.values], vec![0.0; self.values]);
        for i in active.iter().flat_map(|(b, _)| b.range.clone()) {
            let g = self.seen[i];
            let root = square(i, g, self.mean.get_mut(i)).sqrt();
            let inverse = 1.0 / (root + eps);
            self.d[i] = inverse;
            if root > 0.0 {
                self.s[i] = g * inverse * inverse / (2.0 * root);
            }
        }
    }

    fn of_tensors(
        &mut self,
        rule: &UpdateRule,
        active: &[(&Block, GroupHyper)],
        state: &dyn Fn(usize, usize) -> f64,
    ) -> Vec<OfTensor> {
        let mut out = Vec::with_capacity(active.len());
        for (block, hyper) in active {
            let range = block.range.clone();
            out.push(match *rule {
                UpdateRule::Lamb { .. } => {
                    for i in range.clone() {
                        self.direction[i] += hyper.weight_decay * self.theta[i];
                    }
                    let norm = |x: &[f64]| norm_of(x[range.clone()].iter().copied());
                    OfTensor::Norms(norm(&self.theta), norm(&self.direction))
                }
                UpdateRule::Muon {
                    momentum, nesterov, ..
                } if block.rows.is_some() => {
                    let before: Vec<f64> = range.clone().map(|i| state(0, i)).collect();
                    let (form, rows) = ((momentum, nesterov), block.rows.unwrap_or(1));
                    let gradient = &self.seen[range];
                    OfTensor::Matrix(muon::Linear::new(form, rows, gradient, &before))
                }
                _ => OfTensor::Nothing,
            });
        }
        out
    }

    /// What the adjoint u of a query, of this tensor, gives for trained tensor number `k` as a whole.
    fn whole(
        &self,
        k: usize,
        (range, hyper): (&Range<usize>, &GroupHyper),
        u: &[f64],
    ) -> Result<Whole, UpdateError> {
        Ok(match self.tensors.get(k) {
            Some(&OfTensor::Norms(theta, direction)) => {
                let ratio = trust_ratio(theta, direction);
                if theta > 0.0 && direction > 0.0 {
                    let a = &self.direction[range.clone()];
                    let product: f64 = u.iter().zip(a).map(|(u, a)| u * a).sum();
                    let along = product / (direction * direction);
                    Whole::Trust(ratio, along, product / (theta * direction))
                } else {
                    Whole::Trust(ratio, 0.0, 0.0)
                }
            }
            Some(OfTensor::Matrix(linear)) => {
                Whole::Matrix(linear.pull_back(hyper.learning_rate, u)?)
            }
            _ => Whole::Nothing,
        })
    }

    /// Turns the derivatives of a query after the step into those before it, for trained tensor number `k`.
    pub fn tensor(
        &self,
        rule: &UpdateRule,
        (k, range, hyper): (usize, &Range<usize>, &GroupHyper),
        mut query: OfQuery<'_>,
    ) -> Result<(), UpdateError> {
        if range.is_empty() {
            return Ok(());
        }
        let (eta, decay) = (hyper.learning_rate, hyper.weight_decay);
        let kept = 1.0 - eta * decay;
        let whole = self.whole(k, (range, hyper), query.u)?;
        let again = query.again();
        match *rule {
            UpdateRule::Sgd {
                momentum,
                dampening,
                nesterov,
                ..
            } => {
                let constants = (momentum, dampening, nesterov);
                again.each(|_, u, state| self.sgd(constants, eta, u, state));
            }
            UpdateRule::Adam { beta1, beta2, .. } => {
                let through = self.through_moments((beta1, beta2), range);
                again.each(|i, u, state| through(i, u, -eta * u, state));
            }
            UpdateRule::AdamW { beta1, beta2, .. } => {
                let through = self.through_moments((beta1, beta2), range);
                again.each(|i, u, state| through(i, kept * u, -eta * u, state));
            }
            UpdateRule::Lamb { beta1, beta2, .. } => {
                let (ratio, along, scaled) = match whole {
                    Whole::Trust(ratio, along, scaled) => (ratio, along, scaled),
                    _ => (1.0, 0.0, 0.0),
                };
                let (a, theta) = (&self.direction[range.clone()], &self.theta[range.clone()]);
                let through = self.through_moments((beta1, beta2), range);
                again.each(|i, u, state| {
                    let of_direction = -eta * ratio * (u - along * a[i]);
                    let before = u - eta * scaled * theta[i] + decay * of_direction;
                    through(i, before, of_direction, state)
                });
            }
            UpdateRule::RmsProp {
                alpha,
                momentum,
                centered,
                ..
            } => self.rmsprop((alpha, momentum, centered), eta, range, again),
            UpdateRule::Adagrad { lr_decay, .. } => {
                let rate = eta * adagrad_factor(lr_decay, self.done);
                let (d, s) = (&self.d[range.clone()], &self.s[range.clone()]);
                let seen = &self.seen[range.clone()];
                again.each(|i, u, [sum]| {
                    let of_direction = -rate * u;
                    let of_sum = sum - of_direction * s[i];
                    Element {
                        s: of_direction * d[i] + 2.0 * seen[i] * of_sum,
                        u,
                        state: [of_sum],
                    }
                });
            }
            UpdateRule::Muon {
                momentum,
                nesterov,
                beta1,
                beta2,
                ..
            } => match whole {
                Whole::Matrix(of_update) => again.each(|i, u, [buffer, _]| {
                    matrix((momentum, nesterov), of_update[i], kept * u, buffer)
                }),
                _ => {
                    let through = self.through_moments((beta1, beta2), range);
                    again.each(|i, u, state| through(i, kept * u, -eta * u, state));
                }
            },
            // No sweep gets here: `linearize` refuses the rule.
            UpdateRule::Lion { .. } => {}
        }
        if rule.couples_decay() && decay != 0.0 {
            // Decay is added after clipping, so its derivative uses that with respect to the clipped gradient.
            for (u, s) in query.u.iter_mut().zip(&*query.s) {
                *u += decay * s;
            }
        }
        if self.done == 0 {
            // The first step starts from a state that doesn't depend on anything.
            query.state.iter_mut().for_each(|slot| slot.fill(0.0));
        }
        Ok(())
    }

    /// SGD with momentum: (μ, τ, Nesterov).
    fn sgd(
        &self,
        (momentum, dampening, nesterov): (f64, f64, bool),
        eta: f64,
        u: f64,
        [velocity]: [f64; 1],
    ) -> Element<1> {
        let v = if nesterov {
            velocity - eta * momentum * u
        } else {
            velocity - eta * u
        };
        let through = if self.done == 0 {
            v
        } else {
            (1.0 - dampening) * v
        };
        let s = if nesterov { through - eta * u } else { through };
        let state = [momentum * v];
        Element { s, u, state }
    }

    /// RMSprop: (α, μ, centred).
    fn rmsprop(
        &self,
        (alpha, momentum, centered): (f64, f64, bool),
        eta: f64,
        range: &Range<usize>,
        query: OfQuery<'_>,
    ) {
        let (d, s) = (&self.d[range.clone()], &self.s[range.clone()]);
        let seen = &self.seen[range.clone()];
        // From the derivatives with respect to the direction and to the mean square after the step: that with respect to
        // the root's argument, that with respect to v, and s.
        let through = |i: usize, of_direction: f64, square: f64| {
            let of_root = -of_direction * s[i];
            let v = square + of_root;
            let of_gradient = of_direction * d[i] + 2.0 * (1.0 - alpha) * seen[i] * v;
            (of_root, alpha * v, of_gradient)
        };
        let of_mean = |i: usize, mean: f64, of_root: f64| {
            let of_mean = mean - 2.0 * self.mean[range.start + i] * of_root;
            (alpha * of_mean, (1.0 - alpha) * of_mean)
        };
        match (centered, momentum > 0.0) {
            (false, false) => query.each(|i, u, [square]| {
                let (_, square, s) = through(i, -eta * u, square);
                let state = [square];
                Element { s, u, state }
            }),
            (false, true) => query.each(|i, u, [velocity, square]| {
                let of_direction = velocity - eta * u;
                let (_, square, s) = through(i, of_direction, square);
                let state = [momentum * of_direction, square];
                Element { s, u, state }
            }),
            (true, false) => query.each(|i, u, [mean, square]| {
                let (of_root, square, s) = through(i, -eta * u, square);
                let (mean, more) = of_mean(i, mean, of_root);
                let state = [mean, square];
                Element {
                    s: s + more,
                    u,
                    state,
                }
            }),
            (true, true) => query.each(|i, u, [mean, velocity, square]| {
                let of_direction = velocity - eta * u;
                let (of_root, square, s) = through(i, of_direction, square);
                let (mean, more) = of_mean(i, mean, of_root);
                let state = [mean, momentum * of_direction, square];
                Element {
                    s: s + more,
                    u,
                    state,
                }
            }),
        }
    }

    /// An element whose direction is `m̂/(√n̂+ε)`: from its position in the tensor, the derivative with respect to its
    /// parameter without the part through the gradient, that with respect to the direction, and those with respect to the
    /// moments after the step.
    fn through_moments(
        &self,
        (beta1, beta2): (f64, f64),
        range: &Range<usize>,
    ) -> impl Fn(usize, f64, f64, [f64; 2]) -> Element<2> {
        let (d, s) = (&self.d[range.clone()], &self.s[range.clone()]);
        let seen = &self.seen[range.clone()];
        move |i, u, of_direction, [first, second]| {
            let p = first + of_direction * d[i];
            let q = second - of_direction * s[i];
            Element {
                s: (1.0 - beta1) * p + 2.0 * (1.0 - beta2) * seen[i] * q,
                u,
                state: [beta1 * p, beta2 * q],
            }
        }
    }
}

/// An element of a matrix of Muon, (μ, Nesterov): from the derivative with respect to U and that with respect to the
/// momentum after the step.
fn matrix((momentum, nesterov): (f64, bool), of_update: f64, u: f64, of_buffer: f64) -> Element<2> {
    let (direct, share) = if nesterov {
        ((1.0 - momentum) * of_update, momentum * of_update)
    } else {
        (0.0, of_update)
    };
    let b = of_buffer + share;
    Element {
        s: direct + (1.0 - momentum) * b,
        u,
        state: [momentum * b, 0.0],
    }
}
