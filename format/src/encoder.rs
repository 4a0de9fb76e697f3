//! Encodes states into frames: pure computation off the training thread, without file access.

use std::sync::Arc;

use crate::FormatError;
use crate::chunks::Chunk;
use crate::codec::{
    ChunkSource, PlaneCoder, TableEntry, open_bits_are_noise, to_magnitudes, to_planes,
};
use crate::context::Context;
use crate::frame::{
    FIRST_CHUNK_MESSAGE, FRAME_HEADER, FrameHeader, FrameKind, MAGNITUDES_ENTRY, META_MESSAGE,
    TABLE_MESSAGE, planes_entry,
};
use crate::info::RunInfo;
use crate::layout::Layout;
use crate::meta::StepMeta;
use crate::secret::{Cipher, NONCE, Place, TAG};
use crate::state::{KeyState, State};
use crate::wire;

/// A frame as it is stored in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    pub(crate) kind: FrameKind,
    pub(crate) step: u64,
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
}

impl EncodedFrame {
    /// What the frame holds.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The frame's step. For a link, the step of the state that it leads to; for a final state, T.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Encodes states into frames. Use one per thread: it owns the buffers that keep encoding free of allocation.
pub struct Encoder {
    context: Context,
    coder: PlaneCoder,
    planes: Vec<u8>,
    meta: Vec<u8>,
    /// Which chunks of the current frame are stored as magnitude classes.
    magnitudes: Vec<bool>,
    spare: Vec<Vec<u8>>,
    /// If bytes matter more than time: room in which each chunk is coded in both forms, of which the shorter one is used.
    trial: Option<Vec<u8>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// Largest number of buffers that [`Encoder::recycle`] keeps.
const SPARE: usize = 4;

impl Encoder {
    /// An encoder for the run's frames.
    ///
    /// # Errors
    /// Chunks that don't fit the layout, or too little memory for zstd.
    pub fn new(info: &RunInfo) -> Result<Encoder, FormatError> {
        Encoder::with_context(Context::new(info)?)
    }

    pub(crate) fn with_context(context: Context) -> Result<Encoder, FormatError> {
        let coder =
            PlaneCoder::new().map_err(|e| FormatError::io("zstd", "make a compressor of", e))?;
        Ok(Encoder {
            context,
            coder,
            planes: Vec::new(),
            meta: Vec::new(),
            magnitudes: Vec::new(),
            spare: Vec::new(),
            trial: None,
        })
    }

    /// Spends time to save bytes: tries both forms of each chunk, and compresses at this level of zstd.
    ///
    /// # Errors
    /// Too little memory for zstd.
    pub(crate) fn compress_harder(&mut self, level: i32) -> Result<(), FormatError> {
        let coder = PlaneCoder::thorough(level);
        self.coder = coder.map_err(|e| FormatError::io("zstd", "make a compressor of", e))?;
        self.trial = Some(Vec::new());
        Ok(())
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
        self.full(FrameKind::Keyframe, meta.step, state, key)
    }

    /// A step as its difference from the recorded step `base` before it, whose state is `previous`.
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

    /// The difference from the state of the segment's last recorded step `base` to `next`, which is the state that opens the next segment
    /// at step `step`, or the final state. It closes a segment.
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

    /// A step without its tensors: its metadata, and the digest of its state ([`State::digest`]).
    ///
    /// # Errors
    /// Metadata that doesn't fit the layout.
    pub fn gap(&mut self, meta: &StepMeta, digest: &[u8; 32]) -> Result<EncodedFrame, FormatError> {
        self.describe(meta, Some(digest))?;
        self.frame(FrameKind::Gap, meta.step, meta.step, &[])
    }

    /// A step whose tensors were lost, so that the digest of its state isn't known. A gap that a recorder writes always has the digest.
    ///
    /// # Errors
    /// Metadata that doesn't fit the layout.
    pub(crate) fn gap_without_digest(
        &mut self,
        meta: &StepMeta,
    ) -> Result<EncodedFrame, FormatError> {
        self.describe(meta, None)?;
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
        self.full(FrameKind::Final, step, state, key)
    }

    /// Returns a written frame's buffer for reuse by a later frame.
    pub fn recycle(&mut self, frame: EncodedFrame) {
        self.recycle_bytes(frame.bytes);
    }

    /// Returns a buffer from [`RunWriter::append`](crate::RunWriter::append) for reuse by a later frame.
    pub fn recycle_bytes(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(bytes);
        }
    }

    /// A frame with the full state and key state. The step's metadata is already in `self.meta`.
    fn full(
        &mut self,
        kind: FrameKind,
        step: u64,
        state: &State,
        key: &KeyState,
    ) -> Result<EncodedFrame, FormatError> {
        let chunks = Arc::clone(&self.context.chunks);
        let section = |chunks, later| Section {
            chunks,
            earlier: None,
            later,
        };
        let sections = [
            section(chunks.state.as_slice(), state.bytes()),
            section(chunks.key.as_slice(), key.bytes.as_slice()),
        ];
        self.frame(kind, step, step, &sections)
    }

