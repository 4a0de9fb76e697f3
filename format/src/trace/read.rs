//! Reads one step, the final state, or many steps.

use std::ops::Range;

use super::meta::Metas;
use super::overview::Trace;
use super::steps::Steps;
use super::walk::Walker;
use crate::FormatError;
use crate::frame::{Frame, FrameKind};
use crate::manifest::Manifest;
use crate::memory::Work;
use crate::meta::StepMeta;
use crate::state::{KeyState, State};

/// One recorded step, owned.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The step's metadata, as the training loop gave it.
    pub meta: StepMeta,
    /// θ_t and r_{t+1}.
    pub state: State,
    /// At keyframes, r_t and the optimizer state before the step.
    pub key: Option<KeyState>,
}

impl Trace {
    /// Reads one step, starting from the nearer end of its segment, or from the other end if frames on the way are damaged.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`], or damage that makes the step unreachable from both ends.
    pub fn read(&self, step: u64) -> Result<Recorded, FormatError> {
        let meta = self.meta(step)?;
        let (state, key) = self.state(step)?;
        Ok(Recorded { meta, state, key })
    }

    /// The state of a step, without its metadata, which may be damaged.
    ///
    /// # Errors
    /// As [`read`](Trace::read).
    pub fn state(&self, step: u64) -> Result<(State, Option<KeyState>), FormatError> {
        let mut walker = Walker::new(self)?;
        walker.seek(step, true)?;
        let key = walker.key()?;
        Ok((walker.into_state(), key))
    }

    /// The metadata of a step or a gap. No tensors are decoded.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`] or damaged metadata.
    pub fn meta(&self, step: u64) -> Result<StepMeta, FormatError> {
        let (mut meta, _) = self.meta_and_digest(step)?;
        crate::rows::strip(&mut meta);
        Ok(meta)
    }

    /// The digest that a gap stores in place of its state.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`] or damaged metadata.
    pub fn gap_digest(&self, step: u64) -> Result<Option<[u8; 32]>, FormatError> {
        self.meta_and_digest(step).map(|(_, digest)| digest)
    }

    /// A step's metadata with its records of rows and, for a gap, the digest of its state.
    pub(crate) fn meta_and_digest(
        &self,
        step: u64,
    ) -> Result<(StepMeta, Option<[u8; 32]>), FormatError> {
        let part = self
            .step_parts()
            .find(|p| p.range.contains(&step))
            .ok_or_else(|| self.missing(step))?;
        let segment = self.checked(part)?;
        let entry = segment
            .entries
            .iter()
            .find(|e| e.kind.has_meta() && e.step == step)
            .ok_or_else(|| self.lost_or_missing(part, &segment, step))?;
        self.whole_meta_of(&segment, entry, &mut Vec::new())
    }

    /// The metadata of all steps in `range`, gaps included, oldest first.
    pub fn metas(&self, range: Range<u64>) -> Metas<'_> {
        Metas::new(self, range)
    }

    /// The recorded steps of `range`, oldest first. Steps without tensors are skipped: call [`covers`](Trace::covers) first where none may
    /// be missing.
    pub fn forward(&self, range: Range<u64>) -> Steps<'_> {
        Steps::new(self, range, false)
    }

    /// The recorded steps of `range`, newest first, in the memory of one step. Otherwise like [`forward`](Trace::forward).
    pub fn reverse(&self, range: Range<u64>) -> Steps<'_> {
        Steps::new(self, range, true)
    }

    /// Epochs in order, each with its first recorded step and one more than its last. Reads all metadata once.
    ///
    /// # Errors
    /// Damaged metadata.
    pub fn epochs(&self) -> Result<Vec<(u64, Range<u64>)>, FormatError> {
        let mut epochs: Vec<(u64, Range<u64>)> = Vec::new();
        for meta in self.metas(0..u64::MAX) {
            let meta = meta?;
            match epochs.last_mut() {
                Some((epoch, range)) if *epoch == meta.epoch => range.end = meta.step + 1,
                _ => epochs.push((meta.epoch, meta.step..meta.step + 1)),
            }
        }
        Ok(epochs)
    }

    /// θ_T, r_T and the optimizer state after the last step; `None` if the run isn't finished.
    ///
    /// # Errors
    /// Damage.
    pub fn final_state(&self) -> Result<Option<(State, KeyState)>, FormatError> {
        self.final_in_place()?;
        let Some(part) = self.parts.iter().find(|p| p.is_final) else {
            return Ok(None);
        };
        let located = |e: FormatError| e.within(&part.name, Some(part.number));
        let segment = self.checked(part)?;
        let Some(entry) = segment.entries.iter().find(|e| e.kind == FrameKind::Final) else {
            // A manifest that lists the state was written after it. Without such a manifest, the recorder was killed while writing it.
            let listed = |m: &Manifest| m.segments.iter().any(|s| s.is_final);
            if self.manifest().is_some_and(listed) {
                let what = "final state of a finished run";
                return Err(located(FormatError::corrupt(
                    what,
                    "a complete frame",
                    "none",
                )));
            }
            return Ok(None);
        };
        self.afford(Work::Read)?;
        let mut scratch = Vec::new();
        let bytes = segment.frame(entry, &mut scratch)?;
        let mut decoder = crate::decoder::Decoder::new(self.context.clone())?;
        Frame::read(bytes, self.context.salt)
            .and_then(|frame| decoder.whole(&frame))
            .map(Some)
            .map_err(|e| located(e.at_step(entry.step)))
    }
}
