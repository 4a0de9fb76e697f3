//! Conversion between flat vectors and candle's tensors.

use std::ops::Range;

use candle_core::{DType, Device, Storage, Tensor, Var, WithDType};
use hindcast_model::objective::TensorDef;

use crate::error::{AnalysisError, Doing, Result};
use crate::run::floats::FloatSlice;

/// Number of elements of all the tensors together.
pub(crate) fn count(defs: &[TensorDef]) -> usize {
    defs.iter().map(elements).sum()
}

/// Number of elements of one tensor.
pub(crate) fn elements(def: &TensorDef) -> usize {
    def.shape.iter().product()
}

/// Checks that a flat vector of `len` elements, which `what` names in the error, fits its tensors.
pub(crate) fn check(what: &str, len: usize, defs: &[TensorDef]) -> Result<()> {
    let expected = count(defs);
    if len == expected {
        return Ok(());
    }
    Err(AnalysisError::Mismatch {
        what: what.to_owned(),
        expected: format!("{expected} numbers ({} tensors)", defs.len()),
        got: format!("{len} numbers"),
        hint: "trace and model must have the same parameters and buffers".to_owned(),
    })
}

/// Makes one tensor or variable per definition with `make`. `take` returns the values at a range of the flat vector.
fn cut<T: WithDType, V>(
    defs: &[TensorDef],
    take: impl Fn(Range<usize>) -> Vec<T>,
    make: impl Fn(Vec<T>, &[usize]) -> candle_core::Result<V>,
) -> candle_core::Result<Vec<V>> {
    let mut start = 0;
    defs.iter()
        .map(|def| {
            let range = start..start + elements(def);
            start = range.end;
            make(take(range), &def.shape)
        })
        .collect()
}

/// Cuts a flat vector into tensors. Values are multiplied by `scale` and then rounded to `dtype`, float32 or float64.
pub(crate) fn tensors(
    flat: &[f64],
    defs: &[TensorDef],
    scale: f64,
    dtype: DType,
    device: &Device,
) -> candle_core::Result<Vec<Tensor>> {
    let scaled = |range: Range<usize>| flat[range].iter().map(|x| x * scale);
    match dtype {
        DType::F64 => cut(
            defs,
            |range| scaled(range).collect(),
            |x: Vec<f64>, shape| Tensor::from_vec(x, shape, device),
        ),
        _ => cut(
            defs,
            |range| scaled(range).map(|x| x as f32).collect(),
            |x: Vec<f32>, shape| Tensor::from_vec(x, shape, device),
        ),
    }
}

/// Cuts a flat vector into variables of type `dtype`, float32 or float64.
///
/// # Errors
/// If the device fails.
///
/// # Panics
/// If the vector is shorter than the tensors.
pub fn variables<'a>(
    flat: impl Into<FloatSlice<'a>>,
    defs: &[TensorDef],
    dtype: DType,
    device: &Device,
) -> Result<Vec<Var>> {
    let flat = flat.into();
    match dtype {
        DType::F64 => cut(
            defs,
            |range| flat.range(range).to_vec(),
            |x: Vec<f64>, shape| Var::from_vec(x, shape, device),
        ),
        _ => cut(
            defs,
            |range| flat.range(range).to_vec(),
            |x: Vec<f32>, shape| Var::from_vec(x, shape, device),
        ),
    }
    .doing(|| "putting the recorded tensors on the device".to_owned())
}

/// A tensor's elements in float64, row-major.
pub(crate) fn values(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    read(tensor, |values| values.to_vec())
}

/// Calls `see` with a tensor's elements, row-major. They are not copied if they lie in this order in the CPU's memory.
fn read<R>(tensor: &Tensor, see: impl FnOnce(FloatSlice<'_>) -> R) -> candle_core::Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
        match tensor.dtype() {
            DType::F32 => return Ok(see(FloatSlice::F32(&storage.as_slice()?[start..end]))),
            DType::F64 => return Ok(see(FloatSlice::F64(&storage.as_slice()?[start..end]))),
            _ => {}
        }
    }
    drop(storage);
    let wide = tensor.detach().to_dtype(DType::F64)?.flatten_all()?;
    Ok(see(FloatSlice::F64(&wide.to_vec1()?)))
}

