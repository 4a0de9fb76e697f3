//! Chunks of tensors: elements as integers, and integers as bytes.

use anyhow::{Context as _, bail, ensure};

use super::layout::Chunk;

/// Top two bits of a word of the chunk table.
const RAW: u32 = 0;
const ZSTD: u32 = 1;
const CONSTANT: u32 = 2;
const MAGNITUDES: u32 = 3;
const LENGTH: u32 = (1 << 30) - 1;

/// Level of zstd. Readers accept any.
const LEVEL: i32 = 1;

fn mask(width: usize) -> u64 {
    u64::MAX >> (64 - 8 * width)
}

fn top(width: usize) -> u64 {
    1 << (8 * width - 1)
}

/// The integers o of a chunk's bytes, which sort like its numbers.
pub fn ordered(bytes: &[u8], width: usize) -> Vec<u64> {
    let integers = bytes.chunks_exact(width).map(|element| {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(element);
        u64::from_le_bytes(wide)
    });
    let order = |b: u64| {
        if b & top(width) == 0 {
            b ^ top(width)
        } else {
            !b & mask(width)
        }
    };
    integers.map(order).collect()
}

/// The inverse of [`ordered`].
pub fn elements(ordered: &[u64], width: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ordered.len() * width);
    for &o in ordered {
        let bits = if o & top(width) == 0 {
            !o & mask(width)
        } else {
            o ^ top(width)
        };
        bytes.extend_from_slice(&bits.to_le_bytes()[..width]);
    }
    bytes
}

/// The zigzag integer of `later − earlier`.
pub fn difference(later: u64, earlier: u64, width: usize) -> u64 {
    let d = later.wrapping_sub(earlier) & mask(width);
    let sign = if d & top(width) == 0 { 0 } else { mask(width) };
    (d << 1 & mask(width)) ^ sign
}

/// The later integer, from the earlier one and the zigzag integer.
pub fn add(earlier: u64, z: u64, width: usize) -> u64 {
    let sign = if z & 1 == 0 { 0 } else { mask(width) };
    earlier.wrapping_add(z >> 1 ^ sign) & mask(width)
}

/// A chunk's entry of the table without its checksum, and its stored bytes. Always byte planes.
pub fn encode(z: &[u64], width: usize) -> anyhow::Result<(Vec<u32>, Vec<u8>)> {
    let (mut words, mut stored) = (Vec::new(), Vec::new());
    for k in 0..width {
        let plane: Vec<u8> = z.iter().map(|z| z.to_le_bytes()[k]).collect();
        let (coding, bytes) = if plane.iter().all(|&b| b == plane[0]) {
            (CONSTANT, vec![plane[0]])
        } else {
            let smaller = zstd::bulk::compress(&plane, LEVEL)?;
            if smaller.len() < plane.len() {
                (ZSTD, smaller)
            } else {
                (RAW, plane)
            }
        };
        words.push(coding << 30 | u32::try_from(bytes.len())?);
        stored.extend(bytes);
    }
    Ok((words, stored))
}

/// The bytes of a chunk's entry in the table at the beginning of `table`, and the length of its stored bytes.
pub fn entry(table: &[u8], width: usize) -> anyhow::Result<(usize, usize)> {
    let first = word(table, 1)?;
    let words = if first >> 30 == MAGNITUDES { 2 } else { width };
    let mut stored = 0;
    for at in 1..=words {
        stored += (word(table, at)? & LENGTH) as usize;
    }
    Ok((4 + 4 * words, stored))
}

/// Decodes a chunk from its entry and its stored bytes.
pub fn decode(entry: &[u8], stored: &[u8], chunk: Chunk) -> anyhow::Result<Vec<u64>> {
    let mut rest = stored;
    let mut take = |at: usize| -> anyhow::Result<(u32, &[u8])> {
        let word = word(entry, at)?;
        let (now, then) = rest
            .split_at_checked((word & LENGTH) as usize)
            .context("stored bytes")?;
        rest = then;
        Ok((word >> 30, now))
    };
    if word(entry, 1)? >> 30 == MAGNITUDES {
        let (_, open) = take(1)?;
        let (coding, classes) = take(2)?;
        return magnitudes(open, &plane(coding, classes, chunk.elements)?);
    }
    let mut z = vec![0u64; chunk.elements];
    for k in 0..chunk.width {
        let (coding, bytes) = take(k + 1)?;
        let plane = plane(coding, bytes, chunk.elements)?;
        for (z, byte) in z.iter_mut().zip(plane) {
            *z |= u64::from(byte) << (8 * k);
        }
    }
    Ok(z)
}

fn word(table: &[u8], at: usize) -> anyhow::Result<u32> {
    let bytes = table.get(4 * at..4 * at + 4).context("chunk table")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

fn plane(coding: u32, stored: &[u8], elements: usize) -> anyhow::Result<Vec<u8>> {
    let plane = match coding {
        RAW => stored.to_vec(),
        ZSTD => zstd::bulk::decompress(stored, elements)?,
        CONSTANT => vec![*stored.first().context("a constant")?; elements],
        other => bail!("coding {other}"),
    };
    ensure!(plane.len() == elements, "length of a plane");
    Ok(plane)
}

/// Joins classes and open bits.
fn magnitudes(open: &[u8], classes: &[u8]) -> anyhow::Result<Vec<u64>> {
    let mut at = 0;
    let mut all = Vec::with_capacity(classes.len());
    for &class in classes {
        let class = u64::from(class);
        let k = (class >> 2).max(1) - 1;
        let mut z = (class - 4 * k) << k;
        for bit in 0..k {
            let byte = open.get(at / 8).context("open bits")?;
            z |= u64::from(byte >> (at % 8) & 1) << bit;
            at += 1;
        }
        all.push(z);
    }
    ensure!(open.len() == at.div_ceil(8), "length of the open bits");
    Ok(all)
}
