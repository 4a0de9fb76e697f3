//! Writes the recovered run, and reads it back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::salvage::{End, Kept};
use crate::FormatError;
use crate::encoder::{EncodedFrame, Encoder};
use crate::info::RunInfo;
use crate::meta::StepMeta;
use crate::state::{KeyState, State};
use crate::storage::Storage;
use crate::trace::Trace;
use crate::wire;
use crate::writer::{Durability, RunWriter};

/// A summary of a run's content. That of the run as written is compared with that of the run as read back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub steps: u64,
    /// The steps without tensors.
    pub gaps: Vec<u64>,
    /// Digest over all steps with tensors, in order: metadata, state and, if there is one, key state.
    with_tensors: [u8; 32],
    /// Digest over all gaps, in order: metadata and digest.
    without: [u8; 32],
    /// Digest over the final state.
    end: Option<[u8; 32]>,
}

/// An unfinished tally.
#[derive(Default)]
struct Count {
    tally: Tally,
    with_tensors: blake3::Hasher,
    without: blake3::Hasher,
    scratch: Vec<u8>,
}

impl Count {
    fn step(
        &mut self,
        meta: &StepMeta,
        state: &State,
        key: Option<&KeyState>,
    ) -> Result<(), FormatError> {
        self.scratch.clear();
        wire::encode(meta, None, &mut self.scratch)?;
        self.tally.steps += 1;
        self.with_tensors.update(&meta.step.to_le_bytes());
        self.with_tensors
            .update(blake3::hash(&self.scratch).as_bytes());
        self.with_tensors.update(&state.digest());
        if let Some(key) = key {
            self.with_tensors
                .update(blake3::hash(&key.bytes).as_bytes());
        }
        Ok(())
    }

    fn gap(&mut self, meta: &StepMeta, digest: Option<&[u8; 32]>) -> Result<(), FormatError> {
        self.scratch.clear();
        wire::encode(meta, digest, &mut self.scratch)?;
        self.tally.gaps.push(meta.step);
        self.without.update(&meta.step.to_le_bytes());
        self.without.update(blake3::hash(&self.scratch).as_bytes());
        Ok(())
    }

    fn end(&mut self, step: u64, state: &State, key: &KeyState) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&step.to_le_bytes());
        hasher.update(&state.digest());
        hasher.update(blake3::hash(&key.bytes).as_bytes());
        self.tally.end = Some(*hasher.finalize().as_bytes());
    }

    fn into_tally(self) -> Tally {
        Tally {
            with_tensors: *self.with_tensors.finalize().as_bytes(),
            without: *self.without.finalize().as_bytes(),
            ..self.tally
        }
    }
}

/// Called after each step. Its error ends the recovery.
pub(super) type Tick<'a> = &'a mut dyn FnMut() -> Result<(), FormatError>;

impl Tally {
    /// Reads an intact run. Any damage is an error.
    pub fn read(trace: &Trace, gaps: &[u64], tick: Tick<'_>) -> Result<Tally, FormatError> {
        let mut count = Count::default();
        let mut steps = trace.forward(0..u64::MAX).with_rows();
        while let Some(step) = steps.next()? {
            count.step(step.meta, step.state, step.key)?;
            tick()?;
        }
        for &step in gaps {
            let (meta, digest) = trace.meta_and_digest(step)?;
            count.gap(&meta, digest.as_ref())?;
        }
        if let (Some((state, key)), Some(step)) = (trace.final_state()?, trace.final_step()) {
            count.end(step, &state, &key);
        }
        Ok(count.into_tally())
    }
}

/// The run that is being written.
pub(crate) struct Target {
    writer: RunWriter,
    encoder: Encoder,
    count: Count,
}

impl Target {
    pub fn create(storage: Arc<dyn Storage>, info: RunInfo) -> Result<Target, FormatError> {
        let writer = RunWriter::create(storage, info, Durability::Seals)?;
        Ok(Target {
            encoder: writer.encoder()?,
            writer,
            count: Count::default(),
        })
    }

    /// Spends time to save bytes, at this level of zstd.
    pub fn compress_harder(&mut self, level: i32) -> Result<(), FormatError> {
        self.encoder.compress_harder(level)
    }

    pub fn keep(&mut self, kept: Kept<'_>) -> Result<(), FormatError> {
        let frame = match kept {
            Kept::Keyframe {
                meta,
                state,
                key,
                before,
            } => {
                if let Some((base, before)) = before {
                    let link = self.encoder.link(meta.step, base, before, state)?;
                    self.append(link)?;
                }
                self.writer.seal()?;
                self.writer.open_segment(meta.step)?;
                self.count.step(meta, state, Some(key))?;
                self.encoder.keyframe(meta, state, key)?
            }
            Kept::Difference {
                meta,
                state,
                base,
                before,
            } => {
                self.count.step(meta, state, None)?;
                self.encoder.difference(meta, base, before, state)?
            }
            Kept::Gap { meta, digest } => {
                self.count.gap(meta, digest)?;
                match digest {
                    Some(digest) => self.encoder.gap(meta, digest)?,
                    None => self.encoder.gap_without_digest(meta)?,
                }
            }
        };
        self.append(frame)
    }

    fn append(&mut self, frame: EncodedFrame) -> Result<(), FormatError> {
        let bytes = self.writer.append(frame)?;
        self.encoder.recycle_bytes(bytes);
        Ok(())
    }

    /// Seals the run; returns a tally of what was written.
    pub fn close(
        mut self,
        end: End,
        counters: BTreeMap<String, u64>,
    ) -> Result<Tally, FormatError> {
        match end.finished {
            Some((step, state, key)) => {
                if let Some((base, last)) = &end.last {
                    let link = self.encoder.link(step, *base, last, &state)?;
                    self.append(link)?;
                }
                self.count.end(step, &state, &key);
                let frame = self.encoder.final_state(step, &state, &key)?;
                self.writer.finish_with(&frame, counters)?;
            }
            None => {
                self.writer.abandon(counters)?;
            }
        }
        Ok(self.count.into_tally())
    }
}
