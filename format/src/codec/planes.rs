//! One byte plane, stored the cheapest way: zstd, raw where zstd doesn't win, one byte where all are equal.

use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::FormatError;

/// How a plane is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// The bytes themselves.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One byte that stands for all of them.
    Constant,
}

/// An entry of the chunk table: two bits that say what, and the stored length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A plane of bytes: a byte plane, or the classes of magnitude.
    Plane(Coding, usize),
    /// The bits that classes leave open. As a chunk's first entry it says that one plane follows: the classes.
    OpenBits(usize),
}

/// Bits of an entry that hold the stored length.
const LENGTH_BITS: u32 = 30;

impl Entry {
    pub fn pack(self) -> u32 {
        let (code, length) = match self {
            Entry::Plane(Coding::Raw, length) => (0, length),
            Entry::Plane(Coding::Zstd, length) => (1, length),
            Entry::Plane(Coding::Constant, length) => (2, length),
            Entry::OpenBits(length) => (3, length),
        };
        code << LENGTH_BITS | length as u32
    }

    pub fn unpack(entry: u32) -> Entry {
        let length = (entry & ((1 << LENGTH_BITS) - 1)) as usize;
        match entry >> LENGTH_BITS {
            0 => Entry::Plane(Coding::Raw, length),
            1 => Entry::Plane(Coding::Zstd, length),
            2 => Entry::Plane(Coding::Constant, length),
            _ => Entry::OpenBits(length),
        }
    }
}

/// Level 1 wins: level 3 takes half as long again for half a percent (docs/format.md).
const LEVEL: i32 = 1;
/// What planes hold is uneven rather than repeated, so nearly all that zstd wins is its entropy coder's. A search that only finds long
/// repetitions, in a table of 2 KiB that stays in the first-level cache beside the training's own data, costs .05 % of the bytes at
/// most; level 1's own search was three quarters of zstd's time in a recorder beside a busy training.
const HASH_LOG: u32 = 9;
/// See [`HASH_LOG`].
const MIN_MATCH: u32 = 7;
/// Planes shorter than this are never worth a zstd frame.
const SHORT: usize = 32;

/// Compresses planes; owns the zstd context, so that nothing is allocated a plane.
pub(crate) struct PlaneCoder {
    zstd: Compressor<'static>,
}

impl PlaneCoder {
    pub fn new() -> io::Result<PlaneCoder> {
        let mut zstd = Compressor::new(LEVEL)?;
        zstd.set_parameter(CParameter::HashLog(HASH_LOG))?;
        zstd.set_parameter(CParameter::MinMatch(MIN_MATCH))?;
        Ok(PlaneCoder { zstd })
    }

    /// Appends the plane to `out` and says how it is coded and how long it became.
    pub fn encode(&mut self, plane: &[u8], out: &mut Vec<u8>) -> (Coding, usize) {
        let start = out.len();
        // Equal to itself moved by one: a comparison of memory, which is quick.
        if let (Some(&first), Some(rest)) = (plane.first(), plane.get(1..))
            && plane.get(..plane.len() - 1) == Some(rest)
        {
            out.push(first);
            return (Coding::Constant, 1);
        }
        if plane.len() >= SHORT && !looks_random(plane) {
            // One byte less than raw: zstd stops by itself where it doesn't win.
            out.resize(start + plane.len() - 1, 0);
            if let Ok(length) = self.zstd.compress_to_buffer(plane, &mut out[start..]) {
                out.truncate(start + length);
                return (Coding::Zstd, length);
            }
            out.truncate(start);
        }
        out.extend_from_slice(plane);
        (Coding::Raw, plane.len())
    }
}

