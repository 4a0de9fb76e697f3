//! The tensors of a run on the training thread.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId, Var};
use hindcast_format::layout::{Layout, Role, TensorSpec};
use hindcast_format::meta::StepMeta;
use hindcast_format::{KeyState, State};

use super::describe::StateVariable;
use super::names::{TensorSource, copy_optimizer, spec};
use super::snapshot::Copier;
use super::step::OptimizerState;
use super::watch::{has_changed, must_change};

/// The tensors that a run records.
pub(crate) struct Tensors {
    pub(crate) layout: Layout,
    /// The parameters in the layout's order.
    pub(crate) parameters: Vec<Var>,
    /// Copies parameters and buffers.
    pub(crate) copier: Copier,
    /// Whether the program chose the optimizer's state, with [`Builder::optimizer_state`](crate::Builder::optimizer_state).
    pub(crate) chosen: bool,
    /// Where the values of the optimizer's state come from, in the layout's order.
    pub(crate) optimizer: Vec<TensorSource>,
    /// The part of the optimizer's state that wrapped optimizers told before the first step, by name.
    pub(crate) told: BTreeMap<String, Var>,
    /// Number of optimizers that have claimed a parameter group, and the positions of their parameters.
    pub(crate) claims: u16,
    pub(crate) claimed: BTreeSet<usize>,
}

impl Tensors {
    /// The name of a parameter.
    pub(crate) fn name(&self, parameter: usize) -> &str {
        let spec = self.layout.parameters().get(parameter);
        spec.map_or("", |spec| spec.name.as_str())
    }

    /// The position of the parameter with this identity.
    pub(crate) fn position(&self, id: TensorId) -> Option<usize> {
        self.parameters.iter().position(|var| var.id() == id)
    }

    /// The name of a variable of an optimizer's state. `None` if its parameter isn't recorded.
    fn state_name(&self, state: &StateVariable) -> Option<String> {
        let parameter = self.position(state.parameter.id())?;
        Some(format!("{}.{}", state.slot, self.name(parameter)))
    }

    /// Where the layout has a variable of an optimizer's state. The error text says what differs.
    fn slot_of(&self, state: &StateVariable) -> Result<Option<usize>, String> {
        let Some(name) = self.state_name(state) else {
            return Ok(None);
        };
        let specs = self.layout.optimizer_state();
        let Some(at) = specs.iter().position(|spec| spec.name == name) else {
            return Ok(None);
        };
        let given = spec(&name, &state.var, Role::OptimizerState, 0)?;
        match specs.get(at) {
            Some(recorded) if !same_tensor(recorded, &given) => Err(format!(
                "the optimizer's {name:?} is {} of shape {:?}, but the run records {} of shape {:?}",
                given.dtype, given.shape, recorded.dtype, recorded.shape
            )),
            _ => Ok(Some(at)),
        }
    }

