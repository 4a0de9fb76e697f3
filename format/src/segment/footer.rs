//! A segment's footer: the index, a cache that a linear scan can rebuild, and the trailer, which seals the segment.

use super::entry::FrameEntry;
use super::source::SegmentSource;
use crate::FormatError;
use crate::bytes::{u32_at, u64_at};
use crate::error::hex32;
use crate::frame::FrameKind;

/// First four bytes of the footer.
pub(crate) const FOOTER_MAGIC: [u8; 4] = *b"HCIX";
const END_MAGIC: [u8; 8] = *b"HCSEALED";
/// Bytes of the trailer, which ends every sealed segment.
pub(crate) const TRAILER: usize = 60;
/// Bytes of the trailer that the segment's digest covers: all before the digest itself.
const HASHED: usize = 16;
/// Bytes of an index entry.
const ENTRY: usize = 16;

/// The end of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub index_crc: u32,
    pub footer_length: u32,
    pub file_length: u64,
    pub digest: [u8; 32],
}

/// The footer's bytes and the segment's digest. The frames end at byte `at`, and `hasher` has taken all bytes before it.
pub(crate) fn footer(
    entries: &[FrameEntry],
    at: u64,
    salt: u32,
    mut hasher: blake3::Hasher,
) -> (Vec<u8>, [u8; 32]) {
    let length = 8 + ENTRY * entries.len() + TRAILER;
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&FOOTER_MAGIC);
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        // A frame is at most 2^40 bytes long, so the kind fits in the top byte.
        let packed = entry.length | u64::from(entry.kind.code()) << 56;
        out.extend_from_slice(&packed.to_le_bytes());
        out.extend_from_slice(&entry.step.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(salt, &out);
    let start = out.len();
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&(at + length as u64).to_le_bytes());
    hasher.update(&out);
    let digest = *hasher.finalize().as_bytes();
    out.extend_from_slice(&digest);
    out.extend_from_slice(&END_MAGIC);
    let crc = crc32c::crc32c(out.get(start..).unwrap_or(&[]));
    out.extend_from_slice(&crc.to_le_bytes());
    (out, digest)
}

impl Trailer {
    /// Reads the last [`TRAILER`] bytes of a file of that length.
    pub fn read(bytes: &[u8], file_length: u64) -> Result<Trailer, FormatError> {
        if bytes.len() != TRAILER || bytes.get(48..56) != Some(&END_MAGIC[..]) {
            return Err(FormatError::corrupt(
                "end of a sealed segment",
                crate::hex(&END_MAGIC),
                crate::hex(bytes.get(48..56).unwrap_or(&[])),
            ));
        }
        let crc = crc32c::crc32c(&bytes[..56]);
        if crc != u32_at(bytes, 56) {
            return Err(FormatError::corrupt(
                "trailer checksum",
                hex32(u32_at(bytes, 56)),
                hex32(crc),
            ));
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[16..48]);
        let trailer = Trailer {
            index_crc: u32_at(bytes, 0),
            footer_length: u32_at(bytes, 4),
            file_length: u64_at(bytes, 8),
            digest,
        };
        if trailer.file_length != file_length {
            return Err(FormatError::corrupt(
                "length of a sealed segment",
                trailer.file_length,
                file_length,
            ));
        }
        if u64::from(trailer.footer_length) > file_length
            || (trailer.footer_length as usize) < 8 + TRAILER
        {
            return Err(FormatError::corrupt(
                "length of the segment's footer",
                format!("{} to {file_length}", 8 + TRAILER),
                trailer.footer_length,
            ));
        }
        Ok(trailer)
    }

    /// Number of bytes that the digest covers in a file of this length.
    pub fn hashed(file_length: u64) -> u64 {
        file_length.saturating_sub((TRAILER - HASHED) as u64)
    }

    /// Reads the index from the footer's bytes without the trailer. Frames are contiguous and end where the footer begins.
    pub fn entries(&self, index: &[u8], salt: u32) -> Result<Vec<FrameEntry>, FormatError> {
        let crc = crc32c::crc32c_append(salt, index);
        if crc != self.index_crc {
            return Err(FormatError::corrupt(
                "index checksum",
                hex32(self.index_crc),
                hex32(crc),
            ));
        }
        if index.get(..4) != Some(&FOOTER_MAGIC[..]) {
            return Err(FormatError::corrupt(
                "index magic",
                crate::hex(&FOOTER_MAGIC),
                crate::hex(index.get(..4).unwrap_or(&[])),
            ));
        }
        let count = u32_at(index, 4) as usize;
        if index.len() != 8 + ENTRY * count {
            return Err(FormatError::corrupt(
                "index length",
                8 + ENTRY * count,
                index.len(),
            ));
        }
        let frames_end = self.file_length - u64::from(self.footer_length);
        let mut entries = Vec::with_capacity(count);
        let mut total = 0u64;
        for raw in index[8..].chunks_exact(ENTRY) {
            let packed = u64_at(raw, 0);
            let length = packed & ((1 << 56) - 1);
            let kind = FrameKind::from_code((packed >> 56) as u8).ok_or_else(|| {
                FormatError::corrupt("frame kind in the index", "1 to 5", packed >> 56)
            })?;
            total = total
                .checked_add(length)
                .filter(|&t| t <= frames_end)
                .ok_or_else(|| {
                    let most = format!("at most {frames_end} bytes together");
                    FormatError::corrupt("frame lengths in the index", most, "more")
                })?;
            entries.push(FrameEntry {
                offset: 0,
                length,
                step: u64_at(raw, 8),
                kind,
            });
        }
        let mut offset = frames_end - total;
        for entry in &mut entries {
            entry.offset = offset;
            offset += entry.length;
        }
        Ok(entries)
    }
}

/// Whether a footer with a valid index begins at `at`. Used where the end of the file is damaged.
pub(super) fn footer_at(source: &SegmentSource, at: u64, salt: u32) -> Result<bool, FormatError> {
    const HEAD: usize = 8;
    const CRC: u64 = 4;
    let mut scratch = Vec::new();
    if source.length() < at + HEAD as u64 + CRC {
        return Ok(false);
    }
    let count = u32_at(source.bytes(at, HEAD, &mut scratch)?, 4);
    let length = HEAD as u64 + ENTRY as u64 * u64::from(count);
    if at + length + CRC > source.length() {
        return Ok(false);
    }
    let bytes = source.bytes(at, (length + CRC) as usize, &mut scratch)?;
    let (index, crc) = bytes.split_at(length as usize);
    Ok(crc32c::crc32c_append(salt, index) == u32_at(crc, 0))
}
