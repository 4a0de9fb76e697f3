//! Turns the rows that a run stores into examples.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use hindcast_format::{FormatError, RowGroup, RowSplit, RowTensor, RowType, Rows, Trace};
use hindcast_model::data::{DataError, DataSet, from_tensors};

/// Refuses rows whose conversion to examples needs more memory than the storage allows.
pub(super) fn afford(trace: &Trace, rows: &Rows) -> std::result::Result<(), FormatError> {
    let groups = || {
        RowSplit::ALL
            .iter()
            .flat_map(|split| rows.split(*split).groups())
    };
    let mut loaded: u64 = groups().map(|group| group.bytes.len() as u64).sum();
    let (mut converted, mut needs) = (0, loaded);
    for group in groups() {
        let (n, bytes) = (group.indices.len() as u64, group.bytes.len() as u64);
        let (peak, kept) = sizes(group.layout.tensors());
        // The group's own bytes are part of its peak.
        needs = needs.max(loaded - bytes + converted + n.saturating_mul(peak));
        loaded -= bytes;
        converted += n.saturating_mul(kept);
    }
    match trace.storage().memory() {
        Some(limit) if needs > limit => Err(FormatError::Memory {
            path: trace.storage().location(),
            what: "turning the recorded rows into examples".to_owned(),
            needs,
            limit,
        }),
        _ => Ok(()),
    }
}

/// Bytes per row that [`data`] needs at most, and those that its data set keeps.
fn sizes(tensors: &[RowTensor]) -> (u64, u64) {
    let elements = |spec: &RowTensor| (spec.bytes() / spec.dtype.size()) as u64;
    let in_tensor = |spec: &RowTensor| elements(spec) * size_in_tensor(spec.dtype);
    let row: u64 = tensors.iter().map(|spec| spec.bytes() as u64).sum();
    let all: u64 = tensors.iter().map(in_tensor).sum();
    let Some((target, inputs)) = tensors.split_last() else {
        return (0, 0);
    };
    let inputs = if inputs.is_empty() { tensors } else { inputs };
    let values: u64 = inputs.iter().map(elements).sum();
    let ids = inputs.iter().all(|spec| !is_float(spec.dtype));
    // Bytes of an input value in its tensor, in the data set, and in passing. Joined inputs are numbers of 8 bytes. Token ids are compared
    // with their limit as i64.
    let (tensor, kept, passing) = match inputs {
        [only] if only.dtype == RowType::U8 => (1, 1, 0),
        [only] if ids => (size_in_tensor(only.dtype), 4, 16),
        [only] => (size_in_tensor(only.dtype), size_in_tensor(only.dtype), 0),
        _ if ids => (8, 4, 16),
        _ => (8, 8, 0),
    };
    let labels = 8 * elements(target);
    let joining = if inputs.len() > 1 {
        all + 16 * values
    } else {
        0
    };
    // A single tensor is input and target.
    let target = if tensors.len() > 1 {
        in_tensor(target)
    } else {
        0
    };
    let last = values * (tensor + kept + passing) + target + 2 * labels;
    (joining.max(row + all).max(last), kept * values + labels)
}

fn is_float(dtype: RowType) -> bool {
    matches!(
        dtype,
        RowType::F16 | RowType::Bf16 | RowType::F32 | RowType::F64
    )
}

/// Size of an element in the tensor that [`tensor`] makes.
fn size_in_tensor(dtype: RowType) -> u64 {
    match dtype {
        RowType::I16 | RowType::I32 => 8,
        RowType::F16 | RowType::Bf16 => 4,
        other => other.size() as u64,
    }
}

