//! Reading a run: what is there, one step, or many in either direction.

mod checkpoint;
mod identity;
mod meta;
mod open;
mod orphans;
mod part;
mod readable;
mod steps;
mod tail;
mod walk;

use std::ops::Range;
use std::sync::Arc;

use crate::FormatError;
use crate::encoder::Context;
use crate::frame::{Frame, FrameKind};
use crate::info::RunInfo;
use crate::layout::Layout;
use crate::manifest::{Manifest, Status};
use crate::memory::Work;
use crate::meta::StepMeta;
use crate::segment::Segment;
use crate::state::{KeyState, State};
use crate::storage::{FsStorage, Storage};
pub use checkpoint::Checkpoint;
pub use meta::Metas;
pub(crate) use open::{SEGMENT_FILE, read_manifest};
pub(crate) use orphans::most_told;
pub(crate) use part::Part;
pub use readable::Readable;
pub use steps::{Step, Steps};
pub(crate) use tail::CUT_OFF;
pub(crate) use walk::Walker;

/// A recorded run, opened for reading; it may be growing, and shows what was there when it was opened.
pub struct Trace {
    storage: Arc<dyn Storage>,
    pub(crate) info: Arc<RunInfo>,
    pub(crate) context: Context,
    status: Status,
    manifest: Option<(Manifest, [u8; 32])>,
    pub(crate) parts: Vec<Part>,
    problems: Vec<FormatError>,
    reading: Reading,
    /// Size of the manifest in bytes.
    manifest_bytes: u64,
}

/// The purpose of opening a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Analysis: a listed segment whose digest or description differs from the manifest's isn't the recorded one, and
    /// is refused.
    Recorded,
    /// Recovery: everything with valid checksums is read, even if its digests don't match.
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

/// One step, owned.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What the loop said about it.
    pub meta: StepMeta,
    /// θ_t and r_{t+1}.
    pub state: State,
    /// At keyframes: r_t and the optimizer state before the step.
    pub key: Option<KeyState>,
}

/// How many bytes a segment takes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SegmentSize {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub file: String,
    /// First step and one more than the last.
    pub steps: Range<u64>,
    /// Steps with tensors.
    pub recorded: u64,
    /// Steps without tensors.
    pub gaps: u64,
    /// Bytes of the file.
    pub stored_bytes: u64,
    /// Bytes that its states would take as they are in memory, one a recorded step.
    pub raw_bytes: u64,
    /// Has it a footer?
    pub sealed: bool,
}

impl Trace {
    /// Opens the run in that folder.
    ///
    /// # Errors
    /// [`FormatError::NotARun`], a newer version, or damage that leaves nothing to read.
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Trace, FormatError> {
        Trace::open_storage(Arc::new(FsStorage::new(path.as_ref())))
    }

    /// What the run says about itself.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }

    /// The tensors.
    pub fn layout(&self) -> &Layout {
        &self.info.layout
    }

