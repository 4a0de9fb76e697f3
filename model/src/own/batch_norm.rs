//! Batch normalisation with candle_nn's names, options and arithmetic. Its statistics stay in the graph.

use candle_core::{DType, Result, Tensor};
use candle_nn::{BatchNormConfig, Init, ModuleT, VarBuilder};

use super::buffer::Buffer;

/// Batch normalisation of (B, C) or (B, C, ...) tensors, a replacement of `candle_nn::BatchNorm`.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    running_mean: Buffer,
    running_var: Buffer,
    weight_and_bias: Option<(Tensor, Tensor)>,
    channels: usize,
    config: BatchNormConfig,
}

/// A batch norm of `channels` channels, with the same tensors as `candle_nn::batch_norm`: `running_mean`, `running_var`
/// and, if the configuration has them, `weight` and `bias`. All have shape (C,).
///
/// # Errors
/// If the builder doesn't return a tensor, or the configuration is invalid.
pub fn batch_norm(
    channels: usize,
    config: impl Into<BatchNormConfig>,
    vb: VarBuilder<'_>,
) -> Result<BatchNorm> {
    let config = config.into();
    if config.eps < 0.0 || !(0.0..=1.0).contains(&config.momentum) {
        candle_core::bail!(
            "batch norm: expected eps of at least 0 and momentum in [0, 1], got eps {} and momentum {}",
            config.eps,
            config.momentum
        );
    }
    let running_mean = Buffer::get(&vb, channels, "running_mean", Init::Const(0.0))?;
    let running_var = Buffer::get(&vb, channels, "running_var", Init::Const(1.0))?;
    let weight_and_bias = if config.affine {
        Some((
            vb.get_with_hints(channels, "weight", Init::Const(1.0))?,
            vb.get_with_hints(channels, "bias", Init::Const(0.0))?,
        ))
    } else {
        None
    };
    Ok(BatchNorm {
        running_mean,
        running_var,
        weight_and_bias,
        channels,
        config,
    })
}

impl BatchNorm {
    /// Normalises by the statistics of the batch. The running statistics become `(1 − m) r + m stat`, where the variance is
    /// the unbiased one.
    fn train(&self, x: &Tensor) -> Result<Tensor> {
        // Each operation is in candle_nn's order, so that the bits are equal.
        let outer = x.dtype();
        let inner = match outer {
            DType::F16 | DType::BF16 => DType::F32,
            other => other,
        };
        let moved = x.to_dtype(inner)?.transpose(0, 1)?;
        let mut rows = moved.flatten_from(1)?.contiguous()?;
        let n = rows.dim(1)? as f64;
        if n < 2.0 {
            candle_core::bail!(
                "batch norm: training needs more than one value per channel, got {n} from an input {:?}",
                x.dims()
            );
        }
        let m = self.config.momentum;
        let blend = |running: &Buffer, new: &Tensor, share: f64| -> Result<()> {
            let old = (running.value() * (1.0 - m))?;
            running.set(&(old + (new.flatten_all()? * share)?)?)
        };
        if self.config.remove_mean {
            let mean = rows.mean_keepdim(1)?;
            blend(&self.running_mean, &mean, m)?;
            rows = rows.broadcast_sub(&mean)?;
        }
        let var = rows.sqr()?.mean_keepdim(1)?;
        blend(&self.running_var, &var, m * n / (n - 1.0))?;
        let normal = rows
            .broadcast_div(&(var + self.config.eps)?.sqrt()?)?
            .to_dtype(outer)?;
        self.affine(&normal, &[self.channels, 1])?
            .reshape(moved.dims())?
            .transpose(0, 1)
    }

    /// Normalises by the running statistics, which don't change.
    fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = vec![1; x.rank()];
        shape[1] = self.channels;
        let mean = self.running_mean.value().reshape(shape.as_slice())?;
        let var = self.running_var.value().reshape(shape.as_slice())?;
        let normal = x
            .broadcast_sub(&mean)?
            .broadcast_div(&(var + self.config.eps)?.sqrt()?)?;
        self.affine(&normal, &shape)
    }

    fn affine(&self, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
        match &self.weight_and_bias {
            None => Ok(x.clone()),
            Some((weight, bias)) => x
                .broadcast_mul(&weight.reshape(shape)?)?
                .broadcast_add(&bias.reshape(shape)?),
        }
    }
}

impl ModuleT for BatchNorm {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if x.rank() < 2 || x.dim(1)? != self.channels {
            candle_core::bail!(
                "batch norm: expected (batch, {}) or (batch, {}, ...), got {:?}",
                self.channels,
                self.channels,
                x.dims()
            );
        }
        if train {
            self.train(x)
        } else {
            self.evaluate(x)
        }
    }
}
