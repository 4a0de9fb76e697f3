//! A segment file as a reader sees it.

use std::sync::Arc;

use super::footer::{FOOTER_MAGIC, TRAILER, Trailer, footer};
use super::header::{Header, MAGIC, PREFIX, read_header, read_prefix};
use super::scan::{Entry, Tail, all_zero, resync, scan};
use crate::FormatError;
use crate::decoder::Decoder;
use crate::encoder::Context;
use crate::frame::FrameKind;
use crate::info::RunInfo;
use crate::storage::{Mapped, ReadFile, Storage};

/// Where a segment's bytes come from.
pub(crate) enum Source {
    /// A sealed segment.
    Map(Mapped),
    /// A segment that may still grow; read up to the length it had when it was opened.
    File {
        file: Box<dyn ReadFile>,
        length: u64,
        path: String,
        /// Largest piece that may be read at once, in bytes.
        longest: u64,
    },
}

impl Source {
    /// A file in its current state.
    fn of(storage: &dyn Storage, name: &str) -> Result<Source, FormatError> {
        let path = format!("{}/{name}", storage.location());
        let file = storage
            .open(name)
            .map_err(|e| FormatError::opening(&path, e))?;
        let length = file
            .length()
            .map_err(|e| FormatError::io(path.clone(), "measuring", e))?;
        Ok(Source::File {
            file,
            length,
            path,
            longest: crate::memory::longest_piece(storage),
        })
    }

    /// Only its first `length` bytes.
    fn shortened(self, most: u64) -> Source {
        match self {
            Source::Map(map) => Source::Map(map.shortened(most)),
            Source::File {
                file,
                length,
                path,
                longest,
            } => Source::File {
                file,
                length: length.min(most),
                path,
                longest,
            },
        }
    }

    pub fn length(&self) -> u64 {
        match self {
            Source::Map(bytes) => bytes.len() as u64,
            Source::File { length, .. } => *length,
        }
    }

    /// The position of the first byte from `at` on that may be nonzero, or the end.
    pub fn data_from(&self, at: u64) -> u64 {
        match self {
            Source::Map(_) => at,
            Source::File { file, length, .. } => file.data_from(at).min(*length),
        }
    }

    /// Is it a file that a recorder may be writing?
    pub fn may_grow(&self) -> bool {
        matches!(self, Source::File { .. })
    }

    /// `length` bytes from `offset` on: from the map, or read into `scratch`.
    pub fn bytes<'a>(
        &'a self,
        offset: u64,
        length: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FormatError> {
        let short = || FormatError::Incomplete {
            file: String::new(),
            what: "segment",
            have: self.length().saturating_sub(offset),
            need: length as u64,
        };
        // Checked before anything is allocated: no stated length makes a reader take more memory than the file has bytes.
        if offset
            .checked_add(length as u64)
            .is_none_or(|end| end > self.length())
        {
            return Err(short());
        }
        match self {
            Source::Map(bytes) => bytes
                .get(offset as usize..offset as usize + length)
                .ok_or_else(short),
            Source::File {
                file,
                path,
                longest,
                ..
            } => {
                if length as u64 > *longest {
                    return Err(FormatError::Memory {
                        path: path.clone(),
                        what: format!("a frame of {length} bytes"),
                        needs: length as u64,
                        limit: *longest,
                    });
                }
                scratch.resize(length, 0);
                file.read_at(offset, scratch)
                    .map_err(|e| FormatError::io(path.clone(), "reading", e))?;
                Ok(scratch)
            }
        }
    }
}

/// If a listed segment is longer than listed, twice the listed bytes plus this number of bytes are read.
const SLACK: u64 = 1 << 20;
/// Bytes of a footer that are stored last, in one piece.
const LAST_WORD: usize = 8;
/// So often is a segment looked at that changes while it is looked at.
const ATTEMPTS: usize = 8;

/// How far a segment's own word is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The manifest lists it with this number of bytes. It was sealed and synced, so every fault in it is damage, and
    /// bytes behind the listed ones are not read.
    Listed { bytes: u64 },
    /// The manifest is lost: as listed if it ends with a good trailer, as tail otherwise.
    Orphan,
    /// After the last segment that the manifest lists: it may be unfinished anywhere, its footer included, and a power cut may have
    /// taken parts of it. Every checksum is looked at.
    Tail,
}

