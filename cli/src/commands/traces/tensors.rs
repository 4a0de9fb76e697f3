//! Recorded tensors in safetensors files.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use hindcast_format::{DType, TensorSpec};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView, View};

/// The name of a tensor in a safetensors file. The format reserves one name, and a file with a tensor of that name would be
/// unreadable.
pub(super) fn name_in_file(name: &str) -> anyhow::Result<String> {
    if name == "__metadata__" {
        bail!(
            "a tensor of the run has the name {name:?}, which safetensors reserves: rename the variable in the training program \
             (a trace can hold the name, and `Trace::load_into` reads it)"
        );
    }
    Ok(name.to_owned())
}

/// A tensor of a safetensors file with these bytes of the trace.
pub(super) fn view<'a>(spec: &TensorSpec, bytes: &'a [u8]) -> anyhow::Result<TensorView<'a>> {
    let dtype = match spec.dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::Bf16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
    };
    TensorView::new(dtype, spec.shape.clone(), bytes)
        .with_context(|| format!("tensor {}", spec.name))
}

/// Writes a safetensors file with the access rights that every new file gets. The library writes to a private temporary file, whose
/// rights are only the owner's, and renames it.
pub(super) fn write<V: View>(
    path: &Path,
    tensors: Vec<(String, V)>,
    about: Option<HashMap<String, String>>,
) -> io::Result<()> {
    let rights = File::create(path)?.metadata()?.permissions();
    safetensors::serialize_to_file(tensors, about, path).map_err(|e| match e {
        SafeTensorError::IoError(e) => e,
        other => io::Error::other(other),
    })?;
    std::fs::set_permissions(path, rights)
}

/// Values as bytes of a tensor's recorded type, each rounded to nearest.
pub(super) fn rounded(spec: &TensorSpec, values: &[f64]) -> Vec<u8> {
    let values = values.iter();
    match spec.dtype {
        DType::F32 => values.flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        DType::F64 => values.flat_map(|x| x.to_le_bytes()).collect(),
        DType::Bf16 => values
            .flat_map(|&x| half::bf16::from_f64(x).to_le_bytes())
            .collect(),
        DType::F16 => values
            .flat_map(|&x| half::f16::from_f64(x).to_le_bytes())
            .collect(),
    }
}
