//! Floats as order-preserving integers, and their differences.
//!
//! A float's bits, with the sign bit flipped for positive numbers and all bits flipped for negative ones, sort like the numbers. Values of
//! consecutive steps are close to each other, so the difference of these integers is small. All arithmetic wraps, so that every bit pattern
//! (NaN payloads, −0.0, denormals) is restored exactly.

/// What a chunk is encoded from.
#[derive(Clone, Copy)]
pub(crate) enum ChunkSource<'a> {
    /// The values themselves, for keyframes.
    Plain(&'a [u8]),
    /// The zigzag of later − earlier, for differences.
    Change { earlier: &'a [u8], later: &'a [u8] },
}

/// How decoded integers change a chunk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Overwrite, for keyframes.
    Set,
    /// Add the difference, which gives the later state.
    Forward,
    /// Subtract the difference, which gives the earlier state.
    Backward,
}

/// Elements processed at a time, so that they stay in the first-level cache.
pub(crate) const BLOCK: usize = 1024;

/// The unsigned integer with the width of an element.
pub(crate) trait Word: Copy + Default {
    /// Bytes per element.
    const SIZE: usize;

    fn ordered(self) -> Self;
    fn bits(self) -> Self;
    fn zigzag(self) -> Self;
    fn unzigzag(self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    /// From the first `SIZE` bytes of a slice of `chunks_exact(SIZE)`.
    fn read(bytes: &[u8]) -> Self;
    fn write(self, bytes: &mut [u8]);
    /// Byte k, lowest first.
    fn byte(self, k: usize) -> u8;
    fn widen(self) -> u64;
    fn narrow(wide: u64) -> Self;
}

macro_rules! word {
    ($unsigned:ty, $signed:ty) => {
        impl Word for $unsigned {
            const SIZE: usize = size_of::<$unsigned>();

            #[inline(always)]
            fn ordered(self) -> Self {
                self ^ (((self as $signed >> (Self::BITS - 1)) as Self) | (1 << (Self::BITS - 1)))
            }

            #[inline(always)]
            fn bits(self) -> Self {
                self ^ (((!self as $signed >> (Self::BITS - 1)) as Self) | (1 << (Self::BITS - 1)))
            }

            #[inline(always)]
            fn zigzag(self) -> Self {
                (self << 1) ^ ((self as $signed >> (Self::BITS - 1)) as Self)
            }

            #[inline(always)]
            fn unzigzag(self) -> Self {
                (self >> 1) ^ (0 as Self).wrapping_sub(self & 1)
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            #[inline(always)]
            fn read(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$unsigned>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }

            #[inline(always)]
            fn write(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            #[inline(always)]
            fn byte(self, k: usize) -> u8 {
                (self >> (8 * k as u32)) as u8
            }

            #[inline(always)]
            fn widen(self) -> u64 {
                u64::from(self)
            }

            #[inline(always)]
            fn narrow(wide: u64) -> Self {
                wide as Self
            }
        }
    };
}

word!(u16, i16);
word!(u32, i32);
word!(u64, i64);

/// Elements `at..at + block.len()` of the source, as the integers that are coded.
#[inline(always)]
pub(crate) fn take<W: Word>(source: ChunkSource<'_>, at: usize, block: &mut [W]) {
    let range = at * W::SIZE..(at + block.len()) * W::SIZE;
    match source {
        ChunkSource::Plain(values) => {
            for (z, v) in block.iter_mut().zip(values[range].chunks_exact(W::SIZE)) {
                *z = W::read(v).ordered();
            }
        }
        ChunkSource::Change { earlier, later } => {
            let pairs = earlier[range.clone()]
                .chunks_exact(W::SIZE)
                .zip(later[range].chunks_exact(W::SIZE));
            for (z, (a, b)) in block.iter_mut().zip(pairs) {
                *z = W::read(b).ordered().sub(W::read(a).ordered()).zigzag();
            }
        }
    }
}

/// Sets or changes elements `at..at + block.len()` of a chunk's bytes by decoded integers.
#[inline(always)]
pub(crate) fn put<W: Word>(block: &[W], direction: Direction, at: usize, values: &mut [u8]) {
    let values = values[at * W::SIZE..(at + block.len()) * W::SIZE]
        .chunks_exact_mut(W::SIZE)
        .zip(block);
    match direction {
        Direction::Set => values.for_each(|(v, z)| z.bits().write(v)),
        Direction::Forward => {
            for (v, z) in values {
                W::read(v).ordered().add(z.unzigzag()).bits().write(v);
            }
        }
        Direction::Backward => {
            for (v, z) in values {
                W::read(v).ordered().sub(z.unzigzag()).bits().write(v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_is_kept_and_undone<W: Word + Ord + std::fmt::Debug>() {
        let top = 8 * W::SIZE - 1;
        let samples = [0, 1, 1 << top, !0, (1 << top) | 1, (1 << top) - 1, 0x42];
        for a in samples.map(W::narrow) {
            assert_eq!(a.ordered().bits(), a);
            assert_eq!(a.zigzag().unzigzag(), a);
        }
        // −0.0 comes just before +0.0, and the negative numbers before it, in reverse.
        let [zero, one, minus_zero, _, minus_one, ..] = samples.map(|a| W::narrow(a).ordered());
        assert!(minus_one < minus_zero && minus_zero < zero && zero < one);
    }

    #[test]
    fn every_width_keeps_the_order_of_the_numbers() {
        order_is_kept_and_undone::<u16>();
        order_is_kept_and_undone::<u32>();
        order_is_kept_and_undone::<u64>();
    }
}
