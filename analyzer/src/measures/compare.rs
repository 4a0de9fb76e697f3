//! Comparison of two states of a model.

use hindcast_format::layout::TensorSpec;
use serde::Serialize;

/// Distance between two flat vectors of the same tensors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether all numbers have the same bits.
    pub bit_identical: bool,
    /// Largest `max|a − b| / max|b|` over the tensors; infinite if only one side is finite.
    pub max_relative_error: f64,
    /// The tensor with that error; `None` if all bits agree.
    pub tensor: Option<String>,
}

impl Comparison {
    /// Compares `got` with `expected`, tensor by tensor.
    pub(crate) fn of(got: &[f64], expected: &[f64], specs: &[TensorSpec]) -> Comparison {
        Self::without(got, expected, specs, &[])
    }

    /// The same, where the elements of `left_out` count for the bits but not for the error. It may be empty.
    pub(crate) fn without(
        got: &[f64],
        expected: &[f64],
        specs: &[TensorSpec],
        left_out: &[bool],
    ) -> Comparison {
        let mut out = Comparison {
            bit_identical: got.len() == expected.len(),
            max_relative_error: if got.len() == expected.len() {
                0.0
            } else {
                f64::INFINITY
            },
            tensor: None,
        };
        let mut start = 0;
        for spec in specs {
            let end = start + spec.shape.iter().product::<usize>();
            let (Some(a), Some(b)) = (got.get(start..end), expected.get(start..end)) else {
                break;
            };
            let left_out = left_out.get(start..end).unwrap_or_default();
            start = end;
            if a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()) {
                continue;
            }
            out.bit_identical = false;
            let error = relative(a, b, left_out);
            if out.tensor.is_none() || error > out.max_relative_error {
                out.max_relative_error = error;
                out.tensor = Some(spec.name.clone());
            }
        }
        out
    }

    /// The one with the larger error.
    pub(crate) fn worse(self, other: Comparison) -> Comparison {
        match (self.bit_identical, other.bit_identical) {
            (_, true) => self,
            (true, false) => other,
            _ if other.max_relative_error > self.max_relative_error => other,
            _ => self,
        }
    }
}

fn relative(a: &[f64], b: &[f64], left_out: &[bool]) -> f64 {
    let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0_f64, |m, x| m.max(x.abs()));
    let mut differs = false;
    let gap = a.iter().zip(b).enumerate().fold(0.0_f64, |m, (i, (a, b))| {
        if left_out.get(i).copied().unwrap_or(false) {
            return m;
        }
        if a.is_finite() != b.is_finite() || a.is_nan() != b.is_nan() {
            differs = true;
        }
        if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) {
            m
        } else {
            m.max((a - b).abs())
        }
    });
    let size = largest(&mut b.iter().copied().filter(|x| x.is_finite()));
    match (differs, gap == 0.0, size == 0.0) {
        (true, _, _) => f64::INFINITY,
        (_, true, _) => 0.0,
        (_, _, true) => f64::INFINITY,
        _ => gap / size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_format::layout::{DType, Role};

    fn spec(name: &str, n: usize) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            role: Role::Parameter,
            dtype: DType::F64,
            shape: vec![n],
            group: 0,
        }
    }

    #[test]
    fn the_worst_tensor_is_named() {
        let specs = [spec("a", 2), spec("b", 1), spec("c", 1)];
        let same = Comparison::of(&[1.0, 2.0, 3.0, 0.0], &[1.0, 2.0, 3.0, 0.0], &specs);
        assert!(same.bit_identical && same.tensor.is_none());
        let near = Comparison::of(&[1.0, 2.0, 3.3, 4.0], &[1.0, 2.2, 3.0, 4.0], &specs);
        assert_eq!(near.tensor.as_deref(), Some("b"));
        assert!((near.max_relative_error - 0.1).abs() < 1e-12);
        let lost = Comparison::of(&[1.0, f64::NAN, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0], &specs);
        assert_eq!(
            (lost.max_relative_error, lost.tensor.as_deref()),
            (f64::INFINITY, Some("a"))
        );
        assert_eq!(near.clone().worse(lost.clone()), lost);
        assert_eq!(same.worse(near.clone()), near);
    }

    #[test]
    fn signs_of_zero_are_bits_but_no_error() {
        let out = Comparison::of(&[-0.0], &[0.0], &[spec("z", 1)]);
        assert!(!out.bit_identical);
        assert_eq!(out.max_relative_error, 0.0);
    }
}
