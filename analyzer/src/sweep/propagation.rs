//! How a sweep turns the adjoint after a step into the one before it.

use hindcast_model::update::Adjoint;

/// What a sweep does with the term `H_t s` of a step. All other effects of the step on the adjoint (decay, momentum,
/// Adam's moments, clipping, running statistics) stay the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HessianTerm {
    /// Keeps it. This is the exact derivative.
    #[default]
    Full,
    /// Leaves it out.
    Dropped,
    /// Divides it by the number of examples of the step, although the mean loss already divides by it once.
    DividedByBatch,
}

/// How a sweep turns the adjoint after a step into the one before it. The default is the exact derivative of the training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Propagation {
    /// The Hessian term of each step.
    pub hessian: HessianTerm,
    /// γ, from 0 to 1: all adjoints (of the parameters, the optimizer's state and the running statistics) are multiplied by
    /// it at each step, before the share of an averaged model is added. The sweep is then the exact derivative of a training
    /// in which a deviation from the recorded run fades by γ per step.
    pub discount: f64,
}

impl Default for Propagation {
    fn default() -> Self {
        Propagation {
            hessian: HessianTerm::Full,
            discount: 1.0,
        }
    }
}

impl Propagation {
    /// What differs from the default, in words for a checkpoint's identity. Empty if nothing does.
    pub(super) fn differences(&self) -> Vec<String> {
        let term = match self.hessian {
            HessianTerm::Full => None,
            HessianTerm::Dropped => Some("hessian-free".to_owned()),
            HessianTerm::DividedByBatch => Some("released-rule".to_owned()),
        };
        let discount = (self.discount != 1.0).then(|| format!("discount {}", self.discount));
        term.into_iter().chain(discount).collect()
    }

    /// Multiplies a query's adjoints by the discount.
    pub(super) fn discount(&self, adjoint: &mut Adjoint, buffers: &mut [f64]) {
        if self.discount == 1.0 {
            return;
        }
        let all = adjoint.u.iter_mut().chain(&mut adjoint.state);
        all.chain(buffers).for_each(|x| *x *= self.discount);
    }
}
