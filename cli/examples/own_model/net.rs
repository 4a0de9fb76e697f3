//! The model: candle_nn's layers, with a batch norm whose statistics can be replayed.

use candle_core::{Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module, ModuleT, VarBuilder, conv2d, linear};
use hindcast_model::own::{BatchNorm, batch_norm};

/// Two convolutions of stride 2, each with a batch norm, and a linear layer.
pub struct Net {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    out: Linear,
}

impl Net {
    /// For 28 × 28 images of one channel, and ten classes.
    pub fn new(vb: VarBuilder) -> Result<Self> {
        let halve = Conv2dConfig {
            stride: 2,
            padding: 2,
            ..Default::default()
        };
        Ok(Self {
            conv1: conv2d(1, 8, 5, halve, vb.pp("conv1"))?,
            norm1: batch_norm(8, 1e-5, vb.pp("norm1"))?,
            conv2: conv2d(8, 16, 5, halve, vb.pp("conv2"))?,
            norm2: batch_norm(16, 1e-5, vb.pp("norm2"))?,
            out: linear(16 * 7 * 7, 10, vb.pp("out"))?,
        })
    }

    /// (B, 1, 28, 28) to logits (B, 10).
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self
            .norm1
            .forward_t(&self.conv1.forward(x)?, train)?
            .relu()?;
        let x = self
            .norm2
            .forward_t(&self.conv2.forward(&x)?, train)?
            .relu()?;
        self.out.forward(&x.flatten_from(1)?)
    }
}
