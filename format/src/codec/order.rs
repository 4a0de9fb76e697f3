//! Integers as byte planes: all lowest bytes, then all second bytes, and so on.

use super::word::{BLOCK, ChunkSource, Direction, Word, put, take};
use crate::layout::DType;

/// Writes the byte planes of a chunk, lowest byte first, each `elements` long.
///
/// `planes` and the source's slices are exactly `elements * dtype.size()` bytes.
pub(crate) fn to_planes(dtype: DType, source: ChunkSource<'_>, elements: usize, planes: &mut [u8]) {
    match dtype {
        DType::F32 => split::<u32>(source, elements, planes),
        DType::F64 => split::<u64>(source, elements, planes),
        DType::Bf16 | DType::F16 => split::<u16>(source, elements, planes),
    }
}

/// Sets or changes the chunk's bytes by the integers in the planes.
///
/// `planes` and `values` are exactly `elements * dtype.size()` bytes.
pub(crate) fn from_planes(
    dtype: DType,
    planes: &[u8],
    elements: usize,
    direction: Direction,
    values: &mut [u8],
) {
    match dtype {
        DType::F32 => join::<u32>(planes, elements, direction, values),
        DType::F64 => join::<u64>(planes, elements, direction, values),
        DType::Bf16 | DType::F16 => join::<u16>(planes, elements, direction, values),
    }
}

fn split<W: Word>(source: ChunkSource<'_>, elements: usize, planes: &mut [u8]) {
    let mut block = [W::default(); BLOCK];
    for at in (0..elements).step_by(BLOCK) {
        let block = &mut block[..BLOCK.min(elements - at)];
        take(source, at, block);
        for (k, plane) in planes.chunks_exact_mut(elements).enumerate() {
            for (byte, z) in plane[at..at + block.len()].iter_mut().zip(block.iter()) {
                *byte = z.byte(k);
            }
        }
    }
}

fn join<W: Word>(planes: &[u8], elements: usize, direction: Direction, values: &mut [u8]) {
    let mut block = [W::default(); BLOCK];
    for at in (0..elements).step_by(BLOCK) {
        let n = BLOCK.min(elements - at);
        let block = &mut block[..n];
        // Two planes per pass halve the number of passes over the block.
        for (k, pair) in planes.chunks_exact(2 * elements).enumerate() {
            let (low, high) = pair.split_at(elements);
            let bytes = low[at..at + n].iter().zip(&high[at..at + n]);
            for (z, (a, b)) in block.iter_mut().zip(bytes) {
                let two = u64::from(u16::from_le_bytes([*a, *b])) << (16 * k);
                *z = W::narrow(if k == 0 { two } else { z.widen() | two });
            }
        }
        put(block, direction, at, values);
    }
}
