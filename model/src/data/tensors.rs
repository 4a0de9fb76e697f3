//! Safetensors files with a tensor of inputs and a tensor of labels.

use super::array::{Array, Elements};
use super::spec::DataSpec;
use super::store::Rows;
use super::{DataError, files};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::Path;

/// Reads the inputs and labels of one file.
pub(super) fn read(path: &Path, spec: &DataSpec) -> Result<Rows, DataError> {
    let bytes = files::read(path)?;
    // The crate checks every offset against the buffer.
    let file = SafeTensors::deserialize(&bytes).map_err(|e| {
        DataError::malformed(path, format!("the safetensors file can't be read: {e}"))
    })?;
    let inputs = tensor(path, &file, "inputs", spec.inputs.as_deref())?;
    let labels = tensor(path, &file, "labels", spec.labels.as_deref())?;
    inputs.check_finite(path, "inputs")?;
    labels.check_labels(path, spec.target)?;
    let rows = inputs.rows();
    let (shape, values) = inputs.into_inputs(path, spec.layout)?;
    Rows::new(
        path,
        path,
        shape,
        rows,
        values,
        labels.into_labels(path, spec.target)?,
    )
}

fn tensor(
    path: &Path,
    file: &SafeTensors<'_>,
    key: &str,
    name: Option<&str>,
) -> Result<Array, DataError> {
    let name = name.unwrap_or(key);
    let view = file.tensor(name).map_err(|_| {
        let mut names = file.names();
        names.sort_unstable();
        DataError::malformed(
            path,
            format!(
                "has no tensor {name:?}; it has {}. Name the tensor with data.{key}",
                names.join(", ")
            ),
        )
    })?;
    Ok(Array {
        shape: view.shape().to_vec(),
        elements: elements(path, name, &view)?,
    })
}

fn elements(path: &Path, name: &str, view: &TensorView<'_>) -> Result<Elements, DataError> {
    /// Little-endian elements of N bytes.
    fn each<const N: usize, T>(data: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
        data.as_chunks::<N>().0.iter().map(|b| of(*b)).collect()
    }
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::U8 => Elements::U8(data.to_vec()),
        Dtype::BOOL => Elements::Bool(data.iter().map(|b| u8::from(*b != 0)).collect()),
        Dtype::I8 => Elements::I64(each(data, |b| i8::from_le_bytes(b).into())),
        Dtype::I16 => Elements::I64(each(data, |b| i16::from_le_bytes(b).into())),
        Dtype::U16 => Elements::I64(each(data, |b| u16::from_le_bytes(b).into())),
        Dtype::I32 => Elements::I64(each(data, |b| i32::from_le_bytes(b).into())),
        Dtype::U32 => Elements::I64(each(data, |b| u32::from_le_bytes(b).into())),
        Dtype::I64 => Elements::I64(each(data, i64::from_le_bytes)),
        Dtype::F16 => Elements::F32(each(data, |b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Elements::F32(each(data, |b| bf16::from_le_bytes(b).to_f32())),
        Dtype::F32 => Elements::F32(each(data, f32::from_le_bytes)),
        Dtype::F64 => Elements::F64(each(data, f64::from_le_bytes)),
        other => {
            let what = format!(
                "tensor {name:?} has type {other:?}; expected booleans, integers (u8 to u32, i8 to i64) or floats (16 to 64 bits)"
            );
            return Err(DataError::malformed(path, what));
        }
    })
}
