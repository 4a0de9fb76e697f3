//! The extension record with rows, as bytes. docs/format.md specifies them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use super::layout::RowLayout;
use crate::FormatError;

/// Largest size of a record's rows and digests, in bytes. With it, a step's metadata stays below its limit.
pub const MAX_RECORD_BYTES: u64 = 1 << 27;
/// Largest index of a row plus one.
const MAX_ROWS: u64 = 1 << 32;
/// Bytes of an index and a digest.
const ENTRY: usize = 40;
/// zstd's level for rows.
const LEVEL: i32 = 1;

/// The part of the data to which a row belongs. The discriminants are the codes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowSplit {
    /// Training examples.
    Train = 0,
    /// Validation examples.
    Validation = 1,
    /// Test examples.
    Test = 2,
}

impl RowSplit {
    /// All splits, in the order of their codes.
    pub const ALL: [RowSplit; 3] = [RowSplit::Train, RowSplit::Validation, RowSplit::Test];

    /// `train`, `validation` or `test`.
    pub const fn name(self) -> &'static str {
        match self {
            RowSplit::Train => "train",
            RowSplit::Validation => "validation",
            RowSplit::Test => "test",
        }
    }
}

/// Rows that a step's metadata holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRecord {
    /// The part of the data.
    pub split: RowSplit,
    /// Type and shape of each row.
    pub layout: RowLayout,
    /// One more than the largest index that the run has given to a row of this split so far.
    pub next: u64,
    /// Index of each row.
    pub indices: Vec<u64>,
    /// Digest of each row.
    pub digests: Vec<[u8; 32]>,
    /// The rows back to back. `None` if only their digests are recorded.
    pub rows: Option<Arc<Vec<u8>>>,
}

impl RowRecord {
    /// The record's bytes. Rows are compressed where that makes them shorter.
    pub(super) fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let same = FormatError::unless_equal;
        let n = self.indices.len();
        same("digests of a record of rows", n, self.digests.len())?;
        if self.next > MAX_ROWS {
            return Err(FormatError::Limit {
                what: "number of rows of a split",
                found: self.next,
                limit: MAX_ROWS,
            });
        }
        check_indices(&self.indices, self.next)?;
        let raw = n * self.layout.bytes();
        if let Some(rows) = &self.rows {
            same("bytes of a record's rows", raw, rows.len())?;
        }
        let held = self.rows.as_ref().map_or(0, |rows| rows.len());
        let size = (held + n * ENTRY) as u64;
        if size > MAX_RECORD_BYTES {
            return Err(FormatError::Limit {
                what: "bytes of the rows in a step's metadata",
                found: size,
                limit: MAX_RECORD_BYTES,
            });
        }
        let (coding, rows): (u8, Cow<'_, [u8]>) = match &self.rows {
            None => (0, Cow::Borrowed(&[])),
            Some(rows) => match zstd::bulk::compress(rows, LEVEL) {
                Ok(short) if short.len() < rows.len() => (2, Cow::Owned(short)),
                _ => (1, Cow::Borrowed(rows.as_slice())),
            },
        };
        let mut out = Vec::with_capacity(64 + n * ENTRY + rows.len());
        out.extend_from_slice(&[self.split as u8, coding, 0, 0]);
        self.layout.write(&mut out);
        out.extend_from_slice(&self.next.to_le_bytes());
        out.extend_from_slice(&(n as u64).to_le_bytes());
        for index in &self.indices {
            out.extend_from_slice(&index.to_le_bytes());
        }
        out.extend_from_slice(self.digests.as_flattened());
        out.extend_from_slice(&rows);
        Ok(out)
    }
}

/// A record as it is stored. The rows may still be compressed.
pub(crate) struct Stored<'a> {
    pub split: RowSplit,
    pub layout: RowLayout,
    pub next: u64,
    pub indices: Vec<u64>,
    pub digests: &'a [[u8; 32]],
    coding: Coding,
    rows: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Raw,
    Zstd,
}

/// Refuses indices that a record can't have: each is below `next` and occurs once.
fn check_indices(indices: &[u64], next: u64) -> Result<(), FormatError> {
    if let Some(index) = indices.iter().find(|&&index| index >= next) {
        return Err(damaged(&format!("indices below {next}"), index));
    }
    // Writers number rows in ascending order, except in a ring.
    if indices.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(indices.len());
    match indices.iter().find(|&index| !seen.insert(index)) {
        Some(twice) => Err(damaged("each index at most once", format!("{twice} twice"))),
        None => Ok(()),
    }
}

