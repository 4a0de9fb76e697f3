//! candle_nn's mean losses, twice differentiable.
//!
//! A training loop uses them as candle_nn's. An [`OwnModel`](super::OwnModel) needs the loss of each example:
//! [`ops::cross_entropy`](crate::ops::cross_entropy), whose mean is [`cross_entropy`].

use candle_core::{Result, Tensor};

use super::index::gather;
use crate::ops::log_softmax;

/// The mean of −ln p over the rows, as `candle_nn::loss::nll`: `log_p` (N, C) contains logarithms of probabilities, `target`
/// (N,) integer classes. The result is a scalar.
///
/// # Errors
/// If shapes don't fit, or a class isn't below C.
pub fn nll(log_p: &Tensor, target: &Tensor) -> Result<Tensor> {
    let ([n, _], [m]) = (log_p.dims(), target.dims()) else {
        candle_core::bail!(
            "nll: expected log probabilities (N, C) and targets (N,), got {:?} and {:?}",
            log_p.dims(),
            target.dims()
        );
    };
    if n != m {
        candle_core::bail!("nll: {n} rows of log probabilities, but {m} targets");
    }
    gather(log_p, &target.unsqueeze(1)?, 1)?
        .sum_all()?
        .affine(-1.0 / *n as f64, 0.0)
}

/// The mean cross entropy, as `candle_nn::loss::cross_entropy`: `logits` (N, C), `target` (N,) integer classes. The result is
/// a scalar.
///
/// # Errors
/// As [`nll`].
pub fn cross_entropy(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    nll(&log_softmax(logits)?, target)
}
