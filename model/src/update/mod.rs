//! Update rules: how a gradient moves the parameters, and how a sensitivity to the parameters moves back.
//!
//! [`UpdateRule::step`] is the one piece of arithmetic that training, the check of a trace and counterfactual
//! retraining share: the same inputs give the same bits. [`UpdateRule::linearize`] gives the reverse of one step, from
//! which the sweep takes the direction `s` that it multiplies with per-example gradients and the Hessian.
//!
//! All vectors are flat: the parameters one after another in the order of the trace's layout. [`Blocks`] says which
//! range belongs to which tensor and group, and [`Settings`] what was in force in a step.

mod adjoint;
mod clip;
mod rule;
mod settings;
mod step;

pub use adjoint::{Adjoint, Direction, Linearized};
pub use clip::{CLIP_EPSILON, Clip};
pub use rule::{StateTensor, UpdateRule};
pub use settings::{Block, Blocks, GroupHyper, Settings};
pub use step::StepPoint;

/// Why an update can't be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// A vector has another length than the parameters, or than the rule's state.
    #[error("{what} has {got} values, expected {expected}")]
    Length {
        /// Which vector.
        what: &'static str,
        /// Values expected.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// There are not as many trained bits as parameters.
    #[error("{got} trained flags for {expected} parameter tensors")]
    Flags {
        /// Parameter tensors.
        expected: usize,
        /// Flags given.
        got: usize,
    },
    /// A tensor belongs to a group for which the step has no hyperparameters.
    #[error(
        "parameter tensor {tensor} is in group {group}, but the step has learning rates for {groups} group(s)"
    )]
    Group {
        /// Position of the tensor.
        tensor: usize,
        /// Its group.
        group: usize,
        /// Groups that have hyperparameters.
        groups: usize,
    },
    /// A hyperparameter is out of its range.
    #[error("{key} = {value}: expected {expected}")]
    Hyperparameter {
        /// Its name.
        key: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The text isn't an update rule.
    #[error("not an update rule: {0}")]
    Text(String),
}

pub(crate) fn check(what: &'static str, expected: usize, got: usize) -> Result<(), UpdateError> {
    if expected == got {
        Ok(())
    } else {
        Err(UpdateError::Length {
            what,
            expected,
            got,
        })
    }
}
