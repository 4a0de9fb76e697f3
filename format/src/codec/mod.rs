//! Tensors to bytes and back: order-preserving integers, differences, byte planes, zstd.

mod order;
mod planes;

pub(crate) use order::{Direction, Source, from_planes, to_planes};
pub(crate) use planes::{Coding, PlaneCoder, PlaneReader};
