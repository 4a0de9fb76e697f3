//! How much memory reading a run takes at most. The bound follows from the run's layout and from the lengths of what is read as text or kept
//! as an index, so it is known before anything of that size is allocated, and is checked then.

use crate::FormatError;
use crate::layout::Layout;
use crate::storage::Storage;

/// What a reader takes whatever it reads: the program, decompressors, chunks, lists of findings.
pub(crate) const FIXED: u64 = 64 << 20;
/// Bytes of memory for a byte of JSON (the manifest, or the description in a segment's header): the text, what it says, and copies of that.
const JSON: u64 = 64;
/// The same while a run is recovered: the new one is described, too.
const JSON_TWICE: u64 = 160;
/// Bytes of memory for a byte of a segment's index.
const INDEX: u64 = 4;
/// Bytes of memory for a byte of a step's metadata: as stored, as read, and as it is written again.
const METADATA: u64 = 16;
/// Bytes of memory for a byte of a frame that is read from an unsealed segment, which isn't mapped.
const FRAME: u64 = 2;

/// What is done with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Steps are read, in either direction.
    Read,
    /// Every byte is checked.
    Verify,
    /// What is left is written as a new run, and read back.
    Recover,
}

impl Work {
    /// Full states (parameters, buffers, and what keyframes hold beside them) that are in memory at one time, at most.
    pub fn states(self) -> u64 {
        match self {
            Work::Read | Work::Verify => 3,
            Work::Recover => 7,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Work::Read => "reading this run's steps",
            Work::Verify => "verifying this run",
            Work::Recover => "recovering this run",
        }
    }

    /// The most memory, in bytes, that this takes for a run of that layout, whose manifest has so many bytes.
    pub fn bound(self, layout: &Layout, manifest: u64) -> u64 {
        let state = layout.frame_bytes() as u64 + layout.key_bytes() as u64;
        let json = match self {
            Work::Read | Work::Verify => JSON,
            Work::Recover => JSON_TWICE,
        };
        FIXED
            .saturating_add(self.states().saturating_mul(state))
            .saturating_add(json.saturating_mul(manifest))
    }
}

fn check(storage: &dyn Storage, what: String, needs: u64) -> Result<(), FormatError> {
    match storage.memory() {
        Some(limit) if needs > limit => Err(FormatError::Memory {
            path: storage.location(),
            what,
            needs,
            limit,
        }),
        _ => Ok(()),
    }
}

/// Before states are made.
pub(crate) fn states(
    storage: &dyn Storage,
    work: Work,
    layout: &Layout,
    manifest: u64,
) -> Result<(), FormatError> {
    let what = format!(
        "{} (at most {} states of {} bytes at a time)",
        work.words(),
        work.states(),
        layout.frame_bytes() as u64 + layout.key_bytes() as u64
    );
    check(storage, what, work.bound(layout, manifest))
}

fn multiple(storage: &dyn Storage, what: &str, length: u64, times: u64) -> Result<(), FormatError> {
    let needs = FIXED.saturating_add(times.saturating_mul(length));
    check(storage, format!("{what} of {length} bytes"), needs)
}

/// Before a manifest or a segment's header is read.
pub(crate) fn json(storage: &dyn Storage, what: &str, length: u64) -> Result<(), FormatError> {
    multiple(storage, what, length, JSON)
}

/// Before a segment's index is read.
pub(crate) fn index(storage: &dyn Storage, length: u64) -> Result<(), FormatError> {
    multiple(storage, "the index of a segment", length, INDEX)
}

/// Before a step's metadata is decoded.
pub(crate) fn metadata(storage: &dyn Storage, length: u64) -> Result<(), FormatError> {
    multiple(storage, "a step's metadata", length, METADATA)
}

/// The most bytes of an unmapped frame that may be read at once.
pub(crate) fn longest_piece(storage: &dyn Storage) -> u64 {
    storage
        .memory()
        .map_or(u64::MAX, |limit| limit.saturating_sub(FIXED) / FRAME)
}