    /// A frame with the difference of two states. The step's metadata is already in `self.meta`.
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
        let chunks = Arc::clone(&self.context.chunks);
        self.frame(
            kind,
            step,
            base,
            &[Section {
                chunks: &chunks.state,
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
        meta.check(&self.context.layout)?;
        if wire::reads_as_a_sum(meta) {
            // A reader would take the weights for those of a weighted sum.
            return Err(FormatError::Mismatch {
                what: "extension records with id 1 (reserved) next to the weights of a mean",
                expected: 0,
                got: 1,
            });
        }
        self.meta.clear();
        wire::encode(meta, digest, &mut self.meta)
    }

    fn frame(
        &mut self,
        kind: FrameKind,
        step: u64,
        base: u64,
        sections: &[Section<'_>],
    ) -> Result<EncodedFrame, FormatError> {
        let salt = self.context.salt;
        let secret = self.secret(kind, step, base)?;
        let mut out = self.spare.pop().unwrap_or_default();
        out.clear();
        out.resize(FRAME_HEADER, 0);
        if let Some((place, cipher)) = secret.as_ref().filter(|_| kind.has_meta()) {
            let tag = cipher.seal(place, META_MESSAGE, &mut self.meta)?;
            self.meta.extend_from_slice(&tag);
        }
        out.extend_from_slice(&self.meta);
        let table = out.len();
        // The length of a chunk's table entry depends on its form, so all forms are chosen before the first chunk is coded.
        self.magnitudes.clear();
        // A gap has no entries, and no message for them.
        let table_secret = secret.as_ref().filter(|_| kind != FrameKind::Gap);
        let mut table_length = if table_secret.is_some() { 4 + TAG } else { 4 };
        for (section, chunk) in sections
            .iter()
            .flat_map(|s| s.chunks.iter().map(move |c| (s, c)))
        {
            let source = section.source(chunk);
            let magnitudes = match self.trial.take() {
                Some(trial) => self.is_shorter_as_magnitudes(chunk, source, trial),
                None => {
                    section.earlier.is_some()
                        && open_bits_are_noise(chunk.dtype, source, chunk.elements)
                }
            };
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
        for section in sections {
            for chunk in section.chunks {
                let start = out.len();
                let source = section.source(chunk);
                let next = self.chunk(chunk, source, self.magnitudes[index], at, &mut out);
                if let Some((place, cipher)) = &secret {
                    let message = FIRST_CHUNK_MESSAGE.saturating_add(index as u32);
                    let tag = cipher.seal(place, message, &mut out[start..])?;
                    out.extend_from_slice(&tag);
                }
                let crc = crc32c::crc32c_append(salt, &out[start..]);
                out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
                (at, index) = (next, index + 1);
            }
        }
        if let Some((place, cipher)) = table_secret {
            let tag = cipher.seal(place, TABLE_MESSAGE, &mut out[table..at])?;
            out[at..at + TAG].copy_from_slice(&tag);
            at += TAG;
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
            nonce: secret.map_or([0; NONCE], |(place, _)| place.nonce),
        };
        out[..FRAME_HEADER].copy_from_slice(&header.write(salt));
        Ok(EncodedFrame {
            kind,
            step,
            base,
            bytes: out,
        })
    }

    /// Whether the chunk takes fewer bytes as magnitudes than as byte planes.
    fn is_shorter_as_magnitudes(
        &mut self,
        chunk: &Chunk,
        source: ChunkSource<'_>,
        mut trial: Vec<u8>,
    ) -> bool {
        // Room for the longest table entry.
        let table = planes_entry(chunk.dtype.size()).max(MAGNITUDES_ENTRY);
        let [planes, magnitudes] = [false, true].map(|magnitudes| {
            trial.clear();
            trial.resize(table, 0);
            let entry = self.chunk(chunk, source, magnitudes, 0, &mut trial);
            trial.len() - table + entry
        });
        self.trial = Some(trial);
        magnitudes < planes
    }

    /// If the run is encrypted, where a new frame's messages belong, and the cipher.
    fn secret(
        &self,
        kind: FrameKind,
        step: u64,
        base: u64,
    ) -> Result<Option<(Place, Cipher)>, FormatError> {
        let Some(secret) = &self.context.secret else {
            return Ok(None);
        };
        let place = Place {
            salt: secret.salt,
            kind: kind.code(),
            step,
            base,
            nonce: Cipher::fresh_nonce()?,
        };
        Ok(Some((place, secret.cipher.clone())))
    }

    /// Appends one chunk to `out` and fills its table entry at `at`, except for its checksum. Returns the position of the next entry.
    fn chunk(
        &mut self,
        chunk: &Chunk,
        source: ChunkSource<'_>,
        magnitudes: bool,
        at: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        self.planes.resize(chunk.bytes(), 0);
        let start = out.len();
        let mut entry = at + 4;
        let mut put = |out: &mut Vec<u8>, e: TableEntry| {
            out[entry..entry + 4].copy_from_slice(&e.pack().to_le_bytes());
            entry += 4;
        };
        if magnitudes {
            let classes = &mut self.planes[..chunk.elements];
            to_magnitudes(chunk.dtype, source, classes, out);
            let open_bits = out.len() - start;
            put(out, TableEntry::OpenBits(open_bits));
            let (coding, length) = self.coder.encode(classes, out);
            put(out, TableEntry::Plane(coding, length));
        } else {
            to_planes(chunk.dtype, source, chunk.elements, &mut self.planes);
            for plane in self.planes.chunks_exact(chunk.elements) {
                let (coding, length) = self.coder.encode(plane, out);
                put(out, TableEntry::Plane(coding, length));
            }
        }
        entry
    }
}

/// One section of a frame.
struct Section<'a> {
    chunks: &'a [Chunk],
    earlier: Option<&'a [u8]>,
    later: &'a [u8],
}

impl<'a> Section<'a> {
    fn source(&self, chunk: &Chunk) -> ChunkSource<'a> {
        let range = chunk.offset..chunk.offset + chunk.bytes();
        let later = &self.later[range.clone()];
        match self.earlier {
            Some(earlier) => ChunkSource::Change {
                earlier: &earlier[range],
                later,
            },
            None => ChunkSource::Plain(later),
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
