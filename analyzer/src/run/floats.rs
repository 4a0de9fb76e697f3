//! Flat vectors in the float type in which they were recorded.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use hindcast_model::real::Real;

/// A flat vector of recorded values. A clone shares the values with the original.
///
/// Parameters in float64 stay float64. All other recorded types (float32, bfloat16, float16) are held as float32, which is
/// exact.
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
