//! Integers as magnitude classes and open bits.
//!
//! The class of an integer z gives its number of bits and the value of its three highest ones. The open bits are the bits below these
//! three. The classes carry nearly everything that is predictable in a difference, in one byte per element. The open bits are noise and are
//! packed as they are. Byte planes cut a number at byte boundaries, so that a plane of mostly noise also holds some predictable bits.
//! Classes avoid that: on the steps of a small CNN they take 2 % less than the entropy of the byte planes, with one plane to compress
//! instead of four.

use pulp::{Arch, Simd, WithSimd};

use super::word::{BLOCK, ChunkSource, Direction, Word, put, take};
use crate::FormatError;
use crate::layout::DType;

/// Number of bits in a class after the leading one. More bits would lengthen zstd's tables by more than they save.
const MANTISSA: u32 = 2;

/// The largest class of an integer with this number of bits.
const fn largest(bits: u32) -> u8 {
    (((bits - 1 - MANTISSA) << MANTISSA) + (2 << MANTISSA) - 1) as u8
}

/// The number of open bits of z, and its class.
#[inline(always)]
fn class(z: u64) -> (u32, u8) {
    let open = 63 - (z | ((2 << MANTISSA) - 1)).leading_zeros() - MANTISSA;
    (open, ((open << MANTISSA) as u64 + (z >> open)) as u8)
}

/// The inverse of [`class`]: the number of open bits, and z with its open bits cleared.
#[inline(always)]
fn unclass(class: u8) -> (u32, u64) {
    let open = (u32::from(class) >> MANTISSA).max(1) - 1;
    (
        open,
        u64::from(u32::from(class) - (open << MANTISSA)) << open,
    )
}

/// Writes the class of every element to `classes`, and appends the open bits to `out`, element by element, lowest bit first. Unused bits of
/// the last byte are zero.
///
/// `classes` has `elements` bytes; each slice of the source has `elements * dtype.size()` bytes.
pub(crate) fn to_magnitudes(
    dtype: DType,
    source: ChunkSource<'_>,
    classes: &mut [u8],
    out: &mut Vec<u8>,
) {
    match dtype {
        // Compiled for the widest vectors of the processor. The results are the same for any width.
        DType::F32 => Arch::new().dispatch(Split(source, classes, out)),
        DType::F64 => split::<u64>(source, classes, out),
        DType::Bf16 | DType::F16 => split::<u16>(source, classes, out),
    }
}

struct Split<'a>(ChunkSource<'a>, &'a mut [u8], &'a mut Vec<u8>);
struct Join<'a>(&'a [u8], &'a [u8], Direction, &'a mut [u8]);

impl WithSimd for Join<'_> {
    type Output = Result<(), FormatError>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        join::<u32>(self.0, self.1, self.2, self.3)
    }
}

impl WithSimd for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        split::<u32>(self.0, self.1, self.2);
    }
}

/// Sets or changes the chunk's bytes by the integers that classes and open bits describe.
///
/// # Errors
/// A class that doesn't exist for elements of this width, or more or fewer open bits than the classes require. `values` is then
/// unspecified.
pub(crate) fn from_magnitudes(
    dtype: DType,
    classes: &[u8],
    open_bits: &[u8],
    direction: Direction,
    values: &mut [u8],
) -> Result<(), FormatError> {
    match dtype {
        DType::F32 => Arch::new().dispatch(Join(classes, open_bits, direction, values)),
        DType::F64 => join::<u64>(classes, open_bits, direction, values),
        DType::Bf16 | DType::F16 => join::<u16>(classes, open_bits, direction, values),
    }
}

#[inline(always)]
fn split<W: Word>(source: ChunkSource<'_>, classes: &mut [u8], out: &mut Vec<u8>) {
    let start = out.len();
    // Room for every bit of every element, and for the eight bytes of the last store.
    out.resize(start + classes.len() * W::SIZE + 16, 0);
    let mut bits = Bits {
        bytes: &mut out[start..],
        at: 0,
        waiting: 0,
        count: 0,
    };
    let mut block = [W::default(); BLOCK];
    let mut small = Small::default();
    for (at, classes) in (0..).step_by(BLOCK).zip(classes.chunks_mut(BLOCK)) {
        let block = &mut block[..classes.len()];
        take(source, at, block);
        if W::SIZE <= 4 && small.take(block) {
            small.split(classes, &mut bits);
        } else {
            for (z, slot) in block.iter().zip(classes) {
                let z = z.widen();
                let (open, class) = class(z);
                *slot = class;
                bits.put(z & ((1 << open) - 1), open);
            }
        }
    }
    let length = bits.length();
    out.truncate(start + length);
}