    /// Finished, unfinished, or open: still being recorded, or its recorder was killed.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The manifest, unless it is damaged; a damaged one is among the [`problems`](Trace::problems).
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref().map(|(m, _)| m)
    }

    /// The digest that stands for the whole run once it is closed: the manifest's seal.
    pub fn head_digest(&self) -> Option<[u8; 32]> {
        self.manifest.as_ref().map(|(_, seal)| *seal)
    }

    /// Damage that was met while opening and could be worked around. [`verify`](Trace::verify) looks everywhere.
    pub fn problems(&self) -> &[FormatError] {
        &self.problems
    }

    /// The damage at which an open run ends early: a later segment shows that more steps were recorded. A reader that takes
    /// the run's last step for the last one recorded would be wrong without a word.
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

    /// Steps whose tensors are recorded, as runs of consecutive steps, in order.
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
        for part in self.steps_parts() {
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

    /// First recorded step and one more than the last, gaps included; `0..0` if there is none.
    pub fn span(&self) -> Range<u64> {
        let mut parts = self.steps_parts().filter(|p| p.steps + p.gaps > 0);
        match (
            parts.next(),
            self.steps_parts().filter(|p| p.steps + p.gaps > 0).last(),
        ) {
            (Some(first), Some(last)) => first.range.start..last.range.end,
            _ => 0..0,
        }
    }

    /// Is every step of `range` there, tensors included?
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

    /// Epochs in order, each with its first recorded step and one more than its last. Reads all metadata once.
    ///
    /// # Errors
    /// Damaged metadata.
    pub fn epochs(&self) -> Result<Vec<(u64, Range<u64>)>, FormatError> {
        let mut epochs: Vec<(u64, Range<u64>)> = Vec::new();
        let mut metas = self.metas(0..u64::MAX);
        while let Some(meta) = metas.next()? {
            match epochs.last_mut() {
                Some((epoch, range)) if *epoch == meta.epoch => range.end = meta.step + 1,
                _ => epochs.push((meta.epoch, meta.step..meta.step + 1)),
            }
        }
        Ok(epochs)
    }

    /// The last keyframe at or before `step`: from there a state with its optimizer state is at hand.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`].
    pub fn start_of(&self, step: u64) -> Result<u64, FormatError> {
        let part = self.steps_parts().filter(|p| p.range.start <= step).last();
        part.map(|p| p.range.start)
            .ok_or_else(|| self.missing(step))
    }

    /// Reads one step, from whichever end of its segment is nearer and undamaged.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`], or damage that hides it from both ends.
    pub fn read(&self, step: u64) -> Result<Recorded, FormatError> {
        let meta = self.meta(step)?;
        let (state, key) = self.state(step)?;
        Ok(Recorded { meta, state, key })
    }

    /// The state alone, even where the step's metadata is damaged.
    ///
    /// # Errors
    /// As [`read`](Trace::read).
    pub fn state(&self, step: u64) -> Result<(State, Option<KeyState>), FormatError> {
        let mut walker = Walker::new(self)?;
        walker.seek(step, true)?;
        let key = walker.key()?;
        Ok((walker.into_state(), key))
    }

    /// What step `step` says about itself; no tensors are decoded, and a gap has it, too.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`] or damaged metadata.
    pub fn meta(&self, step: u64) -> Result<StepMeta, FormatError> {
        self.meta_and_digest(step).map(|(meta, _)| meta)
    }

    /// The digest that a gap holds in place of its state.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`] or damaged metadata.
    pub fn gap_digest(&self, step: u64) -> Result<Option<[u8; 32]>, FormatError> {
        self.meta_and_digest(step).map(|(_, digest)| digest)
    }

    /// A step's metadata, and the digest of its state where it is a gap.
    fn meta_and_digest(&self, step: u64) -> Result<(StepMeta, Option<[u8; 32]>), FormatError> {
        let part = self
            .steps_parts()
            .find(|p| p.range.contains(&step))
            .ok_or_else(|| self.missing(step))?;
        let segment = self.checked(part)?;
        let entry = segment
            .entries
            .iter()
            .find(|e| e.kind.has_meta() && e.step == step)
            .ok_or_else(|| self.lost_or_missing(part, &segment, step))?;
        self.meta_of(&segment, entry, &mut Vec::new())
    }

    /// The metadata of all steps in `range`, gaps included, oldest first.
    pub fn metas(&self, range: Range<u64>) -> Metas<'_> {
        Metas::new(self, range)
    }

    /// The recorded steps of `range`, oldest first. Steps without tensors are passed over: ask [`covers`](Trace::covers) first where
    /// none may be missing.
    pub fn forward(&self, range: Range<u64>) -> Steps<'_> {
        Steps::new(self, range, false)
    }

    /// The recorded steps of `range`, newest first, in the memory of one step. As [`forward`](Trace::forward) otherwise.
    pub fn reverse(&self, range: Range<u64>) -> Steps<'_> {
        Steps::new(self, range, true)
    }

    /// θ_T, r_T and the optimizer state after the last step, if the run was finished.
    ///
    /// # Errors
    /// Damage.
    pub fn final_state(&self) -> Result<Option<(State, KeyState)>, FormatError> {
        self.final_in_place()?;
        let Some(part) = self.parts.iter().find(|p| p.is_final) else {
            return Ok(None);
        };
        let segment = self.checked(part)?;
        let Some(entry) = segment.entries.iter().find(|e| e.kind == FrameKind::Final) else {
            // A recorder that was killed while it wrote the state never acknowledged it; a manifest that lists it did.
            let listed = |m: &Manifest| m.segments.iter().any(|s| s.is_final);
            return match self.manifest().is_some_and(listed) {
                true => Err(FormatError::corrupt(
                    "final state of a finished run",
                    "a whole frame",
                    "none",
                )
                .within(&part.name, Some(part.number))),
                false => Ok(None),
            };
        };
        self.afford(Work::Read)?;
        let mut scratch = Vec::new();
        let frame = Frame::read(segment.frame(entry, &mut scratch)?, self.context.salt);
        let mut decoder = crate::decoder::Decoder::new(self.context.clone())?;
        let at = |e: FormatError| e.at_step(entry.step).within(&part.name, Some(part.number));
        let frame = frame.map_err(at)?;
        let (state, key) = decoder.whole(&frame).map_err(at)?;
        Ok(Some((state, key)))
    }

    /// Damage, where the final state stands before recorded steps, which would end the run too early, or where a finished run has none.
    pub(crate) fn final_in_place(&self) -> Result<(), FormatError> {
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

    /// T: one more than the last step of a finished run, the step that its final state stands before.
    ///
    /// # Errors
    /// The index can't be read.
    pub fn final_step(&self) -> Option<u64> {
        self.parts
            .iter()
            .find(|p| p.is_final)
            .map(|p| p.range.start)
    }

    /// Bytes stored and raw, a segment.
    pub fn sizes(&self) -> Vec<SegmentSize> {
        let raw = self.layout().frame_bytes() as u64;
        let size = |p: &Part| SegmentSize {
            number: p.number,
            file: p.name.clone(),
            steps: p.range.clone(),
            recorded: p.steps,
            gaps: p.gaps,
            stored_bytes: p.bytes,
            raw_bytes: raw * (p.steps + u64::from(p.is_final)),
            sealed: p.sealed,
        };
        self.parts.iter().map(size).collect()
    }

    /// Checks every byte of the run; see [`verify_storage`](crate::verify_storage).
    ///
    /// # Errors
    /// Only if the storage fails: damage is in the report.
    pub fn verify(&self) -> Result<crate::VerifyReport, FormatError> {
        crate::verify_storage(&self.storage)
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

    fn steps_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|p| !p.is_final)
    }

    fn meta_of(
        &self,
        segment: &Segment,
        entry: &crate::segment::Entry,
        scratch: &mut Vec<u8>,
    ) -> Result<(StepMeta, Option<[u8; 32]>), FormatError> {
        let number = crate::segment::parse_name(&segment.name).map(|(n, _)| n);
        let bytes = segment.frame(entry, scratch)?;
        let read = || {
            let frame = Frame::read(bytes, self.context.salt)?;
            let bytes = frame.meta_bytes()?;
            crate::memory::metadata(self.storage.as_ref(), bytes.len() as u64)?;
            let (meta, digest) = crate::wire::decode(entry.step, bytes)?;
            match meta.fits(self.layout()) {
                true => Ok((meta, digest)),
                false => Err(crate::meta::misfit()),
            }
        };
        read().map_err(|e| e.at_step(entry.step).within(&segment.name, number))
    }

    fn missing(&self, step: u64) -> FormatError {
        let why = match self.ranges() {
            Ok(ranges) if ranges.is_empty() => "the trace holds no steps".to_owned(),
            Ok(ranges) => format!("the trace holds {}", held(&ranges)),
            Err(_) => {
                let span = self.span();
                format!("the trace holds steps {}..{}", span.start, span.end)
            }
        };
        FormatError::NotRecorded { step, why }
    }
}

/// `steps 0..12, 13..40`; the first few and the last where there are many.
fn held(ranges: &[Range<u64>]) -> String {
    const NAMED: usize = 6;
    let text = |r: &Range<u64>| format!("{}..{}", r.start, r.end);
    let mut named: Vec<String> = ranges.iter().take(NAMED).map(text).collect();
    if let (Some(last), true) = (ranges.last(), ranges.len() > NAMED) {
        named.push(format!("… ({} stretches)", ranges.len()));
        named.push(text(last));
    }
    format!("steps {}", named.join(", "))
}
