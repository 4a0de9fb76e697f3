//! The derivatives of layer norm and RMS norm over the last dimension, in one pass per row.
//!
//! Let n = r (x − mean(x)) be a normalised row of m values, with r = 1/√(var(x) + ε). (RMS norm subtracts no mean, and its variance is
//! mean(x²).) The symmetric matrix P = 1 − 11ᵀ/m − nnᵀ/m (without 11ᵀ/m for RMS norm) gives both derivatives: dn = r P dx, and
//! dr = −(r²/m) ⟨n, dx⟩.
//!
//! - [`normalised`] is n, and its derivative is [`gradient`].
//! - [`gradient`] is r P h, for the gradient h of n. For an adjoint a, the gradient with respect to h is r P a, and that with
//!   respect to x is [`SecondDerivative`]: −(r/m) φ n − (r²/m) (⟨h, n⟩ P a + ⟨a, n⟩ P h) with φ = r ⟨a, P h⟩.
//!
//! `normalised` and `gradient` have the bits of the same formulas composed of candle's operations. `SecondDerivative` has no
//! derivative: candle refuses a backward pass through it.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType as _,
};

use super::composed;
use super::element::{Element, by_dtype, dot_of, elements, same_shape, storage, supported};
use super::operand::wanted;
use super::parallel::each_row;

/// The kind of a norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    pub eps: f64,
    /// Layer norm subtracts the mean, RMS norm doesn't.
    pub remove_mean: bool,
}

/// The normalised rows of x (..., m).
pub(crate) fn normalised(norm: Norm, x: &Tensor) -> Result<Tensor> {
    if supported(x) {
        x.apply_op1(Normalise(norm))
    } else {
        composed::normalised_rows(x, norm.remove_mean, norm.eps)
    }
}

/// The gradient of x for the gradient h of its normalised rows.
pub(crate) fn gradient(norm: Norm, h: &Tensor, x: &Tensor) -> Result<Tensor> {
    if supported(x) {
        h.apply_op2(x, Gradient(norm))
    } else {
        composed::normalised_rows_gradient(h, x, norm.remove_mean, norm.eps)
    }
}

/// x -> n.
struct Normalise(Norm);
/// (h, x) -> r P h.
struct Gradient(Norm);
/// (a, h, x) -> the gradient of x for the gradient a of r P h.
struct SecondDerivative(Norm);

/// Operations per value, about.
const WORK: usize = 16;

/// The normalised row `n`, its inverse deviation, and the products of the row being computed.
struct Row<T> {
    n: Vec<T>,
    products: Vec<T>,
    inverse: T,
    /// 1/m
    share: T,
    remove_mean: bool,
}

impl<T: Element> Row<T> {
    fn new(size: usize, norm: Norm) -> Self {
        Row {
            n: vec![T::ZERO; size],
            products: vec![T::ZERO; size],
            inverse: T::ZERO,
            share: T::from_f64(1.0 / size as f64),
            remove_mean: norm.remove_mean,
        }
    }

    /// The mean of m values with this sum, as candle's `mean_keepdim`.
    fn mean_of(&self, sum: T) -> T {
        sum * self.share + T::ZERO
    }

    /// mean(x n)
    fn along(&mut self, x: &[T]) -> T {
        let sum = dot_of(x, &self.n, &mut self.products);
        self.mean_of(sum)
    }

    /// The mean that the norm subtracts.
    fn mean(&self, values: &[T]) -> T {
        if self.remove_mean {
            self.mean_of(T::sum_of(values))
        } else {
            T::ZERO
        }
    }

    /// Normalises x.
    fn set(&mut self, x: &[T], eps: T) {
        let mean = self.mean(x);
        for ((n, p), &x) in self.n.iter_mut().zip(&mut self.products).zip(x) {
            *n = x - mean;
            *p = *n * *n;
        }
        let variance = self.mean_of(T::sum_of(&self.products));
        self.inverse = T::ONE / Element::sqrt(variance + eps);
        let inverse = self.inverse;
        self.n.iter_mut().for_each(|n| *n *= inverse);
    }

    /// P h
    fn project(&mut self, h: &[T], out: &mut [T]) {
        let along = self.along(h);
        let mean = self.mean(h);
        for ((out, &h), &n) in out.iter_mut().zip(h).zip(&self.n) {
            *out = h - n * along - mean;
        }
    }
}

/// A tensor in x's shape, computed row by row. `f` gets the first position of the row, the row of the result, and scratch memory.
fn by_rows<T: Element>(
    norm: Norm,
    l: &Layout,
    f: impl Fn(usize, &mut [T], &mut Row<T>) + Send + Sync,
) -> Vec<T> {
    let size = l.dims().last().copied().unwrap_or(1);
    each_row(
        l.shape().elem_count(),
        size,
        WORK,
        || Row::new(size, norm),
        f,
    )
}

impl CustomOp1 for Normalise {
    fn name(&self) -> &'static str {
        "norm of rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            let eps = T::from_f64(self.0.eps);
            let out = by_rows::<T>(self.0, l, |at, out, row| {
                row.set(&x[at..at + out.len()], eps);
                out.copy_from_slice(&row.n);
            });
            Ok((storage(out), l.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        gradient(self.0, g, x).map(Some)
    }
}

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "norm of rows, gradient"
    }

    fn cpu_fwd(
        &self,
        h: &CpuStorage,
        hl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        same_shape(self.name(), &[hl, xl])?;
        by_dtype!(self.name(), x, T => {
            let h = elements::<T>(self.name(), h, hl)?;
            let x = elements::<T>(self.name(), x, xl)?;
            let eps = T::from_f64(self.0.eps);
            let out = by_rows::<T>(self.0, xl, |at, out, row| {
                let of = at..at + out.len();
                row.set(&x[of.clone()], eps);
                row.project(&h[of], out);
                out.iter_mut().for_each(|out| *out *= row.inverse);
            });
            Ok((storage(out), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        h: &Tensor,
        x: &Tensor,
        _: &Tensor,
        a: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(h, || gradient(self.0, a, x))?,
            wanted(x, || a.apply_op3(h, x, SecondDerivative(self.0)))?,
        ))
    }
}

impl CustomOp3 for SecondDerivative {
    fn name(&self) -> &'static str {
        "norm of rows, second derivative"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        al: &Layout,
        h: &CpuStorage,
        hl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        same_shape(self.name(), &[al, hl, xl])?;
        by_dtype!(self.name(), x, T => {
            let a = elements::<T>(self.name(), a, al)?;
            let h = elements::<T>(self.name(), h, hl)?;
            let x = elements::<T>(self.name(), x, xl)?;
            let eps = T::from_f64(self.0.eps);
            let out = by_rows::<T>(self.0, xl, |at, out, row| {
                let of = at..at + out.len();
                let (a, h) = (&a[of.clone()], &h[of.clone()]);
                row.set(&x[of], eps);
                let (an, hn) = (row.along(a), row.along(h));
                let [am, hm] = [a, h].map(|v| row.mean(v));
                let ah = dot_of(a, h, &mut row.products);
                // ⟨a, P h⟩/m
                let ah = row.mean_of(ah) - am * hm - an * hn;
                let r2 = row.inverse * row.inverse;
                for ((out, &n), (&a, &h)) in out.iter_mut().zip(&row.n).zip(a.iter().zip(h)) {
                    let (pa, ph) = (a - am - n * an, h - hm - n * hn);
                    *out = -(r2 * (ah * n + hn * pa + an * ph));
                }
            });
            Ok((storage(out), xl.shape().clone()))
        })
    }
}
