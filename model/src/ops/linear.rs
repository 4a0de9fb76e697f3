//! Fully connected layers as matrix products. Their backward passes consist of the same kind of product.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::channel;
use super::element::{Element, by_dtype, elements, error, same_kind, storage};
use super::matmul::{Matrix, product};
use super::operand::wanted;
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
    let y = if x.device().is_cpu() {
        x.apply_op2(
            w,
            Product(Sides {
                m: b,
                n: o,
                k: i,
                a: Read::Rows,
                b: Read::Columns,
            }),
        )?
    } else {
        x.matmul(&w.t()?)?
    };
    let Some(bias) = bias else { return Ok(y) };
    same_kind(OP, x, &[("the bias", bias)])?;
    if bias.dims() != [o] {
        return Err(error(
            OP,
            format!("the bias must have shape [{o}], got {:?}", bias.dims()),
        ));
    }
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

/// (a, b) -> c = op(a) op(b).
struct Product(Sides);

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
        let s = self.0;
        by_dtype!(self.name(), a, T => {
            let a = elements::<T>(self.name(), a, al)?;
            let b = elements::<T>(self.name(), b, bl)?;
            Ok((storage(multiply(s, &a, &b)), Shape::from((s.m, s.n))))
        })
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let s = self.0;
        // With C = A B: dA = G Bᵀ and dB = Aᵀ G. The gradient of an operand that is stored transposed is transposed, too.
        let da = || match s.a {
            Read::Rows => g.apply_op2(
                b,
                Product(Sides {
                    m: s.m,
                    n: s.k,
                    k: s.n,
                    a: Read::Rows,
                    b: s.b.flipped(),
                }),
            ),
            Read::Columns => b.apply_op2(
                g,
                Product(Sides {
                    m: s.k,
                    n: s.m,
                    k: s.n,
                    a: s.b,
                    b: Read::Columns,
                }),
            ),
        };
        let db = || match s.b {
            Read::Rows => a.apply_op2(
                g,
                Product(Sides {
                    m: s.k,
                    n: s.n,
                    k: s.m,
                    a: s.a.flipped(),
                    b: Read::Rows,
                }),
            ),
            Read::Columns => g.apply_op2(
                a,
                Product(Sides {
                    m: s.n,
                    n: s.k,
                    k: s.m,
                    a: Read::Columns,
                    b: s.a,
                }),
            ),
        };
        Ok((wanted(a, da)?, wanted(b, db)?))
    }
}

/// Number of rows of the result that a thread computes at a time.
const ROWS: usize = 16;

fn multiply<T: Element>(s: Sides, a: &[T], b: &[T]) -> Vec<T> {
    let right = match s.b {
        Read::Rows => Matrix::new(b, s.k, s.n),
        Read::Columns => Matrix::new(b, s.n, s.k).t(),
    };
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
