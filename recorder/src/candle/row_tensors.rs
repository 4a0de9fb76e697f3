//! Takes the rows of a batch from candle tensors.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use hindcast_format::{RowLayout, RowTensor, RowType};

use crate::batch::{BatchInfo, Weights};
use crate::row_block::RowBlock;

/// A batch whose examples are identified by their rows, with everything that [`BatchInfo`] can say.
///
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// use hindcast_recorder::RowBatch;
/// # fn main() -> candle_core::Result<()> {
/// # let x = Tensor::zeros((8, 3), DType::F32, &Device::Cpu)?;
/// # let y = Tensor::zeros(8, DType::U32, &Device::Cpu)?;
/// // Two micro-batches, whose gradients are added before the optimizer steps.
/// let batch = RowBatch::new(0, &[&x, &y]).and(&[&x, &y]).clip_norm(1.0);
/// # let _ = batch;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct RowBatch<'a> {
    pub(crate) info: BatchInfo<'a>,
    pub(crate) parts: Vec<Vec<&'a Tensor>>,
}

impl<'a> RowBatch<'a> {
    /// A batch of the rows of these tensors: all that the loss of an example depends on, usually inputs and targets. The
    /// first axis of each counts the examples. The batch loss is the mean of the examples' losses, unless
    /// [`summed`](Self::summed) or [`weights`](Self::weights) says otherwise.
    pub fn new(epoch: u64, tensors: &[&'a Tensor]) -> Self {
        Self {
            info: BatchInfo::new(epoch, &[]),
            parts: vec![tensors.to_vec()],
        }
    }

    /// Adds a further micro-batch, for loops that add up gradients before a step.
    pub fn and(mut self, tensors: &[&'a Tensor]) -> Self {
        self.parts.push(tensors.to_vec());
        self
    }

    /// As [`BatchInfo::summed`].
    pub fn summed(mut self) -> Self {
        self.info = self.info.summed();
        self
    }

    /// As [`BatchInfo::weights`], in the order of the rows.
    pub fn weights(mut self, weights: &'a [f64]) -> Self {
        self.info.weights = Weights::Each(weights);
        self
    }

    /// As [`BatchInfo::summed_weights`], in the order of the rows.
    pub fn summed_weights(mut self, weights: &'a [f64]) -> Self {
        self.info.weights = Weights::SumOfEach(weights);
        self
    }

    /// As [`BatchInfo::micro_batches`], for one set of tensors that the loop splits itself.
    pub fn micro_batches(mut self, lengths: &'a [u32]) -> Self {
        self.info = self.info.micro_batches(lengths);
        self
    }

    /// As [`BatchInfo::clip_norm`].
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.info = self.info.clip_norm(threshold);
        self
    }

    /// As [`BatchInfo::scalar`].
    pub fn scalar(mut self, name: &'a str, value: f64) -> Self {
        self.info = self.info.scalar(name, value);
        self
    }

    /// The rows of each micro-batch.
    pub(crate) fn blocks(&self) -> Result<Vec<RowBlock>, String> {
        self.parts.iter().map(|part| block(part)).collect()
    }
}

/// The rows of tensors with the same first axis. The error text says what doesn't fit.
pub(crate) fn block(tensors: &[&Tensor]) -> Result<RowBlock, String> {
    let Some(first) = tensors.first() else {
        return Err("a batch of rows needs at least one tensor".to_owned());
    };
    let rows = first.dims().first().copied();
    let mut parts = Vec::with_capacity(tensors.len());
    for (at, tensor) in tensors.iter().enumerate() {
        let (Some(&n), Some(shape)) = (tensor.dims().first(), tensor.dims().get(1..)) else {
            return Err(format!(
                "tensor {at} of the batch is a single number: its first axis must count the examples"
            ));
        };
        if Some(n) != rows {
            return Err(format!(
                "tensor {at} of the batch has shape {:?}, but tensor 0 has {:?}: the first axes count the examples and must agree",
                tensor.dims(),
                first.dims()
            ));
        }
        let Some(dtype) = row_type(tensor.dtype()) else {
            return Err(format!(
                "tensor {at} of the batch has type {:?}; rows can be u8, u32, i16, i32, i64, f16, bf16, f32 or f64",
                tensor.dtype()
            ));
        };
        parts.push(RowTensor {
            dtype,
            shape: shape.to_vec(),
        });
    }
    let layout = RowLayout::new(parts).map_err(|error| error.to_string())?;
    let rows = rows.unwrap_or(0);
    let length = rows.checked_mul(layout.bytes());
    let length = length.ok_or_else(|| {
        let row = layout.bytes();
        format!("the batch has {rows} rows of {row} bytes, more than memory can hold: use smaller batches")
    })?;
    let mut bytes = vec![0; length];
    let mut offset = 0;
    for (tensor, part) in tensors.iter().zip(layout.tensors()) {
        let place = Place {
            offset,
            row: layout.bytes(),
            part: part.bytes(),
        };
        copy(tensor, place, &mut bytes)
            .map_err(|error| format!("reading a tensor of the batch: {error}"))?;
        offset += part.bytes();
    }
    Ok(RowBlock { layout, bytes })
}

/// candle and the format have the same names of types.
fn row_type(dtype: DType) -> Option<RowType> {
    RowType::of_name(dtype.as_str())
}

/// A tensor's elements, row-major and little-endian, with their type. The error text says why they can't be read.
pub(crate) fn bytes_of(tensor: &Tensor) -> Result<(RowType, Vec<u8>), String> {
    let dtype = row_type(tensor.dtype())
        .ok_or_else(|| {
            format!(
                "its type {:?} has no digest: convert it to u8, u32, i16, i32, i64, f16, bf16, f32 or f64",
                tensor.dtype()
            )
        })?;
    let length = tensor.elem_count() * dtype.size();
    let mut bytes = vec![0; length];
    if length > 0 {
        let whole = Place {
            offset: 0,
            row: length,
            part: length,
        };
        copy(tensor, whole, &mut bytes).map_err(|error| error.to_string())?;
    }
    Ok((dtype, bytes))
}

/// Where the slices of a tensor go: `part` bytes at `offset` in every row of `row` bytes.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    row: usize,
    part: usize,
}

