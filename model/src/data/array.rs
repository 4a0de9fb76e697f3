//! An array from a file, and its conversion to inputs or labels.

use super::DataError;
use super::spec::{AxisOrder, Target};
use super::store::{Labels, Values};
use std::path::Path;

/// Largest number of classes. A file with larger numbers probably doesn't contain classes.
const MAX_CLASSES: i64 = 65_536;

/// Elements of an array, row-major.
pub(super) enum Elements {
    /// Booleans, as 0 and 1.
    Bool(Vec<u8>),
    U8(Vec<u8>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// An array of examples along its first axis. `elements.len()` is the product of `shape`.
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) elements: Elements,
}

/// Labels from a file, one per row.
pub(super) enum LabelArray {
    Numbers(Array),
    Texts(Vec<String>),
}

/// The product of the dimensions. `None` if it overflows.
pub(super) fn volume(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

impl Array {
    /// Number of examples.
    pub(super) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Checks that no value is NaN or infinite. Training on one would make every parameter NaN.
    pub(super) fn check_finite(&self, path: &Path, what: &str) -> Result<(), DataError> {
        let bad = match &self.elements {
            Elements::F32(v) => first_non_finite(v),
            Elements::F64(v) => first_non_finite(v),
            Elements::Bool(_) | Elements::U8(_) | Elements::I64(_) => None,
        };
        let Some((at, value)) = bad else {
            return Ok(());
        };
        Err(DataError::malformed(
            path,
            format!(
                "{what}, {}: expected a finite number, got {value}. Leave the row out, or put a number in its place",
                place(at, self.shape.get(1..).unwrap_or_default())
            ),
        ))
    }

    /// As [`Array::check_finite`], for labels that are values. [`Array::into_labels`] checks class labels.
    pub(super) fn check_labels(
        &self,
        path: &Path,
        target: Option<Target>,
    ) -> Result<(), DataError> {
        match target {
            Some(Target::Class | Target::Input) => Ok(()),
            Some(Target::Value) | None => self.check_finite(path, "labels"),
        }
    }

    /// The shape of an example, and the values. (N, H, W) becomes an image with one channel. In (N, H, W, C) with the
    /// layout `nhwc`, the channels are moved to the front.
    pub(super) fn into_inputs(
        self,
        path: &Path,
        order: Option<AxisOrder>,
    ) -> Result<(Vec<usize>, Values), DataError> {
        let tail = self.shape.get(1..).unwrap_or_default().to_vec();
        let values = match self.elements {
            // Not stored as bytes, because bytes are grey levels and are divided by 255.
            Elements::Bool(v) => Values::F32(v.into_iter().map(f32::from).collect()),
            Elements::U8(v) => Values::U8(v),
            Elements::F32(v) => Values::F32(v),
            Elements::F64(v) => Values::F64(v),
            Elements::I64(v) => Values::F64(v.into_iter().map(|x| x as f64).collect()),
        };
        if self.shape.is_empty() {
            return Err(DataError::malformed(
                path,
                "holds a single number, expected an array whose first axis counts the examples",
            ));
        }
        match (tail.as_slice(), order) {
            // A column of numbers: one feature per example.
            ([], _) => Ok((vec![1], values)),
            (&[h, w], None | Some(AxisOrder::Nchw)) => Ok((vec![1, h, w], values)),
            (&[h, w, c], Some(AxisOrder::Nhwc)) => {
                let values = match values {
                    Values::U8(v) => Values::U8(channels_first(&v, h * w, c)),
                    Values::F32(v) => Values::F32(channels_first(&v, h * w, c)),
                    Values::F64(v) => Values::F64(channels_first(&v, h * w, c)),
                };
                Ok((vec![c, h, w], values))
            }
            (other, Some(AxisOrder::Nhwc)) => Err(DataError::malformed(
                path,
                format!(
                    "layout \"nhwc\" expects four axes (examples, height, width, channels), the array has {}",
                    other.len() + 1
                ),
            )),
            _ => Ok((tail, values)),
        }
    }

    /// One label per row. By default integers are classes and floats are values. `target` overrides this.
    pub(super) fn into_labels(
        self,
        path: &Path,
        target: Option<Target>,
    ) -> Result<Labels, DataError> {
        let width = volume(self.shape.get(1..).unwrap_or_default()).unwrap_or(0);
        let integers = matches!(
            self.elements,
            Elements::Bool(_) | Elements::U8(_) | Elements::I64(_)
        );
        let classes = match target {
            Some(Target::Class) => true,
            Some(Target::Value) => false,
            Some(Target::Input) | None => integers,
        };
        if self.shape.is_empty() || width == 0 {
            return Err(DataError::malformed(
                path,
                format!(
                    "labels have shape {:?}, expected one row for each example",
                    self.shape
                ),
            ));
        }
        if !classes {
            let data = match self.elements {
                Elements::Bool(v) | Elements::U8(v) => v.into_iter().map(f64::from).collect(),
                Elements::I64(v) => v.into_iter().map(|x| x as f64).collect(),
                Elements::F32(v) => v.into_iter().map(f64::from).collect(),
                Elements::F64(v) => v,
            };
            return Ok(Labels::Values { width, data });
        }
        if width != 1 {
            return Err(DataError::NotClasses {
                path: path.to_path_buf(),
                what: format!(
                    "labels have shape {:?}, but classes are one number per row",
                    self.shape
                ),
            });
        }
        let class = |row: usize, number: Option<i64>, text: &dyn Fn() -> String| match number {
            Some(c) if (0..MAX_CLASSES).contains(&c) => Ok(c as u32),
            _ => Err(DataError::NotClasses {
                path: path.to_path_buf(),
                what: format!(
                    "row {row} has label {}, but classes are whole numbers from 0 to {}",
                    text(),
                    MAX_CLASSES - 1
                ),
            }),
        };
        let whole = |x: f64| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64);
        let classes: Result<Vec<u32>, DataError> = match self.elements {
            Elements::Bool(v) | Elements::U8(v) => Ok(v.into_iter().map(u32::from).collect()),
            Elements::I64(v) => v
                .into_iter()
                .enumerate()
                .map(|(i, x)| class(i, Some(x), &|| x.to_string()))
                .collect(),
            Elements::F32(v) => v
                .into_iter()
                .enumerate()
                .map(|(i, x)| class(i, whole(x.into()), &|| x.to_string()))
                .collect(),
            Elements::F64(v) => v
                .into_iter()
                .enumerate()
                .map(|(i, x)| class(i, whole(x), &|| x.to_string()))
                .collect(),
        };
        Ok(Labels::Classes(classes?))
    }
}

