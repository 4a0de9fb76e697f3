//! Loads a segment, and checks that its file contains the segment that its name and the manifest say.

use std::ops::Range;
use std::sync::Arc;

use super::damage::SEGMENT_FILE;
use super::open::read_manifest;
use super::overview::{Reading, Trace};
use super::part::Part;
use crate::FormatError;
use crate::frame::Frame;
use crate::manifest::SegmentRecord;
use crate::meta::StepMeta;
use crate::segment::{FrameEntry, Segment, Trust, number_of, parse_name};

/// [`Corruption::what`](crate::Corruption) in errors about a file that contains another segment than its name says.
const MISPLACED: &str = "content of the file";
/// Advice in these errors.
const ADVICE: &str = "`hindcast recover` finds each segment by its content";

/// The damage of a file whose name says segment `number` and whose header says segment `holds`.
pub(super) fn misplaced(name: &str, number: u64, holds: u64) -> FormatError {
    FormatError::corrupt(
        MISPLACED,
        format!("segment {number} of the run"),
        format!("segment {holds}; {ADVICE}"),
    )
    .within(name, Some(number))
}

impl Trace {
    /// The segment in the file. Its identity isn't checked.
    pub(crate) fn load(&self, part: &Part) -> Result<Arc<Segment>, FormatError> {
        if let Some(segment) = &part.loaded {
            return Ok(Arc::clone(segment));
        }
        let trust = match self.record(part) {
            Some(record) => Trust::Listed {
                bytes: record.bytes,
            },
            None => Trust::Orphan,
        };
        Segment::load(self.storage.as_ref(), &part.name, Some(&self.info), trust)
            .map(Arc::new)
            .map_err(|e| self.absent(part, e))
    }

    /// The segment in the file, after checking its identity.
    pub(crate) fn checked(&self, part: &Part) -> Result<Arc<Segment>, FormatError> {
        let segment = self.load(part)?;
        self.identify(part, &segment)?;
        Ok(segment)
    }

    /// The manifest's entry of a segment.
    pub(crate) fn record(&self, part: &Part) -> Option<&SegmentRecord> {
        let (manifest, _) = self.manifest.as_ref()?;
        manifest.segments.iter().find(|s| s.file == part.name)
    }

    /// Damage, if a segment isn't the one that its name and the manifest say.
    pub(crate) fn identify(&self, part: &Part, segment: &Segment) -> Result<(), FormatError> {
        let expected = format!("segment {} of the run", part.number);
        let wrong = |got: String| {
            Err(
                FormatError::corrupt(MISPLACED, &expected, format!("{got}; {ADVICE}"))
                    .within(&part.name, Some(part.number)),
            )
        };
        if let Some(header) = &segment.header {
            if header.info.salt != self.info.salt {
                return wrong("a segment of another run".to_owned());
            }
            if parse_name(&part.name) != Some((header.number, header.fork)) {
                let cut = match header.fork {
                    0 => String::new(),
                    n => format!(", written after {n} cuts"),
                };
                return wrong(format!("segment {}{cut}", header.number));
            }
        } else {
            let other = segment
                .entries
                .iter()
                .find(|e| e.kind.has_meta() && !part.range.contains(&e.step));
            if let Some(other) = other {
                return wrong(format!("step {} of another segment", other.step));
            }
        }
        if self.reading == Reading::Salvage {
            return Ok(());
        }
        if segment.header.as_ref().is_some_and(|h| h.info != self.info) {
            return wrong("a segment with another description of the run".to_owned());
        }
        if let (Some(record), Some(digest)) = (self.record(part), segment.digest)
            && record.digest != digest
        {
            return wrong(format!(
                "a different segment with that number: its digest is {}, and the manifest lists {}",
                crate::hex(&digest),
                crate::hex(&record.digest)
            ));
        }
        Ok(())
    }