/// Is there less than half a percent to win? Judged from how often two bytes of a sample agree (collision entropy, a lower bound of
/// Shannon's): 1/256 of the pairs agree in random bytes. The low mantissa bytes of most planes are like that, and zstd would spend
/// a quarter of the time on finding it out. The answer depends on the bytes alone.
fn looks_random(plane: &[u8]) -> bool {
    const SAMPLE: usize = 4096;
    if plane.len() < SAMPLE {
        return false;
    }
    let mut counts = [[0u32; 256]; 2];
    // Four runs spread over the plane: tensors that share a chunk differ in scale.
    let stride = plane.len() / 4;
    for start in (0..4).map(|i| i * stride) {
        for pair in plane[start..].chunks_exact(2).take(SAMPLE / 8) {
            if let [a, b] = pair {
                counts[0][usize::from(*a)] += 1;
                counts[1][usize::from(*b)] += 1;
            }
        }
    }
    let [first, second] = &counts;
    let agreeing: u64 = first
        .iter()
        .zip(second)
        .map(|(a, b)| u64::from(a + b) * u64::from(a + b))
        .sum();
    // For n random bytes the sum is n + n(n−1)/256; 2 % more pairs is an entropy of 7.97 bits.
    let n = SAMPLE as u64;
    agreeing < n + n * (n - 1) / 256 * 102 / 100
}

/// Decompresses planes; owns the zstd context.
pub(crate) struct PlaneReader {
    zstd: Decompressor<'static>,
}

impl PlaneReader {
    pub fn new() -> io::Result<PlaneReader> {
        Ok(PlaneReader {
            zstd: Decompressor::new()?,
        })
    }

    /// Fills `plane` from its stored bytes, exactly.
    pub fn decode(
        &mut self,
        coding: Coding,
        stored: &[u8],
        plane: &mut [u8],
    ) -> Result<(), FormatError> {
        match (coding, stored) {
            (Coding::Raw, stored) if stored.len() == plane.len() => plane.copy_from_slice(stored),
            (Coding::Constant, &[byte]) => plane.fill(byte),
            (Coding::Zstd, stored) => {
                let length = self
                    .zstd
                    .decompress_to_buffer(stored, plane)
                    .map_err(|e| FormatError::corrupt("compressed plane", "a zstd frame", e))?;
                if length != plane.len() {
                    return Err(FormatError::corrupt(
                        "length of a plane",
                        plane.len(),
                        length,
                    ));
                }
            }
            (_, stored) => {
                return Err(FormatError::corrupt(
                    "stored length of a plane",
                    plane.len(),
                    stored.len(),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<u8> {
        let mut x = 0x9e37_79b9u32;
        (0..n)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                (x >> 11) as u8
            })
            .collect()
    }

    #[test]
    fn every_plane_comes_back_and_none_grows() {
        let (mut coder, mut reader) = (PlaneCoder::new().unwrap(), PlaneReader::new().unwrap());
        let skewed: Vec<u8> = noise(9000).iter().map(|b| b & 7).collect();
        for (plane, expected) in [
            (vec![], Coding::Raw),
            (vec![7], Coding::Constant),
            (vec![3; 70_000], Coding::Constant),
            (vec![1, 2, 3], Coding::Raw),
            (noise(65_536), Coding::Raw),
            (noise(2000), Coding::Raw),
            (skewed, Coding::Zstd),
        ] {
            let mut out = vec![0xaa];
            let (coding, length) = coder.encode(&plane, &mut out);
            assert_eq!(coding, expected);
            assert_eq!(out.len(), 1 + length);
            assert!(length <= plane.len());
            let mut back = vec![0x55; plane.len()];
            reader.decode(coding, &out[1..], &mut back).unwrap();
            assert_eq!(back, plane);
            let entry = Entry::Plane(coding, length);
            assert_eq!(Entry::unpack(entry.pack()), entry);
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut reader = PlaneReader::new().unwrap();
        let mut coder = PlaneCoder::new().unwrap();
        let mut out = Vec::new();
        let (coding, _) = coder.encode(&[0, 1].repeat(500), &mut out);
        assert_eq!(coding, Coding::Zstd);
        assert!(reader.decode(coding, &out, &mut [0; 999]).is_err());
        assert!(reader.decode(coding, &out, &mut [0; 1001]).is_err());
        assert!(reader.decode(Coding::Raw, &[1, 2], &mut [0; 3]).is_err());
        assert!(reader.decode(Coding::Constant, &[], &mut [0; 3]).is_err());
        assert_eq!(Entry::unpack(3 << 30 | 5), Entry::OpenBits(5));
    }
}
