//! Matrix products on slices by the `gemm` crate, on the calling thread.
//!
//! gemm uses the widest vectors of the processor, detected at run time. Each of our threads calls it for its own
//! chunks, so gemm never starts threads.

use std::ops::Range;

use gemm::Parallelism;

use super::number::Number;
use super::part::part;

/// A matrix over a slice. Element (i, j) is at `i * rows_by + j * columns_by`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    data: &'a [T],
    shape: Shape,
}

/// A matrix that receives a product.
pub(super) struct MatrixMut<'a, T> {
    data: &'a mut [T],
    shape: Shape,
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    columns: usize,
    rows_by: usize,
    columns_by: usize,
}

impl Shape {
    /// Checks that every element is within a slice of `len`.
    fn checked(self, len: usize) -> Self {
        let last = self.rows.saturating_sub(1) * self.rows_by
            + self.columns.saturating_sub(1) * self.columns_by;
        assert!(
            self.rows == 0 || self.columns == 0 || last < len,
            "a {}x{} matrix does not fit its {len} elements",
            self.rows,
            self.columns
        );
        self
    }
}

impl<'a, T: Number> Matrix<'a, T> {
    /// `rows` x `columns` with these distances between rows and between columns.
    pub fn new(data: &'a [T], (rows, columns): (usize, usize), by: (usize, usize)) -> Self {
        let shape = Shape {
            rows,
            columns,
            rows_by: by.0,
            columns_by: by.1,
        };
        Self {
            data,
            shape: shape.checked(data.len()),
        }
    }

    /// Row-major.
    pub fn rows(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::new(data, (rows, columns), (columns, 1))
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.shape.rows
    }

    /// Some of the columns, without a copy.
    fn columns(self, range: &Range<usize>) -> Self {
        let shape = Shape {
            columns: range.len(),
            ..self.shape
        };
        let from = (range.start * shape.columns_by).min(self.data.len());
        Self {
            data: &self.data[from..],
            shape: shape.checked(self.data.len() - from),
        }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            shape: Shape {
                rows: self.shape.columns,
                columns: self.shape.rows,
                rows_by: self.shape.columns_by,
                columns_by: self.shape.rows_by,
            },
        }
    }
}

impl<'a, T: Number> MatrixMut<'a, T> {
    /// As [`Matrix::new`].
    pub fn new(data: &'a mut [T], (rows, columns): (usize, usize), by: (usize, usize)) -> Self {
        let shape = Shape {
            rows,
            columns,
            rows_by: by.0,
            columns_by: by.1,
        };
        let shape = shape.checked(data.len());
        assert!(
            by.0 >= columns && by.1 <= 1 || by.1 >= rows && by.0 <= 1,
            "elements of a result must not share a place"
        );
        Self { data, shape }
    }

    /// Row-major.
    pub fn rows(data: &'a mut [T], rows: usize, columns: usize) -> Self {
        Self::new(data, (rows, columns), (columns, 1))
    }
}

/// Longest inner dimension that gemm never splits. Where gemm splits a longer one, and so the order of its sums,
/// depends on the shape of the result. We split it first, so an element's bits depend on its own row and column
/// alone.
const INNER: usize = 512;

/// `out = a b`, or `out += a b` where `add`.
pub(super) fn product<T: Number>(
    out: MatrixMut<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    add: bool,
) {
    let inner = a.shape.columns;
    assert_eq!(
        (out.shape.rows, out.shape.columns, inner),
        (a.shape.rows, b.shape.columns, b.shape.rows),
        "dimensions of a matrix product"
    );
    let parts = match out.shape.rows.min(out.shape.columns) {
        // A product with a vector is never split.
        0 | 1 => 1,
        _ => inner.div_ceil(INNER).max(1),
    };
    for i in 0..parts {
        let terms = part(inner, i, parts);
        let (a, b) = (a.columns(&terms), b.t().columns(&terms).t());
        multiply(&mut *out.data, out.shape, a, b, add || i > 0);
    }
}

fn multiply<T: Number>(out: &mut [T], o: Shape, a: Matrix<'_, T>, b: Matrix<'_, T>, add: bool) {
    let (data, a, b) = (out.as_mut_ptr(), (a.shape, a.data), (b.shape, b.data));
    // SAFETY: the constructors checked that every element of the three matrices is within its slice, and that no two
    // elements of the result share an index. The result is borrowed mutably, so it overlaps neither operand.
    // `product` checked that the dimensions fit.
    unsafe {
        gemm::gemm(
            o.rows,
            o.columns,
            a.0.columns,
            data,
            o.columns_by as isize,
            o.rows_by as isize,
            add,
            a.1.as_ptr(),
            a.0.columns_by as isize,
            a.0.rows_by as isize,
            b.1.as_ptr(),
            b.0.columns_by as isize,
            b.0.rows_by as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_into_strided_results_agree_with_the_definition() {
        for (m, n, k) in [
            (1, 1, 1),
            (3, 5, 2),
            (20, 64, 25),
            (7, 1, 9),
            (1, 8, 0),
            (3, 2, 1300),
        ] {
            let a: Vec<f64> = (0..m * k).map(|i| (i as f64).sin()).collect();
            let b: Vec<f64> = (0..k * n).map(|i| (i as f64).cos()).collect();
            let by = n + 3;
            let mut wide = vec![1.0; m * by];
            product(
                MatrixMut::new(&mut wide, (m, n), (by, 1)),
                Matrix::rows(&a, m, k),
                Matrix::rows(&b, k, n),
                true,
            );
            let mut turned = vec![f64::NAN; m * n];
            product(
                MatrixMut::new(&mut turned, (m, n), (1, m)),
                Matrix::rows(&a, m, k),
                Matrix::rows(&b, k, n),
                false,
            );
            for i in 0..m {
                for j in 0..n {
                    let want: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                    assert!((wide[i * by + j] - want - 1.0).abs() < 1e-13);
                    assert!((turned[j * m + i] - want).abs() < 1e-13);
                }
                assert!(wide[i * by + n..(i + 1) * by].iter().all(|&x| x == 1.0));
            }
        }
    }
}