    /// Damage, if a segment has fewer of the steps in `range` than the manifest lists.
    pub(crate) fn complete(
        &self,
        part: &Part,
        segment: &Segment,
        range: &Range<u64>,
    ) -> Result<(), FormatError> {
        let steps = || segment.entries.iter().filter(|e| e.kind.has_meta());
        let (listed, found) = (part.steps + part.gaps, steps().count() as u64);
        if found >= listed {
            return Ok(());
        }
        // If the listed steps are consecutive, the range determines which of them must be present.
        if listed == part.range.end - part.range.start {
            let start = range.start.max(part.range.start);
            let end = range.end.min(part.range.end);
            let there = steps().filter(|e| (start..end).contains(&e.step)).count() as u64;
            if there >= end.saturating_sub(start) {
                return Ok(());
            }
        }
        Err(FormatError::corrupt(
            "steps of the segment",
            format!("the {listed} steps that the manifest lists"),
            format!("{found}: the file was emptied, cut or overwritten"),
        )
        .within(&part.name, Some(part.number)))
    }

    /// If the manifest is lost, what can't be known about the run's two ends: whether the first segments were dropped on purpose, and
    /// whether more segments followed the last one.
    pub(crate) fn unknown_ends(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        let span = self.span();
        if self.manifest.is_some() || span.is_empty() {
            return unknown;
        }
        let first = self.parts.iter().find(|p| !p.is_final);
        if let Some(first) = first.filter(|p| p.number > 0) {
            unknown.push(format!(
                "it is not known whether segments 0..{} (steps before {}) were dropped on purpose or are lost",
                first.number, span.start
            ));
        }
        if !self.parts.iter().any(|p| p.is_final) {
            unknown.push(format!(
                "it is not known whether the run continued after step {}",
                span.end - 1
            ));
        }
        unknown
    }

    /// Why a step within a part isn't in its segment: lost, or never recorded.
    pub(crate) fn lost_or_missing(&self, part: &Part, segment: &Segment, step: u64) -> FormatError {
        match self.complete(part, segment, &(step..step + 1)) {
            Err(damage) => damage,
            Ok(()) => self.missing(step),
        }
    }

    /// A frame's metadata without its rows and, for a gap, the digest of its state.
    pub(super) fn meta_of(
        &self,
        segment: &Segment,
        entry: &FrameEntry,
        scratch: &mut Vec<u8>,
    ) -> Result<(StepMeta, Option<[u8; 32]>), FormatError> {
        let (mut meta, digest) = self.whole_meta_of(segment, entry, scratch)?;
        crate::rows::strip(&mut meta);
        Ok((meta, digest))
    }

    /// As [`meta_of`](Self::meta_of), with the records of rows.
    pub(crate) fn whole_meta_of(
        &self,
        segment: &Segment,
        entry: &FrameEntry,
        scratch: &mut Vec<u8>,
    ) -> Result<(StepMeta, Option<[u8; 32]>), FormatError> {
        let bytes = segment.frame(entry, scratch)?;
        let read = || {
            let frame = Frame::read(bytes, self.context.salt)?;
            let bytes = frame.meta_bytes(self.context.secret.as_ref())?;
            crate::memory::metadata(self.storage.as_ref(), bytes.len() as u64)?;
            let (meta, digest) = crate::wire::decode(entry.step, &bytes)?;
            if meta.fits(self.layout()) {
                Ok((meta, digest))
            } else {
                Err(crate::meta::misfit())
            }
        };
        let number = number_of(&segment.name);
        read().map_err(|e| e.at_step(entry.step).within(&segment.name, number))
    }

    /// Why the file of a listed segment is missing: a recorder has dropped or cut it since the trace was opened, or it is lost.
    fn absent(&self, part: &Part, error: FormatError) -> FormatError {
        match error {
            FormatError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {}
            other => return other,
        }
        let dropped = self.manifest.is_some()
            && read_manifest(self.storage.as_ref()).is_ok_and(|(now, _)| {
                !now.segments
                    .iter()
                    .any(|s| s.file == part.name && !s.dropped)
            });
        if dropped {
            FormatError::NotRecorded {
                step: part.range.start,
                why: format!(
                    "the recorder has dropped {} since the trace was opened; open it again",
                    part.name
                ),
            }
        } else {
            FormatError::corrupt(SEGMENT_FILE, "present", "missing")
                .within(&part.name, Some(part.number))
        }
    }
}