fn first_non_finite<T: Copy + Into<f64>>(values: &[T]) -> Option<(usize, f64)> {
    let values = values.iter().map(|v| (*v).into());
    values
        .enumerate()
        .find(|(_, v): &(usize, f64)| !v.is_finite())
}

/// The place of element `at` in rows of this shape, counted from 0, such as "row 4, column 2" or "row 4, position
/// [0, 3, 1]".
fn place(at: usize, shape: &[usize]) -> String {
    let mut rest = at;
    let mut position = vec![0; shape.len()];
    for (i, d) in position.iter_mut().zip(shape).rev() {
        *i = rest % d.max(&1);
        rest /= d.max(&1);
    }
    match position.as_slice() {
        [] => format!("row {rest}"),
        [column] => format!("row {rest}, column {column}"),
        position => format!("row {rest}, position {position:?}"),
    }
}

/// Images of shape (channels, height, width) with height and width swapped.
pub(super) fn transposed(
    path: &Path,
    shape: Vec<usize>,
    values: Values,
) -> Result<(Vec<usize>, Values), DataError> {
    let &[channels, height, width] = shape.as_slice() else {
        return Err(DataError::malformed(
            path,
            format!(
                "transpose swaps height and width of images, but an example has shape {shape:?}: remove data.transpose"
            ),
        ));
    };
    // A plane of height × width values is a row of (height, width), which becomes (width, height).
    let values = match values {
        Values::U8(v) => Values::U8(channels_first(&v, height, width)),
        Values::F32(v) => Values::F32(channels_first(&v, height, width)),
        Values::F64(v) => Values::F64(channels_first(&v, height, width)),
    };
    Ok((vec![channels, width, height], values))
}

/// Converts each row from (pixels, channels) to (channels, pixels).
pub(super) fn channels_first<T: Copy>(values: &[T], pixels: usize, channels: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    if pixels * channels == 0 {
        return out;
    }
    for row in values.chunks_exact(pixels * channels) {
        for c in 0..channels {
            out.extend(row.iter().skip(c).step_by(channels));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_finite_is_named_by_its_place() {
        let check = |shape: &[usize], elements: Elements| {
            let array = Array {
                shape: shape.to_vec(),
                elements,
            };
            let checked = array.check_finite(Path::new("x.npy"), "inputs");
            checked.map_err(|e| e.to_string())
        };
        let mut values = vec![1.0f64; 24];
        assert_eq!(check(&[6, 4], Elements::F64(values.clone())), Ok(()));
        values[19] = f64::NEG_INFINITY;
        let flat = check(&[6, 4], Elements::F64(values.clone())).unwrap_err();
        for part in ["x.npy", "inputs, row 4, column 3", "-inf"] {
            assert!(flat.contains(part), "{flat}");
        }
        let image = check(&[2, 3, 2, 2], Elements::F64(values.clone())).unwrap_err();
        assert!(image.contains("row 1, position [1, 1, 1]"), "{image}");
        let column = check(&[24], Elements::F64(values)).unwrap_err();
        assert!(column.contains("row 19:"), "{column}");
        let float = check(&[1, 1], Elements::F32(vec![f32::NAN])).unwrap_err();
        assert!(
            float.contains("row 0, column 0") && float.contains("NaN"),
            "{float}"
        );
    }
}
