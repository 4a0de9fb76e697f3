//! One byte plane, stored in the smallest of three ways: zstd, raw if zstd doesn't help, or a single byte if all bytes are equal.

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
    /// One byte that every byte of the plane equals.
    Constant,
}

/// An entry of the chunk table: two bits for the kind, and the stored length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableEntry {
    /// A plane of bytes: a byte plane, or the magnitude classes.
    Plane(Coding, usize),
    /// The open bits. As a chunk's first entry, it says that one plane follows, the classes.
    OpenBits(usize),
}

/// Number of bits of an entry that hold the stored length.
const LENGTH_BITS: u32 = 30;

impl TableEntry {
    pub fn pack(self) -> u32 {
        let (code, length) = match self {
            TableEntry::Plane(Coding::Raw, length) => (0, length),
            TableEntry::Plane(Coding::Zstd, length) => (1, length),
            TableEntry::Plane(Coding::Constant, length) => (2, length),
            TableEntry::OpenBits(length) => (3, length),
        };
        code << LENGTH_BITS | length as u32
    }

    pub fn unpack(entry: u32) -> TableEntry {
        let length = (entry & ((1 << LENGTH_BITS) - 1)) as usize;
        match entry >> LENGTH_BITS {
            0 => TableEntry::Plane(Coding::Raw, length),
            1 => TableEntry::Plane(Coding::Zstd, length),
            2 => TableEntry::Plane(Coding::Constant, length),
            _ => TableEntry::OpenBits(length),
        }
    }
}

/// zstd's compression level. Level 3 takes 1.5 times as long as level 1 and saves 0.5 %.
const LEVEL: i32 = 1;
/// Base-2 logarithm of the number of entries in zstd's table of earlier matches. Bytes of planes are unevenly distributed rather than
/// repeated, so nearly all of zstd's gain comes from its entropy coder, and it suffices to find long repetitions. A table of 2 KiB stays in
/// the first-level cache next to the training's own data, and the output grows by at most 0.05 %. With level 1's own settings, a recorder
/// next to a busy training loop spends three quarters of zstd's time on this search.
const HASH_LOG: u32 = 9;
/// Shortest repetition that zstd looks for, in bytes. See [`HASH_LOG`].
const MIN_MATCH: u32 = 7;
/// Shortest plane that may be worth a zstd frame, in bytes.
const SHORT: usize = 32;

/// Compresses planes. Owns the zstd context, which serves all planes.
pub(crate) struct PlaneCoder {
    zstd: Compressor<'static>,
    /// If bytes matter more than time: a second compressor, and room for its result. The shorter result is used.
    second: Option<(Compressor<'static>, Vec<u8>)>,
}

impl PlaneCoder {
    pub fn new() -> io::Result<PlaneCoder> {
        let mut zstd = Compressor::new(LEVEL)?;
        zstd.set_parameter(CParameter::HashLog(HASH_LOG))?;
        zstd.set_parameter(CParameter::MinMatch(MIN_MATCH))?;
        Ok(PlaneCoder { zstd, second: None })
    }

    /// Tries this level of zstd, too, with the level's own settings, also on planes that look random. Alone, a low level may need more bytes than
    /// the settings above: it finds short repetitions, which cost more than they save in bytes that are merely unevenly distributed.
    pub fn thorough(level: i32) -> io::Result<PlaneCoder> {
        Ok(PlaneCoder {
            second: Some((Compressor::new(level)?, Vec::new())),
            ..PlaneCoder::new()?
        })
    }

    /// Appends the plane to `out`. Returns its coding and its stored length.
    pub fn encode(&mut self, plane: &[u8], out: &mut Vec<u8>) -> (Coding, usize) {
        let start = out.len();
        // A plane of equal bytes equals itself shifted by one byte. That is a single comparison of memory.
        if let (Some(&first), Some(rest)) = (plane.first(), plane.get(1..))
            && plane.get(..plane.len() - 1) == Some(rest)
        {
            out.push(first);
            return (Coding::Constant, 1);
        }
        if plane.len() >= SHORT && (self.second.is_some() || !looks_random(plane)) {
            // One byte less than raw: zstd fails if it would need more.
            out.resize(start + plane.len() - 1, 0);
            let mut length = self.zstd.compress_to_buffer(plane, &mut out[start..]).ok();
            if let Some((second, room)) = &mut self.second {
                room.resize(length.unwrap_or(plane.len()) - 1, 0);
                if let Ok(shorter) = second.compress_to_buffer(plane, room.as_mut_slice()) {
                    out[start..start + shorter].copy_from_slice(&room[..shorter]);
                    length = Some(shorter);
                }
            }
            if let Some(length) = length {
                out.truncate(start + length);
                return (Coding::Zstd, length);
            }
            out.truncate(start);
        }
        out.extend_from_slice(plane);
        (Coding::Raw, plane.len())
    }
}

/// Whether compression would save less than half a percent. The test counts how often two bytes of a sample are equal (collision entropy, a
/// lower bound of Shannon entropy); in random bytes, 1/256 of the pairs are. The low mantissa bytes of most planes are random, and zstd
/// would take a quarter of its time to find that out. The answer depends on the bytes alone.
fn looks_random(plane: &[u8]) -> bool {
    const SAMPLE: usize = 4096;
    if plane.len() < SAMPLE {
        return false;
    }
    let mut counts = [[0u32; 256]; 2];
    // Four runs spread over the plane, because tensors that share a chunk differ in scale.
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
    // For n random bytes the sum is n + n(n−1)/256. With 2 % more equal pairs, the entropy is 7.97 bits.
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

    /// Fills `plane` from its stored bytes. A different length is an error.
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
            let entry = TableEntry::Plane(coding, length);
            assert_eq!(TableEntry::unpack(entry.pack()), entry);
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
        assert_eq!(TableEntry::unpack(3 << 30 | 5), TableEntry::OpenBits(5));
    }
}
