//! A segment's header. Its first 20 bytes are frozen for all versions of the format.

use std::sync::Arc;

use crate::FormatError;
use crate::bytes::{u32_at, u64_at};
use crate::error::hex32;
use crate::info::{ENCRYPTED, NEWEST, RunInfo};
use crate::secret::{Keys, Locked, lock, unlock};

/// First eight bytes of every segment: a byte that doesn't occur in text, a name, and line ends that a text-mode transfer would change.
pub(crate) const MAGIC: [u8; 8] = *b"\x89HCS\r\n\x1a\n";
/// Bytes of the prefix: magic, version, header length, and their checksum.
pub(crate) const PREFIX: usize = 20;
/// Bytes of the prefix and the fixed fields; the run's description follows.
const FIXED: usize = 80;
/// Largest header, in bytes.
pub(crate) const MAX_HEADER: u32 = 1 << 26;

/// The content of a segment's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whether the segment holds the final state, and no steps.
    pub is_final: bool,
    pub number: u64,
    /// How many times the run had been cut back when this segment was written.
    pub fork: u32,
    pub first_step: u64,
    /// Digest of the previous segment; zeros in the first one.
    pub previous: [u8; 32],
    pub info: Arc<RunInfo>,
}

pub(crate) fn write_header(header: &Header) -> Result<Vec<u8>, FormatError> {
    let info = match &header.info.encryption {
        None => serde_json::to_vec(&*header.info),
        Some(encryption) => serde_json::to_vec(&lock(&header.info, encryption)?),
    };
    let info =
        info.map_err(|e| FormatError::io("run description", "write the JSON of", e.into()))?;
    let length = FIXED + info.len() + 4;
    if length > MAX_HEADER as usize {
        return Err(FormatError::Limit {
            what: "bytes of a segment header",
            found: length as u64,
            limit: u64::from(MAX_HEADER),
        });
    }
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&header.info.version().to_le_bytes());
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out.extend_from_slice(&u32::from(header.is_final).to_le_bytes());
    out.extend_from_slice(&header.number.to_le_bytes());
    out.extend_from_slice(&header.fork.to_le_bytes());
    out.extend_from_slice(&(info.len() as u32).to_le_bytes());
    out.extend_from_slice(&header.first_step.to_le_bytes());
    out.extend_from_slice(&header.previous);
    out.extend_from_slice(&info);
    let crc = crc32c::crc32c(out.get(PREFIX..).unwrap_or(&[]));
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn short(what: &'static str, have: usize, need: usize) -> FormatError {
    FormatError::Incomplete {
        file: String::new(),
        what,
        have: have as u64,
        need: need as u64,
    }
}

/// Checks the prefix; returns the header's length in bytes.
pub(crate) fn read_prefix(bytes: &[u8]) -> Result<usize, FormatError> {
    let Some(prefix) = bytes.get(..PREFIX) else {
        return Err(short("segment header", bytes.len(), PREFIX));
    };
    if prefix[..8] != MAGIC {
        return Err(FormatError::corrupt(
            "segment magic",
            crate::hex(&MAGIC),
            crate::hex(&prefix[..8]),
        ));
    }
    // The checksum first: a flipped bit in the version must not read as a newer version.
    let crc = crc32c::crc32c(&prefix[..16]);
    if crc != u32_at(prefix, 16) {
        return Err(FormatError::corrupt(
            "checksum of the segment's first 16 bytes",
            hex32(u32_at(prefix, 16)),
            hex32(crc),
        ));
    }
    let version = u32_at(prefix, 8);
    if version == 0 || version > NEWEST {
        return Err(FormatError::NewerVersion {
            file: String::new(),
            found: version,
            supported: NEWEST,
        });
    }
    let length = u32_at(prefix, 12);
    if length < (FIXED + 4) as u32 || length > MAX_HEADER {
        return Err(FormatError::corrupt(
            "segment header length",
            format!("{} to {MAX_HEADER}", FIXED + 4),
            length,
        ));
    }
    Ok(length as usize)
}

/// Reads the header; returns it and its length in bytes. `known` is the run's description, if the caller already has it.
pub(crate) fn read_header(
    bytes: &[u8],
    keys: Option<&dyn Keys>,
    known: Option<&RunInfo>,
) -> Result<(Header, usize), FormatError> {
    let length = read_prefix(bytes)?;
    let Some(h) = bytes.get(..length) else {
        return Err(short("segment header", bytes.len(), length));
    };
    let crc = crc32c::crc32c(&h[PREFIX..length - 4]);
    if crc != u32_at(h, length - 4) {
        return Err(FormatError::corrupt(
            "segment header checksum",
            hex32(u32_at(h, length - 4)),
            hex32(crc),
        ));
    }
    let kind = u32_at(h, 20);
    if kind > 1 {
        return Err(FormatError::corrupt("segment kind", "0 or 1", kind));
    }
    let info = &h[FIXED..length - 4];
    if u32_at(h, 36) as usize != info.len() {
        return Err(FormatError::corrupt(
            "bytes of the run description in the segment header",
            info.len(),
            u32_at(h, 36),
        ));
    }
    let json = |e| {
        let what = "run description in the segment header";
        FormatError::corrupt(what, "a run's description as JSON", e)
    };
    let info: RunInfo = if u32_at(h, 8) == ENCRYPTED {
        let locked: Locked = serde_json::from_slice(info).map_err(json)?;
        let encryption = known.and_then(|known| known.encryption.as_ref());
        unlock(locked, keys, encryption).map_err(|e| match e {
            // The key of the run is known, so this is a segment of another run.
            FormatError::Locked { .. } if known.is_some() => FormatError::corrupt(
                "run description",
                "that of the run",
                "that of another, encrypted run",
            ),
            e => e,
        })?
    } else {
        serde_json::from_slice(info).map_err(json)?
    };
    let mut previous = [0; 32];
    previous.copy_from_slice(&h[48..80]);
    let header = Header {
        is_final: kind == 1,
        number: u64_at(h, 24),
        fork: u32_at(h, 32),
        first_step: u64_at(h, 40),
        previous,
        info: Arc::new(info),
    };
    Ok((header, length))
}
