//! Writing the recovered run, and reading it back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::salvage::{End, Kept};
use crate::FormatError;
use crate::encoder::{Context, EncodedFrame, Encoder};
use crate::frame::{FRAME_HEADER, FRAME_TRAILER, FrameHeader, FrameKind, trailer};
use crate::info::RunInfo;
use crate::meta::StepMeta;
use crate::state::{KeyState, State};
use crate::storage::Storage;
use crate::trace::Trace;
use crate::wire;
use crate::writer::{Durability, RunWriter};

/// What was written, to be compared with what is read back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub steps: u64,
    /// Steps without tensors.
    pub gaps: Vec<u64>,
    /// Over all steps with tensors, in order: metadata, state, and key state where there is one.
    with_tensors: [u8; 32],
    /// Over all gaps, in order: metadata and digest.
    without: [u8; 32],
    /// Over the final state.
    end: Option<[u8; 32]>,
}

/// A tally that is growing.
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

impl Tally {
    /// Counts a run that is whole: any damage is an error.
    pub fn read(trace: &Trace, gaps: &[u64], tick: &mut dyn FnMut()) -> Result<Tally, FormatError> {
        let mut count = Count::default();
        let mut steps = trace.forward(0..u64::MAX);
        while let Some(step) = steps.next()? {
            count.step(step.meta, step.state, step.key)?;
            tick();
        }
        for &step in gaps {
            count.gap(&trace.meta(step)?, trace.gap_digest(step)?.as_ref())?;
        }
        if let (Some((state, key)), Some(step)) = (trace.final_state()?, trace.final_step()) {
            count.end(step, &state, &key);
        }
        Ok(count.into_tally())
    }
}

/// The run that is being written.
pub(super) struct Target {
    writer: RunWriter,
    encoder: Encoder,
    context: Context,
    count: Count,
}

impl Target {
    pub fn create(storage: Arc<dyn Storage>, info: RunInfo) -> Result<Target, FormatError> {
        let context = Context::new(&info)?;
        let writer = RunWriter::create(storage, info, Durability::Seals)?;
        Ok(Target {
            encoder: writer.encoder()?,
            writer,
            context,
            count: Count::default(),
        })
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
                    None => gap_without_digest(meta, self.context.salt)?,
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

    /// Seals the run and says what was written.
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
                self.writer.finish_at(step, &state, &key, counters)?;
            }
            None => {
                self.writer.abandon(counters)?;
            }
        }
        Ok(self.count.into_tally())
    }
}

/// A gap whose tensors are lost: nobody knows the digest of its state. (A recorder's gap always has it.)
fn gap_without_digest(meta: &StepMeta, salt: u32) -> Result<EncodedFrame, FormatError> {
    let mut text = Vec::new();
    wire::encode(meta, None, &mut text)?;
    // A chunk table of no chunks is its checksum.
    let table = crc32c::crc32c_append(salt, &[]).to_le_bytes();
    let length = (FRAME_HEADER + text.len() + table.len() + FRAME_TRAILER) as u64;
    let header = FrameHeader {
        kind: FrameKind::Gap,
        length,
        step: meta.step,
        base: meta.step,
        meta_length: u32::try_from(text.len()).map_err(|_| FormatError::Limit {
            what: "bytes of a step's metadata",
            found: text.len() as u64,
            limit: wire::MAX_META as u64,
        })?,
        chunks: 0,
        meta_crc: crc32c::crc32c_append(salt, &text),
        table_length: table.len() as u32,
    };
    let mut bytes = header.write(salt).to_vec();
    bytes.extend_from_slice(&text);
    bytes.extend_from_slice(&table);
    bytes.extend_from_slice(&trailer(length));
    Ok(EncodedFrame {
        kind: FrameKind::Gap,
        step: meta.step,
        base: meta.step,
        bytes,
    })
}
