//! Copies the elements of tensors to bytes and back: row-major and little-endian.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

/// Copies a tensor's elements, row-major and little-endian.
pub(crate) fn copy_tensor(tensor: &Tensor, out: &mut [u8]) -> candle_core::Result<()> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(storage), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        {
            return copy_elements(storage, start, end - start, out);
        }
    }
    // A strided view, or a tensor on another device, is copied once more.
    let moved = tensor.detach().to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = moved.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => {
            copy_elements(storage, layout.start_offset(), moved.elem_count(), out)
        }
        _ => {
            candle_core::bail!("a tensor was copied to the CPU, but its storage is not on the CPU")
        }
    }
}

/// Size of all elements of a tensor in bytes.
pub(crate) fn byte_len(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// A part of a snapshot.
pub(crate) fn window(out: &mut [u8], start: usize, bytes: usize) -> candle_core::Result<&mut [u8]> {
    match out.get_mut(start..start + bytes) {
        Some(window) => Ok(window),
        None => {
            candle_core::bail!("a snapshot of {bytes} bytes at {start} does not fit its buffer")
        }
    }
}

/// Copies elements of a storage on the CPU, little-endian.
pub(crate) fn copy_elements(
    storage: &CpuStorage,
    start: usize,
    elements: usize,
    out: &mut [u8],
) -> candle_core::Result<()> {
    fn slice<T: bytemuck::Pod>(values: &[T], start: usize, elements: usize) -> Option<&[u8]> {
        values
            .get(start..start.checked_add(elements)?)
            .map(bytemuck::cast_slice)
    }
    let (bytes, dtype) = match storage {
        CpuStorage::F32(values) => (slice(values, start, elements), DType::F32),
        CpuStorage::F64(values) => (slice(values, start, elements), DType::F64),
        CpuStorage::BF16(values) => (slice(values, start, elements), DType::BF16),
        CpuStorage::F16(values) => (slice(values, start, elements), DType::F16),
        _ => candle_core::bail!("only f32, f64, bf16 and f16 tensors are recorded"),
    };
    match bytes {
        Some(bytes) if bytes.len() == out.len() => out.copy_from_slice(bytes),
        _ => candle_core::bail!(
            "a tensor of {elements} elements of {dtype:?} does not fit its {} recorded bytes: has its type changed?",
            out.len()
        ),
    }
    to_little_endian(out, dtype.size_in_bytes());
    Ok(())
}

/// Turns elements of the machine's byte order into little-endian ones, and back.
pub(crate) fn to_little_endian(bytes: &mut [u8], element: usize) {
    if cfg!(target_endian = "big") {
        for element in bytes.chunks_exact_mut(element) {
            element.reverse();
        }
    }
}

/// Makes a tensor on the CPU from recorded bytes (little-endian, row-major).
pub(crate) fn tensor_from_bytes(
    bytes: &[u8],
    dtype: hindcast_format::layout::DType,
    shape: &[usize],
) -> candle_core::Result<Tensor> {
    let dtype = candle_dtype(dtype);
    if cfg!(target_endian = "big") {
        let mut swapped = bytes.to_vec();
        to_little_endian(&mut swapped, dtype.size_in_bytes());
        return Tensor::from_raw_buffer(&swapped, dtype, shape, &Device::Cpu);
    }
    Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)
}

/// The format's type for a candle type. `None` if the format doesn't record it.
pub(crate) fn format_dtype(dtype: DType) -> Option<hindcast_format::layout::DType> {
    use hindcast_format::layout::DType as Recorded;
    match dtype {
        DType::F32 => Some(Recorded::F32),
        DType::F64 => Some(Recorded::F64),
        DType::BF16 => Some(Recorded::Bf16),
        DType::F16 => Some(Recorded::F16),
        _ => None,
    }
}

fn candle_dtype(dtype: hindcast_format::layout::DType) -> DType {
    use hindcast_format::layout::DType as Recorded;
    match dtype {
        Recorded::F32 => DType::F32,
        Recorded::F64 => DType::F64,
        Recorded::Bf16 => DType::BF16,
        Recorded::F16 => DType::F16,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::IndexOp;

    use super::*;

    fn cpu(values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    }

    fn bytes(tensor: &Tensor) -> Vec<u8> {
        let mut out = vec![0; byte_len(tensor)];
        copy_tensor(tensor, &mut out).unwrap();
        out
    }

    #[test]
    fn contiguous_offset_and_strided_tensors_come_out_row_major() {
        let whole = cpu(&[1., 2., 3., 4., 5., 6.], &[2, 3]);
        let expect = |values: &[f32]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        assert_eq!(bytes(&whole), expect(&[1., 2., 3., 4., 5., 6.]));
        assert_eq!(bytes(&whole.i(1).unwrap()), expect(&[4., 5., 6.]));
        assert_eq!(
            bytes(&whole.t().unwrap()),
            expect(&[1., 4., 2., 5., 3., 6.])
        );
        assert_eq!(bytes(&whole.i((.., 1)).unwrap()), expect(&[2., 5.]));
        assert_eq!(
            bytes(&cpu(&[7.], &[]).broadcast_as((2, 2)).unwrap()),
            expect(&[7.; 4])
        );
        assert_eq!(bytes(&cpu(&[], &[0, 3])), Vec::<u8>::new());
    }

    #[test]
    fn every_float_type_keeps_its_bits() {
        let weird = [
            f32::NAN,
            -0.0,
            f32::from_bits(1),
            f32::from_bits(0xffc1_2345),
            f32::INFINITY,
        ];
        let expect: Vec<u8> = weird
            .iter()
            .flat_map(|v| v.to_bits().to_le_bytes())
            .collect();
        assert_eq!(bytes(&cpu(&weird, &[5])), expect);
        for dtype in [DType::F64, DType::BF16, DType::F16] {
            let tensor = cpu(&[1.5, -2.0], &[2]).to_dtype(dtype).unwrap();
            let recorded = format_dtype(dtype).unwrap();
            let back = tensor_from_bytes(&bytes(&tensor), recorded, &[2]).unwrap();
            assert_eq!(
                back.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap(),
                [1.5, -2.0],
                "{dtype:?}"
            );
        }
        let whole = Tensor::from_slice(&[1u32], 1, &Device::Cpu).unwrap();
        assert!(
            copy_tensor(&whole, &mut [0; 4])
                .unwrap_err()
                .to_string()
                .contains("only f32")
        );
    }
}
