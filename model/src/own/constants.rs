//! The frozen tensors of a model in the type and on the device of a pass.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor};

/// The frozen tensors as the last pass used them, so that a large base is converted and moved only once.
#[derive(Default)]
pub(super) struct Constants(Mutex<Option<Converted>>);

struct Converted {
    dtype: DType,
    device: Device,
    tensors: Vec<(String, Tensor)>,
}

impl Constants {
    /// The tensors in this type, if they are floats, on this device.
    pub(super) fn at(
        &self,
        tensors: &[(String, Tensor)],
        dtype: DType,
        device: &Device,
    ) -> Result<Vec<(String, Tensor)>> {
        if tensors.is_empty() {
            return Ok(Vec::new());
        }
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(converted) = &*held
            && converted.dtype == dtype
            && converted.device.same_device(device)
        {
            return Ok(converted.tensors.clone());
        }
        let convert = |(name, tensor): &(String, Tensor)| {
            let tensor = tensor.to_device(device)?;
            let tensor = if tensor.dtype().is_float() {
                tensor.to_dtype(dtype)?
            } else {
                tensor
            };
            Ok((name.clone(), tensor))
        };
        let converted = tensors.iter().map(convert).collect::<Result<Vec<_>>>()?;
        *held = Some(Converted {
            dtype,
            device: device.clone(),
            tensors: converted.clone(),
        });
        Ok(converted)
    }
}
