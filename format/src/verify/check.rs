//! Checking one segment after the other.

use super::report::{FindingKind, Severity, VerifyReport, finding_kind};
use crate::FormatError;
use crate::codec::Direction;
use crate::decoder::Decoder;
use crate::frame::{Frame, FrameKind};
use crate::segment::{self, Segment, Source, Tail, Trailer};
use crate::state::{KeyState, State};
use crate::trace::{Part, SEGMENT_FILE, Trace};

pub(super) struct Checker<'a> {
    trace: &'a Trace,
    decoder: Decoder,
    /// Digest of the segment before, where it is known, and its number.
    chain: Option<([u8; 32], u64)>,
    /// Where the last link led: step and the state's digest.
    link: Option<(u64, [u8; 32])>,
}

impl<'a> Checker<'a> {
    pub fn new(trace: &'a Trace) -> Result<Checker<'a>, FormatError> {
        let decoder = Decoder::new(trace.context.clone())?;
        Ok(Checker {
            trace,
            decoder,
            chain: None,
            link: None,
        })
    }

    /// Checks one segment, and says whether it is part of the run still; `progress` is told how many of its bytes are done.
    pub fn segment(
        &mut self,
        part: &Part,
        report: &mut VerifyReport,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, FormatError> {
        let listed = self
            .trace
            .manifest()
            .and_then(|m| m.segments.iter().find(|s| s.file == part.name));
        let segment = match self.trace.load(part) {
            Ok(segment) => segment,
            // A recorder that keeps the newest steps has dropped it since the run was opened.
            Err(FormatError::NotRecorded { .. }) => {
                (self.chain, self.link) = (listed.map(|s| (s.digest, s.number)), None);
                return Ok(false);
            }
            Err(FormatError::Corrupt(c)) => {
                let known = self.trace.problems().iter().any(
                    |p| matches!(p, FormatError::Corrupt(p) if p.file == c.file && p.what == c.what),
                );
                let (kind, missing) = match c.what.as_str() {
                    SEGMENT_FILE => (FindingKind::MissingFile, true),
                    _ => (FindingKind::Segment, false),
                };
                // A file that was missing when the run was opened has been reported.
                if !(missing && known) {
                    report.add(kind, &FormatError::Corrupt(c));
                }
                (self.chain, self.link) = (listed.map(|s| (s.digest, s.number)), None);
                return Ok(true);
            }
            Err(e) if e.is_damage() => {
                report.add(FindingKind::Segment, &e);
                (self.chain, self.link) = (listed.map(|s| (s.digest, s.number)), None);
                return Ok(true);
            }
            Err(e) => return Err(e),
        };
        for problem in &segment.problems {
            report.add(finding_kind(problem, FindingKind::Segment), problem);
        }
        if let Tail::Torn(at) = segment.tail {
            let step = segment.entries.last().map(|e| e.step);
            let text = format!(
                "{}: the frame that begins at byte {at} was not written to its end; the last whole step is {}",
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

    /// Header and manifest agree, and the segment follows the one before.
    fn identity(&self, part: &Part, segment: &Segment, report: &mut VerifyReport) {
        let add = |report: &mut VerifyReport, kind, what: &str, expected: String, got: String| {
            report.add(
                kind,
                &FormatError::corrupt(what, expected, got).within(&part.name, Some(part.number)),
            );
        };
        let manifest = self.trace.manifest();
        let listed = manifest.and_then(|m| m.segments.iter().find(|s| s.file == part.name));
        if let Some(header) = &segment.header {
            let name = segment::name(header.number, header.fork);
            if name != part.name {
                add(
                    report,
                    FindingKind::Chain,
                    "name of the segment",
                    name,
                    part.name.clone(),
                );
            }
            if header.info != self.trace.info {
                add(
                    report,
                    FindingKind::Chain,
                    "run description in the segment header",
                    "that of the run".into(),
                    "another".into(),
                );
            }
            let before = manifest
                .and_then(|m| m.segments.iter().take_while(|s| s.file != part.name).last())
                .map(|s| (s.digest, s.number));
            let (previous, number) = match (before, self.chain) {
                (Some((digest, number)), _) if listed.is_some() => (Some(digest), Some(number)),
                (_, Some((digest, number))) => (Some(digest), Some(number)),
                // The first segment there is: the beginning of the chain, unless earlier ones were dropped with the manifest lost.
                _ => ((header.number == 0).then_some([0; 32]), None),
            };
            if let Some(previous) = previous
                && previous != header.previous
            {
                add(
                    report,
                    FindingKind::Chain,
                    "digest of the segment before",
                    crate::hex(&previous),
                    crate::hex(&header.previous),
                );
            }
            if let Some(number) = number
                && number + 1 != header.number
            {
                add(
                    report,
                    FindingKind::Chain,
                    "number of the segment",
                    (number + 1).to_string(),
                    header.number.to_string(),
                );
            }
            if let Some(first) = segment.entries.first()
                && first.step != header.first_step
            {
                add(
                    report,
                    FindingKind::Segment,
                    "first step of the segment",
                    header.first_step.to_string(),
                    first.step.to_string(),
                );
            }
        }
        if let Some(record) = listed {
            let count = |state: bool| {
                segment
                    .entries
                    .iter()
                    .filter(|e| e.kind.has_meta() && e.kind.has_state() == state)
                    .count() as u64
            };
            let last = segment
                .entries
                .iter()
                .rfind(|e| e.kind.has_meta())
                .map_or(record.first_step, |e| e.step + 1);
            let kind = segment.header.as_ref().map(|h| (h.first_step, h.is_final));
            let says = (record.first_step, record.is_final);
            if let Some(kind) = kind
                && kind != says
            {
                let text = |(first, is_final)| match is_final {
                    true => format!("the final state, at step {first}"),
                    false => format!("steps from {first} on"),
                };
                add(
                    report,
                    FindingKind::Segment,
                    "content that the manifest lists",
                    text(says),
                    text(kind),
                );
            }
            let expected = (record.bytes, record.steps, record.gaps, record.end_step);
            let got = (segment.file_length, count(true), count(false), last);
            if expected != got {
                add(
                    report,
                    FindingKind::Segment,
                    "bytes, steps, gaps and end that the manifest lists",
                    format!("{expected:?}"),
                    format!("{got:?}"),
                );
            }
        }
    }

    /// The whole file against the digest in its trailer and in the manifest; says the digest that the next segment must name.
    fn digest(
        &self,
        part: &Part,
        segment: &Segment,
        report: &mut VerifyReport,
    ) -> Result<[u8; 32], FormatError> {
        let listed = self
            .trace
            .manifest()
            .and_then(|m| m.segments.iter().find(|s| s.file == part.name))
            .map(|s| s.digest);
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

    /// Every frame: checksums, decoding, and the link to the next segment.
    fn frames(
        &mut self,
        part: &Part,
        segment: &Segment,
        report: &mut VerifyReport,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), FormatError> {
        let salt = self.trace.context.salt;
        let mut scratch = Vec::new();
        let mut state: Option<(State, KeyState)> = None;
        // If every frame is valid, all steps are readable. Otherwise they are counted by decoding.
        let (mut sound, mut hurt, mut first_gap, mut base) = (true, false, None, None);
        let arriving = self.link.take();
        for (i, entry) in segment.entries.iter().enumerate() {
            progress(entry.offset.min(part.bytes));
            let located =
                |e: FormatError| e.at_step(entry.step).within(&part.name, Some(part.number));
            let bytes = segment.frame(entry, &mut scratch)?;
            let frame = match Frame::read(bytes, salt) {
                Ok(frame)
                    if frame.header.kind == entry.kind
                        && frame.header.step == entry.step
                        && frame.header.length == entry.length =>
                {
                    frame
                }
                other => {
                    let e = other.err().unwrap_or_else(|| {
                        FormatError::corrupt(
                            "frame that the index names",
                            format!("step {}", entry.step),
                            "another",
                        )
                    });
                    report.add(FindingKind::Frame, &located(e));
                    (sound, hurt) = (false, true);
                    continue;
                }
            };
            crate::memory::metadata(
                self.trace.storage().as_ref(),
                u64::from(frame.header.meta_length),
            )?;
            let damage = self.decoder.check(&frame);
            for e in &damage {
                hurt = true;
                let e = match e {
                    FormatError::Corrupt(c) => located(FormatError::Corrupt(c.clone())),
                    other => FormatError::corrupt(other.to_string(), "", "")
                        .within(&part.name, Some(part.number))
                        .at_step(entry.step),
                };
                report.add(finding_kind(&e, FindingKind::Frame), &e);
            }
            if entry.kind == FrameKind::Gap {
                first_gap = first_gap.or(Some(entry.step));
                continue;
            }
            let decoded = match (entry.kind, i) {
                (FrameKind::Keyframe | FrameKind::Final, 0) => match &mut state {
                    Some((s, k)) => self.decoder.full(&frame, s, Some(k)),
                    none => self.decoder.whole(&frame).map(|whole| *none = Some(whole)),
                },
                (FrameKind::Difference | FrameKind::Link, 1..)
                    if base.is_some() && base != Some(frame.header.base) =>
                {
                    Err(FormatError::corrupt(
                        "base of a difference",
                        base.unwrap_or(0),
                        frame.header.base,
                    ))
                }
                (FrameKind::Difference | FrameKind::Link, 1..) => match (&mut state, sound) {
                    (Some((s, _)), true) => self.decoder.change(&frame, Direction::Forward, s),
                    _ => Ok(()),
                },
                _ => Err(FormatError::corrupt(
                    "frame kind",
                    "a full state first and differences after it",
                    format!("{:?}", entry.kind),
                )),
            };
            base = Some(entry.step);
            if let Err(e) = decoded {
                let e = located(e);
                if damage.is_empty() {
                    report.add(finding_kind(&e, FindingKind::Frame), &e);
                }
                (sound, hurt) = (false, true);
            }
            let now = state
                .as_ref()
                .filter(|_| sound)
                .map(|(s, _)| s.digest_if(i == 0 || entry.kind == FrameKind::Link));
            if i == 0
                && let (Some((step, expected)), Some(Some(got))) = (arriving, now)
                && (step, expected) != (entry.step, got)
            {
                let e = FormatError::corrupt(
                    "state that opens the segment",
                    "the state that the link before it leads to",
                    "another",
                );
                report.add(FindingKind::Link, &located(e));
            }
            if entry.kind == FrameKind::Link
                && let Some(Some(digest)) = now
            {
                self.link = Some((entry.step, digest));
            }
        }
        if let Some(step) = first_gap {
            let text = format!(
                "{}: {} steps from step {step} on were recorded without their tensors",
                part.name, part.gaps
            );
            report.note(
                FindingKind::Gap,
                Severity::Note,
                &part.name,
                Some(part.number),
                Some(step),
                text,
            );
        }
        drop(state);
        let promised = self.trace.identify(part, segment).is_ok()
            && self.trace.complete(part, segment, &part.range).is_ok();
        let there = segment
            .entries
            .iter()
            .filter(|e| e.kind.has_state())
            .count() as u64;
        let readable = match promised && sound && !hurt {
            true => there,
            false => match self.trace.readable(part.range.clone()) {
                Ok(readable) => readable.steps,
                // A ring has dropped the segment since the run was opened.
                Err(FormatError::NotRecorded { .. }) => 0,
                Err(e) => return Err(e),
            },
        };
        report.steps_ok += readable;
        // A manifest that lists fewer steps than the segment holds is wrong about what is there.
        report.steps += readable.saturating_sub(part.steps);
        Ok(())
    }
}

impl State {
    /// Hashing every state would cost more than decoding it.
    fn digest_if(&self, wanted: bool) -> Option<[u8; 32]> {
        wanted.then(|| self.digest())
    }
}

/// The digest of a sealed segment's bytes.
pub(crate) fn hash(source: &Source) -> Result<[u8; 32], FormatError> {
    let end = Trailer::hashed(source.length());
    let mut hasher = blake3::Hasher::new();
    let mut scratch = Vec::new();
    let mut at = 0;
    while at < end {
        let n = (end - at).min(1 << 20);
        hasher.update(source.bytes(at, n as usize, &mut scratch)?);
        at += n;
    }
    Ok(*hasher.finalize().as_bytes())
}
