//! States to frames: pure, off the training thread, no file in sight.

use std::sync::Arc;

use crate::FormatError;
use crate::chunks::{Chunk, Plan};
use crate::codec::{Entry, PlaneCoder, Source, open_bits_are_noise, to_magnitudes, to_planes};
use crate::frame::{
    FRAME_HEADER, FrameHeader, FrameKind, MAGNITUDES_ENTRY, planes_entry, salt_crc,
};
use crate::info::RunInfo;
use crate::layout::Layout;
use crate::meta::{BatchWeights, StepMeta};
use crate::state::{KeyState, State};
use crate::wire;

/// What encoders and decoders know about the run.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub layout: Layout,
    pub plan: Arc<Plan>,
    /// CRC32C of the salt.
    pub salt: u32,
}

impl Context {
    pub fn new(info: &RunInfo) -> Result<Context, FormatError> {
        Ok(Context {
            layout: info.layout.clone(),
            plan: Arc::new(Plan::new(&info.layout, &info.chunks)?),
            salt: salt_crc(&info.salt),
        })
    }
}

/// A frame as it will stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    pub(crate) kind: FrameKind,
    pub(crate) step: u64,
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
}

impl EncodedFrame {
    /// What it is.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Its step; for a link or a final state the first step that it doesn't hold.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Turns states into frames. One a thread: it owns the scratch that makes encoding free of allocation.
pub struct Encoder {
    context: Context,
    coder: PlaneCoder,
    planes: Vec<u8>,
    meta: Vec<u8>,
    /// Which chunks of the frame at hand are stored as classes of magnitude.
    magnitudes: Vec<bool>,
    spare: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// Buffers that [`Encoder::recycle`] keeps.
const SPARE: usize = 4;

impl Encoder {
    /// An encoder for that run.
    ///
    /// # Errors
    /// Chunks that don't fit the layout, or no memory for zstd.
    pub fn new(info: &RunInfo) -> Result<Encoder, FormatError> {
        Encoder::with_context(Context::new(info)?)
    }