/// A data set of a group's rows, as its training examples.
pub(super) fn data(group: RowGroup) -> std::result::Result<Box<dyn DataSet>, DataError> {
    let n = group.indices.len();
    let mut tensors = Vec::new();
    let mut offset = 0;
    for spec in group.layout.tensors() {
        tensors.push(tensor(&group, spec, offset, n)?);
        offset += spec.bytes();
    }
    drop(group);
    let Some(targets) = tensors.pop() else {
        return Err(DataError::Other("a row has no tensor".to_owned()));
    };
    let (inputs, targets) = match tensors.as_slice() {
        [] => (targets.clone(), flat(&targets)?),
        [inputs] => (inputs.clone(), targets),
        inputs => (joined(inputs)?, targets),
    };
    drop(tensors);
    // One number per row in a column of its own is a value or a class.
    let targets = match (targets.dtype(), targets.dims()) {
        (DType::U8 | DType::U32 | DType::I64, [_, 1]) if !integers(&inputs) => {
            targets.squeeze(1)?
        }
        (DType::F32 | DType::F64 | DType::F16 | DType::BF16, dims) if dims.len() > 2 => {
            flat(&targets)?
        }
        _ => targets,
    };
    from_tensors((&inputs, &targets), None, None, &[], None)
}

fn integers(tensor: &Tensor) -> bool {
    matches!(tensor.dtype(), DType::U32 | DType::I64)
}

/// (N, values).
fn flat(tensor: &Tensor) -> candle_core::Result<Tensor> {
    let n = tensor.dims().first().copied().unwrap_or(0);
    tensor.reshape((n, tensor.elem_count() / n.max(1)))
}

/// Several inputs as one, (N, total).
fn joined(inputs: &[Tensor]) -> candle_core::Result<Tensor> {
    let ids = inputs.iter().all(|t| integers(t) || t.dtype() == DType::U8);
    let dtype = if ids { DType::I64 } else { DType::F64 };
    let flat = inputs.iter().map(|input| flat(input)?.to_dtype(dtype));
    Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 1)
}

/// One tensor of all rows of a group, (N, shape…).
fn tensor(
    group: &RowGroup,
    spec: &RowTensor,
    offset: usize,
    n: usize,
) -> candle_core::Result<Tensor> {
    let mut shape = vec![n];
    shape.extend(&spec.shape);
    // Each row's part of the tensor. The elements are made of it without a copy of the bytes.
    let part = offset..offset + spec.bytes();
    let rows = group.bytes.chunks_exact(group.layout.bytes());
    let parts = rows.map(|row| row.get(part.clone()).unwrap_or_default());
    let count = shape.iter().product();
    let shape = shape.as_slice();
    let cpu = &Device::Cpu;
    match spec.dtype {
        RowType::U8 => Tensor::from_vec(elements(parts, count, |[byte]| byte), shape, cpu),
        RowType::U32 => Tensor::from_vec(elements(parts, count, u32::from_le_bytes), shape, cpu),
        RowType::I64 => Tensor::from_vec(elements(parts, count, i64::from_le_bytes), shape, cpu),
        RowType::F32 => Tensor::from_vec(elements(parts, count, f32::from_le_bytes), shape, cpu),
        RowType::F64 => Tensor::from_vec(elements(parts, count, f64::from_le_bytes), shape, cpu),
        // Data sets keep half precision as float32.
        RowType::Bf16 => {
            let single = |bytes| bf16::from_le_bytes(bytes).to_f32();
            Tensor::from_vec(elements(parts, count, single), shape, cpu)
        }
        RowType::F16 => {
            let single = |bytes| f16::from_le_bytes(bytes).to_f32();
            Tensor::from_vec(elements(parts, count, single), shape, cpu)
        }
        RowType::I16 => {
            let wide = |bytes| i64::from(i16::from_le_bytes(bytes));
            Tensor::from_vec(elements(parts, count, wide), shape, cpu)
        }
        RowType::I32 => {
            let wide = |bytes| i64::from(i32::from_le_bytes(bytes));
            Tensor::from_vec(elements(parts, count, wide), shape, cpu)
        }
    }
}