/// Appends a tensor's elements, or zeros if there is no tensor.
pub(crate) fn append(
    out: &mut Vec<f64>,
    tensor: Option<&Tensor>,
    def: &TensorDef,
) -> candle_core::Result<()> {
    match tensor {
        None => out.resize(out.len() + elements(def), 0.0),
        Some(t) => read(t, |values| match values {
            FloatSlice::F32(x) => out.extend(x.iter().map(|&x| f64::from(x))),
            FloatSlice::F64(x) => out.extend_from_slice(x),
        })?,
    }
    Ok(())
}

/// Adds `scale` times the tensors that `of` returns for the definitions to the flat vector `to`. Where there is no tensor,
/// nothing is added.
pub(crate) fn add<'a>(
    to: &mut [f64],
    defs: &[TensorDef],
    of: impl Fn(usize) -> Option<&'a Tensor>,
    scale: f64,
) -> candle_core::Result<()> {
    let mut rest = to;
    for (k, def) in defs.iter().enumerate() {
        let (here, after) = rest.split_at_mut(elements(def));
        rest = after;
        let Some(tensor) = of(k) else {
            continue;
        };
        let here = here.iter_mut();
        read(tensor, |values| match values {
            FloatSlice::F32(x) => here.zip(x).for_each(|(to, &x)| *to += f64::from(x) * scale),
            FloatSlice::F64(x) => here.zip(x).for_each(|(to, &x)| *to += x * scale),
        })?;
    }
    Ok(())
}

/// A power of two near 1/max|x|, or 1 if the largest value is zero or not finite.
///
/// Multiplying by it is exact in float64. Afterwards, rounding to float32 neither overflows nor loses small directions.
pub(crate) fn power_of_two_scale(parts: &[&[f64]]) -> f64 {
    let largest = parts
        .iter()
        .flat_map(|p| p.iter())
        .fold(0.0_f64, |m, x| m.max(x.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return 1.0;
    }
    2.0_f64.powi(-(largest.log2().floor() as i32).clamp(-1000, 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_cut_into_tensors_and_joined_again_is_unchanged() {
        let defs =
            [("a", vec![2, 3]), ("b", vec![]), ("c", vec![0, 4])].map(|(name, shape)| TensorDef {
                name: name.to_owned(),
                shape,
            });
        let flat: Vec<f64> = (0..7).map(|i| f64::from(i) / 7.0).collect();
        assert_eq!(count(&defs), 7);
        let cut = tensors(&flat, &defs, 1.0, DType::F64, &Device::Cpu).unwrap();
        let mut glued = Vec::new();
        for (t, d) in cut.iter().zip(&defs) {
            append(&mut glued, Some(t), d).unwrap();
        }
        assert_eq!(glued, flat);
        let mut sum = vec![1.0; 7];
        add(&mut sum, &defs, |k| (k != 1).then(|| &cut[k]), 7.0).unwrap();
        assert_eq!(sum, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0]);
        // In memory, the rows of a transposed tensor lie in another order.
        let turned = cut[0].t().unwrap();
        let across: Vec<f64> = [0, 3, 1, 4, 2, 5].map(|i| flat[i]).into();
        assert_eq!(values(&turned).unwrap(), across);
        assert_eq!(
            values(&turned.to_dtype(DType::F32).unwrap()).unwrap(),
            across
                .iter()
                .map(|&x| f64::from(x as f32))
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn scales_are_exact_powers_of_two() {
        assert_eq!(power_of_two_scale(&[&[0.0], &[]]), 1.0);
        assert_eq!(power_of_two_scale(&[&[3.0, -5.0]]), 0.25);
        assert_eq!(power_of_two_scale(&[&[1e-3]]) * 1e-3, 1.024);
    }
}
