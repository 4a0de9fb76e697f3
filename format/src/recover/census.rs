//! Lists the steps that a damaged run had, and reads what is left of each besides its tensors.

use std::ops::Range;
use std::sync::Arc;

use super::report::{Loss, LossKind, add};
use crate::FormatError;
use crate::frame::{Frame, FrameKind};
use crate::meta::StepMeta;
use crate::segment::{FrameEntry, Segment, Tail, Trust};
use crate::trace::{Part, Trace};

/// A step that a frame or an index names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub step: u64,
    /// Index of its segment in the trace's parts.
    pub part: usize,
    pub entry: FrameEntry,
    /// Whether its frame opens the segment.
    pub opens: bool,
}

/// A step's metadata and, for a gap, the digest of its state.
pub(super) type MetaAndDigest = (StepMeta, Option<[u8; 32]>);

/// All steps that frames or indices name, ascending.
pub(super) struct Census<'a> {
    trace: &'a Trace,
    pub known: Vec<Known>,
    /// The segment that was used last, with its index.
    held: Option<(usize, Arc<Segment>)>,
    scratch: Vec<u8>,
}

impl<'a> Census<'a> {
    /// Examines all segments. Steps of missing or unreadable segments go to `losses`.
    pub fn take(trace: &'a Trace, losses: &mut Vec<Loss>) -> Result<Census<'a>, FormatError> {
        let mut census = Census {
            trace,
            known: Vec::new(),
            held: None,
            scratch: Vec::new(),
        };
        let mut before: Option<(u64, u64)> = None;
        for (p, part) in trace.parts.iter().enumerate() {
            // If the manifest doesn't list the segment, only the numbers show that others are missing.
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
                        "segment {number} is incomplete, though segment {} follows it",
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
                    add(losses, lost_steps(end..part.range.start, "", why));
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
                    add(
                        losses,
                        lost_steps(part.range.clone(), &part.name, e.to_string()),
                    );
                }
                Err(e) => return Err(e),
            }
        }
        Ok(census)
    }

    /// A segment with all frames that can be found in it, including those after damage.
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
            // In a segment without an end, the trace doesn't offer frames after damage, because their states can't be reached.
            Some(loaded) if !p.sealed && !loaded.problems.is_empty() => Arc::new(Segment::load(
                self.trace.storage().as_ref(),
                &p.name,
                Some(&self.trace.info),
                Trust::Unlisted,
            )?),
            _ => self.trace.load(p)?,
        };
        self.held = Some((part, Arc::clone(&segment)));
        Ok(segment)
    }

    /// The step's metadata, if it can be read and fits the run.
    pub fn meta(&mut self, known: &Known) -> Result<Option<MetaAndDigest>, FormatError> {
        let segment = self.segment(known.part)?;
        let salt = self.trace.context.salt;
        let bytes = segment.frame(&known.entry, &mut self.scratch)?;
        let read = || {
            let frame = Frame::read(bytes, salt)?;
            if frame.header.step != known.step || frame.header.kind != known.entry.kind {
                return Err(FormatError::corrupt(
                    "step of a frame",
                    known.step,
                    frame.header.step,
                ));
            }
            let bytes = frame.meta_bytes(self.trace.context.secret.as_ref())?;
            crate::memory::metadata(self.trace.storage().as_ref(), bytes.len() as u64)?;
            crate::wire::decode(known.step, &bytes)
        };
        match read() {
            Ok((meta, digest)) => Ok(meta.fits(self.trace.layout()).then_some((meta, digest))),
            Err(e) if e.is_damage() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Adds a segment's steps, and the steps missing between them. `follows` is the end of the previous segment, if that segment is known.
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
                let why = "it comes after a later step".to_owned();
                add(
                    losses,
                    lost_steps(entry.step..entry.step + 1, &segment.name, why),
                );
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
        // With an intact index, or with as many frames as the manifest counts, no step is missing.
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
                add(losses, lost_steps(at..found, &segment.name, why));
            }
            at = found.max(at) + 1;
        }
        if let (Tail::Damaged(byte), false) = (&segment.tail, part.sealed)
            && !segment.closes_at(*byte, self.trace.context.salt)
        {
            let next = found.last().map_or(start, |s| s + 1);
            let why = format!(
                "from byte {byte} on, the frames can't be recognised; at least one step is lost, and the exact number is unknown"
            );
            add(losses, lost_steps(next..next + 1, &segment.name, why));
        }
    }
}

fn lost_steps(steps: Range<u64>, file: &str, why: String) -> Loss {
    Loss {
        kind: LossKind::Step,
        steps,
        file: file.to_owned(),
        tensors: vec![],
        why,
        others: 0,
    }
}
