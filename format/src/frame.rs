//! A frame's bytes: fixed header, metadata, chunk table, chunks, and trailer.
//!
//! Nothing here does I/O. The same code reads from a map, a buffer or a fuzzer.

use crate::FormatError;
use crate::bytes::{u32_at, u64_at};
use crate::chunks::Chunk;
use crate::codec::{Coding, TableEntry};
use crate::error::hex32;
use crate::secret::{Cipher, NONCE, Place, Secret, TAG};
use std::borrow::Cow;

/// First four bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"HCFR";
/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 64;
/// Bytes of the trailer after the chunks: the frame's length again, and [`END_MAGIC`].
pub const FRAME_TRAILER: usize = 12;
/// Last four bytes of every frame. Each has several bits set, so that a flipped bit can't make a written end look unwritten.
pub const END_MAGIC: [u8; 4] = *b"HCFE";
/// Longest frame, in bytes.
pub const MAX_FRAME: u64 = 1 << 40;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameKind {
    /// The full state and the key state. It opens a segment.
    Keyframe,
    /// The difference from the previous recorded state.
    Difference,
    /// Metadata and the state's digest, without tensors.
    Gap,
    /// The difference from the segment's last state to the state that opens the next segment, without metadata. It closes a segment.
    Link,
    /// The run's final state and key state, in a segment of its own, without metadata.
    Final,
}

impl FrameKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            FrameKind::Keyframe => 1,
            FrameKind::Difference => 2,
            FrameKind::Gap => 3,
            FrameKind::Link => 4,
            FrameKind::Final => 5,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<FrameKind> {
        Some(match code {
            1 => FrameKind::Keyframe,
            2 => FrameKind::Difference,
            3 => FrameKind::Gap,
            4 => FrameKind::Link,
            5 => FrameKind::Final,
            _ => return None,
        })
    }

    /// Whether the frame carries a step's metadata.
    pub fn has_meta(self) -> bool {
        matches!(
            self,
            FrameKind::Keyframe | FrameKind::Difference | FrameKind::Gap
        )
    }

    /// Whether the frame carries a step's tensors: a keyframe or a difference.
    pub fn has_state(self) -> bool {
        matches!(self, FrameKind::Keyframe | FrameKind::Difference)
    }
}

/// The fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: FrameKind,
    /// Bytes of the whole frame, header and trailer included.
    pub length: u64,
    pub step: u64,
    /// The step that a difference starts from. In other frames, the step itself.
    pub base: u64,
    pub meta_length: u32,
    pub chunks: u32,
    pub meta_crc: u32,
    pub table_length: u32,
    /// Random bytes of an encrypted frame; zeros in others.
    pub nonce: [u8; NONCE],
}

/// The value from which a run's checksums start, so that a frame of another run fails them.
pub(crate) fn salt_crc(salt: &[u8; 16]) -> u32 {
    crc32c::crc32c(salt)
}

/// The bytes after the chunks.
pub(crate) fn trailer(length: u64) -> [u8; FRAME_TRAILER] {
    let mut trailer = [0; FRAME_TRAILER];
    trailer[..8].copy_from_slice(&length.to_le_bytes());
    trailer[8..].copy_from_slice(&END_MAGIC);
    trailer
}

impl FrameHeader {
    pub fn write(&self, salt: u32) -> [u8; FRAME_HEADER] {
        let mut h = [0; FRAME_HEADER];
        h[0..4].copy_from_slice(&FRAME_MAGIC);
        h[4] = self.kind.code();
        h[8..16].copy_from_slice(&self.length.to_le_bytes());
        h[16..24].copy_from_slice(&self.step.to_le_bytes());
        h[24..32].copy_from_slice(&self.base.to_le_bytes());
        h[32..36].copy_from_slice(&self.meta_length.to_le_bytes());
        h[36..40].copy_from_slice(&self.chunks.to_le_bytes());
        h[40..44].copy_from_slice(&self.meta_crc.to_le_bytes());
        h[44..48].copy_from_slice(&self.table_length.to_le_bytes());
        h[48..60].copy_from_slice(&self.nonce);
        let crc = crc32c::crc32c_append(salt, &h[..60]);
        h[60..64].copy_from_slice(&crc.to_le_bytes());
        h
    }

