//! Flat vectors in the float type in which they were recorded.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use hindcast_format::layout::{DType, TensorSpec};
use hindcast_model::real::Real;

/// A flat vector of recorded values. A clone shares the values with the original.
///
/// The vector is float64 if one of its tensors was recorded in float64. All other recorded types (float32, bfloat16,
/// float16) are converted to float32, which is exact.
#[derive(Debug, Clone, PartialEq)]
pub enum FloatVec {
    /// Values in float32.
    F32(Arc<Vec<f32>>),
    /// Values in float64.
    F64(Arc<Vec<f64>>),
}

/// A borrowed flat vector in float32 or float64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FloatSlice<'a> {
    /// Values in float32.
    F32(&'a [f32]),
    /// Values in float64.
    F64(&'a [f64]),
}

impl FloatVec {
    /// The values, borrowed.
    pub fn as_slice(&self) -> FloatSlice<'_> {
        match self {
            Self::F32(x) => FloatSlice::F32(x),
            Self::F64(x) => FloatSlice::F64(x),
        }
    }

    /// Copies the values into a vector of type `T`: rounded to nearest if `T` is narrower, else exact.
    pub fn to_vec<T: Real>(&self) -> Vec<T> {
        self.as_slice().to_vec()
    }

    /// Bytes that the values of these tensors take.
    pub(crate) fn bytes(tensors: &[TensorSpec]) -> u64 {
        let values: usize = tensors.iter().map(TensorSpec::elements).sum();
        let width = if is_float64(tensors) { 8 } else { 4 };
        values as u64 * width
    }
}

/// Whether float32 would round a value of these tensors.
pub(crate) fn is_float64(tensors: &[TensorSpec]) -> bool {
    tensors.iter().any(|tensor| tensor.dtype == DType::F64)
}

impl Default for FloatVec {
    fn default() -> Self {
        Vec::<f32>::new().into()
    }
}

impl From<Vec<f32>> for FloatVec {
    fn from(x: Vec<f32>) -> Self {
        Self::F32(Arc::new(x))
    }
}

impl From<Vec<f64>> for FloatVec {
    fn from(x: Vec<f64>) -> Self {
        Self::F64(Arc::new(x))
    }
}

impl From<FloatSlice<'_>> for FloatVec {
    fn from(x: FloatSlice<'_>) -> Self {
        match x {
            FloatSlice::F32(x) => x.to_vec().into(),
            FloatSlice::F64(x) => x.to_vec().into(),
        }
    }
}

impl<'a> FloatSlice<'a> {
    /// Number of values.
    pub fn len(self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F64(x) => x.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The values at `range`.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    pub fn range(self, range: Range<usize>) -> FloatSlice<'a> {
        match self {
            Self::F32(x) => FloatSlice::F32(&x[range]),
            Self::F64(x) => FloatSlice::F64(&x[range]),
        }
    }

    /// Copies the values into a vector of type `T`: rounded to nearest if `T` is narrower, else exact.
    pub fn to_vec<T: Real>(self) -> Vec<T> {
        match self {
            Self::F32(x) => x.iter().map(|x| T::of(x.wide())).collect(),
            Self::F64(x) => x.iter().map(|&x| T::of(x)).collect(),
        }
    }

    /// As [`to_vec`](Self::to_vec), into the first elements of `to`.
    pub(crate) fn copy_to<T: Real>(self, to: &mut [T]) {
        match self {
            Self::F32(x) => to
                .iter_mut()
                .zip(x)
                .for_each(|(to, x)| *to = T::of(x.wide())),
            Self::F64(x) => to.iter_mut().zip(x).for_each(|(to, &x)| *to = T::of(x)),
        }
    }

    /// The values in float64, copied only if they are in float32.
    pub fn to_f64(self) -> Cow<'a, [f64]> {
        match self {
            Self::F32(_) => Cow::Owned(self.to_vec()),
            Self::F64(x) => Cow::Borrowed(x),
        }
    }
}

impl Default for FloatSlice<'_> {
    fn default() -> Self {
        Self::F64(&[])
    }
}

impl<'a> From<&'a FloatVec> for FloatSlice<'a> {
    fn from(x: &'a FloatVec) -> Self {
        x.as_slice()
    }
}

impl<'a> From<&'a [f32]> for FloatSlice<'a> {
    fn from(x: &'a [f32]) -> Self {
        Self::F32(x)
    }
}

impl<'a> From<&'a [f64]> for FloatSlice<'a> {
    fn from(x: &'a [f64]) -> Self {
        Self::F64(x)
    }
}

impl<'a> From<&'a Vec<f64>> for FloatSlice<'a> {
    fn from(x: &'a Vec<f64>) -> Self {
        Self::F64(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_format::layout::Role;

    #[test]
    fn float32_passes_through_float64_with_its_bits() {
        let values = vec![0.1_f32, -0.0, f32::MIN_POSITIVE / 4.0, f32::MAX];
        let recorded = FloatVec::from(values.clone());
        let wide = recorded.as_slice().to_f64();
        let mut back = [1.0_f32; 4];
        FloatSlice::from(&*wide).copy_to(&mut back);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&values));
        assert_eq!(bits(&recorded.to_vec()), bits(&values));
        let part = recorded.as_slice().range(1..3);
        assert_eq!(bits(&part.to_vec()), bits(&values[1..3]));
    }

    #[test]
    fn float64_is_borrowed_or_rounded_to_nearest() {
        let recorded = FloatVec::from(vec![0.1, 1.0 + f64::EPSILON]);
        assert!(matches!(recorded.as_slice().to_f64(), Cow::Borrowed(_)));
        assert_eq!(recorded.to_vec::<f32>(), [0.1, 1.0]);
        let FloatVec::F64(shared) = &recorded else {
            panic!("float64 stays float64")
        };
        let clone = recorded.clone();
        assert_eq!((Arc::strong_count(shared), clone == recorded), (2, true));
    }

    #[test]
    fn one_float64_tensor_makes_the_whole_vector_float64() {
        let spec = |dtype| TensorSpec {
            name: format!("{dtype}"),
            shape: vec![3],
            dtype,
            role: Role::Buffer,
            group: 0,
        };
        let narrow = [spec(DType::Bf16), spec(DType::F32)];
        let mixed = [spec(DType::Bf16), spec(DType::F64)];
        assert_eq!((FloatVec::bytes(&narrow), is_float64(&narrow)), (24, false));
        assert_eq!((FloatVec::bytes(&mixed), is_float64(&mixed)), (48, true));
    }
}