pub(super) fn damaged(expected: &str, got: impl std::fmt::Display) -> FormatError {
    FormatError::corrupt("rows of a step", expected, got)
}

impl<'a> Stored<'a> {
    /// Reads everything but the rows.
    pub fn parse(bytes: &'a [u8]) -> Result<Stored<'a>, FormatError> {
        let short = || damaged("a complete record", format!("{} bytes", bytes.len()));
        let (&[split, coding, zero, zeros], rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let split = match split {
            0 => RowSplit::Train,
            1 => RowSplit::Validation,
            2 => RowSplit::Test,
            other => return Err(damaged("a split from 0 to 2", other)),
        };
        let coding = match (coding, zero, zeros) {
            (0, 0, 0) => Coding::None,
            (1, 0, 0) => Coding::Raw,
            (2, 0, 0) => Coding::Zstd,
            other => {
                return Err(damaged(
                    "a coding from 0 to 2 and two zeros",
                    format!("{other:?}"),
                ));
            }
        };
        let (layout, rest) = RowLayout::read(rest).ok_or_else(|| {
            let head = crate::hex(rest.get(..16).unwrap_or(rest));
            damaged(
                "types and shapes of 1 to 64 tensors, whose row has at most 2^27 bytes",
                format!("bytes that begin with {head}"),
            )
        })?;
        let (next, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (count, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (next, count) = (u64::from_le_bytes(*next), u64::from_le_bytes(*count));
        if next > MAX_ROWS {
            return Err(damaged("at most 2^32 rows", next));
        }
        let entries = usize::try_from(count)
            .ok()
            .filter(|&n| n <= rest.len() / ENTRY)
            .ok_or_else(short)?;
        let (indices, rest) = rest.split_at(8 * entries);
        let (digests, rows) = rest.split_at(32 * entries);
        let indices: Vec<u64> = indices
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .collect();
        check_indices(&indices, next)?;
        let record = Stored {
            split,
            layout,
            next,
            indices,
            digests: digests.as_chunks().0,
            coding,
            rows,
        };
        let raw = record.raw_bytes();
        let fits = match coding {
            Coding::None => rows.is_empty(),
            Coding::Raw => rows.len() as u64 == raw,
            Coding::Zstd => raw <= MAX_RECORD_BYTES,
        };
        if !fits {
            let got = format!("{} stored bytes for {raw} bytes of rows", rows.len());
            return Err(damaged("rows that fit their number and shape", got));
        }
        Ok(record)
    }

    /// Whether the record holds the rows, and not only their digests.
    pub fn has_rows(&self) -> bool {
        self.coding != Coding::None
    }

    /// Size of the rows in bytes, uncompressed.
    pub fn raw_bytes(&self) -> u64 {
        if self.coding == Coding::None {
            return 0;
        }
        (self.indices.len() as u64).saturating_mul(self.layout.bytes() as u64)
    }

    /// The rows back to back, after comparing each with its digest. Empty if only digests are recorded.
    pub fn rows(&self) -> Result<Cow<'a, [u8]>, FormatError> {
        let rows = match self.coding {
            Coding::None => return Ok(Cow::Borrowed(&[])),
            Coding::Raw => Cow::Borrowed(self.rows),
            Coding::Zstd => {
                let mut rows = vec![0; self.raw_bytes() as usize];
                let length = zstd::bulk::decompress_to_buffer(self.rows, &mut rows)
                    .map_err(|e| damaged("a zstd frame of rows", e))?;
                if length != rows.len() {
                    return Err(damaged(&format!("{} bytes of rows", rows.len()), length));
                }
                Cow::Owned(rows)
            }
        };
        let hasher = self.layout.hasher();
        let each = rows.chunks_exact(self.layout.bytes());
        for ((row, digest), index) in each.zip(self.digests).zip(&self.indices) {
            let found = *hasher.clone().update(row).finalize().as_bytes();
            if found != *digest {
                let expected = format!("row {index} with the digest {}", crate::hex(digest));
                return Err(damaged(&expected, crate::hex(&found)));
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{RowTensor, RowType};
    use super::*;

    fn record(rows: &[[u8; 4]], stored: bool) -> RowRecord {
        let tensor = |shape: &[usize]| RowTensor {
            dtype: RowType::U8,
            shape: shape.to_vec(),
        };
        let layout = RowLayout::new(vec![tensor(&[3]), tensor(&[])]).unwrap();
        RowRecord {
            split: RowSplit::Validation,
            next: 10 + rows.len() as u64,
            indices: (10..).take(rows.len()).collect(),
            digests: rows.iter().map(|row| layout.digest(row)).collect(),
            rows: stored.then(|| Arc::new(rows.as_flattened().to_vec())),
            layout,
        }
    }

    #[test]
    fn a_record_comes_back_in_every_coding() {
        let noise: Vec<[u8; 4]> = (0..9u8)
            .map(|i| [i * 29, i.wrapping_mul(i * 7), !i, i ^ 90])
            .collect();
        for (record, coding) in [
            (record(&[[7; 4]; 40], true), Coding::Zstd),
            (record(&noise, true), Coding::Raw),
            (record(&noise, false), Coding::None),
            (record(&[], true), Coding::Raw),
        ] {
            let bytes = record.encode().unwrap();
            let read = Stored::parse(&bytes).unwrap();
            assert_eq!(read.coding, coding);
            assert_eq!((read.split, read.next), (record.split, record.next));
            assert_eq!(read.layout, record.layout);
            assert_eq!(read.indices, record.indices);
            assert_eq!(read.digests, record.digests);
            let rows = record.rows.as_ref().map_or(&[][..], |rows| rows.as_slice());
            assert_eq!(*read.rows().unwrap(), *rows);
            for end in 0..bytes.len() {
                let read = Stored::parse(&bytes[..end]).and_then(|read| read.rows().map(drop));
                assert!(read.is_err(), "{end} of {} bytes", bytes.len());
            }
        }
    }

    #[test]
    fn no_changed_byte_gives_other_rows() {
        for rows in [vec![[7; 4]; 40], vec![[1, 2, 3, 4], [250, 17, 99, 3]]] {
            let bytes = record(&rows, true).encode().unwrap();
            // `next` and the indices are part of no digest; the metadata's checksum covers them.
            let next = 4 + 4 + (8 + 8 + 8);
            let unchecked = |at: usize| {
                (next..next + 8).contains(&at)
                    || (next + 16..next + 16 + 8 * rows.len()).contains(&at)
            };
            for at in (1..bytes.len()).filter(|at| !unchecked(*at)) {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let read = Stored::parse(&changed)
                    .and_then(|record| record.rows().map(|rows| rows.into_owned()));
                // Two zstd frames can have the same content.
                if let Ok(read) = read {
                    assert_eq!(read, rows.as_flattened(), "byte {at}");
                }
            }
        }
    }

    #[test]
    fn hostile_counts_allocate_nothing() {
        let mut bytes = record(&[[7; 4]; 40], true).encode().unwrap();
        let count = 4 + 4 + (8 + 8 + 8) + 8;
        bytes[count..count + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Stored::parse(&bytes).is_err());
    }

    #[test]
    fn lists_that_do_not_fit_together_are_refused() {
        let mut short = record(&[[7; 4]; 4], true);
        short.digests.pop();
        assert!(short.encode().unwrap_err().to_string().contains("digests"));
        let mut long = record(&[[7; 4]; 4], true);
        long.rows = Some(Arc::new(vec![0; 17]));
        assert!(long.encode().unwrap_err().to_string().contains("bytes"));
    }

    /// What every reader refuses isn't written, and what was written in spite of it is refused.
    #[test]
    fn indices_that_no_reader_accepts_are_refused_in_both_directions() {
        let good = record(&[[7; 4]; 4], true);
        let at = 4 + 4 + (8 + 8 + 8);
        let indices = at + 16;
        for (change, place, word, why) in [
            ("next", at, MAX_ROWS + 1, "4294967297"),
            ("index", indices + 8, good.next, "got 14"),
            ("twice", indices + 8, 10, "got 10 twice"),
        ] {
            let mut wrong = good.clone();
            match change {
                "next" => wrong.next = word,
                _ => wrong.indices[1] = word,
            }
            let refused = wrong.encode().unwrap_err().to_string();
            assert!(refused.contains(why), "{change}: {refused}");
            let mut bytes = good.encode().unwrap();
            bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
            let refused = Stored::parse(&bytes).err().unwrap();
            assert!(refused.is_damage(), "{refused}");
            assert!(refused.to_string().contains(why), "{change}: {refused}");
        }
        // Rows of a ring come in the order of their use.
        let mut ring = good.clone();
        ring.indices.reverse();
        assert_eq!(
            Stored::parse(&ring.encode().unwrap()).unwrap().indices,
            [13, 12, 11, 10]
        );
    }
}
