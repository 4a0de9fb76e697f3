//! A GPT of about ten million parameters, for timings.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear_no_bias};
use hindcast_model::ops;
use hindcast_model::own::{LayerNorm, layer_norm};

/// The sizes of the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub vocabulary: usize,
    pub context: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
}

impl Sizes {
    /// 10.7 million parameters, or 12,000 in the quick form.
    pub fn new(quick: bool) -> Self {
        if quick {
            Sizes {
                vocabulary: 16,
                context: 8,
                width: 16,
                layers: 2,
                heads: 2,
            }
        } else {
            Sizes {
                vocabulary: 64,
                context: 128,
                width: 384,
                layers: 6,
                heads: 6,
            }
        }
    }

    /// Token ids (B, T) and the next ones.
    pub fn batch(self, sequences: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        let count = sequences * self.context;
        let ids = |shift: usize| {
            let ids = (0..count).map(|i| ((i + shift) * 31 % 97 % self.vocabulary) as u32);
            Tensor::from_iter(ids, device)?.reshape((sequences, self.context))
        };
        Ok((ids(0)?, ids(1)?))
    }
}

struct Block {
    heads: usize,
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

/// The model. Its attention is [`ops::self_attention`].
pub(super) struct Gpt {
    tokens: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    out: Linear,
}

impl Gpt {
    pub fn new(s: Sizes, vb: VarBuilder) -> Result<Self> {
        let width = s.width;
        let block = |vb: VarBuilder| -> Result<Block> {
            Ok(Block {
                heads: s.heads,
                norm1: layer_norm(width, 1e-5, vb.pp("norm1"))?,
                qkv: linear_no_bias(width, 3 * width, vb.pp("qkv"))?,
                proj: linear_no_bias(width, width, vb.pp("proj"))?,
                norm2: layer_norm(width, 1e-5, vb.pp("norm2"))?,
                up: linear_no_bias(width, 4 * width, vb.pp("up"))?,
                down: linear_no_bias(4 * width, width, vb.pp("down"))?,
            })
        };
        let blocks = (0..s.layers).map(|i| block(vb.pp(format!("block{i}"))));
        Ok(Gpt {
            tokens: vb.get((s.vocabulary, width), "tokens")?,
            positions: vb.get((s.context, width), "positions")?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: layer_norm(width, 1e-5, vb.pp("norm"))?,
            out: linear_no_bias(width, s.vocabulary, vb.pp("out"))?,
        })
    }

    /// Ids (B, T) to logits (B, T, V).
    pub fn forward(&self, ids: &Tensor, _train: bool) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let rows = self.tokens.index_select(&ids.flatten_all()?, 0)?;
        let mut x = rows.reshape((b, t, ()))?.broadcast_add(&self.positions)?;
        for block in &self.blocks {
            let qkv = block.qkv.forward(&block.norm1.forward(&x)?)?;
            let mixed = ops::self_attention(&qkv, block.heads, true)?;
            x = (x + block.proj.forward(&mixed)?)?;
            let hidden = ops::gelu(&block.up.forward(&block.norm2.forward(&x)?)?)?;
            x = (x + block.down.forward(&hidden)?)?;
        }
        self.out.forward(&self.norm.forward(&x)?)
    }
}

/// The type of the timings.
pub(super) const DTYPE: DType = DType::F32;
