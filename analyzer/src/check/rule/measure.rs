//! Measures the difference between a computed and a recorded update.

use hindcast_format::layout::{DType as Stored, TensorSpec};
use hindcast_model::vectors::norm_of;

/// One step's values of the tensors `specs`, flattened.
pub(crate) struct Compared<'a> {
    /// Before the step.
    pub before: &'a [f64],
    /// After it, as computed.
    pub got: &'a [f64],
    /// After it, as recorded.
    pub want: &'a [f64],
    /// Elements to leave out of the comparison; empty for none.
    pub left_out: &'a [bool],
    pub specs: &'a [TensorSpec],
}

/// One tensor's part of a [`Compared`].
pub(crate) struct ComparedTensor<'a> {
    pub spec: &'a TensorSpec,
    /// Position among the tensors.
    pub tensor: usize,
    pub before: &'a [f64],
    pub got: &'a [f64],
    pub want: &'a [f64],
    left_out: &'a [bool],
}

/// The largest error over the tensors.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    pub bit_identical: bool,
    pub error: f64,
    pub tensor: Option<String>,
}

impl Difference {
    pub fn worse(self, other: Difference) -> Difference {
        match (self.bit_identical, other.bit_identical) {
            (_, true) => self,
            (true, false) => other,
            _ if other.error > self.error => other,
            _ => self,
        }
    }
}

impl<'a> Compared<'a> {
    /// The tensors one by one.
    pub fn tensors(&self) -> impl Iterator<Item = ComparedTensor<'a>> {
        let (before, got, want) = (self.before, self.got, self.want);
        let (left_out, specs) = (self.left_out, self.specs);
        let mut start = 0;
        specs.iter().enumerate().filter_map(move |(tensor, spec)| {
            let range = start..start + spec.shape.iter().product::<usize>();
            start = range.end;
            Some(ComparedTensor {
                spec,
                tensor,
                before: before.get(range.clone())?,
                got: got.get(range.clone())?,
                want: want.get(range.clone())?,
                left_out: left_out.get(range).unwrap_or_default(),
            })
        })
    }
}

impl ComparedTensor<'_> {
    /// (before, computed, recorded) of the elements that are compared.
    pub fn elements(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let values = self.before.iter().zip(self.got).zip(self.want);
        values.enumerate().filter_map(|(i, ((&b, &g), &w))| {
            let left_out = self.left_out.get(i).copied().unwrap_or(false);
            (!left_out).then_some((b, g, w))
        })
    }

    /// Largest difference that rounding both results to the recorded type can cause, in the Euclidean norm.
    pub fn rounding(&self) -> f64 {
        let size = norm_of(self.elements().map(|(_, _, w)| w));
        2.0 * unit(self.spec.dtype) * size
    }
}

/// Half the distance from 1 to the next number of the type.
fn unit(stored: Stored) -> f64 {
    match stored {
        Stored::F64 => f64::EPSILON / 2.0,
        Stored::F32 => f64::from(f32::EPSILON) / 2.0,
        Stored::F16 => 2f64.powi(-11),
        Stored::Bf16 => 2f64.powi(-8),
    }
}

/// The elements whose results differ and whose difference is within their bound, and the number of those elements.
pub(super) fn explained(got: &[f64], want: &[f64], bounds: &[f64]) -> (Vec<bool>, u64) {
    let differs = |(&g, &w): (&f64, &f64)| (g - w).abs();
    let left_out: Vec<bool> = got
        .iter()
        .zip(want)
        .map(differs)
        .zip(bounds)
        .map(|(gap, &bound)| gap > 0.0 && gap <= bound)
        .collect();
    let count = left_out.iter().filter(|&&out| out).count() as u64;
    (left_out, count)
}

