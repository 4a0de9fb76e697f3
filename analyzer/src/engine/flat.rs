//! Conversion between flat vectors and candle's tensors.

use std::ops::Range;

use candle_core::{DType, Device, Tensor, Var, WithDType};
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

/// Makes one tensor per definition. `take` returns the values at a range of the flat vector.
fn cut<T: WithDType>(
    defs: &[TensorDef],
    device: &Device,
    take: impl Fn(Range<usize>) -> Vec<T>,
) -> candle_core::Result<Vec<Tensor>> {
    let mut start = 0;
    defs.iter()
        .map(|def| {
            let range = start..start + elements(def);
            start = range.end;
            Tensor::from_vec(take(range), def.shape.as_slice(), device)
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
        DType::F64 => cut(defs, device, |range| scaled(range).collect::<Vec<f64>>()),
        _ => cut(defs, device, |range| {
            scaled(range).map(|x| x as f32).collect::<Vec<f32>>()
        }),
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
        DType::F64 => cut(defs, device, |range| flat.range(range).to_vec::<f64>()),
        _ => cut(defs, device, |range| flat.range(range).to_vec::<f32>()),
    }
    .and_then(|ts| ts.iter().map(Var::from_tensor).collect())
    .doing(|| "putting the recorded tensors on the device".to_owned())
}

/// A tensor's elements in float64, row-major.
pub(crate) fn values(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor
        .detach()
        .to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1()
}

/// Appends a tensor's elements times `scale`, or zeros if there is no tensor.
pub(crate) fn append(
    out: &mut Vec<f64>,
    tensor: Option<&Tensor>,
    def: &TensorDef,
    scale: f64,
) -> candle_core::Result<()> {
    match tensor {
        None => out.resize(out.len() + elements(def), 0.0),
        Some(t) => out.extend(values(t)?.iter().map(|x| x * scale)),
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
            append(&mut glued, Some(t), d, 1.0).unwrap();
        }
        assert_eq!(glued, flat);
    }

    #[test]
    fn scales_are_exact_powers_of_two() {
        assert_eq!(power_of_two_scale(&[&[0.0], &[]]), 1.0);
        assert_eq!(power_of_two_scale(&[&[3.0, -5.0]]), 0.25);
        assert_eq!(power_of_two_scale(&[&[1e-3]]) * 1e-3, 1.024);
    }
}
