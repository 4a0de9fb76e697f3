//! What a trace knows about one of its segments.

use std::ops::Range;
use std::sync::Arc;

use crate::FormatError;
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

impl Part {
    /// Whether the segment's own header says which segment it is.
    fn is_named(&self) -> bool {
        self.loaded.as_ref().is_none_or(|s| s.header.is_some())
    }

    /// The damage of a segment with steps that the one before it has, too. Without its header, a file may contain the frames of
    /// another segment, and a walk would visit the same steps twice.
    pub(super) fn repeats(&self, before: &Part) -> Option<FormatError> {
        let there = |p: &Part| p.steps + p.gaps > 0;
        let repeats = there(self) && there(before) && self.range.start < before.range.end;
        repeats.then(|| {
            FormatError::corrupt(
                "first step of the segment",
                format!("{} or a later one", before.range.end),
                self.range.start,
            )
            .within(&self.name, Some(self.number))
        })
    }
}

/// Leaves out segments that repeat steps: the one without a header, or else the later one. [`recover`](crate::recover()) looks
/// for steps in them that are nowhere else.
pub(super) fn ascending(parts: Vec<Part>, problems: &mut Vec<FormatError>) -> Vec<Part> {
    let mut kept: Vec<Part> = Vec::new();
    for part in parts {
        let mut keep = true;
        while let Some(before) = kept.last()
            && let Some(problem) = part.repeats(before)
        {
            let wrong_before = part.is_named() && !before.is_named();
            if wrong_before {
                let (name, number) = (before.name.clone(), before.number);
                let what = FormatError::corrupt(
                    "last step of the segment",
                    format!("one before step {}", part.range.start),
                    before.range.end.saturating_sub(1),
                );
                problems.push(what.within(&name, Some(number)));
                kept.pop();
            } else {
                problems.push(problem);
                keep = false;
                break;
            }
        }
        if keep {
            kept.push(part);
        }
    }
    kept
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
