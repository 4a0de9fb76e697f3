//! Loads recorded steps back into variables.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;
use hindcast_format::{Checkpoint, FormatError, FrozenTensor, Layout, Role, Trace};

use super::resume::optimizer_tensors;
use super::tensor_bytes::{format_dtype, tensor_from_bytes};
use crate::error::RecorderError;

/// What [`LoadInto::load_into`] returns besides the values that it sets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The step before which the variables have these values.
    pub step: u64,
    /// The epoch of the step before it; `None` at step 0.
    pub epoch: Option<u64>,
    /// Number of updates that the optimizer had done before it.
    pub optimizer_step: u64,
    /// The optimizer's tensors by name, on the CPU. The trace has them at keyframes and at the end of a run.
    pub optimizer_state: Option<BTreeMap<String, Tensor>>,
}

/// Loads a step of a trace into the variables of a model.
///
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use candle_nn::{Module, Optimizer, SGD, VarBuilder, VarMap, linear, loss::mse};
/// use hindcast_format::Trace;
/// use hindcast_recorder::{LoadInto, Recorder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("run");
/// let variables = VarMap::new();
/// let model = linear(3, 1, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
/// # let x = Tensor::randn(0f32, 1., (8, 3), &Device::Cpu)?;
/// # let run = Recorder::builder(&path).create(&variables)?;
/// # let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.1)?);
/// # for _ in 0..3 {
/// #     run.batch(0, &[0])?;
/// #     sgd.backward_step(&model.forward(&x)?.sqr()?.mean_all()?)?;
/// # }
/// # run.finish()?;
/// let trace = Trace::open(&path)?;
/// trace.load_into(&variables, 2)?; // the values before step 2
/// trace.load_into(&variables, 3)?; // the end of training, after three steps
/// assert!(trace.load_into(&variables, 4).is_err());
/// # Ok(())
/// # }
/// ```
pub trait LoadInto {
    /// Sets the variables to the parameters and buffers of the same names before step `step`. Variables that were frozen
    /// keep their values. On an error no variable has changed.
    ///
    /// # Errors
    /// The step isn't kept (the error names the kept steps), the variables have other names, shapes or types, or the
    /// trace is damaged.
    fn load_into(&self, variables: &VarMap, step: u64) -> Result<Loaded, RecorderError>;
}

impl LoadInto for Trace {
    fn load_into(&self, variables: &VarMap, step: u64) -> Result<Loaded, RecorderError> {
        let run = self.storage().location();
        let load = |why: String| RecorderError::Load {
            run: run.clone(),
            step,
            why,
        };
        let checkpoint = self.checkpoint(step).map_err(|error| match error {
            FormatError::NotRecorded { why, .. } => load(why),
            other => RecorderError::Open {
                run: run.clone(),
                step,
                source: std::sync::Arc::new(other),
            },
        })?;
        let layout = self.layout();
        // Everything that can fail comes before the first variable is set.
        let frozen = FrozenTensor::of_notes(&self.info().notes);
        let frozen: Vec<_> = frozen.into_iter().map(|t| t.name).collect();
        let values = matched(&checkpoint, layout, &frozen, variables).map_err(load)?;
        let loaded = Loaded {
            step,
            epoch: checkpoint.epoch,
            optimizer_step: checkpoint.optimizer_step,
            optimizer_state: optimizer_tensors(&checkpoint, layout)
                .map_err(|error| load(format!("the optimizer's recorded state: {error}")))?,
        };
        for (name, var, value) in &values {
            var.set(value)
                .map_err(|error| load(format!("{name:?}: {error}")))?;
        }
        Ok(loaded)
    }
}

/// Finds the recorded value of every variable, on the variable's device. Nothing is set yet.
fn matched(
    checkpoint: &Checkpoint,
    layout: &Layout,
    frozen: &[String],
    variables: &VarMap,
) -> Result<Vec<(String, Var, Tensor)>, String> {
    let tensors = checkpoint.tensors(layout).unwrap_or_default();
    let vars = variables
        .data()
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let known = |name: &str| {
        tensors.iter().any(|(spec, _)| spec.name == name)
            || frozen.iter().any(|frozen| frozen == name)
    };
    if let Some(extra) = vars.keys().filter(|name| !known(name)).min() {
        return Err(format!(
            "the variables have {extra:?}, which the trace doesn't hold"
        ));
    }
    let mut out = Vec::with_capacity(tensors.len());
    for (spec, bytes) in tensors {
        let Some(var) = vars.get(&spec.name) else {
            let what = match spec.role {
                Role::Buffer => "buffer",
                _ => "parameter",
            };
            return Err(format!(
                "the trace has the {what} {:?} of shape {:?}, which the variables lack: build the model from this VarMap before loading",
                spec.name, spec.shape
            ));
        };
        if var.dims() != spec.shape || format_dtype(var.dtype()) != Some(spec.dtype) {
            return Err(format!(
                "{:?} was recorded as {} of shape {:?}, but the variable is {:?} of shape {:?}",
                spec.name,
                spec.dtype,
                spec.shape,
                var.dtype(),
                var.dims()
            ));
        }
        let value = tensor_from_bytes(bytes, spec.dtype, &spec.shape)
            .and_then(|value| value.to_device(var.device()))
            .map_err(|error| format!("{:?}: {error}", spec.name))?;
        out.push((spec.name.clone(), var.clone(), value));
    }
    Ok(out)
}
