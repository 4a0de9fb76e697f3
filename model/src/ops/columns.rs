//! Sums over the rows of a tensor (..., N), and products of each row with a vector (N,), for biases and norms.
//!
//! A row is the last dimension. [`Dot`] computes Σ_rows x y for each column, [`Scale`] x a for each row, [`Sum`] Σ_rows x, and
//! [`Spread`] repeats a vector in each row. `Dot` and `Scale` are the partial derivatives of Σ a x y, and `Sum` and `Spread` are
//! each other's transpose. So they can be differentiated any number of times.
//!
//! The sums add the rows in order, as candle's do, so they have candle's bits. candle computes an index per element, on one
//! thread.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};

use super::element::{Element, by_dtype, elements, error, same_shape, storage, supported};
use super::operand::wanted;
use super::parallel::{each_row, rows};

/// Number of columns that a thread adds at a time. The sums stay in its cache while it reads the rows.
const COLUMNS: usize = 256;
/// Operations per value that is added, about.
const ADD_WORK: usize = 8;
/// Operations per value that is scaled or copied, about.
const WORK: usize = 4;

/// Σ over all dimensions but the last: (..., N) to (N,).
pub(crate) fn sum(x: &Tensor) -> Result<Tensor> {
    if supported(x) {
        return x.apply_op1(Sum);
    }
    x.reshape(((), x.dim(D::Minus1)?))?.sum(0)
}

/// Σ over all dimensions but the last of x y: (N,).
pub(crate) fn dot(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if supported(x) {
        return x.apply_op2(y, Dot);
    }
    sum(&x.mul(y)?)
}

/// x a, with (N,) `a` for each row of x.
pub(crate) fn scale(x: &Tensor, a: &Tensor) -> Result<Tensor> {
    if supported(x) {
        return x.apply_op2(a, Scale);
    }
    x.broadcast_mul(a)
}

struct Sum;
struct Dot;
struct Scale;
/// (N,) to this shape (..., N).
struct Spread(Shape);

/// N, the size of a row.
fn row(op: &str, l: &Layout) -> Result<usize> {
    match l.dims().last() {
        Some(&n) => Ok(n),
        None => Err(error(op, "expected at least one dimension, got a scalar")),
    }
}

/// `out[c] = Σ_r term(r n + c)` for n columns, in the order of the rows.
fn add_rows<T: Element>(
    count: usize,
    n: usize,
    add: impl Fn(&mut [T], std::ops::Range<usize>) + Send + Sync,
) -> Vec<T> {
    let work = count.saturating_mul(ADD_WORK * COLUMNS);
    rows(n, COLUMNS, work, |block, out| {
        for r in 0..count {
            let start = r * n + block * COLUMNS;
            add(out, start..start + out.len());
        }
    })
}

impl CustomOp1 for Sum {
    fn name(&self) -> &'static str {
        "sum of rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let n = row(self.name(), l)?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            let sums = add_rows::<T>(x.len() / n.max(1), n, |out, of| {
                out.iter_mut().zip(&x[of]).for_each(|(sum, &x)| *sum += x);
            });
            Ok((storage(sums), Shape::from(n)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op1(Spread(x.shape().clone())).map(Some)
    }
}

impl CustomOp1 for Spread {
    fn name(&self) -> &'static str {
        "a row repeated"
    }

    fn cpu_fwd(&self, a: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let n = row(self.name(), l)?;
        by_dtype!(self.name(), a, T => {
            let a = elements::<T>(self.name(), a, l)?;
            let out = each_row(self.0.elem_count(), n, WORK, || (), |_, out, ()| {
                out.copy_from_slice(&a);
            });
            Ok((storage(out), self.0.clone()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op1(Sum).map(Some)
    }
}

impl CustomOp2 for Dot {
    fn name(&self) -> &'static str {
        "sum of products of rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        y: &CpuStorage,
        yl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let n = row(self.name(), xl)?;
        same_shape(self.name(), &[xl, yl])?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let y = elements::<T>(self.name(), y, yl)?;
            let sums = add_rows::<T>(x.len() / n.max(1), n, |out, of| {
                for ((sum, &x), &y) in out.iter_mut().zip(&x[of.clone()]).zip(&y[of]) {
                    *sum += x * y;
                }
            });
            Ok((storage(sums), Shape::from(n)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((wanted(x, || scale(y, g))?, wanted(y, || scale(x, g))?))
    }
}

impl CustomOp2 for Scale {
    fn name(&self) -> &'static str {
        "rows times a vector"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        a: &CpuStorage,
        al: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let n = row(self.name(), xl)?;
        if al.dims() != [n] {
            let (x, a) = (xl.dims(), al.dims());
            return Err(error(
                self.name(),
                format!("rows of {x:?} don't fit a vector {a:?}"),
            ));
        }
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let a = elements::<T>(self.name(), a, al)?;
            let out = each_row(x.len(), n, WORK, || (), |at, out, ()| {
                for ((out, &x), &a) in out.iter_mut().zip(&x[at..]).zip(a.iter()) {
                    *out = x * a;
                }
            });
            Ok((storage(out), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((wanted(x, || scale(g, a))?, wanted(a, || dot(g, x))?))
    }
}
