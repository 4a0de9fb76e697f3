//! Makes the layout of a trace from candle variables: names, roles, groups and order.

use std::collections::HashMap;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;
use hindcast_format::layout::{Layout, Role, TensorSpec};

use super::step::OptimizerState;
use super::tensor_bytes::{byte_len, copy_tensor, format_dtype};

/// A variable with its name, its role and its parameter group.
#[derive(Debug, Clone)]
pub struct Named {
    pub(crate) name: String,
    pub(crate) var: Var,
    pub(crate) role: Role,
    pub(crate) group: u16,
}

impl Named {
    /// A variable that the optimizer updates.
    pub fn parameter(name: impl Into<String>, var: &Var) -> Self {
        Self::new(name, var, Role::Parameter)
    }

    /// A variable that the forward pass updates, such as BatchNorm's running statistics.
    pub fn buffer(name: impl Into<String>, var: &Var) -> Self {
        Self::new(name, var, Role::Buffer)
    }

    /// A variable of the optimizer itself, such as a momentum. It is recorded with keyframes.
    pub fn optimizer_state(name: impl Into<String>, var: &Var) -> Self {
        Self::new(name, var, Role::OptimizerState)
    }

    /// A variable in the given role.
    pub fn new(name: impl Into<String>, var: &Var, role: Role) -> Self {
        Self {
            name: name.into(),
            var: var.clone(),
            role,
            group: 0,
        }
    }

    /// Sets the parameter group, counted from 0.
    #[must_use]
    pub fn group(mut self, group: u16) -> Self {
        self.group = group;
        self
    }
}

/// Whether this is candle's name for a running statistic of BatchNorm.
pub(crate) fn is_running_statistic(name: &str) -> bool {
    name.ends_with("running_mean") || name.ends_with("running_var")
}

/// The variables of a map, sorted by name.
pub(crate) fn from_map(
    map: &VarMap,
    role: impl Fn(&str) -> Role,
    group: impl Fn(&str) -> u16,
) -> Vec<Named> {
    let data = map
        .data()
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut named: Vec<Named> = data
        .iter()
        .map(|(name, var)| Named::new(name.clone(), var, role(name)).group(group(name)))
        .collect();
    named.sort_by(|a, b| a.name.cmp(&b.name));
    named
}

/// The layout, and the source of each tensor's values, role by role in the layout's order.
pub(crate) struct Bound {
    pub(crate) layout: Layout,
    pub(crate) parameters: Vec<Var>,
    pub(crate) buffers: Vec<Var>,
    pub(crate) optimizer: Vec<TensorSource>,
}

impl Bound {
    /// The tensors of a state in the layout's order.
    pub(crate) fn state(&self) -> impl Iterator<Item = Tensor> {
        let state = self.parameters.iter().chain(&self.buffers);
        state.map(|var| var.as_tensor().clone())
    }
}

/// Where the values of an optimizer tensor come from.
pub(crate) enum TensorSource {
    /// A variable.
    Var(Var),
    /// The user's [`OptimizerState`], by the tensor's name.
    Named,
}

/// Orders the variables as the layout does. The error text says what to do.
pub(crate) fn bind(named: Vec<Named>, state: Option<&dyn OptimizerState>) -> Result<Bound, String> {
    let mut specs = Vec::with_capacity(named.len());
    let mut sources: HashMap<(Role, String), TensorSource> = HashMap::new();
    let mut seen: HashMap<candle_core::TensorId, String> = HashMap::new();
    for Named {
        name,
        var,
        role,
        group,
    } in named
    {
        if let Some(other) = seen.insert(var.id(), name.clone()) {
            return Err(format!(
                "{name:?} and {other:?} are the same variable: give it once"
            ));
        }
        specs.push(spec(&name, &var, role, group)?);
        if sources
            .insert((role, name.clone()), TensorSource::Var(var))
            .is_some()
        {
            return Err(format!(
                "two variables are called {name:?}: names must differ"
            ));
        }
    }
    if let Some(state) = state {
        let tensors = state
            .tensors()
            .map_err(|error| format!("the optimizer's state could not be read: {error}"))?;
        for (name, tensor) in tensors {
            specs.push(spec(&name, &tensor, Role::OptimizerState, 0)?);
            if sources
                .insert((Role::OptimizerState, name.clone()), TensorSource::Named)
                .is_some()
            {
                return Err(format!(
                    "two tensors of the optimizer's state are called {name:?}: names must differ"
                ));
            }
        }
    }
    if !specs.iter().any(|spec| spec.role == Role::Parameter) {
        return Err(
            "there is no parameter among the variables: build the model before the run is created"
                .to_owned(),
        );
    }
    let layout = Layout::new(specs).map_err(|error| error.to_string())?;
    let mut take = |specs: &[TensorSpec]| -> Result<Vec<TensorSource>, String> {
        specs
            .iter()
            .map(|spec| {
                sources
                    .remove(&(spec.role, spec.name.clone()))
                    .ok_or_else(|| format!("{:?} is missing from the layout", spec.name))
            })
            .collect()
    };
    let parameters = only_vars(take(layout.parameters())?);
    let buffers = only_vars(take(layout.buffers())?);
    let optimizer = take(layout.optimizer_state())?;
    Ok(Bound {
        layout,
        parameters,
        buffers,
        optimizer,
    })
}

fn only_vars(sources: Vec<TensorSource>) -> Vec<Var> {
    sources
        .into_iter()
        .filter_map(|source| match source {
            TensorSource::Var(var) => Some(var),
            TensorSource::Named => None,
        })
        .collect()
}

