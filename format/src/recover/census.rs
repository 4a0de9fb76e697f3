//! Which steps a damaged run had, and what of each can still be read apart from its tensors.

use std::ops::Range;
use std::sync::Arc;

use super::report::{Loss, LossKind, add};
use crate::FormatError;
use crate::frame::{Frame, FrameKind};
use crate::meta::StepMeta;
use crate::segment::{Entry, Segment, Tail, Trust};
use crate::trace::{Part, Trace};

/// A step that a frame or an index speaks of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub step: u64,
    /// Which of the trace's parts it stands in, and its frame there.
    pub part: usize,
    pub entry: Entry,
    /// Is it the frame that opens its segment?
    pub opens: bool,
}

/// What a frame says about its step, with the digest that a gap has.
pub(super) type Said = (StepMeta, Option<[u8; 32]>);

/// All steps that there is a trace of, ascending.
pub(super) struct Census<'a> {
    trace: &'a Trace,
    pub known: Vec<Known>,
    /// The segment that was used last.
    held: Option<(usize, Arc<Segment>)>,
    scratch: Vec<u8>,
}

impl<'a> Census<'a> {
    /// Goes through all segments; what is missing altogether goes to `losses`.
    pub fn take(trace: &'a Trace, losses: &mut Vec<Loss>) -> Result<Census<'a>, FormatError> {
        let mut census = Census {
            trace,
            known: Vec::new(),
            held: None,
            scratch: Vec::new(),
        };
        let mut before: Option<(u64, u64)> = None;
        for (p, part) in trace.parts.iter().enumerate() {
            // Where the manifest lists nothing, the numbers alone tell of segments that are not there.
            if let Some((number, end)) = before
                && end < part.range.start
                && trace.record(part).is_none()
            {
                let torn = p
                    .checked_sub(1)
                    .and_then(|p| trace.parts.get(p))
                    .is_some_and(|p| !p.sealed && p.loaded.is_some());
                let why = match part.number.saturating_sub(number) {
                    0 | 1 if torn => Some(format!(
                        "segment {number} was not written to its end, though segment {} follows it",
                        part.number
                    )),
                    0 | 1 => None,
                    2 => Some(format!("segment {} is missing", number + 1)),
                    _ => Some(format!(
                        "segments {}..{} are missing",
                        number + 1,
                        part.number
                    )),
                };
                if let Some(why) = why {
                    add(losses, step(end..part.range.start, "", why));
                }
            }
            let follows = before
                .filter(|(number, _)| number + 1 == part.number)
                .map(|(_, end)| end);
            before = Some((part.number, part.range.end));
            if part.is_final {
                continue;
            }
            match census.segment(p) {
                Ok(segment) => census.count(p, part, &segment, follows, losses),
                Err(e) if e.is_damage() => {
                    add(losses, step(part.range.clone(), &part.name, e.to_string()));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(census)
    }

    /// A segment with all frames that can be found in it, those behind damage included.
    pub fn segment(&mut self, part: usize) -> Result<Arc<Segment>, FormatError> {
        if let Some((held, segment)) = &self.held
            && *held == part
        {
            return Ok(Arc::clone(segment));
        }
        let p = self
            .trace
            .parts
            .get(part)
            .ok_or_else(|| FormatError::corrupt("segment", "a segment", "none"))?;
        let segment = match &p.loaded {
            // What follows damage in a segment without an end is not offered by the trace: its states can't be reached.
            Some(loaded) if !p.sealed && !loaded.problems.is_empty() => Arc::new(Segment::load(
                self.trace.storage().as_ref(),
                &p.name,
                Some(&self.trace.info),
                Trust::Tail,
            )?),
            _ => self.trace.load(p)?,
        };
        self.held = Some((part, Arc::clone(&segment)));
        Ok(segment)
    }

    /// What the frame says about its step, if that can be read and fits the run.
    pub fn meta(&mut self, known: &Known) -> Result<Option<Said>, FormatError> {
        let segment = self.segment(known.part)?;
        let salt = self.trace.context.salt;
        let bytes = segment.frame(&known.entry, &mut self.scratch)?;
        let read = || {
            let frame = Frame::read(bytes, salt)?;
            if frame.header.step != known.step || frame.header.kind != known.entry.kind {
                return Err(FormatError::corrupt("frame", known.step, frame.header.step));
            }
            let bytes = frame.meta_bytes()?;
            crate::memory::metadata(self.trace.storage().as_ref(), bytes.len() as u64)?;
            crate::wire::decode(known.step, bytes)
        };
        match read() {
            Ok((meta, digest)) => Ok(meta.fits(self.trace.layout()).then_some((meta, digest))),
            Err(e) if e.is_damage() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Adds a segment's steps, and the holes between them that were not always there.
    /// `follows`: where the segment before it ends.
    fn count(
        &mut self,
        p: usize,
        part: &Part,
        segment: &Segment,
        follows: Option<u64>,
        losses: &mut Vec<Loss>,
    ) {
        let mut found: Vec<u64> = Vec::new();
        for (i, entry) in segment.entries.iter().enumerate() {
            if !entry.kind.has_meta() {
                continue;
            }
            if self.known.last().is_some_and(|k| k.step >= entry.step) {
                let why = "it stands behind a later step".to_owned();
                add(losses, step(entry.step..entry.step + 1, &segment.name, why));
                continue;
            }
            found.push(entry.step);
            self.known.push(Known {
                step: entry.step,
                part: p,
                entry: *entry,
                opens: i == 0 && entry.kind == FrameKind::Keyframe,
            });
        }
        // An index that is whole, or as many frames as the manifest counts, leave no room for a hole.
        let counted = self.trace.manifest().is_some_and(|m| {
            m.segments.iter().any(|s| s.file == part.name)
                && part.steps + part.gaps == found.len() as u64
        });
        if segment.problems.is_empty() || counted {
            return;
        }
        let listed = self
            .trace
            .manifest()
            .is_some_and(|m| m.segments.iter().any(|s| s.file == part.name));
        let header = segment.header.as_ref().map(|h| h.first_step);
        let start = match header.or(follows) {
            Some(start) if !listed => start,
            _ => part.range.start,
        };
        let mut at = start;
        let end = if listed { part.range.end } else { start };
        for &found in found.iter().chain([&end]) {
            if at < found {
                let why = "the frame's header is damaged".to_owned();
                add(losses, step(at..found, &segment.name, why));
            }
            at = found.max(at) + 1;
        }
        if let (Tail::Damaged(byte), false) = (&segment.tail, part.sealed)
            && !segment.closes_at(*byte, self.trace.context.salt)
        {
            let next = found.last().map_or(start, |s| s + 1);
            let why = format!(
                "at least one frame from byte {byte} on is damaged beyond recognition; how many steps there were is not known"
            );
            add(losses, step(next..next + 1, &segment.name, why));
        }
    }
}

fn step(steps: Range<u64>, file: &str, why: String) -> Loss {
    Loss {
        kind: LossKind::Step,
        steps,
        file: file.to_owned(),
        tensors: vec![],
        why,
        others: 0,
    }
}
