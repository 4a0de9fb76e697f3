//! Tensors as bytes, for programs that don't train with candle.

use std::collections::{BTreeMap, HashSet};

use hindcast_format::KeyState;
use hindcast_format::layout::{DType, Layout, Role, TensorSpec};
use hindcast_format::{RowLayout, RowTensor, RowType};

use crate::error::{AtStep, RecorderError};
use crate::late_state::Arrival;
use crate::metadata::StepHyper;
use crate::row_block::RowBlock;
use crate::values::Values;
use hindcast_format::meta::GroupHyper;

/// A tensor of the training program as bytes: row-major, little-endian, without gaps.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    pub(crate) name: &'a str,
    role: Role,
    dtype: DType,
    shape: &'a [usize],
    group: u16,
    bytes: &'a [u8],
}

impl<'a> Slice<'a> {
    /// A tensor that the optimizer updates.
    pub fn parameter(name: &'a str, dtype: DType, shape: &'a [usize], bytes: &'a [u8]) -> Self {
        Self::new(Role::Parameter, name, dtype, shape, bytes)
    }

    /// A tensor that the forward pass updates, such as running statistics of a batch norm.
    pub fn buffer(name: &'a str, dtype: DType, shape: &'a [usize], bytes: &'a [u8]) -> Self {
        Self::new(Role::Buffer, name, dtype, shape, bytes)
    }

    /// A tensor of the optimizer itself. An analysis expects the names that the update rule gives, followed by a dot and
    /// the parameter's name: `momentum.w` for SGD with momentum, `moment1.w` and `moment2.w` for Adam.
    pub fn optimizer_state(
        name: &'a str,
        dtype: DType,
        shape: &'a [usize],
        bytes: &'a [u8],
    ) -> Self {
        Self::new(Role::OptimizerState, name, dtype, shape, bytes)
    }

    fn new(role: Role, name: &'a str, dtype: DType, shape: &'a [usize], bytes: &'a [u8]) -> Self {
        Self {
            name,
            role,
            dtype,
            shape,
            group: 0,
            bytes,
        }
    }

    /// Sets the parameter group, counted from 0. A run's groups are those at its creation: steps needn't repeat them, and a
    /// run is resumed with the same ones.
    #[must_use]
    pub fn group(mut self, group: u16) -> Self {
        self.group = group;
        self
    }

    fn spec(&self) -> Result<TensorSpec, String> {
        let spec = TensorSpec {
            name: self.name.to_owned(),
            role: self.role,
            dtype: self.dtype,
            shape: self.shape.to_vec(),
            group: self.group,
        };
        self.check(&spec).map(|()| spec)
    }

    /// Compares the slice with the recorded tensor. The error text says what differs.
    fn check(&self, spec: &TensorSpec) -> Result<(), String> {
        if (self.dtype, self.shape) != (spec.dtype, spec.shape.as_slice()) {
            return Err(format!(
                "the tensor {:?} has changed: expected {} of shape {:?}, got {} of shape {:?}",
                spec.name, spec.dtype, spec.shape, self.dtype, self.shape
            ));
        }
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let bytes = elements.and_then(|n| n.checked_mul(self.dtype.size()));
        if bytes == Some(self.bytes.len()) {
            return Ok(());
        }
        Err(format!(
            "the tensor {:?} is {} of shape {:?}, so it has {} bytes, but {} were given",
            self.name,
            self.dtype,
            self.shape,
            bytes.map_or("too many".to_owned(), |n| n.to_string()),
            self.bytes.len()
        ))
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Parameter => "parameter",
        Role::Buffer => "buffer",
        Role::OptimizerState => "optimizer state",
    }
}

/// The layout of these tensors. The error text says what is wrong.
pub(crate) fn layout(slices: &[Slice<'_>]) -> Result<Layout, String> {
    let specs = slices.iter().map(Slice::spec);
    let specs = specs.collect::<Result<Vec<_>, _>>()?;
    if !specs.iter().any(|spec| spec.role == Role::Parameter) {
        return Err("there is no parameter among the tensors".to_owned());
    }
    Layout::new(specs).map_err(|error| error.to_string())
}

/// The optimizer's tensors by name, as bytes.
pub type StateBytes = Vec<(String, Vec<u8>)>;

/// The tensors of one step.
pub(crate) struct Given<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) slices: &'a [Slice<'a>],
    pub(crate) optimizer: Option<&'a dyn Fn() -> StateBytes>,
}