/// A bit string that is being written, lowest bit first.
struct Bits<'a> {
    /// Eight bytes longer than the bits that will be written.
    bytes: &'a mut [u8],
    /// The byte in which the pending bits begin.
    at: usize,
    /// Bits that are stored but not yet counted; fewer than eight.
    waiting: u64,
    count: u32,
}

impl Bits<'_> {
    /// Appends the lowest `open` bits of `rest`, at most 61 of them. The higher bits of `rest` are 0.
    #[inline(always)]
    fn put(&mut self, rest: u64, open: u32) {
        if open > 56 {
            // Together with seven pending bits, these don't fit into one word. The low half is written first.
            self.put_few(rest & 0xffff_ffff, 32);
            self.put_few(rest >> 32, open - 32);
        } else {
            self.put_few(rest, open);
        }
    }

    /// Appends at most 56 bits.
    #[inline(always)]
    fn put_few(&mut self, rest: u64, open: u32) {
        let word = self.waiting | rest << self.count;
        // Stored always, and counted only when a byte is complete. That avoids a branch that is hard to predict.
        self.bytes[self.at..self.at + 8].copy_from_slice(&word.to_le_bytes());
        let count = self.count + open;
        self.at += (count >> 3) as usize;
        self.waiting = word >> (count & !7);
        self.count = count & 7;
    }

    /// Number of bytes written, including the incomplete last one.
    fn length(&self) -> usize {
        self.at + (self.count as usize).div_ceil(8)
    }
}

/// A block whose elements are all below 2³¹, as in nearly every block of float32. It is split with arithmetic that every processor can do
/// on several elements at once, and written two elements per word.
struct Small {
    length: usize,
    z: [i32; BLOCK],
    rest: [u32; BLOCK],
    open: [u8; BLOCK],
}

impl Default for Small {
    fn default() -> Small {
        Small {
            length: 0,
            z: [0; BLOCK],
            rest: [0; BLOCK],
            open: [0; BLOCK],
        }
    }
}

impl Small {
    /// Takes the block; false if one of its elements is too large.
    #[inline(always)]
    fn take<W: Word>(&mut self, block: &[W]) -> bool {
        self.length = block.len();
        let mut all = 0;
        for (small, z) in self.z.iter_mut().zip(block) {
            *small = z.widen() as u32 as i32;
            all |= *small;
        }
        all >= 0
    }

    #[inline(always)]
    fn split(&mut self, classes: &mut [u8], bits: &mut Bits<'_>) {
        let n = self.length;
        let (z, rest, open) = (&self.z[..n], &mut self.rest[..n], &mut self.open[..n]);
        for (((&z, rest), open), class) in z.iter().zip(rest).zip(open).zip(classes) {
            // As a float, z has its class in the exponent and the two highest mantissa bits. Clearing every bit that lies eight below a set
            // bit keeps the conversion from rounding z up to the next class.
            let float = ((z & !(z >> 8)) as f32).to_bits();
            let large = (float >> (23 - MANTISSA)).wrapping_sub((127 + MANTISSA - 1) << MANTISSA);
            let both = if z < (2 << MANTISSA) { z as u32 } else { large };
            *class = both as u8;
            *open = ((both >> MANTISSA).max(1) - 1) as u8;
            // A mask of ones below z's highest bit, without the three bits that the class holds. Not every processor can shift each element
            // by its own amount, so the ones are spread by fixed shifts.
            let mut ones = z | z >> 1;
            ones |= ones >> 2;
            ones |= ones >> 4;
            ones |= ones >> 8;
            ones |= ones >> 16;
            *rest = (z & (ones >> (MANTISSA + 1))) as u32;
        }
        let (rest, open) = (&self.rest[..n], &self.open[..n]);
        let (pairs, opens) = (rest.chunks_exact(2), open.chunks_exact(2));
        let last = pairs.remainder().iter().zip(opens.remainder());
        for (rest, open) in pairs.zip(opens) {
            if let (&[a, b], &[m, n]) = (rest, open) {
                // At most 28 bits each.
                bits.put_few(
                    u64::from(a) | u64::from(b) << m,
                    u32::from(m) + u32::from(n),
                );
            }
        }
        for (&rest, &open) in last {
            bits.put_few(u64::from(rest), u32::from(open));
        }
    }
}

