//! The metadata of a step, as docs/format.md lists its fields.

use anyhow::{Context as _, ensure};
use bincode::Options as _;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Indices {
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Weights {
    Mean,
    Sum,
    Each(Vec<f64>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Trained {
    All(u32),
    Flags(u32, Vec<u8>),
}

/// The fields, in the order of the bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meta {
    pub epoch: u64,
    /// Learning rate and weight decay of each group.
    pub groups: Vec<(f64, f64)>,
    pub indices: Indices,
    pub weights: Weights,
    pub micro_batches: Vec<u32>,
    pub loss: Option<f64>,
    pub clip_norm: Option<f64>,
    pub optimizer_step: u64,
    pub trained: Trained,
    pub scalars: Vec<(String, f64)>,
    pub extensions: Vec<(u32, Vec<u8>)>,
    pub digest: Option<[u8; 32]>,
}

impl Meta {
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let meta: Meta = coding().deserialize(bytes).context("metadata")?;
        ensure!(
            coding().serialize(&meta)? == bytes,
            "metadata isn't canonical"
        );
        Ok(meta)
    }

    pub fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        Ok(coding().serialize(self)?)
    }

    pub fn batch(&self) -> Vec<u64> {
        match &self.indices {
            Indices::U16(all) => all.iter().map(|&i| u64::from(i)).collect(),
            Indices::U32(all) => all.iter().map(|&i| u64::from(i)).collect(),
            Indices::U64(all) => all.clone(),
        }
    }

    /// Replaces the batch, in the narrowest width that holds all indices.
    pub fn set_batch(&mut self, batch: &[u64]) {
        fn narrow<T: TryFrom<u64>>(batch: &[u64]) -> Option<Vec<T>> {
            batch.iter().map(|&i| T::try_from(i).ok()).collect()
        }
        self.indices = narrow(batch)
            .map(Indices::U16)
            .or_else(|| narrow(batch).map(Indices::U32))
            .unwrap_or_else(|| Indices::U64(batch.to_vec()));
    }
}

/// "The bytes that bincode 1.3.3 makes with fixed-width little-endian integers, a byte limit, and trailing bytes refused."
fn coding() -> impl bincode::Options {
    bincode::options()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(1 << 28)
        .reject_trailing_bytes()
}