impl Given<'_> {
    fn find(&self, at: usize, spec: &TensorSpec) -> Option<&Slice<'_>> {
        let is = |slice: &&Slice<'_>| slice.role == spec.role && slice.name == spec.name;
        // Programs usually give the tensors in the same order every time, often that of the layout.
        let near = self.slices.get(at).filter(is);
        near.or_else(|| self.slices.iter().find(is))
    }

    /// Copies the tensors of a section of the layout. `first` is the position of its first tensor.
    fn copy(&self, specs: &[TensorSpec], first: usize, mut out: &mut [u8]) -> Result<(), String> {
        for (at, spec) in (first..).zip(specs) {
            let slice = self.find(at, spec).ok_or_else(|| {
                format!(
                    "the tensor {:?}, which the run records, was not given",
                    spec.name
                )
            })?;
            slice.check(spec)?;
            let (here, rest) = out
                .split_at_mut_checked(slice.bytes.len())
                .ok_or_else(|| format!("the tensor {:?} does not fit the layout", spec.name))?;
            here.copy_from_slice(slice.bytes);
            out = rest;
        }
        Ok(())
    }

    /// Refuses tensors that the run doesn't record, and tensors that are given twice.
    fn check_names(&self) -> Result<(), String> {
        let known = |slice: &&Slice<'_>| {
            // Each role's tensors are in the order of their names.
            let of = |specs: &[TensorSpec]| {
                let found = specs.binary_search_by(|spec| spec.name.as_str().cmp(slice.name));
                found.is_ok()
            };
            of(match slice.role {
                Role::Parameter => self.layout.parameters(),
                Role::Buffer => self.layout.buffers(),
                Role::OptimizerState => self.layout.optimizer_state(),
            })
        };
        if let Some(extra) = self.slices.iter().find(|slice| !known(slice)) {
            return Err(format!(
                "the {} {:?} is not one that the run records: a run's tensors are those of its creation",
                role_name(extra.role),
                extra.name
            ));
        }
        let mut seen = HashSet::with_capacity(self.slices.len());
        let mut slices = self.slices.iter();
        match slices.find(|slice| !seen.insert((slice.role, slice.name))) {
            Some(twice) => Err(format!(
                "the {} {:?} is given twice in one step: give each tensor once",
                role_name(twice.role),
                twice.name
            )),
            None => Ok(()),
        }
    }

    /// The buffers as they are now.
    pub(crate) fn buffers(&self) -> Result<Vec<u8>, String> {
        let specs = self.layout.buffers();
        let mut out = vec![0; specs.iter().map(TensorSpec::bytes).sum()];
        self.copy(specs, self.layout.parameters().len(), &mut out)?;
        Ok(out)
    }

    /// Compares the tensors with recorded values, where there are any. The error text names the first that differs.
    pub(crate) fn compare(&self, specs: &[TensorSpec], recorded: &[u8]) -> Result<(), String> {
        let mut rest = recorded;
        for spec in specs {
            let Some((here, after)) = rest.split_at_checked(spec.bytes()) else {
                return Ok(());
            };
            rest = after;
            let given = self.find(usize::MAX, spec);
            if given.is_none_or(|slice| slice.bytes != here) {
                return Err(format!(
                    "{:?} differs from the trace's value before that step; give the values of exactly that step, or take the trace's values \
                     with restore_variables()",
                    spec.name
                ));
            }
        }
        Ok(())
    }
}

impl Values for Given<'_> {
    fn state(
        &self,
        _: &str,
        at: AtStep<'_>,
        out: &mut [u8],
    ) -> Result<Option<Box<dyn Arrival>>, RecorderError> {
        let wrong = |why| at.wrong(why);
        self.check_names().map_err(wrong)?;
        let parameters = self.layout.parameters();
        let bytes = parameters.iter().map(TensorSpec::bytes).sum();
        let Some((first, second)) = out.split_at_mut_checked(bytes) else {
            return Err(at.wrong("the tensors do not fit the layout"));
        };
        self.copy(parameters, 0, first).map_err(wrong)?;
        self.copy(self.layout.buffers(), parameters.len(), second)
            .map_err(wrong)?;
        Ok(None)
    }

    fn optimizer(&self, key: &mut KeyState) -> Result<(), String> {
        let specs = self.layout.optimizer_state();
        let first = self.layout.tensors().len() - specs.len();
        let Some(read) = self.optimizer else {
            return self.copy(specs, first, key.optimizer_mut());
        };
        let mut state = BTreeMap::new();
        for (name, bytes) in read() {
            let known = specs.binary_search_by(|spec| spec.name.as_str().cmp(&name));
            if known.is_err() {
                return Err(format!(
                    "the optimizer's {name:?} is not one that the run records: a run's tensors are those of its creation"
                ));
            }
            if state.contains_key(&name) {
                return Err(format!("the optimizer's {name:?} is given twice"));
            }
            state.insert(name, bytes);
        }
        let mut out = key.optimizer_mut();
        for spec in specs {
            let bytes = state.get(&spec.name).ok_or_else(|| {
                format!(
                    "the optimizer's state lacks {:?}, which the run records",
                    spec.name
                )
            })?;
            let (here, rest) = out
                .split_at_mut_checked(spec.bytes())
                .filter(|(here, _)| here.len() == bytes.len())
                .ok_or_else(|| {
                    format!(
                        "the optimizer's {:?} is {} of shape {:?}, so it has {} bytes, but {} were given",
                        spec.name,
                        spec.dtype,
                        spec.shape,
                        spec.bytes(),
                        bytes.len()
                    )
                })?;
            here.copy_from_slice(bytes);
            out = rest;
        }
        Ok(())
    }
}