    /// Whether the layout has all variables of an optimizer's state. Those of parameters that aren't recorded don't count.
    pub(crate) fn has_state(&self, state: &[StateVariable]) -> Result<bool, String> {
        for state in state {
            if self.state_name(state).is_some() && self.slot_of(state)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The variables of an optimizer's state that the recorded state isn't copied from.
    pub(crate) fn unbound(&self, state: &[StateVariable]) -> Result<Vec<StateVariable>, String> {
        let mut found = Vec::new();
        for state in state {
            let at = self.slot_of(state)?;
            match at.and_then(|at| self.optimizer.get(at)) {
                Some(TensorSource::Var(var)) if var.id() == state.var.id() => {}
                _ if self.state_name(state).is_none() => {}
                _ => found.push(state.clone()),
            }
        }
        Ok(found)
    }

    /// Adds the state that a wrapped optimizer tells to the layout. A slot has a tensor for every parameter, as an
    /// analysis expects; it is zero for parameters that no optimizer holds. Returns false and adds nothing if the run
    /// records a state of the user's own choice. The error text says what doesn't fit.
    pub(crate) fn add_state(&mut self, state: &[StateVariable]) -> Result<bool, String> {
        if self.told.is_empty() && !self.layout.optimizer_state().is_empty() {
            return Ok(false);
        }
        let mut told = std::mem::take(&mut self.told);
        for slot in state
            .iter()
            .map(|state| &state.slot)
            .collect::<BTreeSet<_>>()
        {
            for (at, parameter) in self.parameters.iter().enumerate() {
                let name = format!("{slot}.{}", self.name(at));
                if let Entry::Vacant(free) = told.entry(name) {
                    let zeros = parameter
                        .zeros_like()
                        .and_then(|zeros| Var::from_tensor(&zeros));
                    free.insert(zeros.map_err(|error| error.to_string())?);
                }
            }
        }
        for state in state {
            if let Some(name) = self.state_name(state) {
                told.insert(name, state.var.clone());
            }
        }
        let mut specs = self.layout.parameters().to_vec();
        specs.extend_from_slice(self.layout.buffers());
        for (name, var) in &told {
            specs.push(spec(name, var, Role::OptimizerState, 0)?);
        }
        self.layout = Layout::new(specs).map_err(|error| error.to_string())?;
        // The map is in the order of the names, as the layout is.
        self.optimizer = told.values().cloned().map(TensorSource::Var).collect();
        self.told = told;
        Ok(true)
    }

    /// Takes the values of the recorded state from these variables, where the layout has them.
    pub(crate) fn bind_state(&mut self, state: &[StateVariable]) -> Result<(), String> {
        for state in state {
            let at = self.slot_of(state)?;
            if let Some(source) = at.and_then(|at| self.optimizer.get_mut(at)) {
                *source = TensorSource::Var(state.var.clone());
            }
        }
        Ok(())
    }

    /// Sets the variables of an optimizer's state to recorded values, where the trace has them.
    pub(crate) fn restore_state(
        &self,
        state: &[StateVariable],
        values: &BTreeMap<String, Tensor>,
    ) -> candle_core::Result<()> {
        for state in state {
            let name = self.state_name(state);
            if let Some(value) = name.and_then(|name| values.get(&name)) {
                state.var.set(&value.to_device(state.var.device())?)?;
            }
        }
        Ok(())
    }

    /// Gives the recorded values to the state that no wrapped optimizer holds, in a run that is resumed.
    pub(crate) fn fill_state(
        &mut self,
        values: &BTreeMap<String, Tensor>,
    ) -> candle_core::Result<()> {
        let specs = self.layout.optimizer_state().iter();
        for (spec, source) in specs.zip(&mut self.optimizer) {
            if let (TensorSource::Named, Some(value)) = (&*source, values.get(&spec.name)) {
                *source = TensorSource::Var(Var::from_tensor(value)?);
            }
        }
        Ok(())
    }

    /// The parameter group of a parameter.
    pub(crate) fn group(&self, parameter: usize) -> usize {
        let spec = self.layout.parameters().get(parameter);
        spec.map_or(0, |spec| usize::from(spec.group))
    }

    /// Puts the variables of a further optimizer into a parameter group of their own. Variables that an optimizer has
    /// claimed before stay where they are. Returns whether the layout has changed.
    pub(crate) fn claim(&mut self, held: &HashSet<TensorId>) -> Result<bool, String> {
        let new: Vec<usize> = (0..self.parameters.len())
            .filter(|at| {
                self.parameters
                    .get(*at)
                    .is_some_and(|var| held.contains(&var.id()))
            })
            .filter(|at| !self.claimed.contains(at))
            .collect();
        let group = self.claims;
        if new.is_empty() {
            return Ok(false);
        }
        self.claims = self
            .claims
            .checked_add(1)
            .ok_or("more than 65,535 optimizers were wrapped")?;
        self.claimed.extend(&new);
        if group == 0 {
            return Ok(false);
        }
        let mut specs = self.layout.tensors().to_vec();
        for at in new {
            // Parameters are the first tensors of a layout.
            if let Some(spec) = specs.get_mut(at) {
                spec.group = group;
            }
        }
        self.layout = Layout::new(specs).map_err(|error| error.to_string())?;
        Ok(true)
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

fn same_tensor(a: &TensorSpec, b: &TensorSpec) -> bool {
    a.dtype == b.dtype && a.shape == b.shape
}
