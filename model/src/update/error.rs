//! Why an update can't be computed.

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