/// What a loop says about a step whose tensors it gives as bytes. Its batch is announced before.
#[derive(Clone, Copy)]
#[must_use]
pub struct SliceStep<'a> {
    pub(crate) hyper: StepHyper<'a>,
    pub(crate) loss: Option<f64>,
    pub(crate) optimizer_step: Option<u64>,
    pub(crate) trained: Option<&'a [&'a str]>,
    pub(crate) optimizer: Option<&'a dyn Fn() -> StateBytes>,
}

impl<'a> SliceStep<'a> {
    /// A step with learning rate η in every parameter group.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            hyper: StepHyper::One {
                learning_rate,
                weight_decay: None,
            },
            loss: None,
            optimizer_step: None,
            trained: None,
            optimizer: None,
        }
    }

    /// The optimizer's own weight decay λ in every group. By default that of
    /// [`Builder::weight_decay`](crate::Builder::weight_decay), or of the run's rule.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        if let StepHyper::One { weight_decay, .. } = &mut self.hyper {
            *weight_decay = Some(decay);
        }
        self
    }

    /// Learning rate and weight decay of each parameter group, in the groups' order.
    pub fn groups(mut self, groups: &'a [GroupHyper]) -> Self {
        self.hyper = StepHyper::Each(groups);
        self
    }

    /// The value of the batch loss.
    pub fn loss(mut self, loss: f64) -> Self {
        self.loss = Some(loss);
        self
    }

    /// Number of updates that the optimizer had done before this one, if that is not the number of recorded steps.
    pub fn optimizer_step(mut self, updates: u64) -> Self {
        self.optimizer_step = Some(updates);
        self
    }

    /// Names of the parameters that the step trains. Without this call, it trains all of them.
    pub fn trained(mut self, names: &'a [&'a str]) -> Self {
        self.trained = Some(names);
        self
    }

    /// Reads the optimizer's state before the update, by name. It is called only at keyframes, so that a state on a GPU
    /// isn't copied at every step. Without this call, the state must be among the step's slices.
    pub fn optimizer(mut self, read: &'a dyn Fn() -> StateBytes) -> Self {
        self.optimizer = Some(read);
        self
    }

    /// One flag per parameter. The error text names a parameter that the run doesn't have.
    pub(crate) fn flags(&self, layout: &Layout) -> Result<Vec<bool>, String> {
        let specs = layout.parameters();
        let Some(names) = self.trained else {
            return Ok(vec![true; specs.len()]);
        };
        let mut flags = vec![false; specs.len()];
        for name in names {
            // Parameters are in the order of their names.
            let at = specs.binary_search_by(|spec| spec.name.as_str().cmp(name));
            match at.ok().and_then(|at| flags.get_mut(at)) {
                Some(flag) => *flag = true,
                None => return Err(format!("the run has no parameter {name:?} to be trained")),
            }
        }
        Ok(flags)
    }
}

/// A tensor of a batch as bytes: row-major, little-endian. The first axis counts the examples.
#[derive(Debug, Clone, Copy)]
pub struct RowSlice<'a> {
    /// Type of the elements.
    pub dtype: RowType,
    /// Dimensions, the number of examples first.
    pub shape: &'a [usize],
    /// The elements.
    pub bytes: &'a [u8],
}

/// The rows of tensors with the same first axis. The error text says what doesn't fit.
pub(crate) fn rows(slices: &[RowSlice<'_>]) -> Result<RowBlock, String> {
    let Some((first, _)) = slices.split_first() else {
        return Err("a batch of rows needs at least one tensor".to_owned());
    };
    let count = first.shape.first().copied();
    let mut tensors = Vec::with_capacity(slices.len());
    for (at, slice) in slices.iter().enumerate() {
        let (Some(&n), Some(shape)) = (slice.shape.first(), slice.shape.get(1..)) else {
            return Err(format!(
                "tensor {at} of the batch is a single number: its first axis must count the examples"
            ));
        };
        if Some(n) != count {
            return Err(format!(
                "tensor {at} of the batch has shape {:?}, but tensor 0 has {:?}: the first axes count the examples and must agree",
                slice.shape, first.shape
            ));
        }
        tensors.push(RowTensor {
            dtype: slice.dtype,
            shape: shape.to_vec(),
        });
    }
    let layout = RowLayout::new(tensors).map_err(|error| error.to_string())?;
    let count = count.unwrap_or(0);
    for ((at, slice), tensor) in slices.iter().enumerate().zip(layout.tensors()) {
        let expected = count.checked_mul(tensor.bytes());
        if expected != Some(slice.bytes.len()) {
            return Err(format!(
                "tensor {at} of the batch is {} of shape {:?}, so it has {} bytes, but {} were given",
                slice.dtype.name(),
                slice.shape,
                expected.map_or("too many".to_owned(), |n| n.to_string()),
                slice.bytes.len()
            ));
        }
    }
    let mut bytes = Vec::new();
    for row in 0..count {
        for (slice, tensor) in slices.iter().zip(layout.tensors()) {
            let part = tensor.bytes();
            let here = slice.bytes.get(row * part..(row + 1) * part);
            bytes.extend_from_slice(here.unwrap_or_default());
        }
    }
    Ok(RowBlock { layout, bytes })
}
