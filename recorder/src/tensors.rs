//! The tensors of a run on the training thread.

use candle_core::Var;
use candle_core::backprop::GradStore;
use hindcast_format::layout::Layout;
use hindcast_format::meta::StepMeta;
use hindcast_format::{KeyState, State};

use crate::names::{TensorSource, copy_optimizer};
use crate::snapshot::Copier;
use crate::step::OptimizerState;
use crate::watch::{has_changed, must_change};

/// The tensors that a run records.
pub(crate) struct Tensors {
    pub(crate) layout: Layout,
    /// The parameters in the layout's order.
    pub(crate) parameters: Vec<Var>,
    /// Copies parameters and buffers.
    pub(crate) copier: Copier,
    /// Where the values of the optimizer's state come from, in the layout's order.
    pub(crate) optimizer: Vec<TensorSource>,
}

impl Tensors {
    /// The name of a parameter.
    pub(crate) fn name(&self, parameter: usize) -> &str {
        let spec = self.layout.parameters().get(parameter);
        spec.map_or("", |spec| spec.name.as_str())
    }

    /// Copies the optimizer's state. The error text says what is missing or has changed.
    pub(crate) fn copy_optimizer(
        &self,
        optimizer: Option<&dyn OptimizerState>,
        key: &mut KeyState,
    ) -> Result<(), String> {
        let specs = self.layout.optimizer_state();
        copy_optimizer(specs, &self.optimizer, optimizer, key.optimizer_mut())
    }

    /// The bytes of one parameter in a recorded state.
    fn bytes_of<'a>(&self, state: &'a State, parameter: usize) -> Option<&'a [u8]> {
        // Parameters are the first tensors of a layout.
        self.layout.parameters().get(parameter)?;
        state.bytes().get(self.layout.range(parameter))
    }

    /// Whether the parameter's bits differ from those in `state`.
    pub(crate) fn changed_since(
        &self,
        state: &State,
        parameter: usize,
    ) -> candle_core::Result<bool> {
        let var = self.parameters.get(parameter);
        match (var, self.bytes_of(state, parameter)) {
            (Some(var), Some(before)) => has_changed(var, before),
            _ => Ok(true),
        }
    }

    /// Whether an update with these gradients must change the parameter, which still holds its values from before the
    /// step.
    pub(crate) fn must_change(
        &self,
        parameter: usize,
        gradients: &GradStore,
        meta: &StepMeta,
    ) -> candle_core::Result<bool> {
        let Some(var) = self.parameters.get(parameter) else {
            return Ok(false);
        };
        let spec = self.layout.parameters().get(parameter);
        let group = spec.and_then(|spec| meta.groups.get(usize::from(spec.group)));
        match (gradients.get(var), group) {
            (Some(gradient), Some(group)) => must_change(var, gradient, group.learning_rate),
            _ => Ok(false),
        }
    }
}
