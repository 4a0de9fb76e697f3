//! Checks that a segment is the one that its name, its header, the manifest and the chain say.

use super::check::Checker;
use super::report::{FindingKind, VerifyReport};
use crate::FormatError;
use crate::manifest::SegmentRecord;
use crate::segment::{self, Header, Segment};
use crate::trace::Part;

/// Adds findings about one segment to a report.
struct Contradictions<'r> {
    part: &'r Part,
    report: &'r mut VerifyReport,
}

impl Contradictions<'_> {
    fn add(&mut self, kind: FindingKind, what: &str, expected: impl ToString, got: impl ToString) {
        let error = FormatError::corrupt(what, expected, got)
            .within(&self.part.name, Some(self.part.number));
        self.report.add(kind, &error);
    }
}

impl Checker<'_> {
    /// Checks that header and manifest agree, and that the segment follows the previous one.
    pub(super) fn identity(&self, part: &Part, segment: &Segment, report: &mut VerifyReport) {
        let mut found = Contradictions { part, report };
        if let Some(header) = &segment.header {
            self.header(header, segment, &mut found);
            self.follows(header, &mut found);
            if let Some(first) = segment.entries.first()
                && first.step != header.first_step
            {
                found.add(
                    FindingKind::Segment,
                    "first step of the segment",
                    header.first_step,
                    first.step,
                );
            }
        }
        if let Some(record) = self.trace.record(part) {
            as_listed(record, segment, &mut found);
        }
    }

    fn header(&self, header: &Header, segment: &Segment, found: &mut Contradictions<'_>) {
        let name = segment::name(header.number, header.fork);
        if name != segment.name {
            found.add(
                FindingKind::Chain,
                "name of the segment",
                name,
                &segment.name,
            );
        }
        // A manifest lists a cut before the first segment after it is written.
        if let Some(manifest) = self.trace.manifest()
            && header.fork as usize > manifest.forks.len()
        {
            found.add(
                FindingKind::Chain,
                "cuts before the segment",
                format!(
                    "at most the {} that the manifest lists",
                    manifest.forks.len()
                ),
                header.fork,
            );
        }
        if header.info != self.trace.info {
            found.add(
                FindingKind::Chain,
                "run description in the segment header",
                "that of the run",
                "a different one",
            );
        }
    }

    /// Checks the digest and the number of the previous segment.
    fn follows(&self, header: &Header, found: &mut Contradictions<'_>) {
        let file = &found.part.name;
        let segments = self.trace.manifest().map(|m| &m.segments);
        let listed_before = segments
            .filter(|segments| segments.iter().any(|s| s.file == *file))
            .and_then(|segments| segments.iter().take_while(|s| s.file != *file).last())
            .map(|s| (s.digest, s.number));
        let (previous, number) = match listed_before.or(self.chain) {
            Some((digest, number)) => (Some(digest), Some(number)),
            // The first segment in the folder. It begins the chain unless the manifest is lost and earlier segments were dropped.
            None => ((header.number == 0).then_some([0; 32]), None),
        };
        if let Some(previous) = previous
            && previous != header.previous
        {
            found.add(
                FindingKind::Chain,
                "digest of the previous segment",
                crate::hex(&previous),
                crate::hex(&header.previous),
            );
        }
        if let Some(number) = number
            && number + 1 != header.number
        {
            found.add(
                FindingKind::Chain,
                "number of the segment",
                number + 1,
                header.number,
            );
        }
    }
}

/// Checks the manifest's entry of a segment.
fn as_listed(record: &SegmentRecord, segment: &Segment, found: &mut Contradictions<'_>) {
    let content = segment.header.as_ref().map(|h| (h.first_step, h.is_final));
    let says = (record.first_step, record.is_final);
    if let Some(content) = content
        && content != says
    {
        let text = |(first, is_final)| {
            if is_final {
                format!("the final state, at step {first}")
            } else {
                format!("steps from {first} on")
            }
        };
        found.add(
            FindingKind::Segment,
            "content that the manifest lists",
            text(says),
            text(content),
        );
    }
    let steps = || segment.entries.iter().filter(|e| e.kind.has_meta());
    let count = |state: bool| steps().filter(|e| e.kind.has_state() == state).count() as u64;
    let end = steps()
        .next_back()
        .map_or(record.first_step, |e| e.step + 1);
    let text = |bytes, steps, gaps, end| {
        format!("{bytes} bytes, {steps} steps, {gaps} gaps, end before step {end}")
    };
    let expected = text(record.bytes, record.steps, record.gaps, record.end_step);
    let got = text(segment.file_length, count(true), count(false), end);
    if expected != got {
        found.add(
            FindingKind::Segment,
            "bytes, steps, gaps and end that the manifest lists",
            expected,
            got,
        );
    }
}
