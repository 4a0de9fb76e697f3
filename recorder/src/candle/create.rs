//! Creates a run that records candle variables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use candle_nn::VarMap;
use hindcast_format::{State, Storage};

use super::frozen::Frozen;
use super::names::{Bound, Named};
use super::recorder::Recorder;
use super::snapshot::{Copier, staged_bytes};
use super::step::OptimizerState;
use super::step_recorder::{Begin, StepRecorder};
use super::tensors::Tensors;
use crate::builder::Builder;
use crate::error::RecorderError;
use crate::estimate::Estimate;
use crate::options::Options;
use crate::start::create;

impl Recorder {
    /// A builder for a run in the folder `path`.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path)
    }

    /// A builder for a run in any storage. Messages call the run `name`.
    pub fn builder_on(storage: Arc<dyn Storage>, name: impl Into<String>) -> Builder {
        Builder::on(storage, name)
    }
}

impl Builder {
    /// The optimizer whose state is recorded with every keyframe. The names, shapes and types of its tensors are read
    /// now. Their values come with each step, through [`Recorder::wrap_with_state`] or
    /// [`StepInfo::optimizer`](crate::StepInfo::optimizer).
    pub fn optimizer_state(mut self, optimizer: &dyn OptimizerState) -> Self {
        self.options.optimizer_state = Some(optimizer.tensors());
        self
    }

    /// Copies parameters on a GPU while the recording call waits. By default they are copied while training continues, which
    /// takes memory for two copies of the parameters and buffers on the GPU, and the same number of pinned bytes on the host.
    /// If that memory can't be allocated when the run is created, they are copied while the call waits, and
    /// [`Statistics::not_staged`](crate::Statistics::not_staged) says why. With this call, the memory stays free for the
    /// training. The trace is the same.
    pub fn without_staging(mut self) -> Self {
        self.options.devices = None;
        self
    }

    /// Estimates how much disk space and memory the run would take, without creating it.
    ///
    /// # Errors
    /// The variables and options don't fit together. The error says why.
    pub fn estimate(&self, variables: &VarMap) -> Result<Estimate, RecorderError> {
        let bound = self.options.bind(self.options.name_all(variables))?;
        let mut basis = self.options.basis(&bound.layout);
        basis.staged = staged_bytes(bound.state(), self.options.devices.as_deref());
        Ok(Estimate::new(&basis))
    }

    /// Creates a run that records the variables of a map, in the order of their names.
    ///
    /// # Errors
    /// The storage already contains a run, it fails, or the variables and options don't fit together. The error says
    /// why.
    pub fn create(mut self, variables: &VarMap) -> Result<Recorder, RecorderError> {
        let named = self.options.name_all(variables);
        let frozen = Frozen::of_map(&mut self.options, variables)?;
        self.create_with(named, frozen)
    }

    /// Creates a run that records the given variables, each with its role and group. [`buffers`](Self::buffers),
    /// [`exclude`](Self::exclude), [`frozen`](Self::frozen) and [`groups`](Self::groups) don't apply.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_from(self, variables: Vec<Named>) -> Result<Recorder, RecorderError> {
        self.create_with(variables, Frozen::default())
    }

    fn create_with(self, variables: Vec<Named>, frozen: Frozen) -> Result<Recorder, RecorderError> {
        let bound = self.options.bind(variables)?;
        let tensors = tensors(&self.options, bound);
        let buffers = buffers(&self.options, &tensors)?;
        let (recording, threads) = create(&self.options, tensors.layout.clone(), buffers)?;
        let begin = Begin {
            step: 0,
            update: 0,
            optimizer: None,
            counters: Vec::new(),
        };
        let steps = StepRecorder::new(recording, tensors, frozen, begin);
        Ok(Recorder::start(steps, threads))
    }
}

/// The tensors of these variables on the training thread.
pub(crate) fn tensors(options: &Options, bound: Bound) -> Tensors {
    let copier = Copier::new(bound.state(), options.devices.as_deref());
    let Bound {
        layout,
        parameters,
        optimizer,
        ..
    } = bound;
    Tensors {
        layout,
        parameters,
        copier,
        chosen: options.optimizer_state.is_some(),
        optimizer,
        told: BTreeMap::new(),
        claims: 0,
        claimed: BTreeSet::new(),
    }
}

/// The buffers that the variables hold.
pub(crate) fn buffers(options: &Options, tensors: &Tensors) -> Result<Vec<u8>, RecorderError> {
    let mut state = State::zeros(&tensors.layout);
    tensors
        .copier
        .copy(state.bytes_mut())
        .map_err(|error| options.setup(format!("the variables could not be copied: {error}")))?;
    Ok(state.buffers().to_vec())
}
