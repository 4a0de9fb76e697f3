//! The state of an optimizer: its tensors, and where each value is.

use super::rule::UpdateRule;
use crate::objective::TensorDef;
use crate::real::Real;

/// One tensor of an optimizer's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateTensor {
    /// A word for the quantity, such as `momentum.` or `moment1.`, followed by the name of the parameter.
    pub name: String,
    /// The parameter's shape.
    pub shape: Vec<usize>,
    /// Position of the parameter that it belongs to.
    pub parameter: usize,
}

impl UpdateRule {
    /// Prefixes of the names of the state's tensors, in the order of the names.
    pub(super) fn slots(&self) -> &'static [&'static str] {
        match *self {
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &["momentum"],
            Self::Adam { .. } | Self::AdamW { .. } | Self::Lamb { .. } => &["moment1", "moment2"],
            Self::RmsProp {
                centered, momentum, ..
            } => match (centered, momentum > 0.0) {
                (false, false) => &["square"],
                (false, true) => &["momentum", "square"],
                (true, false) => &["mean", "square"],
                (true, true) => &["mean", "momentum", "square"],
            },
            Self::Adagrad { .. } => &["sum"],
            Self::Lion { .. } => &["momentum"],
            // AdamW's moments of vectors; a matrix has its momentum in place of the first.
            Self::Muon { .. } => &["moment1", "moment2"],
        }
    }

    /// The tensors of the state in the order of their names: one tensor per quantity and parameter. A flat state holds them
    /// one after another. [`UpdateRule::initial_state`] has the values before the first step.
    pub fn state_tensors(&self, parameters: &[TensorDef]) -> Vec<StateTensor> {
        self.slots()
            .iter()
            .flat_map(|slot| {
                parameters
                    .iter()
                    .enumerate()
                    .map(move |(i, def)| StateTensor {
                        name: format!("{slot}.{}", def.name),
                        shape: def.shape.clone(),
                        parameter: i,
                    })
            })
            .collect()
    }

    /// The state before the optimizer's first step, for a number of parameter values. Zero, except for Adagrad.
    pub fn initial_state<T: Real>(&self, parameters: usize) -> Vec<T> {
        vec![T::of(self.initial_value()); self.state_values(parameters)]
    }

    /// Every value of the state before the optimizer's first step.
    pub(super) fn initial_value(&self) -> f64 {
        match *self {
            Self::Adagrad {
                initial_accumulator_value: initial,
                ..
            } => initial,
            _ => 0.0,
        }
    }

    /// Number of values of the state for a number of parameter values.
    pub fn state_values(&self, parameters: usize) -> usize {
        self.slots().len() * parameters
    }
}
