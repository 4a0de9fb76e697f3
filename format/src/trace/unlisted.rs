//! Segments that the manifest doesn't list yet: the one being written, and sealed ones before it.

use std::collections::BTreeMap;
use std::io;

use super::damage::{CUT_OFF, SEGMENT_FILE, copies};
use super::overview::{Reading, Trace};
use super::part::part;
use crate::FormatError;
use crate::manifest::Status;
use crate::segment::{self, Segment, Tail, Trust};

impl Trace {
    /// Adds the segments that the manifest of an open run doesn't list yet, as far as they continue the chain.
    pub(super) fn add_unlisted(
        &mut self,
        files: &BTreeMap<String, u64>,
    ) -> Result<(), FormatError> {
        let Some((manifest, _)) = &self.manifest else {
            return Ok(());
        };
        if self.status != Status::Open {
            return Ok(());
        }
        let fork = manifest.forks.len() as u32;
        let mut previous = Some(manifest.chain);
        let mut next = manifest.segments.last().map_or(0, |s| s.number + 1);
        let mut numbers: Vec<u64> = files
            .keys()
            .filter_map(|name| segment::parse_name(name))
            .filter(|&(number, of_fork)| number >= next && of_fork == fork)
            .map(|(number, _)| number)
            .collect();
        numbers.sort_unstable();
        let newest = numbers.last().copied();
        for number in numbers {
            // A recorder begins a segment only when the previous one is sealed.
            let followed = newest.is_some_and(|newest| newest > number);
            if number != next {
                // A later segment shows that these existed.
                let lost = segment::name(next, fork);
                self.problems.push(
                    FormatError::corrupt(SEGMENT_FILE, "present", "missing")
                        .within(&lost, Some(next)),
                );
                if self.reading == Reading::Recorded {
                    return Ok(());
                }
                previous = None;
            }
            next = number.saturating_add(1);
            let reported = self.problems.len();
            let Some(segment) = self.unlisted_segment(number, fork, previous)? else {
                if followed && self.problems.len() == reported {
                    self.problems
                        .push(cut_off(&segment::name(number, fork), number));
                }
                match self.reading {
                    Reading::Recorded => return Ok(()),
                    Reading::Salvage => previous = None,
                }
                continue;
            };
            self.problems.extend(copies(&segment.problems));
            previous = segment.digest;
            // The trace ends at a segment without an end, because steps may be missing between it and the next segment.
            let ends = segment.tail != Tail::Sealed;
            if ends && followed && segment.problems.is_empty() {
                self.problems.push(cut_off(&segment.name, number));
            }
            let part = part(number, segment);
            if self.reading == Reading::Recorded
                && let Some(problem) = self.parts.last().and_then(|last| part.repeats(last))
            {
                self.problems.push(problem);
                return Ok(());
            }
            self.parts.push(part);
            if ends && self.reading == Reading::Recorded {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A segment that the manifest doesn't list, if it exists and belongs to the run.
    fn unlisted_segment(
        &mut self,
        number: u64,
        fork: u32,
        previous: Option<[u8; 32]>,
    ) -> Result<Option<Segment>, FormatError> {
        let name = segment::name(number, fork);
        let loaded = Segment::load(
            self.storage.as_ref(),
            &name,
            Some(&self.info),
            Trust::Unlisted,
        );
        let segment = match loaded {
            Ok(segment) => segment,
            // Its header isn't written yet.
            Err(FormatError::Incomplete { .. }) => return Ok(None),
            Err(FormatError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(e) if e.is_refusal() || matches!(e, FormatError::Io { .. }) => return Err(e),
            Err(e) => {
                self.problems.push(e);
                return Ok(None);
            }
        };
        let Some(header) = &segment.header else {
            return Ok(Some(segment));
        };
        let expected = "the segment that follows in this run";
        let other = |got: &str| {
            FormatError::corrupt("segment header", expected, got).within(&name, Some(number))
        };
        let another = header.info != self.info || header.number != number || header.fork != fork;
        if another {
            self.problems.push(other("that of another segment"));
            return Ok(None);
        }
        if previous.is_some_and(|p| p != header.previous) {
            self.problems
                .push(other("one that follows another segment"));
            if self.reading == Reading::Recorded {
                return Ok(None);
            }
        }
        Ok(Some(segment))
    }
}

/// The damage of a segment without an end, if a later one shows that it was sealed.
fn cut_off(name: &str, number: u64) -> FormatError {
    FormatError::corrupt(
        CUT_OFF,
        "a footer, since a later segment was begun",
        "none: the file was emptied or cut",
    )
    .within(name, Some(number))
}
