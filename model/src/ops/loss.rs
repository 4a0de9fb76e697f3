//! Losses per example, (B,), from which callers compute batch losses.

use candle_core::{D, DType, Result, Tensor};

use super::activation::softplus;
use super::element::{error, same_float};

/// x − ln Σ e^x over the last dimension.
///
/// # Errors
/// If `x` is a scalar, or its type isn't a float type.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    const OP: &str = "log_softmax";
    same_float(OP, x, &[])?;
    if x.rank() == 0 {
        return Err(error(OP, "expected at least one dimension, got a scalar"));
    }
    // The shift by the maximum changes only the rounding, so it is excluded from the derivatives.
    let shifted = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?;
    let norm = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    shifted.broadcast_sub(&norm)
}

/// −ln softmax(logits) at each example's target: logits (B, K), targets (B,) u32 below K, out (B,).
///
/// # Errors
/// If shapes don't fit, targets aren't u32, or a class isn't below K (the message names the row).
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    const OP: &str = "cross_entropy";
    let logp = log_softmax(logits)?;
    let one_hot = one_hot(OP, logits, targets)?;
    // A product with constants, because candle's gather can't be differentiated twice.
    logp.mul(&one_hot)?.sum(D::Minus1)?.neg()
}

/// (B, K) with a 1 at each row's target, in the logits' type.
fn one_hot(op: &str, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let [b, k] = *logits.dims() else {
        return Err(error(
            op,
            format!("logits must be (batch, classes), got {:?}", logits.dims()),
        ));
    };
    if targets.dims() != [b] || targets.dtype() != DType::U32 {
        return Err(error(
            op,
            format!(
                "targets must be u32 of shape [{b}], got {:?} of shape {:?}",
                targets.dtype(),
                targets.dims()
            ),
        ));
    }
    let mut dense = vec![0u8; b * k];
    for (row, (class, hot)) in targets
        .to_vec1::<u32>()?
        .into_iter()
        .zip(dense.chunks_mut(k.max(1)))
        .enumerate()
    {
        match hot.get_mut(class as usize) {
            Some(slot) => *slot = 1,
            None => {
                return Err(error(
                    op,
                    format!(
                        "row {row} has class {class}, but there are only {k} classes (0 to {})",
                        k.max(1) - 1
                    ),
                ));
            }
        }
    }
    Tensor::from_vec(dense, (b, k), logits.device())?.to_dtype(logits.dtype())
}

/// −y ln σ(z) − (1 − y) ln(1 − σ(z)), averaged over the outputs of each example: logits (B,) or (B, ...), targets of
/// the same shape in [0, 1], out (B,). It is computed as softplus(z) − y z, which does not overflow.
///
/// # Errors
/// If shapes or types differ.
pub fn binary_cross_entropy_with_logits(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    const OP: &str = "binary_cross_entropy_with_logits";
    let targets = like(OP, logits, targets)?;
    let loss = softplus(logits)?.sub(&logits.mul(&targets)?)?;
    mean_per_example(OP, &loss)
}

/// (prediction − target)², averaged over the outputs of each example: (B,) or (B, ...) in, (B,) out.
///
/// # Errors
/// If shapes or types differ.
pub fn mean_squared_error(predictions: &Tensor, targets: &Tensor) -> Result<Tensor> {
    const OP: &str = "mean_squared_error";
    let targets = like(OP, predictions, targets)?;
    mean_per_example(OP, &predictions.sub(&targets)?.sqr()?)
}

/// Targets in the shape of the predictions. (B,) and (B, 1) count as equal.
fn like(op: &str, predictions: &Tensor, targets: &Tensor) -> Result<Tensor> {
    same_float(op, predictions, &[("targets", targets)])?;
    let (p, t) = (predictions.dims(), targets.dims());
    let one_each = |d: &[usize]| d.len() <= 2 && d.get(1).is_none_or(|&k| k == 1);
    let column = p.first() == t.first() && one_each(p) && one_each(t);
    if p == t {
        Ok(targets.clone())
    } else if column {
        targets.reshape(p)
    } else {
        Err(error(
            op,
            format!("targets must have the predictions' shape {p:?}, got {t:?}"),
        ))
    }
}

fn mean_per_example(op: &str, loss: &Tensor) -> Result<Tensor> {
    match loss.rank() {
        0 => Err(error(op, "expected a batch dimension, got a scalar")),
        1 => Ok(loss.clone()),
        _ => loss.flatten_from(1)?.mean(1),
    }
}