    pub(crate) fn with_context(context: Context) -> Result<Encoder, FormatError> {
        let coder =
            PlaneCoder::new().map_err(|e| FormatError::io("zstd", "making a compressor", e))?;
        Ok(Encoder {
            context,
            coder,
            planes: Vec::new(),
            meta: Vec::new(),
            magnitudes: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// The full state of a step that opens a segment.
    ///
    /// # Errors
    /// States or metadata that don't fit the layout.
    pub fn keyframe(
        &mut self,
        meta: &StepMeta,
        state: &State,
        key: &KeyState,
    ) -> Result<EncodedFrame, FormatError> {
        self.fits(state)?;
        self.fits_key(key)?;
        self.describe(meta, None)?;
        let plan = Arc::clone(&self.context.plan);
        let parts = [
            Part {
                chunks: &plan.state,
                earlier: None,
                later: state.bytes(),
            },
            Part {
                chunks: &plan.key,
                earlier: None,
                later: &key.bytes,
            },
        ];
        self.frame(FrameKind::Keyframe, meta.step, meta.step, &parts)
    }

    /// A step as its difference to the recorded step `base` before it, whose state is `previous`.
    ///
    /// # Errors
    /// States or metadata that don't fit the layout.
    pub fn difference(
        &mut self,
        meta: &StepMeta,
        base: u64,
        previous: &State,
        current: &State,
    ) -> Result<EncodedFrame, FormatError> {
        self.describe(meta, None)?;
        self.change(FrameKind::Difference, meta.step, base, previous, current)
    }

    /// Closes a segment: the way from the state of its last recorded step `base` to `next`, the state that opens the next segment at
    /// step `step` (or the final state).
    ///
    /// # Errors
    /// States that don't fit the layout.
    pub fn link(
        &mut self,
        step: u64,
        base: u64,
        last: &State,
        next: &State,
    ) -> Result<EncodedFrame, FormatError> {
        self.meta.clear();
        self.change(FrameKind::Link, step, base, last, next)
    }

    /// A step whose tensors are left out: its metadata and the digest of its state ([`State::digest`]).
    ///
    /// # Errors
    /// Metadata that doesn't fit the layout.
    pub fn gap(&mut self, meta: &StepMeta, digest: &[u8; 32]) -> Result<EncodedFrame, FormatError> {
        self.describe(meta, Some(digest))?;
        self.frame(FrameKind::Gap, meta.step, meta.step, &[])
    }

    /// The run's final state: θ_T and r_T, with the optimizer state after the last step.
    ///
    /// # Errors
    /// States that don't fit the layout.
    pub fn final_state(
        &mut self,
        step: u64,
        state: &State,
        key: &KeyState,
    ) -> Result<EncodedFrame, FormatError> {
        self.fits(state)?;
        self.fits_key(key)?;
        self.meta.clear();
        let plan = Arc::clone(&self.context.plan);
        let parts = [
            Part {
                chunks: &plan.state,
                earlier: None,
                later: state.bytes(),
            },
            Part {
                chunks: &plan.key,
                earlier: None,
                later: &key.bytes,
            },
        ];
        self.frame(FrameKind::Final, step, step, &parts)
    }

    /// Gives a written frame's buffer back, so that the next frame needs no new one.
    pub fn recycle(&mut self, frame: EncodedFrame) {
        self.recycle_bytes(frame.bytes);
    }

    /// Gives a buffer back that [`RunWriter::append`](crate::RunWriter::append) returned.
    pub fn recycle_bytes(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(bytes);
        }
    }

    fn change(
        &mut self,
        kind: FrameKind,
        step: u64,
        base: u64,
        earlier: &State,
        later: &State,
    ) -> Result<EncodedFrame, FormatError> {
        self.fits(earlier)?;
        self.fits(later)?;
        if base >= step {
            return Err(FormatError::Order {
                step,
                why: format!("its difference starts from step {base}, which is not before it"),
            });
        }
        let plan = Arc::clone(&self.context.plan);
        self.frame(
            kind,
            step,
            base,
            &[Part {
                chunks: &plan.state,
                earlier: Some(earlier.bytes()),
                later: later.bytes(),
            }],
        )
    }

    fn fits(&self, state: &State) -> Result<(), FormatError> {
        same("layout of a state", &self.context.layout, state.layout())
    }

    fn fits_key(&self, key: &KeyState) -> Result<(), FormatError> {
        same("layout of a key state", &self.context.layout, key.layout())
    }

    fn describe(&mut self, meta: &StepMeta, digest: Option<&[u8; 32]>) -> Result<(), FormatError> {
        check_meta(&self.context.layout, meta)?;
        self.meta.clear();
        wire::encode(meta, digest, &mut self.meta)
    }

    fn frame(
        &mut self,
        kind: FrameKind,
        step: u64,
        base: u64,
        parts: &[Part<'_>],
    ) -> Result<EncodedFrame, FormatError> {
        let salt = self.context.salt;
        let mut out = self.spare.pop().unwrap_or_default();
        out.clear();
        out.resize(FRAME_HEADER, 0);
        out.extend_from_slice(&self.meta);
        let table = out.len();
        // The form of each chunk decides how long its entry is, so all are chosen before the first is coded.
        self.magnitudes.clear();
        let mut table_length = 4;
        for (part, chunk) in parts
            .iter()
            .flat_map(|p| p.chunks.iter().map(move |c| (p, c)))
        {
            let source = part.source(chunk);
            let magnitudes =
                part.earlier.is_some() && open_bits_are_noise(chunk.dtype, source, chunk.elements);
            self.magnitudes.push(magnitudes);
            table_length += if magnitudes {
                MAGNITUDES_ENTRY
            } else {
                planes_entry(chunk.dtype.size())
            };
        }
        let chunks = self.magnitudes.len();
        out.resize(table + table_length, 0);
        let (mut at, mut index) = (table, 0);
        for part in parts {
            for chunk in part.chunks {
                at = self.chunk(
                    chunk,
                    part.source(chunk),
                    self.magnitudes[index],
                    at,
                    &mut out,
                );
                index += 1;
            }
        }
        let crc = crc32c::crc32c_append(salt, &out[table..at]);
        out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        let length = (out.len() + crate::frame::FRAME_TRAILER) as u64;
        out.extend_from_slice(&crate::frame::trailer(length));
        let narrow = |what, n: usize| {
            u32::try_from(n).map_err(|_| FormatError::Limit {
                what,
                found: n as u64,
                limit: u64::from(u32::MAX),
            })
        };
        let header = FrameHeader {
            kind,
            length,
            step,
            base,
            meta_length: narrow("bytes of a step's metadata", self.meta.len())?,
            chunks: narrow("chunks of a frame", chunks)?,
            meta_crc: crc32c::crc32c_append(salt, &self.meta),
            table_length: narrow("bytes of a chunk table", table_length)?,
        };
        out[..FRAME_HEADER].copy_from_slice(&header.write(salt));
        Ok(EncodedFrame {
            kind,
            step,
            base,
            bytes: out,
        })
    }

    /// Appends one chunk to `out` and fills its table entry at `at`; says where the next entry stands.
    fn chunk(
        &mut self,
        chunk: &Chunk,
        source: Source<'_>,
        magnitudes: bool,
        at: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        self.planes.resize(chunk.bytes(), 0);
        let start = out.len();
        let mut entry = at + 4;
        let mut put = |out: &mut Vec<u8>, e: Entry| {
            out[entry..entry + 4].copy_from_slice(&e.pack().to_le_bytes());
            entry += 4;
        };
        if magnitudes {
            let classes = &mut self.planes[..chunk.elements];
            to_magnitudes(chunk.dtype, source, classes, out);
            let open_bits = out.len() - start;
            put(out, Entry::OpenBits(open_bits));
            let (coding, length) = self.coder.encode(classes, out);
            put(out, Entry::Plane(coding, length));
        } else {
            to_planes(chunk.dtype, source, chunk.elements, &mut self.planes);
            for plane in self.planes.chunks_exact(chunk.elements) {
                let (coding, length) = self.coder.encode(plane, out);
                put(out, Entry::Plane(coding, length));
            }
        }
        let crc = crc32c::crc32c_append(self.context.salt, &out[start..]);
        out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        entry
    }
}

/// One section of a frame.
struct Part<'a> {
    chunks: &'a [Chunk],
    earlier: Option<&'a [u8]>,
    later: &'a [u8],
}

impl<'a> Part<'a> {
    fn source(&self, chunk: &Chunk) -> Source<'a> {
        let range = chunk.offset..chunk.offset + chunk.bytes();
        let later = &self.later[range.clone()];
        match self.earlier {
            Some(earlier) => Source::Change {
                earlier: &earlier[range],
                later,
            },
            None => Source::Plain(later),
        }
    }
}

fn same(what: &'static str, expected: &Layout, got: &Layout) -> Result<(), FormatError> {
    if expected == got {
        Ok(())
    } else {
        Err(FormatError::Mismatch {
            what,
            expected: expected.tensors().len() as u64,
            got: got.tensors().len() as u64,
        })
    }
}

fn check_meta(layout: &Layout, meta: &StepMeta) -> Result<(), FormatError> {
    let check = |what, expected: usize, got: usize| {
        if expected == got {
            Ok(())
        } else {
            Err(FormatError::Mismatch {
                what,
                expected: expected as u64,
                got: got as u64,
            })
        }
    };
    check(
        "parameter groups of a step",
        layout.groups(),
        meta.groups.len(),
    )?;
    check(
        "trained flags of a step",
        layout.parameters().len(),
        meta.trained.len(),
    )?;
    if let BatchWeights::Each(weights) | BatchWeights::SumOfEach(weights) = &meta.weights {
        check("weights of a step", meta.indices.len(), weights.len())?;
    }
    if crate::wire::reads_as_a_sum(meta) {
        // Read back, the weights would be those of a sum.
        check("extension records 1 beside the weights of a mean", 0, 1)?;
    }
    if !meta.micro_batches.is_empty() {
        check(
            "examples in the micro-batches of a step",
            meta.indices.len(),
            meta.micro_batches.iter().map(|&n| n as usize).sum(),
        )?;
    }
    Ok(())
}