    /// Reads a header from the first bytes of `bytes`.
    pub fn read(bytes: &[u8], salt: u32) -> Result<FrameHeader, FormatError> {
        let Some(h) = bytes.get(..FRAME_HEADER) else {
            return Err(FormatError::Incomplete {
                file: String::new(),
                what: "frame header",
                have: bytes.len() as u64,
                need: FRAME_HEADER as u64,
            });
        };
        if h[..4] != FRAME_MAGIC {
            return Err(FormatError::corrupt(
                "frame magic",
                crate::hex(&FRAME_MAGIC),
                crate::hex(&h[..4]),
            ));
        }
        let crc = crc32c::crc32c_append(salt, &h[..60]);
        if crc != u32_at(h, 60) {
            return Err(FormatError::corrupt(
                "frame header checksum",
                hex32(u32_at(h, 60)),
                hex32(crc),
            ));
        }
        let step = u64_at(h, 16);
        let bad = |what: &str, expected: String, got: u64| {
            Err(FormatError::corrupt(what, expected, got).at_step(step))
        };
        let Some(kind) = FrameKind::from_code(h[4]) else {
            return bad("frame kind", "1 to 5".to_owned(), u64::from(h[4]));
        };
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&h[48..60]);
        let header = FrameHeader {
            kind,
            length: u64_at(h, 8),
            step,
            base: u64_at(h, 24),
            meta_length: u32_at(h, 32),
            chunks: u32_at(h, 36),
            meta_crc: u32_at(h, 40),
            table_length: u32_at(h, 44),
            nonce,
        };
        let fixed = (FRAME_HEADER + FRAME_TRAILER) as u64
            + u64::from(header.meta_length)
            + u64::from(header.table_length);
        if header.length < fixed || header.length > MAX_FRAME {
            return bad(
                "frame length",
                format!("{fixed} (header, metadata, chunk table and trailer) to {MAX_FRAME}"),
                header.length,
            );
        }
        Ok(header)
    }

    /// Where the frame's encrypted messages belong.
    pub fn place(&self, salt: [u8; 16]) -> Place {
        Place {
            salt,
            kind: self.kind.code(),
            step: self.step,
            base: self.base,
            nonce: self.nonce,
        }
    }
}

/// Index of the message that holds a frame's metadata, of the one that holds its chunk table, and of the first chunk's.
pub(crate) const META_MESSAGE: u32 = 0;
pub(crate) const TABLE_MESSAGE: u32 = 1;
pub(crate) const FIRST_CHUNK_MESSAGE: u32 = 2;

/// A complete frame in memory, whose header has been checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub header: FrameHeader,
    bytes: &'a [u8],
    salt: u32,
}

