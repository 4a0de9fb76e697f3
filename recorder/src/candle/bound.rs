//! The variables that a run records, as its options name them.

use candle_nn::VarMap;
use hindcast_format::layout::Role;

use super::names::{Bound, Named, bind, from_map, is_running_statistic};
use super::step::OptimizerState;
use crate::error::RecorderError;
use crate::options::Options;

impl Options {
    /// The variables of a map with their roles and groups, without the excluded ones.
    pub(crate) fn name_all(&self, variables: &VarMap) -> Vec<Named> {
        let role = |name: &str| {
            if is_running_statistic(name) || self.buffers.iter().any(|test| test(name)) {
                Role::Buffer
            } else {
                Role::Parameter
            }
        };
        let group = |name: &str| {
            if role(name) == Role::Parameter {
                self.groups.as_ref().map_or(0, |of| of(name))
            } else {
                0
            }
        };
        let mut named = from_map(variables, role, group);
        named.retain(|named| {
            let mut tests = self.exclude.iter().chain(&self.frozen);
            !tests.any(|test| test(&named.name))
        });
        named
    }

    /// The layout of these variables and of the optimizer's state.
    pub(crate) fn bind(&self, variables: Vec<Named>) -> Result<Bound, RecorderError> {
        self.check()?;
        let state = match &self.optimizer_state {
            None => None,
            Some(Ok(tensors)) => Some(move || Ok(tensors.clone())),
            Some(Err(error)) => {
                return Err(self.setup(format!("the optimizer's state could not be read: {error}")));
            }
        };
        bind(
            variables,
            state.as_ref().map(|state| state as &dyn OptimizerState),
        )
        .map_err(|why| self.setup(why))
    }
}
