//! What an optimizer tells the recorder about itself.

use candle_core::Var;

use crate::update_rule::UpdateRule;

/// An optimizer that tells what it does, so that a loop needn't repeat it.
///
/// candle's `SGD` and `AdamW` implement it. Implement it for an optimizer of your own, and pass the optimizer to
/// [`Recorder::wrap_described`](crate::Recorder::wrap_described):
///
/// ```
/// use candle_core::Var;
/// use hindcast_recorder::{Describe, UpdateRule};
///
/// struct Decayed { variables: Vec<Var>, rate: f64, decay: f64 }
///
/// impl Describe for Decayed {
///     fn rule(&self) -> UpdateRule {
///         UpdateRule::sgd().weight_decay(self.decay).into()
///     }
///
///     fn variables(&self) -> Option<Vec<Var>> {
///         Some(self.variables.clone())
///     }
/// }
/// ```
pub trait Describe {
    /// The update rule with all its constants as they are now.
    ///
    /// It is read before every step. The weight decay is recorded with the step, so it may change, like the learning
    /// rate. The other constants must keep their values.
    fn rule(&self) -> UpdateRule;

    /// The variables that the optimizer updates. `None` if it can't list them: then the wrapper compares each parameter
    /// before and after the steps. It is read at the first step, and again after
    /// [`Recorded::optimizer_mut`](crate::Recorded::optimizer_mut).
    fn variables(&self) -> Option<Vec<Var>> {
        None
    }

    /// The tensors of the optimizer's state, such as the moments of Adam. Empty if it has none; `None` if it keeps them
    /// to itself.
    ///
    /// They must be the variables that the optimizer's step reads and sets. Every keyframe then contains their values,
    /// and when a run is resumed, [`Recorder::wrap`](crate::Recorder::wrap) restores them. Without them, a resumed run
    /// can't continue exactly. All optimizers of a run must tell their state, or none. It is read when the optimizer is
    /// wrapped, and again after [`Recorded::optimizer_mut`](crate::Recorded::optimizer_mut).
    fn state(&self) -> Option<Vec<StateVariable>> {
        None
    }

    /// Number of updates that the optimizer has done, if it tells. Otherwise the wrapper counts.
    fn updates(&self) -> Option<u64> {
        None
    }

    /// Sets the number of updates, after the [`state`](Self::state) of a resumed run was restored. An optimizer with
    /// [`state`](Self::state) and [`updates`](Self::updates) must implement it: a resumed run is refused if `updates`
    /// returns another number afterwards.
    fn set_updates(&mut self, _updates: u64) {}
}

/// A tensor of an optimizer's state that belongs to one parameter.
#[derive(Debug, Clone)]
pub struct StateVariable {
    pub(crate) slot: String,
    pub(crate) parameter: Var,
    pub(crate) var: Var,
}

impl StateVariable {
    /// The variable `var` of the parameter `parameter`. In the trace, the tensor's name is the slot, a dot and the
    /// parameter's name. `slot` says what the variable is. An optimizer must tell all slots of its rule, and no others:
    ///
    /// | rule | slots |
    /// |---|---|
    /// | SGD with momentum | `momentum`, the velocity b |
    /// | Adam, AdamW, LAMB | `moment1` and `moment2` without bias correction |
    /// | RMSprop | `square`; with momentum also `momentum`, if centred also `mean` |
    /// | Adagrad | `sum`, the sum of squares |
    /// | Lion | `momentum` |
    /// | Muon | vectors: `moment1` and `moment2` of AdamW; matrices: `moment1`, which is the momentum |
    pub fn new(slot: impl Into<String>, parameter: &Var, var: &Var) -> Self {
        Self {
            slot: slot.into(),
            parameter: parameter.clone(),
            var: var.clone(),
        }
    }
}
