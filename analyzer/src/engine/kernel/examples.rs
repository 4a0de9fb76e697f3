//! Views a batch's tensors as slices.

use candle_core::{Storage, Tensor};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws};
use hindcast_model::random::occurrences;
use hindcast_model::task::LossKind;

use super::chunk::Examples;
use super::loss::Targets;
use super::number::Number;
use crate::error::{AnalysisError, Doing, NoKernels, Result};

/// Calls `f` with a batch's examples.
///
/// # Errors
/// Inputs or targets don't fit the net or are not in CPU memory; the errors of `f`.
pub(super) fn with_examples<T: Number, R>(
    net: &Net,
    batch: &Batch,
    weights: &[f64],
    draws: Draws,
    f: impl FnOnce(&Examples<'_, T>) -> Result<R>,
) -> Result<R> {
    let n = batch.indices.len();
    let mut shape = vec![n];
    shape.extend_from_slice(net.input_shape());
    if batch.inputs.dims() != shape {
        return Err(mismatch(
            "a batch's inputs",
            format!("{shape:?}"),
            format!("{:?}", batch.inputs.dims()),
            "the data must have the shape of the task's model.input",
        ));
    }
    let run = |targets: Targets<'_, T>| {
        with_slice::<T, _>(&batch.inputs, |inputs| {
            f(&Examples {
                inputs,
                targets,
                weights,
                indices: &batch.indices,
                occurrences: occurrences(&batch.indices),
                draws,
            })
        })
    };
    let outputs: usize = net.output_shape().iter().product();
    match net.loss().kind {
        LossKind::CrossEntropy => {
            if batch.targets.dims() != [n] {
                return Err(mismatch(
                    "a batch's targets",
                    format!("one class per example, [{n}]"),
                    format!("{:?}", batch.targets.dims()),
                    "cross entropy takes one class index per example",
                ));
            }
            with_slice::<u32, _>(&batch.targets, |classes| {
                if let Some(row) = classes.iter().position(|&c| c as usize >= outputs) {
                    return Err(AnalysisError::ForeignClass {
                        row,
                        example: batch.indices[row],
                        class: classes[row],
                        classes: outputs,
                    });
                }
                run(Targets::Classes(classes))
            })
        }
        _ => {
            let targets = &batch.targets;
            if targets.dims().first() != Some(&n) || targets.elem_count() != n * outputs {
                return Err(mismatch(
                    "a batch's targets",
                    format!("{outputs} values for each of {n} examples"),
                    format!("{:?}", targets.dims()),
                    "targets must have the shape of the model's outputs",
                ));
            }
            let targets = targets
                .to_dtype(T::DTYPE)
                .doing(|| "converting a batch's targets".to_owned())?;
            with_slice::<T, _>(&targets, |values| run(Targets::Values(values)))
        }
    }
}

/// Calls `f` with a tensor's elements in row-major order.
fn with_slice<T: candle_core::WithDType, R>(
    tensor: &Tensor,
    f: impl FnOnce(&[T]) -> Result<R>,
) -> Result<R> {
    let tensor = tensor
        .contiguous()
        .doing(|| "making a batch contiguous".to_owned())?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(AnalysisError::NoKernels(NoKernels::Device));
    };
    let all =
        T::cpu_storage_as_slice(storage).doing(|| format!("reading a batch as {:?}", T::DTYPE))?;
    let (start, end) = layout
        .contiguous_offsets()
        .unwrap_or((0, layout.shape().elem_count()));
    let slice = all.get(start..end).ok_or_else(|| {
        mismatch(
            "a batch's tensor",
            format!("at least {end} values"),
            all.len().to_string(),
            "the tensor's shape is larger than its storage",
        )
    })?;
    f(slice)
}

fn mismatch(what: &str, expected: String, got: String, hint: &str) -> AnalysisError {
    AnalysisError::Mismatch {
        what: what.to_owned(),
        expected,
        got,
        hint: hint.to_owned(),
    }
}
