//! Compares a model's frozen tensors with those that a run recorded.

use std::path::Path;

use candle_core::Tensor;
use hindcast_format::{FrozenTensor, RowType, Trace, hex};
use hindcast_model::objective::Objective;

use crate::error::{AnalysisError, Result};

/// Checks that the model has the frozen tensors with which the run was trained.
pub(crate) fn check_frozen(trace: &Trace, objective: &dyn Objective, run: &Path) -> Result<()> {
    let refused = |why: String| {
        Err(AnalysisError::Frozen {
            run: run.to_owned(),
            why,
        })
    };
    for recorded in FrozenTensor::of_notes(&trace.info().notes) {
        let name = &recorded.name;
        let given = objective.frozen().iter().find(|(other, _)| other == name);
        let Some((_, tensor)) = given else {
            return refused(format!(
                "it was trained with the frozen tensor `{name}`, and the model doesn't have its values: give them with OwnModel::frozen, from the file \
                 of the base model"
            ));
        };
        let given = digest(name, tensor).map_err(|source| AnalysisError::Candle {
            doing: format!("reading the frozen tensor `{name}`"),
            source,
        })?;
        if given == recorded {
            continue;
        }
        let words = |tensor: &FrozenTensor| {
            let digest = hex(&tensor.digest);
            let digest = digest.get(..12).unwrap_or_default().to_owned();
            format!(
                "{} {:?} with the digest {digest}…",
                tensor.dtype.name(),
                tensor.shape
            )
        };
        return refused(format!(
            "the frozen tensor `{name}` differs: the run was trained with {}, and the model has {}",
            words(&recorded),
            words(&given)
        ));
    }
    Ok(())
}

fn digest(name: &str, tensor: &Tensor) -> candle_core::Result<FrozenTensor> {
    let Some(dtype) = RowType::of_name(tensor.dtype().as_str()) else {
        candle_core::bail!("its type {:?} has no digest", tensor.dtype());
    };
    let mut bytes = Vec::with_capacity(tensor.elem_count() * dtype.size());
    tensor.write_bytes(&mut bytes)?;
    Ok(FrozenTensor::of(name, dtype, tensor.dims(), &bytes))
}