#[inline(always)]
fn join<W: Word>(
    classes: &[u8],
    open_bits: &[u8],
    direction: Direction,
    values: &mut [u8],
) -> Result<(), FormatError> {
    let largest = largest(8 * W::SIZE as u32);
    let found = classes.iter().fold(0, |most, &class| most.max(class));
    if found > largest {
        return Err(FormatError::corrupt(
            "class of an element",
            format!("at most {largest}"),
            found,
        ));
    }
    let mut position = 0usize;
    let mut block = [W::default(); BLOCK];
    for (at, classes) in (0..).step_by(BLOCK).zip(classes.chunks(BLOCK)) {
        let block = &mut block[..classes.len()];
        for (z, &class) in block.iter_mut().zip(classes) {
            let (open, head) = unclass(class);
            let mut rest = load(open_bits, position / 8) >> (position % 8);
            if W::SIZE == 8 && open > 56 {
                // One load doesn't hold this many bits at every offset. The eight highest bits are loaded separately.
                rest &= (1 << 53) - 1;
                rest |= (load(open_bits, (position + 53) / 8) >> ((position + 53) % 8)) << 53;
            }
            *z = W::narrow(head | (rest & ((1 << open) - 1)));
            position += open as usize;
        }
        put(block, direction, at, values);
    }
    let expected = position.div_ceil(8);
    if expected == open_bits.len() {
        Ok(())
    } else {
        Err(FormatError::corrupt(
            "bytes of open bits",
            expected,
            open_bits.len(),
        ))
    }
}

/// Eight bytes from `at` on, with zeros after the end. The length check finds missing bytes.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..at + 8) {
        Some(&[a, b, c, d, e, f, g, h]) => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => load_end(bytes, at),
    }
}

#[cold]
fn load_end(bytes: &[u8], at: usize) -> u64 {
    let end = bytes.get(at..).unwrap_or(&[]);
    end.iter()
        .rev()
        .fold(0, |word, &b| word << 8 | u64::from(b))
}

/// Number of elements sampled to choose a form.
const SAMPLE: usize = 1024;
/// With fewer samples than this, no form is ruled out.
const FEW: u64 = 64;

/// Whether the open bits would be incompressible. If parameters lie on a grid (bf16 numbers kept as float32), the open bits aren't noise,
/// and byte planes are far smaller. The test samples the lowest stored bytes and counts the pairs that are equal: in noise, one pair of
/// 256. The answer depends on the bytes alone.
pub(crate) fn open_bits_are_noise(dtype: DType, source: ChunkSource<'_>, elements: usize) -> bool {
    match dtype {
        DType::F32 => noise::<u32>(source, elements),
        DType::F64 => noise::<u64>(source, elements),
        DType::Bf16 | DType::F16 => noise::<u16>(source, elements),
    }
}

