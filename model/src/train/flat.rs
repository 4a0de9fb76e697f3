//! Conversion between flat vectors in host memory and tensors on a device.

use candle_core::{Device, Result, Storage, Tensor, WithDType};

use super::error::{TrainError, check_length};
use crate::objective::{TensorDef, values};
use crate::real::Real;

/// Splits a flat vector into tensors on `device`. `what` is the name of the vector in errors.
///
/// # Errors
/// [`TrainError::Length`] if the length of the vector isn't the total size of the tensors.
pub fn tensors<T: Real>(
    what: &str,
    flat: &[T],
    defs: &[TensorDef],
    device: &Device,
) -> std::result::Result<Vec<Tensor>, TrainError> {
    check_length(what, values(defs), flat.len())?;
    // One transfer for all tensors.
    let whole = match device {
        Device::Cpu => None,
        _ => Some(Tensor::from_slice(flat, flat.len(), device)?),
    };
    let mut start = 0;
    let mut tensors = Vec::with_capacity(defs.len());
    for def in defs {
        let len: usize = def.shape.iter().product();
        tensors.push(match &whole {
            Some(whole) => whole.narrow(0, start, len)?.reshape(def.shape.as_slice())?,
            None => Tensor::from_slice(&flat[start..start + len], def.shape.as_slice(), device)?,
        });
        start += len;
    }
    Ok(tensors)
}

/// Appends tensors to a flat vector. `None` stands for zeros of the shape in `defs`.
///
/// # Errors
/// If a tensor has another type, or the device fails.
pub fn append<T: Real>(
    tensors: &[Option<&Tensor>],
    defs: &[TensorDef],
    flat: &mut Vec<T>,
) -> Result<()> {
    let fetched = if tensors.iter().flatten().any(|t| !t.device().is_cpu()) {
        let pieces = tensors
            .iter()
            .flatten()
            .map(|t| t.detach().flatten_all())
            .collect::<Result<Vec<_>>>()?;
        Some(Tensor::cat(&pieces, 0)?.to_vec1::<T>()?)
    } else {
        None
    };
    let mut start = 0;
    for (tensor, def) in tensors.iter().zip(defs) {
        let len: usize = def.shape.iter().product();
        match (tensor, &fetched) {
            (None, _) => flat.extend(std::iter::repeat_n(T::default(), len)),
            (Some(_), Some(all)) => {
                flat.extend_from_slice(all.get(start..start + len).unwrap_or_default());
                start += len;
            }
            (Some(tensor), None) => append_host(tensor, flat)?,
        }
    }
    Ok(())
}

/// Appends the values of a tensor in host memory, with a single copy.
fn append_host<T: WithDType>(tensor: &Tensor, flat: &mut Vec<T>) -> Result<()> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => {
            let all = T::cpu_storage_as_slice(storage)?;
            flat.extend_from_slice(all.get(start..end).unwrap_or_default());
            Ok(())
        }
        _ => {
            drop(storage);
            flat.extend(tensor.flatten_all()?.to_vec1::<T>()?);
            Ok(())
        }
    }
}
