//! Tensors to bytes and back: order-preserving integers, differences, byte planes or magnitude classes, and zstd.

mod magnitudes;
mod order;
mod planes;
mod word;

pub(crate) use magnitudes::{from_magnitudes, open_bits_are_noise, to_magnitudes};
pub(crate) use order::{from_planes, to_planes};
pub(crate) use planes::{Coding, PlaneCoder, PlaneReader, TableEntry};
pub(crate) use word::{ChunkSource, Direction};