impl Trust {
    fn is_listed(self) -> bool {
        matches!(self, Trust::Listed { .. })
    }
}

/// A segment, its frames found.
pub(crate) struct Segment {
    pub name: String,
    pub source: Source,
    /// Size of the whole file, including bytes that are not read.
    pub file_length: u64,
    /// None if the header is damaged; the problem is among the problems.
    pub header: Option<Header>,
    pub entries: Vec<Entry>,
    pub tail: Tail,
    /// The digest that the trailer states.
    pub digest: Option<[u8; 32]>,
    pub problems: Vec<FormatError>,
    /// Entries before the first damage that a scan met; all of them in a sealed segment, which is not scanned.
    pub sound: usize,
}

fn read_end(source: &Source) -> Result<Trailer, FormatError> {
    let length = source.length();
    if length < TRAILER as u64 {
        return Err(FormatError::Incomplete {
            file: String::new(),
            what: "trailer",
            have: length,
            need: TRAILER as u64,
        });
    }
    Trailer::read(
        source.bytes(length - TRAILER as u64, TRAILER, &mut Vec::new())?,
        length,
    )
}

fn read_index(source: &Source, trailer: &Trailer, salt: u32) -> Result<Vec<Entry>, FormatError> {
    let start = trailer.file_length - u64::from(trailer.footer_length);
    trailer.entries(
        source.bytes(
            start,
            trailer.footer_length as usize - TRAILER,
            &mut Vec::new(),
        )?,
        salt,
    )
}

/// The part of the file that is read, the length of the whole file, and its end.
fn open_for(
    storage: &dyn Storage,
    name: &str,
    trust: Trust,
) -> Result<(Source, u64, Result<Trailer, FormatError>), FormatError> {
    let whole = Source::of(storage, name)?;
    let file_length = whole.length();
    let Trust::Listed { bytes } = trust else {
        let trailer = read_end(&whole);
        return Ok((whole, file_length, trailer));
    };
    let source = whole.shortened(bytes);
    let trailer = read_end(&source);
    if trailer.is_ok() || file_length <= bytes {
        return Ok((source, file_length, trailer));
    }
    // If bytes were inserted into a listed segment, its end lies behind its listed length.
    let most = bytes.saturating_mul(2).saturating_add(SLACK);
    let source = Source::of(storage, name)?.shortened(most);
    let trailer = read_end(&source);
    Ok((source, file_length, trailer))
}

/// The header of a file, if it begins with a complete segment header.
pub(crate) fn header_of(
    storage: &dyn Storage,
    name: &str,
    known: Option<&Arc<RunInfo>>,
) -> Option<Header> {
    let source = Source::of(storage, name).ok()?;
    read_start(&source, storage, known)
        .ok()
        .map(|(header, _)| header)
}

/// The end of a file, if it is the complete end of a sealed segment.
pub(crate) fn trailer_of(storage: &dyn Storage, name: &str) -> Option<Trailer> {
    read_end(&Source::of(storage, name).ok()?).ok()
}

/// Does a footer with a good index begin there? Asked where the end of the file is damaged.
pub(super) fn footer_at(source: &Source, at: u64, salt: u32) -> Result<bool, FormatError> {
    let mut scratch = Vec::new();
    if source.length() < at + 12 {
        return Ok(false);
    }
    let head = source.bytes(at, 8, &mut scratch)?;
    let count = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
    let length = 8 + 16 * count;
    if at + length + 4 > source.length() {
        return Ok(false);
    }
    let bytes = source.bytes(at, length as usize + 4, &mut scratch)?;
    let (index, crc) = bytes.split_at(length as usize);
    Ok(crc32c::crc32c_append(salt, index).to_le_bytes()[..] == *crc)
}

