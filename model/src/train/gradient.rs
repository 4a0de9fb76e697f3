//! The gradient of a batch loss.

use candle_core::{DType, Tensor, Var};

use super::error::{TrainError, check_length};
use super::flat::{append, tensors};
use crate::objective::{Batch, Draws, Losses, Mode, Objective, Pass};
use crate::real::Real;
use crate::vectors::dot;

/// A batch loss and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient<T> {
    /// `Σ_j w_j ℓ_j` plus the penalty outside the examples' losses, summed in float64.
    pub loss: f64,
    /// ℓ_j, one per row.
    pub per_example: Vec<f64>,
    /// The gradient G, (p). It is 0 for tensors without a gradient.
    pub gradient: Vec<T>,
    /// One flag per parameter tensor: whether the loss has a gradient with respect to it.
    pub trained: Vec<bool>,
    /// Buffers after the pass.
    pub buffers: Vec<T>,
}

/// The batch loss `Σ_j w_j ℓ_j` plus the penalty outside the examples' losses, and its gradient.
///
/// `parameters` (p) and `buffers` are flat, in the objective's order. `weights` has one number per row. Everything runs on
/// the device of the batch. A batch without rows, which the removal of examples can leave, has the gradient of the
/// penalty only and doesn't change the buffers.
///
/// # Errors
/// [`TrainError::Length`] if lengths don't fit, [`TrainError::Tensor`] if the model fails.
pub fn gradient<T: Real>(
    objective: &dyn Objective,
    parameters: &[T],
    buffers: &[T],
    batch: &Batch,
    mode: Mode,
    draws: Draws,
    weights: &[f64],
) -> Result<Gradient<T>, TrainError> {
    part(
        objective, parameters, buffers, batch, mode, draws, weights, true,
    )
}

/// As [`gradient`]. `shared` says whether to add the penalty outside the examples' losses, which counts once per step.
#[expect(
    clippy::too_many_arguments,
    reason = "a gradient is a function of all of these"
)]
pub(super) fn part<T: Real>(
    objective: &dyn Objective,
    parameters: &[T],
    buffers: &[T],
    batch: &Batch,
    mode: Mode,
    draws: Draws,
    weights: &[f64],
    shared: bool,
) -> Result<Gradient<T>, TrainError> {
    check_length("weights of the batch", batch.indices.len(), weights.len())?;
    let device = batch.inputs.device();
    let variables = tensors("parameters", parameters, objective.parameters(), device)?
        .iter()
        .map(Var::from_tensor)
        .collect::<candle_core::Result<Vec<_>>>()?;
    let inputs: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    if batch.indices.is_empty() {
        return empty(objective, parameters, buffers, &inputs, mode, shared);
    }
    let before = tensors("buffers", buffers, objective.buffers(), device)?;
    let losses = objective.losses(&Pass {
        parameters: &inputs,
        buffers: &before,
        batch,
        mode,
        draws,
    })?;
    let mut per_example = Vec::with_capacity(weights.len());
    append_f64(&losses.per_example, &mut per_example)?;
    check_length("losses of the batch", weights.len(), per_example.len())?;
    let mut loss = dot(&per_example, weights);
    // In mixed precision, the losses may have another type than the parameters.
    let narrow = Tensor::from_slice(weights, weights.len(), device)?;
    let narrow = narrow.to_dtype(losses.per_example.dtype())?;
    let mut total = losses.per_example.mul(&narrow)?.sum_all()?;
    if let Some(penalty) = losses.shared.as_ref().filter(|_| shared) {
        let mut value = Vec::with_capacity(1);
        append_f64(penalty, &mut value)?;
        loss += value.iter().sum::<f64>();
        total = total.add(penalty)?;
    }
    let (gradient, trained) = backward(&total, &inputs, objective, parameters.len())?;
    Ok(Gradient {
        loss,
        per_example,
        gradient,
        trained,
        buffers: after(objective, &losses, buffers)?,
    })
}

fn backward<T: Real>(
    total: &Tensor,
    inputs: &[Tensor],
    objective: &dyn Objective,
    p: usize,
) -> Result<(Vec<T>, Vec<bool>), TrainError> {
    let store = total.backward()?;
    let found: Vec<Option<&Tensor>> = inputs.iter().map(|x| store.get(x)).collect();
    let mut gradient = Vec::with_capacity(p);
    append(&found, objective.parameters(), &mut gradient)?;
    Ok((gradient, found.iter().map(Option::is_some).collect()))
}

fn after<T: Real>(
    objective: &dyn Objective,
    losses: &Losses,
    before: &[T],
) -> Result<Vec<T>, TrainError> {
    let found: Vec<Option<&Tensor>> = losses.buffers.iter().map(Some).collect();
    let mut buffers = Vec::with_capacity(before.len());
    append(&found, objective.buffers(), &mut buffers)?;
    Ok(buffers)
}

/// The gradient of a batch without rows.
fn empty<T: Real>(
    objective: &dyn Objective,
    parameters: &[T],
    buffers: &[T],
    inputs: &[Tensor],
    mode: Mode,
    shared: bool,
) -> Result<Gradient<T>, TrainError> {
    let mut result = Gradient {
        loss: 0.0,
        per_example: Vec::new(),
        gradient: vec![T::default(); parameters.len()],
        // The optimizer updates the same tensors as with rows, because decay and momentum continue.
        trained: vec![true; inputs.len()],
        buffers: buffers.to_vec(),
    };
    let penalty = match mode {
        Mode::Train if shared => objective.shared_penalty(inputs)?,
        _ => None,
    };
    if let Some(penalty) = penalty {
        let mut value = Vec::with_capacity(1);
        append_f64(&penalty, &mut value)?;
        result.loss = value.iter().sum();
        (result.gradient, _) = backward(&penalty, inputs, objective, parameters.len())?;
    }
    Ok(result)
}

/// Appends a tensor's values as float64.
pub(super) fn append_f64(tensor: &Tensor, to: &mut Vec<f64>) -> Result<(), TrainError> {
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?;
    to.extend(values.to_vec1::<f64>()?);
    Ok(())
}
