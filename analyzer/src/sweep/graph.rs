//! The size of an own model's graph, from which the memory of its passes is estimated.

use std::collections::HashMap;

use candle_core::{DType, Device, Result as Candle, Tensor};
use hindcast_model::objective::{Batch, Mode, Pass};
use hindcast_model::ops::second_order;
use hindcast_model::own::without_rounding;

use crate::engine::{flat, variables};
use crate::error::{Doing, Result};
use crate::run::recorded::RecordedRun;

/// Bytes of a double backward pass per byte of its forward pass, through candle's graph of an own model. Measured by the
/// peak memory of sweeps on two GPTs, of 1.02 and 10.7 million parameters: 10.3 and 9.6.
const BYTES_PER_FORWARD_BYTE: u64 = 10;

/// Approximate bytes of a double backward pass of an own model, per example.
///
/// # Errors
/// The run has no steps, or the model can't be run.
pub(crate) fn pass_bytes(run: &RecordedRun<'_>, dtype: DType) -> Result<u64> {
    Ok(BYTES_PER_FORWARD_BYTE * forward_bytes(run, dtype)?)
}

/// Bytes of the results of a forward pass that a backward pass keeps, per example: those of a pass over two examples of the
/// last step without those of a pass over one.
///
/// # Errors
/// The run has no steps, or the model can't be run.
fn forward_bytes(run: &RecordedRun<'_>, dtype: DType) -> Result<u64> {
    let end = run.source().end()?;
    let (last, indices) = run.last_batch()?;
    let objective = run.objective();
    let buffers = flat::tensors(&end.buffers, objective.buffers(), 1.0, dtype, &Device::Cpu)
        .doing(measuring)?;
    let parameters = variables(
        end.parameters.as_slice(),
        objective.parameters(),
        dtype,
        &Device::Cpu,
    )?;
    let parameters: Vec<Tensor> = parameters.iter().map(|v| v.as_tensor().clone()).collect();
    let bytes = |batch: &Batch| -> Candle<u64> {
        let pass = Pass {
            parameters: &parameters,
            buffers: &buffers,
            batch,
            mode: Mode::Train,
            draws: run.draws(last),
        };
        // As the sweep's passes, which keep the results in the float type of the pass.
        let losses = without_rounding(|| objective.losses(&pass))?;
        Ok(stored(&losses.per_example.sorted_nodes()))
    };
    let batch =
        |n: usize| run.train_batch(&indices[..n.min(indices.len())], last, dtype, &Device::Cpu);
    let (one, two) = (batch(1)?, batch(2)?);
    let (one, two) = second_order::with_big_stack(|| Ok((bytes(&one).unwrap_or(0), bytes(&two)?)))
        .doing(measuring)?;
    // A batch norm may need two examples.
    Ok(match one {
        0 => two / 2,
        one => two.saturating_sub(one),
    })
}

fn measuring() -> String {
    "measuring the memory of a forward pass".to_owned()
}

/// Bytes of all results. Views of the same values count once.
fn stored(nodes: &[&Tensor]) -> u64 {
    let mut sizes: HashMap<usize, u64> = HashMap::new();
    for node in nodes.iter().filter(|node| !node.is_variable()) {
        let (storage, _) = node.storage_and_layout();
        let place = std::ptr::from_ref(&*storage).addr();
        let bytes = (node.elem_count() * node.dtype().size_in_bytes()) as u64;
        let size = sizes.entry(place).or_default();
        *size = bytes.max(*size);
    }
    sizes.values().sum()
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn views_count_once_and_variables_not_at_all() {
        let x = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let y = x.as_tensor().tanh().unwrap();
        let z = y.t().unwrap().reshape(6).unwrap().sum_all().unwrap();
        let view = y.reshape(6).unwrap().sum_all().unwrap();
        let bytes = |t: &Tensor| stored(&t.sorted_nodes());
        // tanh, and the sum; the transposed copy in between.
        assert_eq!(bytes(&view), 24 + 4);
        assert_eq!(bytes(&z), 24 + 24 + 4);
    }
}
