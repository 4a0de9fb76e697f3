//! Frozen variables: their digests, and the check that training doesn't change them.

use std::collections::HashSet;

use candle_core::{Tensor, TensorId, Var};
use candle_nn::VarMap;
use hindcast_format::FrozenTensor;

use super::row_tensors::bytes_of;
use crate::builder::Builder;
use crate::error::RecorderError;
use crate::options::Options;

/// The frozen variables of a run.
#[derive(Default)]
pub(crate) struct Frozen {
    variables: Vec<(Var, FrozenTensor)>,
}

impl Frozen {
    /// The frozen variables of a map. Their digests join those of the options.
    pub(crate) fn of_map(options: &mut Options, map: &VarMap) -> Result<Self, RecorderError> {
        let named: Vec<(String, Var)> = {
            let data = map.data().lock();
            let data = data.unwrap_or_else(std::sync::PoisonError::into_inner);
            let frozen = |name: &String| options.frozen.iter().any(|test| test(name));
            let all = data.iter().filter(|(name, _)| frozen(name));
            all.map(|(name, var)| (name.clone(), var.clone())).collect()
        };
        let mut frozen = Self::default();
        for (name, var) in named {
            let tensor = digest(&name, &var).map_err(|why| options.setup(why))?;
            frozen.variables.push((var, tensor));
        }
        let tensors = frozen.variables.iter().map(|(_, tensor)| tensor.clone());
        options.frozen_tensors.extend(tensors);
        Ok(frozen)
    }

    /// Compares the variables with their digests. The error text names one that has changed.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (var, tensor) in &self.variables {
            if digest(&tensor.name, var)? != *tensor {
                return Err(format!(
                    "the frozen variable {:?} has changed, so it isn't frozen: leave it out of the test of Builder::frozen, and record the run again",
                    tensor.name
                ));
            }
        }
        Ok(())
    }

    /// The name of a frozen variable among these.
    pub(crate) fn held(&self, held: &HashSet<TensorId>) -> Option<&str> {
        let mut variables = self.variables.iter();
        let found = variables.find(|(var, _)| held.contains(&var.id()));
        found.map(|(_, tensor)| tensor.name.as_str())
    }
}

fn digest(name: &str, tensor: &Tensor) -> Result<FrozenTensor, String> {
    let (dtype, bytes) =
        bytes_of(tensor).map_err(|why| format!("the frozen tensor {name:?}: {why}"))?;
    Ok(FrozenTensor::of(name, dtype, tensor.dims(), &bytes))
}

impl Builder {
    /// Frozen tensors that are not in the recorded map, such as a base that is loaded from its own file; see
    /// [`frozen`](Self::frozen).
    ///
    /// # Errors
    /// A tensor has a type without a digest, or can't be copied to the CPU.
    pub fn frozen_tensors<'t, N: Into<String>>(
        mut self,
        tensors: impl IntoIterator<Item = (N, &'t Tensor)>,
    ) -> Result<Self, RecorderError> {
        for (name, tensor) in tensors {
            let frozen = digest(&name.into(), tensor).map_err(|why| self.options.setup(why))?;
            self.options.frozen_tensors.push(frozen);
        }
        Ok(self)
    }
}