/// What a look at a segment found wrong that may be a recorder's work between two reads: what is half written in one and whole in the
/// next looks like damage, and a segment that is sealed just now gives its reserved space back, so that the file ends before the length
/// that was measured. Damage is the same in the next look; the work of a recorder has gone on.
fn trouble(found: &Result<Segment, FormatError>, trust: Trust) -> Option<Vec<String>> {
    let shrunk = |e: &FormatError| matches!(e, FormatError::Io { source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof);
    match found {
        Ok(segment) if segment.problems.is_empty() || trust.is_listed() => None,
        Ok(segment) => Some(segment.problems.iter().map(ToString::to_string).collect()),
        Err(e) if shrunk(e) || !trust.is_listed() && e.is_damage() => Some(vec![e.to_string()]),
        Err(_) => None,
    }
}

impl Segment {
    /// Opens a segment. `known` is the run's description from elsewhere, for a header that is damaged; `trust` says
    /// what is known about the segment from elsewhere.
    pub fn load(
        storage: &dyn Storage,
        name: &str,
        known: Option<&Arc<RunInfo>>,
        trust: Trust,
    ) -> Result<Segment, FormatError> {
        let number = super::parse_name(name).map(|(number, _)| number);
        let mut found = Segment::find(storage, name, known, trust);
        for _ in 1..ATTEMPTS {
            let Some(seen) = trouble(&found, trust) else {
                break;
            };
            found = Segment::find(storage, name, known, trust);
            if trouble(&found, trust).as_ref() == Some(&seen) {
                break;
            }
        }
        found
            .map_err(|e| e.within(name, number))
            .map(|mut segment| {
                segment.problems = segment
                    .problems
                    .into_iter()
                    .map(|e| e.within(name, number))
                    .collect();
                segment
            })
    }

    fn find(
        storage: &dyn Storage,
        name: &str,
        known: Option<&Arc<RunInfo>>,
        trust: Trust,
    ) -> Result<Segment, FormatError> {
        let path = format!("{}/{name}", storage.location());
        let io = |doing| {
            let path = path.clone();
            move |e| FormatError::io(path, doing, e)
        };
        let (mut source, file_length, trailer) = open_for(storage, name, trust)?;
        let length = source.length();
        let mut problems = Vec::new();
        let listed = trust.is_listed() || trust == Trust::Orphan && trailer.is_ok();
        if listed {
            // The part that was measured is the part that is read, because the file may change in between.
            let map = storage.map_first(name, length);
            source = Source::Map(map.map_err(io("mapping"))?);
        }
        let (header, start) = match read_start(&source, storage, known) {
            Ok((header, start)) => (Some(header), Some(start as u64)),
            Err(
                e @ (FormatError::NewerVersion { .. }
                | FormatError::Io { .. }
                | FormatError::Memory { .. }),
            ) => return Err(e),
            // A segment whose header isn't complete has no frames yet.
            Err(e @ FormatError::Incomplete { .. }) if !listed => return Err(e),
            Err(_) if !listed && unwritten(&source)? => {
                return Err(FormatError::Incomplete {
                    file: String::new(),
                    what: "segment header",
                    have: 0,
                    need: PREFIX as u64,
                });
            }
            Err(e) => {
                problems.push(e);
                (None, None)
            }
        };
        let Some(info) = header.as_ref().map(|h| &h.info).or(known) else {
            return Err(problems
                .pop()
                .unwrap_or_else(|| FormatError::corrupt("segment header", "a header", "none")));
        };
        let decoder = Decoder::new(Context::new(info)?)?;
        let salt = decoder.context.salt;
        let mut segment = Segment {
            name: name.to_owned(),
            source,
            file_length,
            header,
            entries: Vec::new(),
            tail: Tail::Sealed,
            digest: trailer.as_ref().ok().map(|t| t.digest),
            problems,
            sound: 0,
        };
        if let (true, Ok(trailer)) = (listed, &trailer) {
            crate::memory::index(storage, u64::from(trailer.footer_length))?;
            match read_index(&segment.source, trailer, salt) {
                Ok(entries) => {
                    (segment.sound, segment.entries) = (entries.len(), entries);
                    segment.keep_order();
                    return Ok(segment);
                }
                Err(e) => segment.problems.push(e),
            }
        }
        // A damaged header may hide its own length; the first frame is found by its magic then.
        let start = match start {
            Some(start) => start,
            None => resync(&segment.source, PREFIX as u64, salt)?.unwrap_or(PREFIX as u64),
        };
        let found = scan(&segment.source, start, &decoder, storage)?;
        segment.problems.extend(found.problems);
        (segment.entries, segment.tail) = (found.entries, found.tail);
        segment.sound = found.sound.min(segment.entries.len());
        if segment
            .entries
            .first()
            .is_some_and(|e| !matches!(e.kind, FrameKind::Keyframe | FrameKind::Final))
        {
            // The keyframe is lost: nothing to start from at this end.
            segment.sound = 0;
        }
        if listed {
            // It was sealed, so what is wrong now has happened since; its frames can be had from both ends all the same.
            segment.tail = Tail::Sealed;
            segment.problems.extend(trailer.err());
        } else if segment.tail == Tail::Sealed {
            segment.judge_footer(found.end, salt)?;
            if segment.tail == Tail::Sealed {
                segment.source = Source::Map(storage.map(name).map_err(io("mapping"))?);
            }
        }
        segment.keep_order();
        Ok(segment)
    }

    /// Steps ascend, and nothing follows a link. Frames that stand in another order, though their checksums are right, were put
    /// there by somebody else: they are damage, and not offered. Of the others as many stay as ascend.
    fn keep_order(&mut self) {
        let kept = ascending(&self.entries);
        // Where nothing is out of order there is nothing to do.
        let Some(wrong) = (0..self.entries.len()).find(|&i| kept.get(i) != Some(&i)) else {
            return;
        };
        if let Some(entry) = self.entries.get(wrong) {
            self.problems.push(
                FormatError::corrupt(
                    "order of frames",
                    "steps that ascend, and a link last",
                    format!("a frame of kind {:?}, step {}", entry.kind, entry.step),
                )
                .at_step(entry.step),
            );
        }
        let entries = std::mem::take(&mut self.entries);
        self.entries = kept
            .iter()
            .filter_map(|&i| entries.get(i).copied())
            .collect();
        self.sound = self.sound.min(wrong);
    }

    /// A tail's footer against the footer that its frames make: whole, the beginning of it (sealing was interrupted), or damaged.
    fn judge_footer(&mut self, at: u64, salt: u32) -> Result<(), FormatError> {
        let mut hasher = blake3::Hasher::new();
        let mut scratch = Vec::new();
        let mut hashed = 0;
        while hashed < at {
            let n = (at - hashed).min(1 << 20);
            hasher.update(self.source.bytes(hashed, n as usize, &mut scratch)?);
            hashed += n;
        }
        let (expected, digest) = footer(&self.entries, at, salt, hasher);
        let rest = self.source.length() - at;
        let here = rest.min(expected.len() as u64) as usize;
        let got = self.source.bytes(at, here, &mut scratch)?;
        let agreeing = got
            .iter()
            .zip(&expected)
            .take_while(|(a, b)| a == b)
            .count();
        // The last word is stored last; of the words before it a writer that is stopped may leave any out, since copies needn't ascend
        // within a page.
        let unfinished =
            got.len() < expected.len() || got[expected.len() - LAST_WORD..].iter().all(|&b| b == 0);
        let begun = got[agreeing..].iter().all(|&b| b == 0)
            || unfinished && got.iter().zip(&expected).all(|(a, b)| a == b || *a == 0);
        let zeros_follow = begun && all_zero(&self.source, at + here as u64, &mut Vec::new())?;
        (self.tail, self.digest) = if agreeing == expected.len() && rest == expected.len() as u64 {
            (Tail::Sealed, Some(digest))
        } else if zeros_follow {
            (Tail::Torn(at), None)
        } else {
            self.problems.push(FormatError::corrupt(
                "segment footer",
                "the footer that the segment's frames make",
                format!("another from byte {} on", at + agreeing as u64),
            ));
            (Tail::Damaged(at), None)
        };
        Ok(())
    }

    /// Whether a footer begins at that byte whose index lists exactly the frames that were found: then no frame is hidden there.
    pub fn closes_at(&self, at: u64, salt: u32) -> bool {
        let mut scratch = Vec::new();
        let listed = match self.source.bytes(at, 8, &mut scratch) {
            Ok(&[m0, m1, m2, m3, a, b, c, d]) if [m0, m1, m2, m3] == FOOTER_MAGIC => {
                u32::from_le_bytes([a, b, c, d]) as usize
            }
            _ => return false,
        };
        listed == self.entries.len() && footer_at(&self.source, at, salt).unwrap_or(false)
    }

    /// A frame's bytes.
    pub fn frame<'a>(
        &'a self,
        entry: &Entry,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FormatError> {
        let number = super::parse_name(&self.name).map(|(number, _)| number);
        let length = usize::try_from(entry.length).unwrap_or(usize::MAX);
        self.source
            .bytes(entry.offset, length, scratch)
            .map_err(|e| e.within(&self.name, number))
    }
}

/// The longest sequence of frames with ascending steps, up to the first link or final state behind another frame.
fn ascending(entries: &[Entry]) -> Vec<usize> {
    let step = |i: usize| entries.get(i).map_or(u64::MAX, |e| e.step);
    // Patience sorting: for each length, the last frame of the sequence that ends with the lowest step.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(entries.len());
    for i in 0..entries.len() {
        // The last step number has no successor, which would be the run's end.
        if step(i) == u64::MAX {
            before.push(None);
            continue;
        }
        let at = ends.partition_point(|&end| step(end) < step(i));
        before.push(at.checked_sub(1).and_then(|at| ends.get(at).copied()));
        match ends.get_mut(at) {
            Some(end) => *end = i,
            None => ends.push(i),
        }
    }
    let mut kept = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(i) = next {
        kept.push(i);
        next = before.get(i).copied().flatten();
    }
    kept.reverse();
    let closes = |&i: &usize| {
        entries
            .get(i)
            .is_some_and(|e| matches!(e.kind, FrameKind::Link | FrameKind::Final))
    };
    if let Some(end) = kept.iter().position(closes) {
        kept.truncate(end + 1);
    }
    if kept.len() > 1
        && kept
            .last()
            .and_then(|&i| entries.get(i))
            .is_some_and(|e| e.kind == FrameKind::Final)
    {
        kept.pop();
    }
    kept
}

/// Is the header of a segment whose blocks are reserved still on its way? It is stored in ascending order, its checksum last, and
/// nothing but zeros follows.
fn unwritten(source: &Source) -> Result<bool, FormatError> {
    let mut scratch = Vec::new();
    let from = match read_prefix(source.bytes(
        0,
        (PREFIX as u64).min(source.length()) as usize,
        &mut scratch,
    )?) {
        Ok(length) => length as u64 - 4,
        // The magic is stored first.
        Err(_) if source.length() >= PREFIX as u64 && holds(source, 0, &MAGIC)? => {
            PREFIX as u64 - 4
        }
        Err(_) => 0,
    };
    all_zero(source, from, &mut scratch)
}

/// Does the source hold exactly these bytes there?
fn holds(source: &Source, at: u64, expected: &[u8]) -> Result<bool, FormatError> {
    Ok(source.bytes(at, expected.len(), &mut Vec::new())? == expected)
}

fn read_start(
    source: &Source,
    storage: &dyn Storage,
    known: Option<&Arc<RunInfo>>,
) -> Result<(Header, usize), FormatError> {
    let mut scratch = Vec::new();
    let first = (PREFIX as u64).min(source.length()) as usize;
    let length = read_prefix(source.bytes(0, first, &mut scratch)?)?;
    crate::memory::json(storage, "the header of a segment", length as u64)?;
    let have = (length as u64).min(source.length()) as usize;
    let (mut header, length) = read_header(source.bytes(0, have, &mut scratch)?)?;
    // Every segment repeats the description, so one copy is enough.
    if let Some(known) = known.filter(|known| ***known == *header.info) {
        header.info = Arc::clone(known);
    }
    Ok((header, length))
}
