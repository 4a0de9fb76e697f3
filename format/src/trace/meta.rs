//! The metadata of many steps, without their tensors.

use std::ops::Range;
use std::sync::Arc;

use super::overview::Trace;
use crate::FormatError;
use crate::meta::StepMeta;
use crate::segment::Segment;

/// The metadata of a range of steps, gaps included, oldest first.
pub struct Metas<'a> {
    trace: &'a Trace,
    range: Range<u64>,
    part: usize,
    segment: Option<Arc<Segment>>,
    entry: usize,
    scratch: Vec<u8>,
    failed: bool,
}

impl<'a> Metas<'a> {
    pub(super) fn new(trace: &'a Trace, range: Range<u64>) -> Metas<'a> {
        Metas {
            trace,
            range,
            part: 0,
            segment: None,
            entry: 0,
            scratch: Vec::new(),
            failed: false,
        }
    }

    fn advance(&mut self) -> Result<Option<StepMeta>, FormatError> {
        loop {
            let Some(part) = self.trace.parts.get(self.part) else {
                return Ok(None);
            };
            if part.is_final
                || part.range.end <= self.range.start
                || part.range.start >= self.range.end
            {
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
            while let Some(entry) = segment.entries.get(self.entry) {
                self.entry += 1;
                if entry.kind.has_meta() && self.range.contains(&entry.step) {
                    return self
                        .trace
                        .meta_of(&segment, entry, &mut self.scratch)
                        .map(|(meta, _)| Some(meta));
                }
            }
            (self.part, self.segment, self.entry) = (self.part + 1, None, 0);
        }
    }
}

impl Iterator for Metas<'_> {
    type Item = Result<StepMeta, FormatError>;

    /// The next step's metadata, or damage. Ends after the first error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}
