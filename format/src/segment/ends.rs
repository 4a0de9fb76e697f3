//! Reads the two ends of a segment file: the header at its beginning, the trailer and the index at its end.

use std::sync::Arc;

use super::entry::FrameEntry;
use super::footer::{TRAILER, Trailer};
use super::header::{Header, MAGIC, PREFIX, read_header, read_prefix};
use super::source::SegmentSource;
use crate::FormatError;
use crate::info::RunInfo;
use crate::storage::Storage;

/// The header, and its length in bytes. `known` is the run's description, if the caller already has it.
pub(super) fn read_start(
    source: &SegmentSource,
    storage: &dyn Storage,
    known: Option<&Arc<RunInfo>>,
) -> Result<(Header, usize), FormatError> {
    let mut scratch = Vec::new();
    let first = (PREFIX as u64).min(source.length()) as usize;
    let length = read_prefix(source.bytes(0, first, &mut scratch)?)?;
    crate::memory::json(storage, "the header of a segment", length as u64)?;
    let have = (length as u64).min(source.length()) as usize;
    let bytes = source.bytes(0, have, &mut scratch)?;
    let keys = storage.keys();
    let (mut header, length) = read_header(bytes, keys.as_deref(), known.map(|known| &**known))
        .map_err(|e| e.of_run(|| storage.location()))?;
    // Every segment repeats the description, so one copy is enough.
    if let Some(known) = known.filter(|known| ***known == *header.info) {
        header.info = Arc::clone(known);
    }
    Ok((header, length))
}

/// Whether the header has not been written completely. A header is stored in ascending order with its checksum last, so that only zeros
/// follow the written part.
pub(super) fn header_unwritten(source: &SegmentSource) -> Result<bool, FormatError> {
    let mut scratch = Vec::new();
    let first = (PREFIX as u64).min(source.length()) as usize;
    let from = match read_prefix(source.bytes(0, first, &mut scratch)?) {
        Ok(length) => length as u64 - 4,
        // The magic is stored first.
        Err(_) if source.length() >= PREFIX as u64 && source.holds(0, &MAGIC)? => PREFIX as u64 - 4,
        Err(_) => 0,
    };
    source.all_zero(from, &mut scratch)
}

/// The trailer.
pub(super) fn read_end(source: &SegmentSource) -> Result<Trailer, FormatError> {
    let length = source.length();
    if length < TRAILER as u64 {
        return Err(FormatError::Incomplete {
            file: String::new(),
            what: "trailer",
            have: length,
            need: TRAILER as u64,
        });
    }
    Trailer::read(
        source.bytes(length - TRAILER as u64, TRAILER, &mut Vec::new())?,
        length,
    )
}

/// The frames that the index lists.
pub(super) fn read_index(
    source: &SegmentSource,
    trailer: &Trailer,
    salt: u32,
) -> Result<Vec<FrameEntry>, FormatError> {
    let start = trailer.file_length - u64::from(trailer.footer_length);
    let length = trailer.footer_length as usize - TRAILER;
    trailer.entries(source.bytes(start, length, &mut Vec::new())?, salt)
}

/// The header of a file, if it begins with a complete segment header.
pub(crate) fn header_of(
    storage: &dyn Storage,
    name: &str,
    known: Option<&Arc<RunInfo>>,
) -> Option<Header> {
    let source = SegmentSource::of(storage, name).ok()?;
    read_start(&source, storage, known)
        .ok()
        .map(|(header, _)| header)
}

/// The trailer of a file, if it ends with that of a sealed segment.
pub(crate) fn trailer_of(storage: &dyn Storage, name: &str) -> Option<Trailer> {
    read_end(&SegmentSource::of(storage, name).ok()?).ok()
}