/// Copies the slices of a tensor into their rows.
fn copy(tensor: &Tensor, place: Place, rows: &mut [u8]) -> candle_core::Result<()> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(storage), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        {
            return spread(storage, start..end, place, rows);
        }
    }
    // A strided view, or a tensor on another device, is copied once more.
    let moved = tensor.detach().to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = moved.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => spread(storage, start..end, place, rows),
        _ => candle_core::bail!("its copy is not on the CPU"),
    }
}

fn spread(
    storage: &CpuStorage,
    range: std::ops::Range<usize>,
    place: Place,
    rows: &mut [u8],
) -> candle_core::Result<()> {
    fn slice<T: bytemuck::Pod>(values: &[T], range: std::ops::Range<usize>) -> Option<&[u8]> {
        values.get(range).map(bytemuck::cast_slice)
    }
    let (bytes, size) = match storage {
        CpuStorage::U8(values) => (slice(values, range), 1),
        CpuStorage::U32(values) => (slice(values, range), 4),
        CpuStorage::I64(values) => (slice(values, range), 8),
        CpuStorage::F32(values) => (slice(values, range), 4),
        CpuStorage::F64(values) => (slice(values, range), 8),
        CpuStorage::BF16(values) => (slice(values, range), 2),
        CpuStorage::F16(values) => (slice(values, range), 2),
        CpuStorage::I16(values) => (slice(values, range), 2),
        CpuStorage::I32(values) => (slice(values, range), 4),
        _ => candle_core::bail!("its type can't be recorded"),
    };
    let Some(bytes) = bytes else {
        candle_core::bail!("its shape exceeds its storage");
    };
    let Place { offset, row, part } = place;
    if part == 0 {
        return Ok(());
    }
    for (row, slice) in rows.chunks_exact_mut(row).zip(bytes.chunks_exact(part)) {
        let Some(to) = row.get_mut(offset..offset + part) else {
            candle_core::bail!("a row is shorter than its tensors");
        };
        to.copy_from_slice(slice);
        if cfg!(target_endian = "big") {
            to.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format's types are found by candle's names.
    #[test]
    fn every_type_has_its_name_and_size_in_both() {
        let types = [
            (DType::U8, RowType::U8),
            (DType::U32, RowType::U32),
            (DType::I64, RowType::I64),
            (DType::F32, RowType::F32),
            (DType::F64, RowType::F64),
            (DType::BF16, RowType::Bf16),
            (DType::F16, RowType::F16),
            (DType::I16, RowType::I16),
            (DType::I32, RowType::I32),
        ];
        for (dtype, expected) in types {
            assert_eq!(row_type(dtype), Some(expected));
            assert_eq!(expected.name().parse(), Ok(dtype));
            assert_eq!(expected.size(), dtype.size_in_bytes());
        }
        assert_eq!(row_type(DType::F8E4M3), None);
    }

    fn cpu(values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn rows_hold_the_slices_of_all_tensors_in_order() {
        let x = cpu(&[1., 2., 3., 4., 5., 6.], &[3, 2]);
        let y = Tensor::from_slice(&[7u8, 8], 2, &Device::Cpu).unwrap();
        // A strided view gives the same bytes as its contiguous copy.
        let block = block(&[&x.t().unwrap(), &y]).unwrap();
        let row = |values: [f32; 3], label: u8| {
            let mut bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            bytes.push(label);
            bytes
        };
        assert_eq!(
            block.bytes,
            [row([1., 3., 5.], 7), row([2., 4., 6.], 8)].concat()
        );
        assert_eq!(block.len(), 2);
    }

    #[test]
    fn each_mistake_in_the_tensors_has_its_message() {
        let refused = |tensors: &[&Tensor]| block(tensors).err().unwrap();
        assert!(refused(&[]).contains("at least one tensor"));
        assert!(refused(&[&cpu(&[1.], &[])]).contains("single number"));
        let (two, three) = (cpu(&[1.; 4], &[2, 2]), cpu(&[1.; 3], &[3]));
        assert!(refused(&[&two, &three]).contains("tensor 1 of the batch has shape [3]"));
        let odd = two.to_dtype(DType::F8E4M3).unwrap();
        assert!(refused(&[&odd]).contains("F8E4M3"));
        assert!(refused(&[&cpu(&[], &[2, 0])]).contains("bytes of a row"));
    }
}