fn noise<W: Word>(source: ChunkSource<'_>, elements: usize) -> bool {
    let mut counts = [0u32; 256];
    let mut block = [W::default(); SAMPLE / 4];
    // Four runs spread over the chunk, because tensors that share a chunk differ.
    let runs = if elements <= SAMPLE { 1 } else { 4 };
    for i in 0..runs {
        let n = (SAMPLE / 4).min(elements);
        let block = &mut block[..n];
        take(source, i * (elements / 4), block);
        for z in block {
            // The lowest bit is the sign. It is skipped, because it inverts the bits above it: on a grid they are all zeros or all ones.
            let z = z.widen();
            if class(z).0 > 8 {
                counts[((z >> 1) & 0xff) as usize] += 1;
            }
        }
    }
    let n: u64 = counts.iter().map(|&c| u64::from(c)).sum();
    let agreeing: u64 = counts.iter().map(|&c| u64::from(c) * u64::from(c)).sum();
    // Sixteen times as many equal pairs as in noise: about four bits of entropy per byte.
    n < FEW || agreeing < n + n * (n - 1) / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(width: u32) -> Vec<u64> {
        let mask = u64::MAX >> (64 - width);
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        let mut out = vec![0, 1, 2, 7, 8, 9, mask, mask - 1, mask >> 1, (mask >> 1) + 1];
        for i in 0..5000u32 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            out.push((x & mask) >> (i % width));
        }
        out
    }

    fn every_number_comes_back<W: Word>(dtype: DType) {
        let width = 8 * W::SIZE as u32;
        let mut later = Vec::new();
        for z in numbers(width) {
            let mut bytes = [0; 8];
            W::narrow(z).write(&mut bytes[..W::SIZE]);
            later.extend_from_slice(&bytes[..W::SIZE]);
        }
        let elements = later.len() / W::SIZE;
        let earlier: Vec<u8> = later.iter().rev().copied().collect();
        for (source, begin, direction, end) in [
            (
                ChunkSource::Plain(&later),
                vec![0; later.len()],
                Direction::Set,
                &later,
            ),
            (
                ChunkSource::Change {
                    earlier: &earlier,
                    later: &later,
                },
                earlier.clone(),
                Direction::Forward,
                &later,
            ),
            (
                ChunkSource::Change {
                    earlier: &earlier,
                    later: &later,
                },
                later.clone(),
                Direction::Backward,
                &earlier,
            ),
        ] {
            let (mut classes, mut bits) = (vec![0; elements], vec![0xee]);
            to_magnitudes(dtype, source, &mut classes, &mut bits);
            let mut values = begin;
            from_magnitudes(dtype, &classes, &bits[1..], direction, &mut values).unwrap();
            assert!(&values == end, "{dtype:?} {direction:?}");
            // One byte too many, and one too few.
            let mut scratch = values.clone();
            assert!(from_magnitudes(dtype, &classes, &bits, direction, &mut scratch).is_err());
            assert!(from_magnitudes(dtype, &classes, &bits[2..], direction, &mut scratch).is_err());
            classes[3] = largest(width) + 1;
            assert!(from_magnitudes(dtype, &classes, &bits[1..], direction, &mut scratch).is_err());
        }
    }

    #[test]
    fn every_number_of_every_width_comes_back() {
        every_number_comes_back::<u16>(DType::Bf16);
        every_number_comes_back::<u32>(DType::F32);
        every_number_comes_back::<u64>(DType::F64);
    }

    #[test]
    fn classes_are_as_the_specification_says() {
        assert_eq!(class(0), (0, 0));
        assert_eq!(class(7), (0, 7));
        // 1000 and 1001: one open bit below 100.
        assert_eq!(class(8), (1, 8));
        assert_eq!(class(9), (1, 8));
        assert_eq!(class(0b1_1011_0110), (6, (6 << 2) + 0b110));
        for width in [16, 32, 64] {
            assert_eq!(class(u64::MAX >> (64 - width)).1, largest(width));
        }
        for z in numbers(64) {
            let (open, c) = class(z);
            assert_eq!(unclass(c), (open, z >> open << open));
        }
    }

    #[test]
    fn numbers_on_a_grid_are_not_taken_for_noise() {
        let bytes = |step: u32| -> Vec<u8> {
            (0..4000u32)
                .flat_map(|i| (0x3f80_0000 + i * step).to_le_bytes())
                .collect()
        };
        let (zeros, grid, fine) = (bytes(0), bytes(0x0001_0000), bytes(7919));
        let change = |later| ChunkSource::Change {
            earlier: &zeros,
            later,
        };
        assert!(!open_bits_are_noise(DType::F32, change(&grid), 4000));
        assert!(open_bits_are_noise(DType::F32, change(&fine), 4000));
        assert!(open_bits_are_noise(DType::F32, change(&zeros), 4000));
    }
}
