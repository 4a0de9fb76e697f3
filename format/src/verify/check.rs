//! Checks the segments of a run, one after the other.

use std::sync::Arc;

use super::report::{FindingKind, Severity, VerifyReport, finding_kind};
use crate::FormatError;
use crate::decoder::Decoder;
use crate::segment::{Segment, SegmentSource, Tail, Trailer};
use crate::trace::{Part, SEGMENT_FILE, Trace};

pub(super) struct Checker<'a> {
    pub(super) trace: &'a Trace,
    pub(super) decoder: Decoder,
    /// Digest of the previous segment, where it is known, and its number.
    pub(super) chain: Option<([u8; 32], u64)>,
    /// Where the last link led: the step, and the digest of its state.
    pub(super) link: Option<(u64, [u8; 32])>,
    /// Whether a step's metadata has records of rows.
    pub(super) rows: bool,
}

/// A segment after an attempt to load it.
enum Loaded {
    Segment(Arc<Segment>),
    /// It can't be loaded; the report says why.
    Damaged,
    /// A recorder that keeps the newest steps has dropped it since the run was opened.
    Dropped,
}

impl<'a> Checker<'a> {
    pub fn new(trace: &'a Trace) -> Result<Checker<'a>, FormatError> {
        let decoder = Decoder::new(trace.context.clone())?;
        Ok(Checker {
            trace,
            decoder,
            chain: None,
            link: None,
            rows: false,
        })
    }

    /// Takes the digest of the segment before this one from the manifest, if that segment wasn't checked.
    pub fn skip_to(&mut self, part: &Part) {
        let parts = &self.trace.parts;
        let before = parts.iter().rev().find(|p| p.number < part.number);
        let checked = self.chain.map(|(_, number)| number);
        if before.map(|p| p.number) != checked {
            let listed = before.and_then(|p| self.trace.record(p));
            (self.chain, self.link) = (listed.map(|s| (s.digest, s.number)), None);
        }
    }

    /// Checks one segment; returns whether it is still part of the run. `progress` gets the number of its bytes that are done.
    pub fn segment(
        &mut self,
        part: &Part,
        report: &mut VerifyReport,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, FormatError> {
        let segment = match self.load(part, report)? {
            Loaded::Segment(segment) => segment,
            missing => {
                let listed = self.trace.record(part);
                (self.chain, self.link) = (listed.map(|s| (s.digest, s.number)), None);
                return Ok(matches!(missing, Loaded::Damaged));
            }
        };
        for problem in &segment.problems {
            report.add(finding_kind(problem, FindingKind::Segment), problem);
        }
        if let Tail::Torn(at) = segment.tail {
            let step = segment.entries.last().map(|e| e.step);
            let text = format!(
                "{}: the frame that begins at byte {at} is incomplete; the last complete step is {}",
                part.name,
                step.map_or("none".to_owned(), |s| s.to_string())
            );
            report.note(
                FindingKind::TornTail,
                Severity::Warning,
                &part.name,
                Some(part.number),
                step,
                text,
            );
        }
        self.identity(part, &segment, report);
        let digest = self.digest(part, &segment, report)?;
        self.chain = Some((digest, part.number));
        self.frames(part, &segment, report, progress)?;
        Ok(true)
    }

    fn load(&self, part: &Part, report: &mut VerifyReport) -> Result<Loaded, FormatError> {
        match self.trace.load(part) {
            Ok(segment) => Ok(Loaded::Segment(segment)),
            Err(FormatError::NotRecorded { .. }) => Ok(Loaded::Dropped),
            Err(FormatError::Corrupt(c)) => {
                let reported = self.trace.problems().iter().any(
                    |p| matches!(p, FormatError::Corrupt(p) if p.file == c.file && p.what == c.what),
                );
                let missing = c.what == SEGMENT_FILE;
                let kind = if missing {
                    FindingKind::MissingFile
                } else {
                    FindingKind::Segment
                };
                // A file that was missing when the run was opened has been reported.
                if !(missing && reported) {
                    report.add(kind, &FormatError::Corrupt(c));
                }
                Ok(Loaded::Damaged)
            }
            Err(e) if e.is_damage() => {
                report.add(FindingKind::Segment, &e);
                Ok(Loaded::Damaged)
            }
            Err(e) => Err(e),
        }
    }

    /// Compares the whole file with the digests in its trailer and in the manifest. Returns the digest that the next segment must state.
    fn digest(
        &self,
        part: &Part,
        segment: &Segment,
        report: &mut VerifyReport,
    ) -> Result<[u8; 32], FormatError> {
        let listed = self.trace.record(part).map(|s| s.digest);
        if segment.tail != Tail::Sealed {
            return Ok(listed.unwrap_or([0; 32]));
        }
        let computed = hash(&segment.source)?;
        for (what, stored) in [
            ("digest of the segment", segment.digest),
            ("digest of the segment in the manifest", listed),
        ] {
            if let Some(stored) = stored
                && stored != computed
            {
                let error = FormatError::corrupt(what, crate::hex(&stored), crate::hex(&computed))
                    .within(&part.name, Some(part.number));
                report.add(FindingKind::Digest, &error);
            }
        }
        Ok(listed.or(segment.digest).unwrap_or(computed))
    }
}

/// The digest of a sealed segment's bytes.
pub(crate) fn hash(source: &SegmentSource) -> Result<[u8; 32], FormatError> {
    let mut hasher = blake3::Hasher::new();
    source.hash_to(Trailer::hashed(source.length()), &mut hasher)?;
    Ok(*hasher.finalize().as_bytes())
}
