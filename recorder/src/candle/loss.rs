//! Reads the value of a loss.

use candle_core::{Device, Storage, Tensor};

use crate::policy::LossValues;

/// The value of a scalar loss, if it is wanted on its device.
pub(crate) fn loss_value(loss: &Tensor, wanted: LossValues) -> candle_core::Result<Option<f64>> {
    let wanted = match wanted {
        LossValues::Never => false,
        LossValues::OnCpu => matches!(loss.device(), Device::Cpu),
        LossValues::Always => true,
    };
    if !wanted || loss.elem_count() != 1 {
        return Ok(None);
    }
    {
        // The usual case, without the tensors that a conversion would allocate.
        let (storage, layout) = loss.storage_and_layout();
        if let Storage::Cpu(candle_core::CpuStorage::F32(values)) = &*storage {
            return Ok(values
                .get(layout.start_offset())
                .map(|value| f64::from(*value)));
        }
    }
    loss.detach()
        .flatten_all()?
        .get(0)?
        .to_dtype(candle_core::DType::F64)?
        .to_scalar()
        .map(Some)
}
