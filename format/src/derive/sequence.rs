//! All steps of an intact run in order, those without tensors among those with tensors.

use std::ops::Range;
use std::sync::Arc;

use crate::FormatError;
use crate::meta::StepMeta;
use crate::segment::{FrameEntry, Segment};
use crate::state::{KeyState, State};
use crate::trace::{Steps, Trace};

/// One step, borrowed until the next call.
pub(super) struct Item<'a> {
    /// With its records of rows.
    pub meta: &'a StepMeta,
    pub content: Content<'a>,
}

/// What a frame holds beside the metadata.
pub(super) enum Content<'a> {
    Tensors {
        state: &'a State,
        /// What only a step has that opens a segment.
        key: Option<&'a KeyState>,
    },
    Gap {
        digest: Option<&'a [u8; 32]>,
    },
}

/// The steps of a range, in the memory of one step. Any damage is an error.
pub(super) struct Sequence<'a> {
    trace: &'a Trace,
    range: Range<u64>,
    steps: Steps<'a>,
    part: usize,
    segment: Option<Arc<Segment>>,
    entry: usize,
    gap: Option<(StepMeta, Option<[u8; 32]>)>,
    scratch: Vec<u8>,
}

impl<'a> Sequence<'a> {
    pub fn new(trace: &'a Trace, range: Range<u64>) -> Sequence<'a> {
        Sequence {
            trace,
            steps: trace.forward(range.clone()).with_rows(),
            range,
            part: 0,
            segment: None,
            entry: 0,
            gap: None,
            scratch: Vec::new(),
        }
    }

    pub fn next(&mut self) -> Result<Option<Item<'_>>, FormatError> {
        let Some((entry, segment)) = self.advance()? else {
            return Ok(None);
        };
        if entry.kind.has_state() {
            let missing = || FormatError::corrupt("steps", "one more", "none").at_step(entry.step);
            let step = self.steps.next()?.ok_or_else(missing)?;
            return Ok(Some(Item {
                meta: step.meta,
                content: Content::Tensors {
                    state: step.state,
                    key: step.key,
                },
            }));
        }
        let gap = self
            .trace
            .whole_meta_of(&segment, &entry, &mut self.scratch)?;
        let (meta, digest) = self.gap.insert(gap);
        Ok(Some(Item {
            meta,
            content: Content::Gap {
                digest: digest.as_ref(),
            },
        }))
    }

    /// The next frame with metadata.
    fn advance(&mut self) -> Result<Option<(FrameEntry, Arc<Segment>)>, FormatError> {
        loop {
            let Some(part) = self.trace.parts.get(self.part) else {
                return Ok(None);
            };
            let overlaps = part.range.start < self.range.end && self.range.start < part.range.end;
            if part.is_final || !overlaps {
                self.part += 1;
                continue;
            }
            let segment = match &self.segment {
                Some(segment) => Arc::clone(segment),
                None => {
                    let segment = self.trace.checked(part)?;
                    self.trace.complete(part, &segment, &self.range)?;
                    Arc::clone(self.segment.insert(segment))
                }
            };
            while let Some(entry) = segment.entries.get(self.entry).copied() {
                self.entry += 1;
                if entry.kind.has_meta() && self.range.contains(&entry.step) {
                    return Ok(Some((entry, segment)));
                }
            }
            (self.part, self.segment, self.entry) = (self.part + 1, None, 0);
        }
    }
}
