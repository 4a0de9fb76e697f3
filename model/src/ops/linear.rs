//! Fully connected layers as matrix products. Their backward passes consist of the same kind of product.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::channel;
use super::columns;
use super::element::{Element, by_dtype, elements, error, same_kind, storage};
use super::form::custom;
use super::matmul::{Matrix, product, product_on_threads};
use super::operand::{check_bias, wanted};
use super::parallel::rows;

/// y = x wᵀ + bias: `x` (B, I), `w` (O, I), `bias` (O,) give (B, O).
///
/// # Errors
/// If shapes or types don't fit.
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "linear";
    same_kind(OP, x, &[("the weight", w)])?;
    let (&[b, i], &[o, wi]) = (x.dims(), w.dims()) else {
        return Err(error(
            OP,
            format!(
                "expected an input (batch, in) and a weight (out, in), got {:?} and {:?}; flatten the input first",
                x.dims(),
                w.dims()
            ),
        ));
    };
    if i != wi {
        return Err(error(
            OP,
            format!(
                "the weight {:?} is for {wi} inputs, the input {:?} has {i}",
                w.dims(),
                x.dims()
            ),
        ));
    }
    let y = if custom(x) {
        x.apply_op2(
            w,
            Product {
                sides: Sides {
                    m: b,
                    n: o,
                    k: i,
                    a: Read::Rows,
                    b: Read::Columns,
                },
                shape: Shape::from((b, o)),
                cut: Cut::Rows,
            },
        )?
    } else {
        x.matmul(&w.t()?)?
    };
    let Some(bias) = bias else { return Ok(y) };
    check_bias(OP, x, bias, o)?;
    channel::add_bias(&y, bias)
}

/// (B, ...) to (B, the rest).
///
/// # Errors
/// If `x` is a scalar.
pub fn flatten(x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        0 => Err(error("flatten", "expected a batch dimension, got a scalar")),
        1 => x.unsqueeze(1),
        2 => Ok(x.clone()),
        _ => x.flatten_from(1),
    }
}

/// Storage order of an operand of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// Row-major.
    Rows,
    /// Column-major: the transpose of the operand is row-major.
    Columns,
}

impl Read {
    fn flipped(self) -> Self {
        match self {
            Self::Rows => Self::Columns,
            Self::Columns => Self::Rows,
        }
    }
}

/// An (m x k) by (k x n) product of operands that may be stored transposed.
#[derive(Debug, Clone, Copy)]
struct Sides {
    m: usize,
    n: usize,
    k: usize,
    a: Read,
    b: Read,
}

impl Sides {
    /// op(b).
    fn right<'a, T: Element>(&self, b: &'a [T]) -> Matrix<'a, T> {
        match self.b {
            Read::Rows => Matrix::new(b, self.k, self.n),
            Read::Columns => Matrix::new(b, self.n, self.k).t(),
        }
    }
}

/// How a product is divided among threads.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Into pieces of [`ROWS`] rows of the result.
    Rows,
    /// By `gemm`, as candle's products. The bits don't depend on the number of threads, either.
    Gemm,
}

/// (a, b) -> c = op(a) op(b). The operands may have more dimensions than two: their last one is the number of columns.
struct Product {
    sides: Sides,
    /// The shape of c.
    shape: Shape,
    cut: Cut,
}

impl Product {
    fn gradient(&self, of: &Tensor, left: &Tensor, right: &Tensor, sides: Sides) -> Result<Tensor> {
        let product = Product {
            sides,
            shape: of.shape().clone(),
            cut: self.cut,
        };
        left.apply_op2(right, product)
    }

    /// The gradients of a and b for the gradient g of c, where they are wanted. With C = A B: dA = G Bᵀ and dB = Aᵀ G. The
    /// gradient of an operand that is stored transposed is transposed, too.
    fn gradients(
        &self,
        a: &Tensor,
        b: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let s = self.sides;
        let sides = |m, n, k, a, b| Sides { m, n, k, a, b };
        let da = || match s.a {
            Read::Rows => self.gradient(a, g, b, sides(s.m, s.k, s.n, Read::Rows, s.b.flipped())),
            Read::Columns => self.gradient(a, b, g, sides(s.k, s.m, s.n, s.b, Read::Columns)),
        };
        let db = || match s.b {
            Read::Rows => self.gradient(b, a, g, sides(s.k, s.n, s.m, s.a.flipped(), Read::Rows)),
            Read::Columns => self.gradient(b, g, a, sides(s.n, s.k, s.m, Read::Columns, s.a)),
        };
        Ok((wanted(a, da)?, wanted(b, db)?))
    }

    fn values<T: Element>(&self, a: &[T], b: &[T]) -> Vec<T> {
        match self.cut {
            Cut::Rows => multiply(self.sides, a, b),
            Cut::Gemm => whole(self.sides, a, b),
        }
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        al: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), a, T => {
            let a = elements::<T>(self.name(), a, al)?;
            let b = elements::<T>(self.name(), b, bl)?;
            Ok((storage(self.values(&a, &b)), self.shape.clone()))
        })
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(a, b, g)
    }
}

/// x wᵀ + bias of (..., I), (O, I) and (O,) on the CPU, with the bits of candle's products: (..., O). The caller has checked
/// shapes and types.
pub(crate) fn affine(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, k) = w.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    let product = Product {
        sides: Sides {
            m: shape.iter().rev().skip(1).product(),
            n,
            k,
            a: Read::Rows,
            b: Read::Columns,
        },
        shape: Shape::from(shape),
        cut: Cut::Gemm,
    };
    match bias {
        Some(bias) => x.apply_op3(w, bias, Affine(product)),
        None => x.apply_op2(w, product),
    }
}

/// (x, w, bias) -> x wᵀ + bias.
struct Affine(Product);

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "linear with a bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let w = elements::<T>(self.name(), w, wl)?;
            let bias = elements::<T>(self.name(), bias, bl)?;
            let mut y = self.0.values(&x, &w);
            for row in y.chunks_exact_mut(bias.len().max(1)) {
                row.iter_mut().zip(bias.iter()).for_each(|(y, &b)| *y += b);
            }
            Ok((storage(y), self.0.shape.clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = self.0.gradients(x, w, g)?;
        Ok((dx, dw, wanted(bias, || columns::sum(g))?))
    }
}

/// The whole product by one call of `gemm`.
fn whole<T: Element>(s: Sides, a: &[T], b: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; s.m * s.n];
    if out.is_empty() || s.k == 0 {
        return out;
    }
    let left = match s.a {
        Read::Rows => Matrix::new(a, s.m, s.k),
        Read::Columns => Matrix::new(a, s.k, s.m).t(),
    };
    product_on_threads(&mut out, left, s.right(b));
    out
}

/// Number of rows of the result that a thread computes at a time.
const ROWS: usize = 16;

fn multiply<T: Element>(s: Sides, a: &[T], b: &[T]) -> Vec<T> {
    let right = s.right(b);
    let work = 2 * ROWS * s.n * s.k;
    rows(s.m * s.n, ROWS * s.n, work, |i, rows| {
        let first = i * ROWS;
        let count = rows.len() / s.n;
        let left = match s.a {
            Read::Rows => Matrix::new(&a[first * s.k..], count, s.k),
            Read::Columns => match a.get(first..) {
                Some(a) if s.k > 0 => Matrix::strided(a, s.k, count, s.m).t(),
                _ => Matrix::new(&[], 0, count).t(),
            },
        };
        product(rows, left, right, false);
    })
}
