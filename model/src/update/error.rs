//! Errors of update rules.

/// The reason why an update can't be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The length of a vector differs from that of the parameters or of the rule's state.
    #[error("{what} has {got} values, expected {expected}")]
    Length {
        /// Name of the vector.
        what: &'static str,
        /// Expected number of values.
        expected: usize,
        /// Number of values.
        got: usize,
    },
    /// The number of trained flags differs from the number of parameter tensors.
    #[error("expected one trained flag for each of {expected} parameter tensors, got {got}")]
    Flags {
        /// Number of parameter tensors.
        expected: usize,
        /// Number of flags.
        got: usize,
    },
    /// A tensor belongs to a group for which the step has no hyperparameters.
    #[error(
        "parameter tensor {tensor} is in group {group}, but the step has learning rates for {groups} group(s)"
    )]
    Group {
        /// Position of the tensor.
        tensor: usize,
        /// The group of the tensor.
        group: usize,
        /// Number of groups with hyperparameters.
        groups: usize,
    },
    /// A hyperparameter is out of range.
    #[error("{key} = {value}: expected {expected}")]
    Hyperparameter {
        /// The name.
        key: &'static str,
        /// The value.
        value: f64,
        /// The allowed values.
        expected: &'static str,
    },
    /// The rule has no adjoint, so a sweep can't go back through its steps.
    #[error("{rule} has no adjoint: {why}")]
    NoAdjoint {
        /// The rule, in words.
        rule: String,
        /// Why it has none.
        why: &'static str,
    },
    /// A product of matrices failed.
    #[error("Muon's matrix products: {0}")]
    Matrix(String),
    /// The text isn't an update rule.
    #[error("not an update rule: {0}")]
    Text(String),
}

pub(super) fn check(what: &'static str, expected: usize, got: usize) -> Result<(), UpdateError> {
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