/// The largest error over the tensors; see [`super::RuleCheckStep::error`].
pub(crate) fn compare(compared: &Compared<'_>) -> Difference {
    let mut out = Difference {
        bit_identical: true,
        error: 0.0,
        tensor: None,
    };
    if compared.got.len() != compared.want.len() {
        return Difference {
            bit_identical: false,
            error: f64::INFINITY,
            tensor: None,
        };
    }
    for part in compared.tensors() {
        let bits = part.got.iter().zip(part.want);
        if bits.clone().all(|(g, w)| g.to_bits() == w.to_bits()) {
            continue;
        }
        out.bit_identical = false;
        let error = error(&part);
        if out.tensor.is_none() || error > out.error {
            out.error = error;
            out.tensor = Some(part.spec.name.clone());
        }
    }
    out
}

fn error(part: &ComparedTensor<'_>) -> f64 {
    // Rounding can't explain a number that is finite on one side only. NaN on both sides agrees.
    let odd = |(_, g, w): (f64, f64, f64)| g.is_finite() != w.is_finite();
    if part.elements().any(odd) {
        return f64::INFINITY;
    }
    let finite = || {
        part.elements()
            .filter(|(_, g, w)| g.is_finite() && w.is_finite())
    };
    let gap = norm_of(finite().map(|(_, g, w)| g - w));
    let computed = norm_of(finite().map(|(b, g, _)| g - b));
    let recorded = norm_of(finite().map(|(b, _, w)| w - b));
    let rounding = part.rounding();
    let size = computed.max(recorded);
    if gap <= rounding || size == 0.0 {
        return 0.0;
    }
    (gap - rounding) / size
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_format::layout::Role;

    fn spec(name: &str, n: usize) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            role: Role::Parameter,
            dtype: Stored::F32,
            shape: vec![n],
            group: 0,
        }
    }

    fn compared(before: &[f64], got: &[f64], want: &[f64], left_out: &[bool]) -> Difference {
        compare(&Compared {
            before,
            got,
            want,
            left_out,
            specs: &[spec("a", 2), spec("b", 2)],
        })
    }

    #[test]
    fn an_error_is_relative_to_the_update_and_names_its_tensor() {
        // `b` moves by 0.1 and should have moved by 0.2: an error of 1e-4 relative to the parameters, and of half the
        // update.
        let before = [1.0, 1.0, 1_000.0, 1_000.0];
        let got = [1.1, 1.0, 1_000.1, 1_000.0];
        let want = [1.1, 1.0, 1_000.2, 1_000.0];
        let found = compared(&before, &got, &want, &[]);
        assert_eq!(found.tensor.as_deref(), Some("b"));
        assert!((found.error - 0.5).abs() < 2e-3, "{}", found.error);
        assert!(!found.bit_identical);
    }

    #[test]
    fn rounding_of_the_parameters_is_no_error() {
        // The update is smaller than a float32's last place at 1,000.
        let before = [1_000.0; 4];
        let want = [1_000.000_05, 1_000.0, 1_000.0, 1_000.0];
        let found = compared(&before, &[1_000.0; 4], &want, &[]);
        assert_eq!((found.bit_identical, found.error), (false, 0.0));
    }

    #[test]
    fn elements_that_rounding_explains_and_equal_nans_are_left_out() {
        let got = [0.1, -0.1, f64::NAN, 0.1];
        let want = [0.1, 0.1, f64::NAN, 0.1];
        let (left_out, count) = explained(&got, &want, &[0.0, 0.3, 0.0, 0.3]);
        assert_eq!(
            (&left_out[..], count),
            (&[false, true, false, false][..], 1)
        );
        assert_eq!(explained(&got, &want, &[0.0, 0.1, 0.0, 0.0]).1, 0);
        assert_eq!(compared(&[0.0; 4], &got, &want, &left_out).error, 0.0);
        assert!(compared(&[0.0; 4], &got, &want, &[]).error > 1.0);
        let lost = compared(&[0.0; 4], &[0.1; 4], &want, &left_out);
        assert_eq!(
            (lost.error, lost.tensor.as_deref()),
            (f64::INFINITY, Some("b"))
        );
    }
}