/// The elements in these bytes, N each.
fn elements<'a, T, const N: usize>(
    parts: impl Iterator<Item = &'a [u8]>,
    count: usize,
    of: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    let mut all = Vec::with_capacity(count);
    for part in parts {
        all.extend(part.as_chunks().0.iter().map(|bytes| of(*bytes)));
    }
    all
}

#[cfg(test)]
mod tests {
    use hindcast_format::RowLayout;
    use hindcast_model::objective::Split;

    use super::*;

    fn spec(dtype: RowType, shape: &[usize]) -> RowTensor {
        RowTensor {
            dtype,
            shape: shape.to_vec(),
        }
    }

    fn group(tensors: Vec<RowTensor>, rows: &[&[u8]]) -> RowGroup {
        let layout = RowLayout::new(tensors).unwrap();
        RowGroup {
            indices: (0..rows.len() as u64).collect(),
            digests: rows.iter().map(|row| layout.digest(row)).collect(),
            bytes: rows.concat(),
            layout,
        }
    }

    /// The numbers that the first row's inputs and target become, from bytes written by hand.
    #[test]
    fn every_type_becomes_the_numbers_that_its_bytes_say() {
        let cases: [(RowType, &[u8], f64); 9] = [
            (RowType::U8, &[200], 200.0),
            (RowType::U32, &[1, 2, 0, 0], 513.0),
            (RowType::I64, &[7, 0, 0, 0, 0, 0, 0, 0], 7.0),
            (RowType::F32, &[0, 0, 0x40, 0xc0], -3.0),
            (RowType::F64, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], 1.5),
            (RowType::Bf16, &[0x40, 0xc0], -3.0),
            (RowType::F16, &[0, 0x3e], 1.5),
            (RowType::I16, &[5, 1], 261.0),
            (RowType::I32, &[5, 1, 0, 0], 261.0),
        ];
        for (dtype, bytes, expected) in cases {
            // Two equal values as input, and a class. Then the same with a second input, which is joined.
            let label = [3, 0, 0, 0];
            let one = [bytes, bytes, &label].concat();
            let two = [bytes, bytes, bytes, &label].concat();
            let class = spec(RowType::U32, &[]);
            for (tensors, row, width) in [
                (vec![spec(dtype, &[2]), class.clone()], one, 2),
                (vec![spec(dtype, &[2]), spec(dtype, &[]), class], two, 3),
            ] {
                let data = data(group(tensors, &[&row, &row])).unwrap();
                let batch = data
                    .batch(Split::Train, &[1], None, DType::F64, &Device::Cpu)
                    .unwrap();
                let inputs = batch.inputs.to_dtype(DType::F64).unwrap();
                let found: Vec<f64> = inputs.flatten_all().unwrap().to_vec1().unwrap();
                let wrong = found.iter().any(|x| (x - expected).abs() > 1e-6);
                assert!(!wrong && found.len() == width, "{dtype:?}: {found:?}");
                assert_eq!(data.class(Split::Train, 0), Some(3), "{dtype:?}");
            }
        }
    }

    /// Computed by hand: 1,000 rows of 10 float32 and a class of 4 bytes.
    #[test]
    fn the_memory_for_examples_is_that_of_the_worst_moment() {
        let of = |tensors: &[RowTensor]| sizes(tensors);
        // Rows and tensors at once: 44 + 44. Then inputs twice, the class, and labels as i64 twice: 80 + 4 + 16.
        let class = spec(RowType::U32, &[]);
        assert_eq!(of(&[spec(RowType::F32, &[10]), class.clone()]), (100, 48));
        // Half precision is widened at once: 24 + 44.
        assert_eq!(of(&[spec(RowType::F16, &[10]), class.clone()]), (100, 48));
        // Two inputs: their tensors (44), flat copies of 8 bytes and the joined ones.
        let two = [spec(RowType::F32, &[5]), spec(RowType::F32, &[5]), class];
        assert_eq!(of(&two), (44 + 160, 88));
        // One tensor is input and target.
        assert_eq!(of(&[spec(RowType::F64, &[2])]), (64, 32));
    }
}
