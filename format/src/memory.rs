//! Upper bounds on the memory for reading a run. A bound follows from the run's layout and from the lengths of its
//! texts and indices. It is known, and checked, before anything of that size is allocated.

use crate::FormatError;
use crate::layout::Layout;
use crate::storage::Storage;

/// Bytes that a reader needs for any run: the program, decompressors, chunks, lists of findings.
pub(crate) const FIXED: u64 = 64 << 20;
/// Bytes of memory per byte of JSON (the manifest, or the description in a segment's header): the text, the parsed
/// value, and copies of it.
const JSON: u64 = 64;
/// The same during recovery, which also builds the description of the new run.
const JSON_TWICE: u64 = 160;
/// Bytes of memory per byte of a segment's index.
const INDEX: u64 = 4;
/// Bytes of memory per byte of a step's metadata: the stored form, the decoded form, and the form that is written
/// again.
const METADATA: u64 = 16;
/// Bytes of memory per byte of a frame in an unsealed segment, which isn't mapped.
const FRAME: u64 = 2;

/// A kind of work on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Reads steps, in either direction.
    Read,
    /// Checks every byte.
    Verify,
    /// Writes the readable part as a new run, and reads it back.
    Recover,
}

impl Work {
    /// Largest number of full states (parameters, buffers, and optimizer state of keyframes) in memory at one time.
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

    /// Upper bound in bytes on the memory for this work on a run with that layout and a manifest of `manifest` bytes.
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

/// Refuses work that needs more than `limit`. `place` gives the path and the refused operation for the error.
fn within(
    limit: Option<u64>,
    needs: u64,
    place: impl FnOnce() -> (String, String),
) -> Result<(), FormatError> {
    match limit {
        Some(limit) if needs > limit => {
            let (path, what) = place();
            Err(FormatError::Memory {
                path,
                what,
                needs,
                limit,
            })
        }
        _ => Ok(()),
    }
}

/// Checked before states are allocated.
pub(crate) fn states(
    storage: &dyn Storage,
    work: Work,
    layout: &Layout,
    manifest: u64,
) -> Result<(), FormatError> {
    within(storage.memory(), work.bound(layout, manifest), || {
        let what = format!(
            "{} (at most {} states of {} bytes at a time)",
            work.words(),
            work.states(),
            layout.frame_bytes() as u64 + layout.key_bytes() as u64
        );
        (storage.location(), what)
    })
}

fn multiple(storage: &dyn Storage, what: &str, length: u64, times: u64) -> Result<(), FormatError> {
    let needs = FIXED.saturating_add(times.saturating_mul(length));
    within(storage.memory(), needs, || {
        (storage.location(), format!("{what} of {length} bytes"))
    })
}

/// Checked before a manifest or a segment's header is read.
pub(crate) fn json(storage: &dyn Storage, what: &str, length: u64) -> Result<(), FormatError> {
    multiple(storage, what, length, JSON)
}

/// Checked before a segment's index is read.
pub(crate) fn index(storage: &dyn Storage, length: u64) -> Result<(), FormatError> {
    multiple(storage, "the index of a segment", length, INDEX)
}

/// Checked before a step's metadata is decoded.
pub(crate) fn metadata(storage: &dyn Storage, length: u64) -> Result<(), FormatError> {
    multiple(storage, "a step's metadata", length, METADATA)
}

/// Checked before rows of batches are decompressed. `bytes` are those of all rows in memory.
pub(crate) fn rows(limit: Option<u64>, bytes: u64) -> Result<(), FormatError> {
    within(limit, FIXED.saturating_add(bytes), || {
        let what = format!("loading {bytes} bytes of recorded rows");
        ("the rows of the run".to_owned(), what)
    })
}

/// Checked before a piece of an unmapped segment is read. `limit` is the storage's [`memory`](Storage::memory).
pub(crate) fn piece(path: &str, limit: Option<u64>, length: u64) -> Result<(), FormatError> {
    let needs = FIXED.saturating_add(FRAME.saturating_mul(length));
    within(limit, needs, || {
        (path.to_owned(), format!("a frame of {length} bytes"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_refused_with_the_memory_that_it_needs_and_the_limit() {
        let limit = FIXED + FRAME * 1000;
        piece("run/segment", Some(limit), 1000).unwrap();
        piece("run/segment", None, u64::MAX).unwrap();
        let refused = piece("run/segment", Some(limit), 1001).unwrap_err();
        let FormatError::Memory {
            needs,
            limit: stated,
            ..
        } = refused
        else {
            panic!("{refused}");
        };
        assert_eq!((needs, stated), (limit + FRAME, limit));
    }
}
