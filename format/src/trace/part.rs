//! What a trace knows about one of its segments.

use std::ops::Range;
use std::sync::Arc;

use crate::segment::{Segment, Tail};

/// A segment of the trace, not necessarily loaded.
#[derive(Clone)]
pub(crate) struct Part {
    pub number: u64,
    pub name: String,
    /// First step, and one more than the last, gaps included.
    pub range: Range<u64>,
    pub steps: u64,
    pub gaps: u64,
    pub bytes: u64,
    pub sealed: bool,
    pub is_final: bool,
    /// The segment, if it was scanned because the manifest doesn't list it.
    pub loaded: Option<Arc<Segment>>,
}

/// A loaded segment as a part. In a segment without an end, frames after damage can't be decoded, so they are left out.
pub(super) fn part(number: u64, mut segment: Segment) -> Part {
    let sealed = segment.tail == Tail::Sealed;
    if !sealed {
        segment.entries.truncate(segment.sound);
    }
    let steps = segment
        .entries
        .iter()
        .filter(|e| e.kind.has_state())
        .count() as u64;
    let gaps = segment.entries.iter().filter(|e| e.kind.has_meta()).count() as u64 - steps;
    let meta = || segment.entries.iter().filter(|e| e.kind.has_meta());
    let start = segment
        .entries
        .first()
        .map(|e| e.step)
        .or(segment.header.as_ref().map(|h| h.first_step))
        .unwrap_or(0);
    Part {
        number,
        name: segment.name.clone(),
        range: start..meta().next_back().map_or(start, |e| e.step + 1),
        steps,
        gaps,
        bytes: segment.source.length(),
        sealed,
        is_final: segment.header.as_ref().is_some_and(|h| h.is_final)
            || segment
                .entries
                .iter()
                .any(|e| e.kind == crate::FrameKind::Final),
        loaded: Some(Arc::new(segment)),
    }
}
