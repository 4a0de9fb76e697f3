//! Passes the steps of a training to a recorder.

use candle_core::{CpuStorage, CpuStorageRef, Device, InplaceOp1, Layout, Shape, Tensor, Var};
use hindcast_format::GroupHyper;
use hindcast_model::batches::LossWeights;
use hindcast_model::net::Net;
use hindcast_model::objective::{Objective, TensorDef};
use hindcast_model::real::Real;
use hindcast_model::task::Task;
use hindcast_model::train::{ModelState, StepRecord, TrainError};
use hindcast_recorder::{BatchInfo, Named, Recorder, RecorderError, StepInfo};

/// Records a step. Its state was set by [`Mirror::copy_state`].
fn record<T: Real>(recorder: &Recorder, step: &StepRecord<'_, T>) -> Result<(), RecorderError> {
    let micro: Vec<u32> = step.micro_batches.iter().map(|&n| n as u32).collect();
    let mut batch = BatchInfo::new(step.epoch, step.indices).micro_batches(&micro);
    batch = match step.weights {
        LossWeights::Mean => batch,
        LossWeights::Sum => batch.summed(),
        LossWeights::Each(weights) => batch.weights(weights),
        LossWeights::SumOfEach(weights) => batch.summed_weights(weights),
    };
    if let Some(threshold) = step.settings.clip_norm {
        batch = batch.clip_norm(threshold);
    }
    let groups: Vec<_> = step
        .settings
        .groups
        .iter()
        .map(|g| GroupHyper {
            learning_rate: g.learning_rate,
            weight_decay: g.weight_decay,
        })
        .collect();
    let rate = groups.first().map_or(0.0, |g| g.learning_rate);
    recorder.step(
        &StepInfo::new(batch, rate)
            .groups(&groups)
            .loss(step.loss)
            .optimizer_step(step.settings.optimizer_step)
            .trained(&step.settings.trained),
    )
}

/// Copies the trainer's flat vectors into variables, which a recorder reads.
pub(crate) struct Mirror {
    parameters: Vec<(TensorDef, Var)>,
    buffers: Vec<(TensorDef, Var)>,
    optimizer: Vec<(TensorDef, Var)>,
}

impl Mirror {
    pub fn new<T: Real>(task: &Task, net: &Net, state: &ModelState<T>) -> anyhow::Result<Self> {
        let optimizer: Vec<TensorDef> = task
            .optimizer
            .state_tensors(net.parameters())
            .into_iter()
            .map(|t| TensorDef {
                name: t.name,
                shape: t.shape,
            })
            .collect();
        Ok(Self {
            parameters: vars(net.parameters(), &state.parameters)?,
            buffers: vars(net.buffers(), &state.buffers)?,
            optimizer: vars(&optimizer, &state.optimizer)?,
        })
    }

    /// The variables with their names, as a recorder expects them.
    pub fn named(&self) -> Vec<Named> {
        let mut named = Vec::new();
        named.extend(
            self.parameters
                .iter()
                .map(|(d, v)| Named::parameter(d.name.as_str(), v)),
        );
        named.extend(
            self.buffers
                .iter()
                .map(|(d, v)| Named::buffer(d.name.as_str(), v)),
        );
        named.extend(
            self.optimizer
                .iter()
                .map(|(d, v)| Named::optimizer_state(d.name.as_str(), v)),
        );
        named
    }

    /// Copies a step's state into the variables and records the step.
    pub fn record<T: Real>(
        &self,
        recorder: &Recorder,
        step: &StepRecord<'_, T>,
    ) -> Result<(), RecordingError> {
        self.copy_state(step.before, step.buffers)?;
        Ok(record(recorder, step)?)
    }

    /// Copies θ_t, the optimizer's state before the step, and the buffers after the step's forward pass.
    pub fn copy_state<T: Real>(
        &self,
        before: &ModelState<T>,
        buffers: &[T],
    ) -> Result<(), RecordingError> {
        set(&self.parameters, &before.parameters)?;
        set(&self.buffers, buffers)?;
        set(&self.optimizer, &before.optimizer)
    }
}

fn vars<T: Real>(defs: &[TensorDef], values: &[T]) -> anyhow::Result<Vec<(TensorDef, Var)>> {
    let mut rest = values;
    let mut out = Vec::with_capacity(defs.len());
    for def in defs {
        let shape = Shape::from(def.shape.clone());
        let (here, after) = rest.split_at(shape.elem_count().min(rest.len()));
        rest = after;
        out.push((
            def.clone(),
            Var::from_tensor(&Tensor::from_slice(here, shape, &Device::Cpu)?)?,
        ));
    }
    Ok(out)
}

fn set<T: Real>(to: &[(TensorDef, Var)], values: &[T]) -> Result<(), RecordingError> {
    let mut rest = values;
    for (_, var) in to {
        let (here, after) = rest.split_at(var.elem_count().min(rest.len()));
        rest = after;
        var.inplace_op1(&Overwrite(here))?;
    }
    Ok(())
}

/// Writes values into a variable's memory. `Var::set` would need a tensor made of them, one more copy per step.
struct Overwrite<'a, T>(&'a [T]);

impl<T: Real> InplaceOp1 for Overwrite<'_, T> {
    fn name(&self) -> &'static str {
        "overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        // The variables were made from whole vectors, so they are contiguous.
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a mirrored variable is not contiguous");
        };
        let copied = match (storage, T::cpu_storage_ref(self.0)) {
            (CpuStorage::F32(to), CpuStorageRef::F32(from)) => copy(to.get_mut(start..end), from),
            (CpuStorage::F64(to), CpuStorageRef::F64(from)) => copy(to.get_mut(start..end), from),
            _ => None,
        };
        if copied.is_none() {
            candle_core::bail!("a mirrored variable differs from the values in type or number");
        }
        Ok(())
    }
}

/// Copies `from`. Returns `None` if the lengths differ.
fn copy<T: Copy>(to: Option<&mut [T]>, from: &[T]) -> Option<()> {
    let to = to.filter(|to| to.len() == from.len())?;
    to.copy_from_slice(from);
    Some(())
}

/// Why a recorded training stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
