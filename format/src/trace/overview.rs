//! An opened run, and what it contains.

use std::ops::Range;
use std::sync::Arc;

use super::damage::{CUT_OFF, SEGMENT_FILE};
use super::part::Part;
use crate::FormatError;
use crate::context::Context;
use crate::info::RunInfo;
use crate::layout::Layout;
use crate::manifest::{Manifest, Status};
use crate::memory::Work;
use crate::storage::Storage;

/// A recorded run, opened for reading. The run may be growing; the trace shows what was there when it was opened.
pub struct Trace {
    pub(super) storage: Arc<dyn Storage>,
    pub(crate) info: Arc<RunInfo>,
    pub(crate) context: Context,
    pub(super) status: Status,
    /// The manifest and its seal.
    pub(super) manifest: Option<(Manifest, [u8; 32])>,
    /// The segments, in the order of their numbers.
    pub(crate) parts: Vec<Part>,
    pub(super) problems: Vec<FormatError>,
    /// Which of the problems is about the run's end; see [`final_in_place`](Trace::final_in_place).
    pub(super) end_problem: Option<usize>,
    pub(super) reading: Reading,
    /// Size of the manifest in bytes.
    pub(super) manifest_bytes: u64,
}

/// The purpose of opening a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Analysis. A listed segment whose digest or description differs from the manifest's isn't the recorded one and is refused.
    Recorded,
    /// Recovery. Everything with valid checksums is read, even if its digests don't match.
    Salvage,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("location", &self.storage.location())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The sizes of one segment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SegmentSize {
    /// Number of the segment.
    pub number: u64,
    /// File name.
    pub file: String,
    /// First step, and one more than the last.
    pub steps: Range<u64>,
    /// Number of steps with tensors.
    pub recorded: u64,
    /// Number of steps without tensors.
    pub gaps: u64,
    /// Bytes of the file.
    pub stored_bytes: u64,
    /// Bytes of its states uncompressed, one state per recorded step.
    pub raw_bytes: u64,
    /// Whether it has a footer.
    pub sealed: bool,
}

impl Trace {
    /// The run's description.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }

    /// The tensors.
    pub fn layout(&self) -> &Layout {
        &self.info.layout
    }

