//! Rotary position embeddings with candle_nn's names and bits, twice differentiable.
//!
//! The tables may have another float type than the input: they are converted, so that a model whose tables are f32 constants
//! can be checked in float64.

use candle_core::{D, DType, Result, Tensor};

use super::value::with_derivative;
use crate::ops::custom;

/// Which two values of a head form a pair that is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pairs {
    /// Value i of the first half and value i of the second half.
    Halves,
    /// Values 2i and 2i + 1.
    Neighbours,
}

/// Rotates the pairs (i, i + D/2) of each head by the angle of its position, as `candle_nn::rotary_emb::rope`. `x` is (B, H,
/// T, D), `cos` and `sin` are (T', D/2) or (B, T', D/2) with T' ≥ T.
///
/// # Errors
/// If shapes don't fit.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rotated("rope", x, cos, sin, Pairs::Halves)
}

/// Rotates the pairs (2i, 2i + 1) of each head, as `candle_nn::rotary_emb::rope_i`. Shapes are those of [`rope`].
///
/// # Errors
/// If shapes don't fit.
pub fn rope_i(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rotated("rope_i", x, cos, sin, Pairs::Neighbours)
}

/// As [`rope`], for `x` of shape (B, T, H, D), as `candle_nn::rotary_emb::rope_thd`.
///
/// # Errors
/// If shapes don't fit.
pub fn rope_thd(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let turned = x.transpose(1, 2)?;
    rotated("rope_thd", &turned, cos, sin, Pairs::Halves)?
        .transpose(1, 2)?
        .contiguous()
}

fn rotated(
    op: &'static str,
    x: &Tensor,
    cos: &Tensor,
    sin: &Tensor,
    pairs: Pairs,
) -> Result<Tensor> {
    let (b, _, t, d) = x.dims4()?;
    let x = x.contiguous()?;
    let table = |name: &str, table: &Tensor| -> Result<Tensor> {
        let fits = match *table.dims() {
            [all, half] => all >= t && 2 * half == d,
            [rows, all, half] => rows == b && all >= t && 2 * half == d,
            _ => false,
        };
        if !fits {
            candle_core::bail!(
                "{op}: {name} must be (T, {}) or ({b}, T, {}) with T at least {t} for an input {:?}, got {:?}",
                d / 2,
                d / 2,
                x.dims(),
                table.dims()
            );
        }
        table
            .narrow(D::Minus2, 0, t)?
            .to_dtype(x.dtype())?
            .contiguous()
    };
    let (cos, sin) = (table("cos", cos)?, table("sin", sin)?);
    let kernel = matches!(
        x.dtype(),
        DType::F32 | DType::F64 | DType::F16 | DType::BF16
    );
    if !custom(&x) || !kernel || cos.rank() != sin.rank() {
        return composed(&x, &cos, &sin, pairs);
    }
    turned(op, &x, &cos, &sin, pairs)
}

/// The rotation by candle's kernel. All tensors are contiguous, and the tables have T rows.
fn turned(
    op: &'static str,
    x: &Tensor,
    cos: &Tensor,
    sin: &Tensor,
    pairs: Pairs,
) -> Result<Tensor> {
    let kernel = match pairs {
        Pairs::Halves => candle_nn::rotary_emb::rope,
        Pairs::Neighbours => candle_nn::rotary_emb::rope_i,
    };
    let value = kernel(&x.detach(), &cos.detach(), &sin.detach())?;
    with_derivative(op, &[x, cos, sin], value, move |inputs, _, g| {
        let [x, cos, sin] = *inputs else {
            candle_core::bail!("{op}: expected three inputs, got {}", inputs.len())
        };
        Ok(vec![
            // The transpose of a rotation is the rotation by the negative angle.
            Box::new(move || {
                let back = sin.neg()?;
                turned(op, &g.contiguous()?, cos, &back, pairs)
            }),
            Box::new(move || {
                let ((x1, x2), (g1, g2)) = (split(x, pairs)?, split(g, pairs)?);
                like_table(&g1.mul(&x1)?.add(&g2.mul(&x2)?)?, cos)
            }),
            Box::new(move || {
                let ((x1, x2), (g1, g2)) = (split(x, pairs)?, split(g, pairs)?);
                like_table(&g2.mul(&x1)?.sub(&g1.mul(&x2)?)?, sin)
            }),
        ])
    })
}

/// The two values of each pair, (B, H, T, D/2) each.
fn split(x: &Tensor, pairs: Pairs) -> Result<(Tensor, Tensor)> {
    let (b, h, t, d) = x.dims4()?;
    match pairs {
        Pairs::Halves => Ok((x.narrow(3, 0, d / 2)?, x.narrow(3, d / 2, d / 2)?)),
        Pairs::Neighbours => {
            let x = x.reshape((b, h, t, d / 2, 2))?;
            Ok((
                x.narrow(4, 0, 1)?.squeeze(4)?,
                x.narrow(4, 1, 1)?.squeeze(4)?,
            ))
        }
    }
}

/// Sums (B, H, T, D/2) over the dimensions that the table lacks.
fn like_table(g: &Tensor, table: &Tensor) -> Result<Tensor> {
    let g = g.sum(1)?;
    if table.rank() == 2 { g.sum(0) } else { Ok(g) }
}

/// The rotation in candle operations, for other devices.
fn composed(x: &Tensor, cos: &Tensor, sin: &Tensor, pairs: Pairs) -> Result<Tensor> {
    let lifted = |table: &Tensor| -> Result<Tensor> {
        if table.rank() == 2 {
            table.unsqueeze(0)?.unsqueeze(0)
        } else {
            table.unsqueeze(1)
        }
    };
    let (cos, sin) = (lifted(cos)?, lifted(sin)?);
    let (a, b) = split(x, pairs)?;
    let first = a.broadcast_mul(&cos)?.sub(&b.broadcast_mul(&sin)?)?;
    let second = a.broadcast_mul(&sin)?.add(&b.broadcast_mul(&cos)?)?;
    match pairs {
        Pairs::Halves => Tensor::cat(&[first, second], D::Minus1),
        Pairs::Neighbours => Tensor::stack(&[first, second], 4)?.reshape(x.dims()),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn wave(dims: &[usize], by: f64) -> Tensor {
        let n = dims.iter().product::<usize>() as f64;
        let t = Tensor::arange(0f64, n, &Device::Cpu).unwrap();
        (t * by).unwrap().sin().unwrap().reshape(dims).unwrap()
    }

    #[test]
    fn the_composed_form_agrees_with_candles_kernel() {
        let x = wave(&[2, 3, 5, 4], 1.3);
        for table in [&[5, 2][..], &[2, 5, 2]] {
            let (cos, sin) = (wave(table, 0.7), wave(table, 0.4));
            for pairs in [Pairs::Halves, Pairs::Neighbours] {
                let a = composed(&x, &cos, &sin, pairs).unwrap();
                let b = turned("rope", &x, &cos, &sin, pairs).unwrap();
                let gap = (a - b).unwrap().abs().unwrap().max_all().unwrap();
                assert!(gap.to_scalar::<f64>().unwrap() < 1e-15);
            }
        }
    }
}
