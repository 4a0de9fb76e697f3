//! Matrix products on slices with the `gemm` crate. Most run on the calling thread, and callers divide the work.

use super::element::Element;

/// A matrix over a slice: element (i, j) is at `i * rows_by + j * columns_by`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    rows_by: usize,
    columns_by: usize,
}

impl<'a, T: Element> Matrix<'a, T> {
    /// A matrix whose rows follow one another.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix whose rows begin `rows_by` elements apart.
    pub(crate) fn strided(data: &'a [T], rows: usize, columns: usize, rows_by: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * rows_by + columns <= data.len(),
            "a {rows}x{columns} matrix does not fit its {} elements",
            data.len()
        );
        Self {
            data,
            rows,
            columns,
            rows_by,
            columns_by: 1,
        }
    }

    /// The transpose, without copying.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            rows_by: self.columns_by,
            columns_by: self.rows_by,
        }
    }
}

/// `out = a b`, or `out += a b` if `accumulate`. `out` is row-major.
pub(crate) fn product<T: Element>(
    out: &mut [T],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    accumulate: bool,
) {
    product_with(out, a, b, accumulate, gemm::Parallelism::None);
}

/// `out = a b` on the threads of the current rayon pool, with the bits of [`product`]. `out` is row-major.
pub(crate) fn product_on_threads<T: Element>(out: &mut [T], a: Matrix<'_, T>, b: Matrix<'_, T>) {
    let threads = match rayon::current_num_threads() {
        0 | 1 => gemm::Parallelism::None,
        several => gemm::Parallelism::Rayon(several),
    };
    product_with(out, a, b, false, threads);
}

fn product_with<T: Element>(
    out: &mut [T],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    accumulate: bool,
    threads: gemm::Parallelism,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "inner dimensions of a matrix product");
    assert!(m * n <= out.len(), "result of a matrix product");
    // SAFETY: `Matrix::strided` has checked that every element of a and b lies in its slice. The line above has checked
    // that every element of the result lies in `out`. `out` is borrowed mutably, so it overlaps neither a nor b.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.columns_by as isize,
            a.rows_by as isize,
            b.data.as_ptr(),
            b.columns_by as isize,
            b.rows_by as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_agree_with_the_definition() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 2), (20, 64, 25), (7, 1, 9), (1, 8, 0)] {
            let a: Vec<f64> = (0..m * k).map(|i| (i as f64).sin()).collect();
            let b: Vec<f64> = (0..k * n).map(|i| (i as f64).cos()).collect();
            let at: Vec<f64> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
            let mut out = vec![1.0; m * n];
            product(&mut out, Matrix::new(&a, m, k), Matrix::new(&b, k, n), true);
            let mut out_t = vec![f64::NAN; m * n];
            product(
                &mut out_t,
                Matrix::new(&at, k, m).t(),
                Matrix::new(&b, k, n),
                false,
            );
            for i in 0..m {
                for j in 0..n {
                    let want: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                    assert!((out[i * n + j] - want - 1.0).abs() < 1e-13);
                    assert!((out_t[i * n + j] - want).abs() < 1e-13);
                }
            }
        }
    }
}