    /// Finished, unfinished, or open. An open run is still being recorded, or its recorder was killed.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The manifest. `None` if it is damaged; [`problems`](Trace::problems) then says how.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref().map(|(m, _)| m)
    }

    /// The manifest's seal: a digest that stands for the whole run once the run is closed.
    pub fn head_digest(&self) -> Option<[u8; 32]> {
        self.manifest.as_ref().map(|(_, seal)| *seal)
    }

    /// Damage that was found when the run was opened and doesn't prevent reading it. [`verify`](Trace::verify) finds all damage.
    pub fn problems(&self) -> &[FormatError] {
        &self.problems
    }

    /// All problems but [that of the run's end](Trace::problem_of_the_end).
    pub(crate) fn problems_but_the_end(&self) -> impl Iterator<Item = &FormatError> {
        let problems = self.problems.iter().enumerate();
        problems.filter_map(|(i, problem)| (self.end_problem != Some(i)).then_some(problem))
    }

    /// The problem that [`final_in_place`](Trace::final_in_place) found when the run was opened, if any.
    pub(crate) fn problem_of_the_end(&self) -> Option<&FormatError> {
        self.end_problem.and_then(|i| self.problems.get(i))
    }

    /// The damage at which an open run ends too early: a later segment shows that more steps were recorded than the trace contains. `None`
    /// if there is no such damage.
    pub fn ends_early(&self) -> Option<&crate::Corruption> {
        self.problems.iter().find_map(|problem| match problem {
            FormatError::Corrupt(c)
                if c.segment.is_some() && [CUT_OFF, SEGMENT_FILE].contains(&c.what.as_str()) =>
            {
                Some(c.as_ref())
            }
            _ => None,
        })
    }

    /// The storage.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Steps whose tensors are recorded, as ranges of consecutive steps, in order.
    ///
    /// # Errors
    /// A segment's index can't be read.
    pub fn ranges(&self) -> Result<Vec<Range<u64>>, FormatError> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut add = |range: Range<u64>| match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => ranges.push(range),
        };
        for part in self.step_parts() {
            if part.steps == part.range.end - part.range.start {
                add(part.range.clone());
                continue;
            }
            let segment = self.checked(part)?;
            segment
                .entries
                .iter()
                .filter(|e| e.kind.has_state())
                .for_each(|e| add(e.step..e.step + 1));
        }
        Ok(ranges)
    }

    /// First recorded step and one more than the last, gaps included; `0..0` if no step is recorded.
    pub fn span(&self) -> Range<u64> {
        let mut parts = self.step_parts().filter(|p| p.steps + p.gaps > 0);
        let Some(first) = parts.next() else {
            return 0..0;
        };
        let last = parts.last().unwrap_or(first);
        first.range.start..last.range.end
    }

    /// Whether every step of `range` is recorded with its tensors.
    ///
    /// # Errors
    /// As [`ranges`](Trace::ranges).
    pub fn covers(&self, range: Range<u64>) -> Result<bool, FormatError> {
        Ok(range.is_empty()
            || self
                .ranges()?
                .iter()
                .any(|r| r.start <= range.start && range.end <= r.end))
    }

    /// The last keyframe at or before `step`. The state there includes the optimizer state.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`].
    pub fn start_of(&self, step: u64) -> Result<u64, FormatError> {
        let part = self.step_parts().filter(|p| p.range.start <= step).last();
        part.map(|p| p.range.start)
            .ok_or_else(|| self.missing(step))
    }

    /// Damage, if the final state comes before recorded steps, which would end the run too early, or if a finished run has no final state.
    pub(super) fn final_in_place(&self) -> Result<(), FormatError> {
        let end = self.span().end;
        match self.parts.iter().find(|p| p.is_final) {
            Some(part) if part.range.start < end => Err(FormatError::corrupt(
                "step of the final state",
                format!("{end} or a later one, since step {} is recorded", end - 1),
                part.range.start,
            )
            .within(&part.name, Some(part.number))),
            None if self.status == Status::Finished => {
                Err(
                    FormatError::corrupt("finished run", "a final state", "none")
                        .within(crate::MANIFEST, None),
                )
            }
            _ => Ok(()),
        }
    }

    /// T, one more than the last step of a finished run; `None` for any other run. The final state is the one before step T.
    pub fn final_step(&self) -> Option<u64> {
        self.parts
            .iter()
            .find(|p| p.is_final)
            .map(|p| p.range.start)
    }

    /// How many steps and gaps the segments list. A forged manifest may list any number.
    pub(crate) fn entries(&self) -> u64 {
        let of = |p: &Part| p.steps.saturating_add(p.gaps);
        self.parts.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Stored and uncompressed bytes of each segment.
    pub fn sizes(&self) -> Vec<SegmentSize> {
        let raw = self.layout().frame_bytes() as u64;
        let size = |p: &Part| SegmentSize {
            number: p.number,
            file: p.name.clone(),
            steps: p.range.clone(),
            recorded: p.steps,
            gaps: p.gaps,
            stored_bytes: p.bytes,
            // A forged manifest may list any number of steps.
            raw_bytes: raw.saturating_mul(p.steps.saturating_add(u64::from(p.is_final))),
            sealed: p.sealed,
        };
        self.parts.iter().map(size).collect()
    }

    /// Refuses work that may need more memory than the storage allows.
    pub(crate) fn afford(&self, work: Work) -> Result<(), FormatError> {
        crate::memory::states(
            self.storage.as_ref(),
            work,
            self.layout(),
            self.manifest_bytes,
        )
    }

    /// The segments that hold steps.
    pub(super) fn step_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|p| !p.is_final)
    }

    /// The error for a step that the trace doesn't contain.
    pub(super) fn missing(&self, step: u64) -> FormatError {
        let why = match self.ranges() {
            Ok(ranges) if ranges.is_empty() => "the trace holds no steps".to_owned(),
            Ok(ranges) => format!("the trace holds {}", listed(&ranges)),
            Err(_) => {
                let span = self.span();
                format!("the trace holds steps {}..{}", span.start, span.end)
            }
        };
        FormatError::NotRecorded { step, why }
    }
}

/// Ranges in words, such as `steps 0..12, 13..40`. Of many ranges, only the first few and the last.
fn listed(ranges: &[Range<u64>]) -> String {
    const NAMED: usize = 6;
    let text = |r: &Range<u64>| format!("{}..{}", r.start, r.end);
    let mut named: Vec<String> = ranges.iter().take(NAMED).map(text).collect();
    if let (Some(last), true) = (ranges.last(), ranges.len() > NAMED) {
        named.push(format!("… ({} ranges)", ranges.len()));
        named.push(text(last));
    }
    format!("steps {}", named.join(", "))
}
