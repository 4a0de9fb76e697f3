//! The order of a segment's frames: steps ascend, and a link or a final state comes last.

use super::entry::FrameEntry;
use crate::frame::FrameKind;

/// Indices of the longest sequence of frames with ascending steps, up to the first link or final state.
pub(super) fn ascending(entries: &[FrameEntry]) -> Vec<usize> {
    let mut kept = longest_ascending(entries);
    let kind = |&i: &usize| entries.get(i).map(|e| e.kind);
    let closes = |i: &usize| matches!(kind(i), Some(FrameKind::Link | FrameKind::Final));
    if let Some(end) = kept.iter().position(closes) {
        kept.truncate(end + 1);
    }
    // A final state has a segment of its own.
    if kept.len() > 1 && kept.last().and_then(kind) == Some(FrameKind::Final) {
        kept.pop();
    }
    kept
}

/// Indices of the longest sequence of frames with ascending steps, found by patience sorting.
fn longest_ascending(entries: &[FrameEntry]) -> Vec<usize> {
    let step = |i: usize| entries.get(i).map_or(u64::MAX, |e| e.step);
    // For each length: among the ascending sequences of that length, the last frame of the one that ends with the lowest step.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(entries.len());
    for i in 0..entries.len() {
        // The greatest number can't be a step: the run's end is one more than its last step.
        if step(i) == u64::MAX {
            before.push(None);
            continue;
        }
        let at = ends.partition_point(|&end| step(end) < step(i));
        before.push(at.checked_sub(1).and_then(|at| ends.get(at).copied()));
        match ends.get_mut(at) {
            Some(end) => *end = i,
            None => ends.push(i),
        }
    }
    let mut sequence = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(i) = next {
        sequence.push(i);
        next = before.get(i).copied().flatten();
    }
    sequence.reverse();
    sequence
}