pub(crate) fn spec(
    name: &str,
    tensor: &Tensor,
    role: Role,
    group: u16,
) -> Result<TensorSpec, String> {
    let Some(dtype) = format_dtype(tensor.dtype()) else {
        return Err(format!(
            "{name:?} has type {:?}, but only f32, f64, bf16 and f16 can be recorded: leave it out with exclude(), or use a float type",
            tensor.dtype()
        ));
    };
    Ok(TensorSpec {
        name: name.to_owned(),
        role,
        dtype,
        shape: tensor.dims().to_vec(),
        group,
    })
}

/// Copies the optimizer's tensors in the layout's order. Each is compared with its specification.
pub(crate) fn copy_optimizer(
    specs: &[TensorSpec],
    sources: &[TensorSource],
    state: Option<&dyn OptimizerState>,
    out: &mut [u8],
) -> Result<(), String> {
    let mut rest = out;
    let given: HashMap<String, Tensor> = match state {
        Some(state)
            if sources
                .iter()
                .any(|source| matches!(source, TensorSource::Named)) =>
        {
            state
                .tensors()
                .map_err(|error| format!("the optimizer's state could not be read: {error}"))?
                .into_iter()
                .collect()
        }
        _ => HashMap::new(),
    };
    for (spec, source) in specs.iter().zip(sources) {
        let name = &spec.name;
        let tensor = match source {
            TensorSource::Var(var) => var.as_tensor(),
            TensorSource::Named => given.get(name).ok_or_else(|| {
                format!(
                    "the optimizer's state lacks {name:?}, which the run records: wrap the same type of optimizer as before (hindcast_recorder::AdamW tells its \
                     state), or pass the state with every step"
                )
            })?,
        };
        if tensor.dims() != spec.shape || format_dtype(tensor.dtype()) != Some(spec.dtype) {
            return Err(format!(
                "the optimizer's {name:?} has changed: expected {} of shape {:?}, got {:?} of shape {:?}",
                spec.dtype,
                spec.shape,
                tensor.dtype(),
                tensor.dims()
            ));
        }
        let (here, after) = rest
            .split_at_mut_checked(byte_len(tensor))
            .ok_or_else(|| format!("the optimizer's {name:?} does not fit the layout"))?;
        copy_tensor(tensor, here)
            .map_err(|error| format!("copying the optimizer's {name:?}: {error}"))?;
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn var(shape: &[usize], dtype: DType) -> Var {
        Var::zeros(shape, dtype, &Device::Cpu).unwrap()
    }

    fn names(specs: &[TensorSpec]) -> Vec<&str> {
        specs.iter().map(|spec| spec.name.as_str()).collect()
    }

    #[test]
    fn a_map_is_ordered_by_name_and_running_statistics_are_buffers() {
        let map = VarMap::new();
        let all = [
            "z.weight",
            "bn.running_var",
            "a.weight",
            "bn.running_mean",
            "bn.weight",
            "a.bias",
        ];
        for name in all {
            map.data()
                .lock()
                .unwrap()
                .insert(name.to_owned(), var(&[2], DType::F32));
        }
        let role = |name: &str| {
            if is_running_statistic(name) {
                Role::Buffer
            } else {
                Role::Parameter
            }
        };
        let bound = bind(from_map(&map, role, |_| 0), None).unwrap();
        assert_eq!(
            names(bound.layout.parameters()),
            ["a.bias", "a.weight", "bn.weight", "z.weight"]
        );
        assert_eq!(
            names(bound.layout.buffers()),
            ["bn.running_mean", "bn.running_var"]
        );
        assert_eq!(
            (
                bound.parameters.len(),
                bound.buffers.len(),
                bound.optimizer.len()
            ),
            (4, 2, 0)
        );
    }

    #[test]
    fn each_mistake_in_the_variables_has_its_message() {
        let one = var(&[2], DType::F32);
        let refused = |named: Vec<Named>| bind(named, None).err().unwrap();
        assert!(refused(vec![Named::buffer("b", &one)]).contains("no parameter"));
        assert!(
            refused(vec![
                Named::parameter("a", &one),
                Named::parameter("b", &one)
            ])
            .contains("same variable")
        );
        assert!(
            refused(vec![
                Named::parameter("a", &one),
                Named::parameter("a", &var(&[2], DType::F32))
            ])
            .contains("two variables are called \"a\"")
        );
        assert!(
            refused(vec![Named::parameter("count", &var(&[1], DType::U32))])
                .contains("\"count\" has type U32")
        );
    }

    #[test]
    fn the_optimizers_tensors_must_keep_their_names_and_shapes() {
        let one = var(&[2], DType::F32);
        let momentum = |shape: usize, name: &'static str| {
            move || {
                Ok(vec![(
                    name.to_owned(),
                    Tensor::ones(shape, DType::F32, &Device::Cpu)?,
                )])
            }
        };
        let first = momentum(2, "momentum");
        let bound = bind(vec![Named::parameter("a", &one)], Some(&first)).unwrap();
        let specs = bound.layout.optimizer_state();
        let mut out = [0; 8];
        copy_optimizer(specs, &bound.optimizer, Some(&first), &mut out).unwrap();
        assert_eq!(
            out.to_vec(),
            [1f32.to_le_bytes(), 1f32.to_le_bytes()].concat()
        );
        let copy = |state: Option<&dyn OptimizerState>| {
            copy_optimizer(specs, &bound.optimizer, state, &mut [0; 8]).unwrap_err()
        };
        assert!(
            copy(Some(&momentum(3, "momentum")))
                .contains("expected f32 of shape [2], got F32 of shape [3]")
        );
        assert!(copy(Some(&momentum(2, "velocity"))).contains("lacks \"momentum\""));
        assert!(copy(None).contains("lacks \"momentum\""));
    }
}
