//! The peak rate of the `gemm` crate on this machine, with which the steps are compared.

use hindcast_model::real::Real;

/// Rows and columns of the matrices.
const SIDE: usize = 1024;

/// A product of two square matrices.
pub(super) struct Peak<T> {
    a: Vec<T>,
    b: Vec<T>,
    out: Vec<T>,
    threads: usize,
}

impl<T: Real> Peak<T> {
    pub fn new(threads: usize) -> Self {
        let matrix = |by: f64| {
            (0..SIDE * SIDE)
                .map(|i| T::of((i as f64 * by).sin()))
                .collect()
        };
        Peak {
            a: matrix(0.1),
            b: matrix(0.3),
            out: vec![T::default(); SIDE * SIDE],
            threads,
        }
    }

    /// Floating-point operations of one product.
    pub fn flops(&self) -> f64 {
        2.0 * (SIDE * SIDE * SIDE) as f64
    }

    /// Multiplies once.
    pub fn run(&mut self) {
        let parallelism = match self.threads {
            0 | 1 => gemm::Parallelism::None,
            n => gemm::Parallelism::Rayon(n),
        };
        let (one, zero) = (T::of(1.0), T::default());
        // SAFETY: each of the three slices has SIDE × SIDE elements in row-major order, which the strides stay within.
        // `out` is borrowed mutably, so it doesn't overlap the others.
        unsafe {
            gemm::gemm(
                SIDE,
                SIDE,
                SIDE,
                self.out.as_mut_ptr(),
                1,
                SIDE as isize,
                false,
                self.a.as_ptr(),
                1,
                SIDE as isize,
                self.b.as_ptr(),
                1,
                SIDE as isize,
                zero,
                one,
                false,
                false,
                false,
                parallelism,
            );
        }
        std::hint::black_box(&self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_computed() {
        let mut peak = Peak::<f64>::new(2);
        peak.run();
        for (i, j) in [(0, 0), (3, 1000), (1023, 1023)] {
            let want: f64 = (0..SIDE)
                .map(|k| peak.a[i * SIDE + k] * peak.b[k * SIDE + j])
                .sum();
            assert!((peak.out[i * SIDE + j] - want).abs() < 1e-9);
        }
    }
}