/// One chunk as it is stored.
pub(crate) enum StoredChunk<'a> {
    /// Coding and stored bytes of each byte plane, lowest byte first.
    Planes {
        planes: [(Coding, &'a [u8]); 8],
        count: usize,
    },
    /// Magnitude classes and open bits.
    Magnitudes {
        open_bits: &'a [u8],
        classes: (Coding, &'a [u8]),
    },
}

/// Bytes of a chunk's table entry, checksum included: for magnitude classes, or for this number of byte planes.
pub(crate) const MAGNITUDES_ENTRY: usize = 12;
pub(crate) const fn planes_entry(planes: usize) -> usize {
    4 + 4 * planes
}

/// Bytes of the chunk's table entry at `at`. The word after the entry's checksum gives the chunk's form.
fn entry_length(table: &[u8], at: usize, chunk: &Chunk) -> usize {
    match TableEntry::unpack(u32_at(table, at + 4)) {
        TableEntry::OpenBits(_) => MAGNITUDES_ENTRY,
        TableEntry::Plane(..) => planes_entry(chunk.dtype.size()),
    }
}

impl<'a> Frame<'a> {
    /// The frame that begins at the first byte of `bytes`. Bytes after it are ignored.
    pub fn read(bytes: &'a [u8], salt: u32) -> Result<Frame<'a>, FormatError> {
        let header = FrameHeader::read(bytes, salt)?;
        match usize::try_from(header.length)
            .ok()
            .and_then(|n| bytes.get(..n))
        {
            Some(bytes) => Ok(Frame {
                header,
                bytes,
                salt,
            }),
            None => Err(FormatError::Incomplete {
                file: String::new(),
                what: "frame",
                have: bytes.len() as u64,
                need: header.length,
            }),
        }
    }

    fn part(&self, start: usize, length: usize) -> &'a [u8] {
        // FrameHeader::read has checked that metadata and table lie inside the frame.
        self.bytes.get(start..start + length).unwrap_or(&[])
    }

    /// The metadata's bytes, after checking their checksum, and decrypted if the run is encrypted.
    pub fn meta_bytes(&self, secret: Option<&Secret>) -> Result<Cow<'a, [u8]>, FormatError> {
        let meta = self.stored_meta()?;
        match secret {
            // A link or final state has no metadata, and no message for it.
            Some(secret) if self.header.kind.has_meta() => {
                let (place, mut plain) = (self.header.place(secret.salt), Vec::new());
                secret.cipher.open(&place, META_MESSAGE, meta, &mut plain)?;
                Ok(Cow::Owned(plain))
            }
            _ => Ok(Cow::Borrowed(meta)),
        }
    }

    fn stored_meta(&self) -> Result<&'a [u8], FormatError> {
        let meta = self.part(FRAME_HEADER, self.header.meta_length as usize);
        let crc = crc32c::crc32c_append(self.salt, meta);
        if crc != self.header.meta_crc {
            return Err(FormatError::corrupt(
                "metadata checksum",
                hex32(self.header.meta_crc),
                hex32(crc),
            )
            .at_step(self.header.step));
        }
        Ok(meta)
    }

    /// Checks the trailer: the repeated length, and the magic.
    pub fn check_trailer(&self) -> Result<(), FormatError> {
        let (got, expected) = (self.end(), trailer(self.header.length));
        if got != expected {
            let (expected, got) = (crate::hex(&expected), crate::hex(got));
            let error = FormatError::corrupt("frame length at the frame's end", expected, got);
            return Err(error.at_step(self.header.step));
        }
        Ok(())
    }

    /// Whether the trailer is what a stopped writer leaves: a beginning of it, or nothing, followed by zeros.
    pub fn is_unfinished(&self) -> bool {
        let (got, expected) = (self.end(), trailer(self.header.length));
        let agreeing = got
            .iter()
            .zip(&expected)
            .take_while(|(a, b)| a == b)
            .count();
        agreeing < FRAME_TRAILER && got[agreeing..].iter().all(|&b| b == 0)
    }

    fn end(&self) -> &'a [u8] {
        self.part(self.bytes.len() - FRAME_TRAILER, FRAME_TRAILER)
    }

    /// The chunk table, after checking it against `chunks`: the chunks that a frame of this kind has according to the run's description.
    pub fn table<'c>(
        &self,
        chunks: &[&[Chunk]],
        secret: Option<&'c Secret>,
    ) -> Result<Table<'c>, FormatError>
    where
        'a: 'c,
    {
        let at = |e: FormatError| e.at_step(self.header.step);
        let table = self.part(
            FRAME_HEADER + self.header.meta_length as usize,
            self.header.table_length as usize,
        );
        if table.len() < 4
            || crc32c::crc32c_append(self.salt, &table[..table.len() - 4])
                != u32_at(table, table.len() - 4)
        {
            return Err(at(FormatError::corrupt(
                "chunk table checksum",
                "a table that matches its checksum",
                "one that does not",
            )));
        }
        let start = FRAME_HEADER + self.header.meta_length as usize + table.len();
        let payload = self.part(start, self.bytes.len() - start - FRAME_TRAILER);
        let mut table = Cow::Borrowed(&table[..table.len() - 4]);
        let secret = match secret {
            // A gap has no entries, and no message for them.
            Some(secret) if self.header.kind != FrameKind::Gap => {
                let (place, mut plain) = (self.header.place(secret.salt), Vec::new());
                secret
                    .cipher
                    .open(&place, TABLE_MESSAGE, &table, &mut plain)?;
                table = Cow::Owned(plain);
                Some((place, &secret.cipher))
            }
            _ => None,
        };
        // If the table is too short, the missing entries read as zeros and count with their full length, so that the lengths differ.
        let count: usize = chunks.iter().map(|c| c.len()).sum();
        let length = chunks
            .iter()
            .flat_map(|c| c.iter())
            .fold(0, |at, chunk| at + entry_length(&table, at, chunk));
        if count != self.header.chunks as usize || length != table.len() {
            return Err(at(FormatError::corrupt(
                "chunk table",
                format!("{count} chunks in {length} bytes"),
                format!("{} chunks in {} bytes", self.header.chunks, table.len()),
            )));
        }
        Ok(Table {
            table,
            at: 0,
            chunk: 0,
            payload,
            salt: self.salt,
            secret,
        })
    }
}

