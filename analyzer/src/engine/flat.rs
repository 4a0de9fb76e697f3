//! Between flat float64 vectors and candle's tensors.

use candle_core::{DType, Device, Tensor, Var};
use hindcast_model::objective::TensorDef;

use crate::error::{AnalysisError, Doing, Result};

/// Elements of all the tensors together.
pub(crate) fn count(defs: &[TensorDef]) -> usize {
    defs.iter().map(elements).sum()
}

/// Elements of one tensor.
pub(crate) fn elements(def: &TensorDef) -> usize {
    def.shape.iter().product()
}

/// Checks a flat vector's length against the tensors it should hold.
pub(crate) fn check(what: &str, flat: &[f64], defs: &[TensorDef]) -> Result<()> {
    let expected = count(defs);
    if flat.len() == expected {
        return Ok(());
    }
    Err(AnalysisError::Mismatch {
        what: what.to_owned(),
        expected: format!("{expected} numbers ({} tensors)", defs.len()),
        got: format!("{} numbers", flat.len()),
        hint: "trace and model must have the same parameters and buffers".to_owned(),
    })
}

/// Cuts a flat vector into tensors, scaled by `scale` before they are rounded to `dtype`.
pub(crate) fn tensors(
    flat: &[f64],
    defs: &[TensorDef],
    scale: f64,
    dtype: DType,
    device: &Device,
) -> candle_core::Result<Vec<Tensor>> {
    let mut rest = flat;
    defs.iter()
        .map(|def| {
            let (here, after) = rest.split_at(elements(def));
            rest = after;
            let shape = def.shape.as_slice();
            match dtype {
                DType::F64 => Tensor::from_vec(
                    here.iter().map(|x| x * scale).collect::<Vec<f64>>(),
                    shape,
                    device,
                ),
                _ => Tensor::from_vec(
                    here.iter()
                        .map(|x| (x * scale) as f32)
                        .collect::<Vec<f32>>(),
                    shape,
                    device,
                )?
                .to_dtype(dtype),
            }
        })
        .collect()
}

/// Cuts a flat vector into variables.
pub fn variables(
    flat: &[f64],
    defs: &[TensorDef],
    dtype: DType,
    device: &Device,
) -> Result<Vec<Var>> {
    tensors(flat, defs, 1.0, dtype, device)
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

/// Appends a tensor's elements, or zeros where it is absent.
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

/// A power of two near 1/max|x|, so that rounding to float32 neither overflows nor loses small directions;
/// multiplying by it is exact in float64.
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
    fn cutting_and_gluing_is_the_identity() {
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
