//! Batch normalisation with PyTorch's conventions (Ioffe and Szegedy 2015).

use candle_core::{Result, Tensor};

use super::channel::Planes;
use super::element::{error, same_kind};
use super::normalise::{scale_shift, statistics};

/// Normalises each channel of `x` (B, C) or (B, C, ...), then scales by `gamma` (C,) and shifts by `beta` (C,). Gives y in
/// x's shape, the new running mean (C,) and the new running variance (C,).
///
/// Training mode uses the mean μ and the variance σ² of the batch (over batch and positions, divided by n). The running
/// statistics become (1 − m) r + m μ and (1 − m) r + m σ² n/(n − 1) with `momentum` m. Evaluation mode uses the running
/// statistics and doesn't change them. All three results are twice differentiable in all five tensors.
///
/// # Errors
/// If shapes or types don't fit. In training mode, also if there is a single value per channel, because it has no variance.
#[expect(
    clippy::too_many_arguments,
    reason = "the operands of the layer, in PyTorch's order"
)]
pub fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    momentum: f64,
    eps: f64,
    train: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let how = Normalising {
        momentum,
        eps,
        train,
        relu: false,
    };
    normalised(x, [gamma, beta], [running_mean, running_var], how)
}

/// Options of a batch norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalising {
    pub momentum: f64,
    pub eps: f64,
    /// Whether to use the statistics of the batch instead of the running ones.
    pub train: bool,
    /// Whether a fused ReLU follows.
    pub relu: bool,
}

/// [`batch_norm`], optionally fused with a ReLU.
pub(crate) fn normalised(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    [running_mean, running_var]: [&Tensor; 2],
    how: Normalising,
) -> Result<(Tensor, Tensor, Tensor)> {
    const OP: &str = "batch_norm";
    let per_channel = [
        ("gamma", gamma),
        ("beta", beta),
        ("the running mean", running_mean),
        ("the running variance", running_var),
    ];
    same_kind(OP, x, &per_channel)?;
    let planes = Planes::of(OP, x.dims())?;
    for (name, t) in per_channel {
        if t.dims() != [planes.channels()] {
            return Err(error(
                OP,
                format!(
                    "{name} must have shape [{}] for an input {:?}, got {:?}",
                    planes.channels(),
                    x.dims(),
                    t.dims()
                ),
            ));
        }
    }
    // y = a (x − μ) + beta, computed as a x + b in one pass over x.
    let affine = |mean: &Tensor, variance: &Tensor| -> Result<Tensor> {
        let a = gamma.div(&variance.affine(1.0, how.eps)?.sqrt()?)?;
        let b = beta.sub(&mean.mul(&a)?)?;
        scale_shift(x, &a, &b, how.relu)
    };
    if !how.train {
        let y = affine(running_mean, running_var)?;
        return Ok((y, running_mean.clone(), running_var.clone()));
    }
    let n = planes.per_channel();
    if n < 2 {
        return Err(error(
            OP,
            format!(
                "training needs more than one value per channel, got {n} from an input {:?}",
                x.dims()
            ),
        ));
    }
    let n = n as f64;
    let both = statistics(x)?;
    let (mean, var) = (both.get(0)?, both.get(1)?);
    let y = affine(&mean, &var)?;
    let blend = |old: &Tensor, new: &Tensor, factor: f64| {
        old.affine(1.0 - how.momentum, 0.0)?
            .add(&new.affine(how.momentum * factor, 0.0)?)
    };
    let new_mean = blend(running_mean, &mean, 1.0)?;
    let new_var = blend(running_var, &var, n / (n - 1.0))?;
    Ok((y, new_mean, new_var))
}
