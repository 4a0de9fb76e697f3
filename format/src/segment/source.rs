//! Bytes of a segment file, mapped or read at positions.

use crate::FormatError;
use crate::storage::{Mapped, ReadFile, Storage};

/// Bytes examined at a time when searching.
pub(super) const STRIDE: usize = 1 << 16;

/// Where a segment's bytes come from.
pub(crate) enum SegmentSource {
    /// A sealed segment.
    Map(Mapped),
    /// A segment that may still grow. It is read up to the length that it had when it was opened.
    File {
        file: Box<dyn ReadFile>,
        length: u64,
        path: String,
        /// Limit in bytes on the memory of the run's readers, if there is one.
        memory: Option<u64>,
    },
}

impl SegmentSource {
    /// A file in its current state.
    pub fn of(storage: &dyn Storage, name: &str) -> Result<SegmentSource, FormatError> {
        let path = format!("{}/{name}", storage.location());
        let file = storage
            .open(name)
            .map_err(|e| FormatError::opening(&path, e))?;
        let length = file
            .length()
            .map_err(|e| FormatError::io(path.clone(), "get the size of", e))?;
        Ok(SegmentSource::File {
            file,
            length,
            path,
            memory: storage.memory(),
        })
    }

    /// Only the first `most` bytes.
    pub fn shortened(self, most: u64) -> SegmentSource {
        match self {
            SegmentSource::Map(map) => SegmentSource::Map(map.shortened(most)),
            SegmentSource::File {
                file,
                length,
                path,
                memory,
            } => SegmentSource::File {
                file,
                length: length.min(most),
                path,
                memory,
            },
        }
    }

    pub fn length(&self) -> u64 {
        match self {
            SegmentSource::Map(bytes) => bytes.len() as u64,
            SegmentSource::File { length, .. } => *length,
        }
    }

    /// The position of the first byte from `at` on that may be nonzero, or the end.
    pub fn data_from(&self, at: u64) -> u64 {
        match self {
            SegmentSource::Map(_) => at,
            SegmentSource::File { file, length, .. } => file.data_from(at).min(*length),
        }
    }

    /// Whether a recorder may be writing the file.
    pub fn may_grow(&self) -> bool {
        matches!(self, SegmentSource::File { .. })
    }

    /// `length` bytes from `offset` on: a part of the map, or bytes read into `scratch`.
    pub fn bytes<'a>(
        &'a self,
        offset: u64,
        length: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FormatError> {
        let short = || FormatError::Incomplete {
            file: String::new(),
            what: "segment",
            have: self.length().saturating_sub(offset),
            need: length as u64,
        };
        // Checked before the allocation: a length stated in the file can't cost more memory than the file has bytes.
        if offset
            .checked_add(length as u64)
            .is_none_or(|end| end > self.length())
        {
            return Err(short());
        }
        match self {
            SegmentSource::Map(bytes) => bytes
                .get(offset as usize..offset as usize + length)
                .ok_or_else(short),
            SegmentSource::File {
                file, path, memory, ..
            } => {
                crate::memory::piece(path, *memory, length as u64)?;
                scratch.resize(length, 0);
                file.read_at(offset, scratch)
                    .map_err(|e| FormatError::io(path.clone(), "read", e))?;
                Ok(scratch)
            }
        }
    }

    /// Whether these bytes are at `at`.
    pub fn holds(&self, at: u64, expected: &[u8]) -> Result<bool, FormatError> {
        Ok(self.bytes(at, expected.len(), &mut Vec::new())? == expected)
    }

    /// Whether every byte from `at` on is zero.
    pub fn all_zero(&self, mut at: u64, scratch: &mut Vec<u8>) -> Result<bool, FormatError> {
        loop {
            at = self.data_from(at);
            if at >= self.length() {
                return Ok(true);
            }
            let n = (self.length() - at).min(STRIDE as u64) as usize;
            if self.bytes(at, n, scratch)?.iter().any(|&b| b != 0) {
                return Ok(false);
            }
            at += n as u64;
        }
    }

    /// Feeds the first `end` bytes to `hasher`.
    pub fn hash_to(&self, end: u64, hasher: &mut blake3::Hasher) -> Result<(), FormatError> {
        const PIECE: u64 = 1 << 20;
        let mut scratch = Vec::new();
        let mut at = 0;
        while at < end {
            let n = (end - at).min(PIECE);
            hasher.update(self.bytes(at, n as usize, &mut scratch)?);
            at += n;
        }
        Ok(())
    }
}