/// Walks the chunk table. Chunks come in the order of the chunk map.
pub(crate) struct Table<'a> {
    /// The entries, without the table's checksum.
    table: Cow<'a, [u8]>,
    at: usize,
    /// Number of chunks before the next one.
    chunk: u32,
    payload: &'a [u8],
    salt: u32,
    /// If the run is encrypted, where the frame's messages belong, and the cipher.
    secret: Option<(Place, &'a Cipher)>,
}

impl<'a> Table<'a> {
    /// The next chunk; `plain` holds its bytes if the run is encrypted. The outer error means that the table is unusable. The inner error
    /// means that this chunk is damaged; the next one can still be read.
    pub fn next<'s>(
        &mut self,
        chunk: &Chunk,
        plain: &'s mut Vec<u8>,
    ) -> Result<Result<StoredChunk<'s>, FormatError>, FormatError>
    where
        'a: 's,
    {
        let table = &self.table;
        let crc = u32_at(table, self.at);
        let form = Form::read(table, self.at, chunk)?;
        self.at += entry_length(table, self.at, chunk);
        let index = FIRST_CHUNK_MESSAGE.saturating_add(self.chunk);
        self.chunk += 1;
        let tag = if self.secret.is_some() { TAG } else { 0 };
        let length = form.length() + tag;
        let Some((stored, rest)) = self.payload.split_at_checked(length) else {
            return Err(FormatError::corrupt(
                "stored length of a chunk",
                format!("at most {}", self.payload.len()),
                length,
            ));
        };
        self.payload = rest;
        let got = crc32c::crc32c_append(self.salt, stored);
        if got != crc {
            return Ok(Err(FormatError::corrupt(
                "chunk checksum",
                hex32(crc),
                hex32(got),
            )));
        }
        let bytes = match self.secret {
            None => stored,
            Some((place, cipher)) => {
                if let Err(e) = cipher.open(&place, index, stored, plain) {
                    return Ok(Err(e));
                }
                plain
            }
        };
        Ok(Ok(form.cut(bytes)))
    }

    /// Checks that nothing follows the last chunk, because no checksum covers it.
    pub fn finish(&self) -> Result<(), FormatError> {
        if self.payload.is_empty() {
            Ok(())
        } else {
            Err(FormatError::corrupt(
                "bytes after the last chunk",
                0,
                self.payload.len(),
            ))
        }
    }
}

/// The form of a chunk, and the lengths of its parts, from its table entry.
enum Form {
    Planes {
        planes: [(Coding, usize); 8],
        count: usize,
    },
    Magnitudes {
        open_bits: usize,
        classes: (Coding, usize),
    },
}

impl Form {
    fn read(table: &[u8], at: usize, chunk: &Chunk) -> Result<Form, FormatError> {
        let plane = |at| match TableEntry::unpack(u32_at(table, at)) {
            TableEntry::Plane(coding, length) => Ok((coding, length)),
            TableEntry::OpenBits(_) => Err(FormatError::corrupt("coding of a plane", "0 to 2", 3)),
        };
        if let TableEntry::OpenBits(open_bits) = TableEntry::unpack(u32_at(table, at + 4)) {
            return Ok(Form::Magnitudes {
                open_bits,
                classes: plane(at + 8)?,
            });
        }
        let count = chunk.dtype.size();
        let mut planes = [(Coding::Raw, 0); 8];
        for (k, slot) in planes.iter_mut().take(count).enumerate() {
            *slot = plane(at + 4 + 4 * k)?;
        }
        Ok(Form::Planes { planes, count })
    }

    /// Stored bytes of the chunk. A length has 30 bits, so nine of them can't overflow.
    fn length(&self) -> usize {
        match self {
            Form::Planes { planes, .. } => planes.iter().map(|(_, length)| length).sum(),
            Form::Magnitudes { open_bits, classes } => open_bits + classes.1,
        }
    }

    /// Cuts the chunk's bytes, as many as [`length`](Form::length) says, into its parts.
    fn cut<'s>(&self, bytes: &'s [u8]) -> StoredChunk<'s> {
        let mut rest = bytes;
        let mut take = |length: usize| {
            let (part, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after;
            part
        };
        match self {
            Form::Magnitudes { open_bits, classes } => StoredChunk::Magnitudes {
                open_bits: take(*open_bits),
                classes: (classes.0, take(classes.1)),
            },
            Form::Planes { planes, count } => StoredChunk::Planes {
                planes: planes.map(|(coding, length)| (coding, take(length))),
                count: *count,
            },
        }
    }
}
