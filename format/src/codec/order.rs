//! Floats as order-preserving integers, their differences, and the byte planes of those.
//!
//! A float's bits, with the sign bit flipped for positive numbers and all bits flipped for negative ones, order as the numbers do.
//! Consecutive steps are near each other, so the difference of these integers is small and its high bytes are nearly constant.
//! All arithmetic wraps: every bit pattern (NaN payloads, −0.0, denormals) comes back as it was.

use crate::layout::DType;

/// What a chunk's planes are made from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The values themselves (keyframes).
    Plain(&'a [u8]),
    /// Zigzag of later − earlier (differences).
    Change { earlier: &'a [u8], later: &'a [u8] },
}

/// How planes are put into a chunk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Overwrite (keyframes).
    Set,
    /// Add the difference: on to the later state.
    Forward,
    /// Subtract it: back to the earlier state.
    Backward,
}

/// Elements that are worked on at a time, so that they stay in the first-level cache.
const BLOCK: usize = 1024;

/// The first `N` bytes as an array; callers pass slices of `chunks_exact(N)`.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

macro_rules! element {
    ($module:ident, $unsigned:ty, $signed:ty, $size:literal) => {
        mod $module {
            use super::{BLOCK, Direction, Source, array};

            const TOP: u32 = <$unsigned>::BITS - 1;

            #[inline(always)]
            fn ordered(bits: $unsigned) -> $unsigned {
                bits ^ (((bits as $signed >> TOP) as $unsigned) | (1 << TOP))
            }

            #[inline(always)]
            fn bits(ordered: $unsigned) -> $unsigned {
                ordered ^ (((!ordered as $signed >> TOP) as $unsigned) | (1 << TOP))
            }

            #[inline(always)]
            fn zigzag(d: $unsigned) -> $unsigned {
                (d << 1) ^ ((d as $signed >> TOP) as $unsigned)
            }

            #[inline(always)]
            fn unzigzag(z: $unsigned) -> $unsigned {
                (z >> 1) ^ (0 as $unsigned).wrapping_sub(z & 1)
            }

            pub fn to_planes(source: Source<'_>, elements: usize, planes: &mut [u8]) {
                let mut block = [0 as $unsigned; BLOCK];
                let mut at = 0;
                while at < elements {
                    let n = BLOCK.min(elements - at);
                    let range = at * $size..(at + n) * $size;
                    let block = &mut block[..n];
                    match source {
                        Source::Plain(values) => {
                            for (z, v) in block.iter_mut().zip(values[range].chunks_exact($size)) {
                                *z = ordered(<$unsigned>::from_le_bytes(array(v)));
                            }
                        }
                        Source::Change { earlier, later } => {
                            let pairs = earlier[range.clone()]
                                .chunks_exact($size)
                                .zip(later[range].chunks_exact($size));
                            for (z, (a, b)) in block.iter_mut().zip(pairs) {
                                let a = ordered(<$unsigned>::from_le_bytes(array(a)));
                                let b = ordered(<$unsigned>::from_le_bytes(array(b)));
                                *z = zigzag(b.wrapping_sub(a));
                            }
                        }
                    }
                    for (k, plane) in planes.chunks_exact_mut(elements).enumerate() {
                        let shift = 8 * k as u32;
                        for (byte, z) in plane[at..at + n].iter_mut().zip(block.iter()) {
                            *byte = (*z >> shift) as u8;
                        }
                    }
                    at += n;
                }
            }

            pub fn from_planes(
                planes: &[u8],
                elements: usize,
                direction: Direction,
                values: &mut [u8],
            ) {
                let mut block = [0 as $unsigned; BLOCK];
                let mut at = 0;
                while at < elements {
                    let n = BLOCK.min(elements - at);
                    let block = &mut block[..n];
                    // Two planes a pass: half as many trips through the block as one by one.
                    for (k, pair) in planes.chunks_exact(2 * elements).enumerate() {
                        let (low, high) = pair.split_at(elements);
                        let bytes = low[at..at + n].iter().zip(&high[at..at + n]);
                        let halves = block.iter_mut().zip(bytes);
                        if k == 0 {
                            for (z, (a, b)) in halves {
                                *z = <$unsigned>::from(u16::from_le_bytes([*a, *b]));
                            }
                        } else {
                            let shift = 16 * k as u32;
                            for (z, (a, b)) in halves {
                                *z |= <$unsigned>::from(u16::from_le_bytes([*a, *b])) << shift;
                            }
                        }
                    }
                    let values = values[at * $size..(at + n) * $size]
                        .chunks_exact_mut($size)
                        .zip(block.iter());
                    match direction {
                        Direction::Set => {
                            for (v, z) in values {
                                v.copy_from_slice(&bits(*z).to_le_bytes());
                            }
                        }
                        Direction::Forward => {
                            for (v, z) in values {
                                let now = ordered(<$unsigned>::from_le_bytes(array(v)));
                                v.copy_from_slice(
                                    &bits(now.wrapping_add(unzigzag(*z))).to_le_bytes(),
                                );
                            }
                        }
                        Direction::Backward => {
                            for (v, z) in values {
                                let now = ordered(<$unsigned>::from_le_bytes(array(v)));
                                v.copy_from_slice(
                                    &bits(now.wrapping_sub(unzigzag(*z))).to_le_bytes(),
                                );
                            }
                        }
                    }
                    at += n;
                }
            }

            #[cfg(test)]
            #[test]
            fn order_is_kept_and_undone() {
                let samples = [
                    0,
                    1,
                    1 << TOP,
                    !0,
                    (1 << TOP) | 1,
                    <$unsigned>::MAX >> 1,
                    0x42,
                ];
                for a in samples {
                    assert_eq!(bits(ordered(a)), a);
                    assert_eq!(unzigzag(zigzag(a)), a);
                }
                // −0.0 is just below +0.0, the negative ones below it, reversed.
                assert!(ordered(1 << TOP) < ordered(0));
                assert!(ordered((1 << TOP) | 1) < ordered(1 << TOP));
                assert!(ordered(0) < ordered(1));
            }
        }
    };
}

element!(two, u16, i16, 2);
element!(four, u32, i32, 4);
element!(eight, u64, i64, 8);

/// Writes the byte planes of a chunk, lowest byte first, each `elements` long.
///
/// `planes` and the source's slices are exactly `elements * dtype.size()` bytes.
pub(crate) fn to_planes(dtype: DType, source: Source<'_>, elements: usize, planes: &mut [u8]) {
    match dtype {
        DType::F32 => four::to_planes(source, elements, planes),
        DType::F64 => eight::to_planes(source, elements, planes),
        DType::Bf16 | DType::F16 => two::to_planes(source, elements, planes),
    }
}

/// Puts the planes into the chunk's bytes.
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
        DType::F32 => four::from_planes(planes, elements, direction, values),
        DType::F64 => eight::from_planes(planes, elements, direction, values),
        DType::Bf16 | DType::F16 => two::from_planes(planes, elements, direction, values),
    }
}
