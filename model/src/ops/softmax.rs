//! The derivatives of the softmax over the last dimension, in one pass per row.
//!
//! For y = softmax(x) and the gradient g of y, the gradient of x is [`gradient`]: y (g − ⟨y, g⟩). For an adjoint a of it, the gradient of g
//! is the same with a in place of g, and that of y is [`SecondDerivative`]: a g − ⟨y, g⟩ a − ⟨a, y⟩ g. `gradient` has the bits of the
//! same formula composed of candle's operations. `SecondDerivative` has no derivative: candle refuses a backward pass through it.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::composed;
use super::element::{Element, by_dtype, dot_of, elements, same_shape, storage, supported};
use super::operand::wanted;
use super::parallel::each_row;

/// The gradient of x for the gradient g of its softmax y (..., m).
pub(crate) fn gradient(y: &Tensor, g: &Tensor) -> Result<Tensor> {
    if supported(y) {
        y.apply_op2(g, Gradient)
    } else {
        composed::softmax_gradient(y, g)
    }
}

/// (y, g) -> y (g − ⟨y, g⟩).
struct Gradient;
/// (a, g, y) -> a g − ⟨y, g⟩ a − ⟨a, y⟩ g.
struct SecondDerivative;

/// Operations per value, about.
const WORK: usize = 8;

/// A tensor in y's shape, computed row by row. `f` gets the first position of the row, the row of the result, and the memory that
/// `scratch` makes for the size of a row.
fn by_rows<T: Element, S>(
    l: &Layout,
    scratch: impl Fn(usize) -> S + Send + Sync,
    f: impl Fn(usize, &mut [T], &mut S) + Send + Sync,
) -> Vec<T> {
    let size = l.dims().last().copied().unwrap_or(1);
    each_row(l.shape().elem_count(), size, WORK, || scratch(size), f)
}

/// The gradient of a row of x for the gradient g of its softmax y: y (g − ⟨y, g⟩). `row` holds g, and gets the result.
pub(super) fn gradient_row<T: Element>(row: &mut [T], y: &[T]) {
    row.iter_mut().zip(y).for_each(|(v, &y)| *v = y * *v);
    let sum = T::sum_of(row);
    row.iter_mut().zip(y).for_each(|(v, &y)| *v -= y * sum);
}

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "softmax gradient"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        yl: &Layout,
        g: &CpuStorage,
        gl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        same_shape(self.name(), &[yl, gl])?;
        by_dtype!(self.name(), y, T => {
            let y = elements::<T>(self.name(), y, yl)?;
            let g = elements::<T>(self.name(), g, gl)?;
            let out = by_rows::<T, _>(yl, |_| (), |at, out, ()| {
                let of = at..at + out.len();
                out.copy_from_slice(&g[of.clone()]);
                gradient_row(out, &y[of]);
            });
            Ok((storage(out), yl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        y: &Tensor,
        g: &Tensor,
        _: &Tensor,
        a: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(y, || a.apply_op3(g, y, SecondDerivative))?,
            wanted(g, || gradient(y, a))?,
        ))
    }
}

impl CustomOp3 for SecondDerivative {
    fn name(&self) -> &'static str {
        "softmax second derivative"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        al: &Layout,
        g: &CpuStorage,
        gl: &Layout,
        y: &CpuStorage,
        yl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        same_shape(self.name(), &[al, gl, yl])?;
        by_dtype!(self.name(), y, T => {
            let a = elements::<T>(self.name(), a, al)?;
            let g = elements::<T>(self.name(), g, gl)?;
            let y = elements::<T>(self.name(), y, yl)?;
            let scratch = |size| vec![T::ZERO; size];
            let out = by_rows::<T, _>(yl, scratch, |at, out, products| {
                let of = at..at + out.len();
                let (a, g, y) = (&a[of.clone()], &g[of.clone()], &y[of]);
                let (yg, ay) = (dot_of(y, g, products), dot_of(a, y, products));
                for ((out, &a), &g) in out.iter_mut().zip(a).zip(g) {
                    *out = a * g - yg * a - ay * g;
                }
            });
            Ok((storage(out), yl.shape().clone()))
        })
    }
}
