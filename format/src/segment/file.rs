//! A segment file as a reader sees it: opened with its index, or scanned where it has none.

use std::sync::Arc;

use super::ends::{header_unwritten, read_end, read_index, read_start};
use super::entry::{FrameEntry, Tail};
use super::footer::{FOOTER_MAGIC, Trailer, footer, footer_at};
use super::header::{Header, PREFIX};
use super::name::number_of;
use super::order::ascending;
use super::scan::{resync, scan};
use super::source::SegmentSource;
use crate::FormatError;
use crate::bytes::u32_at;
use crate::context::Context;
use crate::decoder::Decoder;
use crate::frame::FrameKind;
use crate::info::RunInfo;
use crate::storage::Storage;

/// Bytes read of a listed segment beyond twice its listed length, if its file is longer than listed.
const SLACK: u64 = 1 << 20;
/// Bytes of a footer that are stored last, in one piece.
const LAST_WORD: usize = 8;
/// How many times to read a segment that changes during the read.
const ATTEMPTS: usize = 8;

/// What is known about a segment from outside its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The manifest lists it with this number of bytes. It was sealed and synced, so every fault in it is damage. Bytes after the listed
    /// ones are not read.
    Listed { bytes: u64 },
    /// The manifest is lost. The segment is treated as listed if it ends with a valid trailer, and as unlisted otherwise.
    Orphan,
    /// It follows the last segment that the manifest lists. It may be unfinished anywhere, its footer included, and a power cut may have
    /// taken parts of it. Every checksum is checked.
    Unlisted,
}

impl Trust {
    fn is_listed(self) -> bool {
        matches!(self, Trust::Listed { .. })
    }
}

/// A segment and the places of its frames.
pub(crate) struct Segment {
    pub name: String,
    pub source: SegmentSource,
    /// Size of the whole file, including bytes that are not read.
    pub file_length: u64,
    /// `None` if the header is damaged; `problems` then says how.
    pub header: Option<Header>,
    pub entries: Vec<FrameEntry>,
    pub tail: Tail,
    /// The digest that the trailer states.
    pub digest: Option<[u8; 32]>,
    pub problems: Vec<FormatError>,
    /// Number of entries before the first damage that a scan met. All entries of a sealed segment, which is not scanned.
    pub sound: usize,
}

/// The part of a segment file that is read.
struct Opened {
    source: SegmentSource,
    /// Size of the whole file.
    file_length: u64,
    trailer: Result<Trailer, FormatError>,
}

impl Opened {
    fn new(storage: &dyn Storage, name: &str, trust: Trust) -> Result<Opened, FormatError> {
        let whole = SegmentSource::of(storage, name)?;
        let file_length = whole.length();
        let opened = |source: SegmentSource| Opened {
            trailer: read_end(&source),
            source,
            file_length,
        };
        let Trust::Listed { bytes } = trust else {
            return Ok(opened(whole));
        };
        let listed = opened(whole.shortened(bytes));
        if listed.trailer.is_ok() || file_length <= bytes {
            return Ok(listed);
        }
        // If bytes were inserted into a listed segment, its trailer lies after its listed length.
        let most = bytes.saturating_mul(2).saturating_add(SLACK);
        Ok(opened(SegmentSource::of(storage, name)?.shortened(most)))
    }
}

/// The problems of a read that a recorder at work may have caused. A frame that is half written during one read and complete during the
/// next looks like damage. A segment that is being sealed frees its reserved space, so that the file ends before its measured length.
/// Damage shows again in the next read; a recorder's work doesn't.
fn unsettled(found: &Result<Segment, FormatError>, trust: Trust) -> Option<Vec<String>> {
    let shrunk = |e: &FormatError| matches!(e, FormatError::Io { source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof);
    match found {
        Ok(segment) if segment.problems.is_empty() || trust.is_listed() => None,
        Ok(segment) => Some(segment.problems.iter().map(ToString::to_string).collect()),
        Err(e) if shrunk(e) || !trust.is_listed() && e.is_damage() => Some(vec![e.to_string()]),
        Err(_) => None,
    }
}

/// Makes the error of a storage call on one segment file.
fn io_error(
    storage: &dyn Storage,
    name: &str,
    doing: &'static str,
) -> impl FnOnce(std::io::Error) -> FormatError + use<> {
    let path = format!("{}/{name}", storage.location());
    move |e| FormatError::io(path, doing, e)
}

impl Segment {
    /// Opens a segment. `known` is the run's description from elsewhere, for a segment whose header is damaged.
    pub fn load(
        storage: &dyn Storage,
        name: &str,
        known: Option<&Arc<RunInfo>>,
        trust: Trust,
    ) -> Result<Segment, FormatError> {
        let number = number_of(name);
        let mut found = Segment::read(storage, name, known, trust);
        for _ in 1..ATTEMPTS {
            let Some(seen) = unsettled(&found, trust) else {
                break;
            };
            found = Segment::read(storage, name, known, trust);
            if unsettled(&found, trust).as_ref() == Some(&seen) {
                break;
            }
        }
        let mut segment = found.map_err(|e| e.within(name, number))?;
        let problems = std::mem::take(&mut segment.problems).into_iter();
        segment.problems = problems.map(|e| e.within(name, number)).collect();
        Ok(segment)
    }

    /// Reads the segment once.
    fn read(
        storage: &dyn Storage,
        name: &str,
        known: Option<&Arc<RunInfo>>,
        trust: Trust,
    ) -> Result<Segment, FormatError> {
        let opened = Opened::new(storage, name, trust)?;
        let (mut source, trailer) = (opened.source, opened.trailer);
        let listed = trust.is_listed() || trust == Trust::Orphan && trailer.is_ok();
        if listed {
            // Only the measured part is read, because the file may change in between.
            let map = storage.map_first(name, source.length());
            source = SegmentSource::Map(map.map_err(io_error(storage, name, "map"))?);
        }
        let mut problems = Vec::new();
        let (header, start) = match header_or_damage(&source, storage, known, listed)? {
            Ok((header, start)) => (Some(header), Some(start as u64)),
            Err(damage) => {
                problems.push(damage);
                (None, None)
            }
        };
        let Some(info) = header.as_ref().map(|h| &h.info).or(known) else {
            return Err(problems
                .pop()
                .unwrap_or_else(|| FormatError::corrupt("segment header", "a header", "none")));
        };
        let decoder = Decoder::new(Context::new(info)?)?;
        let mut segment = Segment {
            name: name.to_owned(),
            source,
            file_length: opened.file_length,
            header,
            entries: Vec::new(),
            tail: Tail::Sealed,
            digest: trailer.as_ref().ok().map(|t| t.digest),
            problems,
            sound: 0,
        };
        let trailer = if listed { Some(trailer) } else { None };
        if let Some(Ok(trailer)) = &trailer
            && segment.use_index(storage, trailer, decoder.context.salt)?
        {
            return Ok(segment);
        }
        segment.use_scan(storage, start, &decoder, trailer)?;
        Ok(segment)
    }

    /// Takes the frames from the index; false if the index is damaged.
    fn use_index(
        &mut self,
        storage: &dyn Storage,
        trailer: &Trailer,
        salt: u32,
    ) -> Result<bool, FormatError> {
        crate::memory::index(storage, u64::from(trailer.footer_length))?;
        match read_index(&self.source, trailer, salt) {
            Ok(entries) => {
                (self.sound, self.entries) = (entries.len(), entries);
                self.keep_order();
                Ok(true)
            }
            Err(e) => {
                self.problems.push(e);
                Ok(false)
            }
        }
    }

    /// Finds the frames by scanning from `start`, the header's length if it is known. `sealed` is the trailer of a segment that is known to
    /// have been sealed, or what is wrong with it.
    fn use_scan(
        &mut self,
        storage: &dyn Storage,
        start: Option<u64>,
        decoder: &Decoder,
        sealed: Option<Result<Trailer, FormatError>>,
    ) -> Result<(), FormatError> {
        let salt = decoder.context.salt;
        // A damaged header may hide its own length. The first frame is then found by its magic.
        let start = match start {
            Some(start) => start,
            None => resync(&self.source, PREFIX as u64, salt)?.unwrap_or(PREFIX as u64),
        };
        let found = scan(&self.source, start, decoder, storage)?;
        self.problems.extend(found.problems);
        (self.entries, self.tail) = (found.entries, found.tail);
        self.sound = found.sound.min(self.entries.len());
        let opening = self.entries.first().map(|e| e.kind);
        if !matches!(opening, None | Some(FrameKind::Keyframe | FrameKind::Final)) {
            // The keyframe is lost: no state to start from at this end.
            self.sound = 0;
        }
        if let Some(trailer) = sealed {
            // The damage came after sealing, so the frames can be reached from both ends.
            self.tail = Tail::Sealed;
            self.problems.extend(trailer.err());
        } else if self.tail == Tail::Sealed {
            self.judge_footer(found.end, salt)?;
            if self.tail == Tail::Sealed {
                let map = storage.map(&self.name);
                let map = map.map_err(io_error(storage, &self.name, "map"))?;
                self.source = SegmentSource::Map(map);
            }
        }
        self.keep_order();
        Ok(())
    }

    /// Drops frames that are out of order: steps ascend, and nothing follows a link. Such frames are damage even if their checksums are
    /// valid, because no writer puts them there. The longest ascending sequence stays.
    fn keep_order(&mut self) {
        let kept = ascending(&self.entries);
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

    /// Compares the footer at `at` of an unlisted segment with the footer that follows from its frames. It is complete, or a beginning of
    /// it (sealing was interrupted), or damaged.
    fn judge_footer(&mut self, at: u64, salt: u32) -> Result<(), FormatError> {
        let mut hasher = blake3::Hasher::new();
        self.source.hash_to(at, &mut hasher)?;
        let (expected, digest) = footer(&self.entries, at, salt, hasher);
        let rest = self.source.length() - at;
        let here = rest.min(expected.len() as u64) as usize;
        let mut scratch = Vec::new();
        let got = self.source.bytes(at, here, &mut scratch)?;
        let agreeing = got
            .iter()
            .zip(&expected)
            .take_while(|(a, b)| a == b)
            .count();
        // The last word is stored last. A writer that is stopped before it may have left out any of the other words, because copies need
        // not ascend within a page.
        let unfinished =
            got.len() < expected.len() || got[expected.len() - LAST_WORD..].iter().all(|&b| b == 0);
        let begun = got[agreeing..].iter().all(|&b| b == 0)
            || unfinished && got.iter().zip(&expected).all(|(a, b)| a == b || *a == 0);
        let zeros_follow = begun && self.source.all_zero(at + here as u64, &mut Vec::new())?;
        (self.tail, self.digest) = if agreeing == expected.len() && rest == expected.len() as u64 {
            (Tail::Sealed, Some(digest))
        } else if zeros_follow {
            (Tail::Torn(at), None)
        } else {
            self.problems.push(FormatError::corrupt(
                "segment footer",
                "the footer that follows from the segment's frames",
                format!("a different one from byte {} on", at + agreeing as u64),
            ));
            (Tail::Damaged(at), None)
        };
        Ok(())
    }

    /// Whether a footer begins at that byte whose index lists exactly the frames that were found. If so, no frame is hidden there.
    pub fn closes_at(&self, at: u64, salt: u32) -> bool {
        let mut scratch = Vec::new();
        let Ok(head) = self.source.bytes(at, 8, &mut scratch) else {
            return false;
        };
        head.starts_with(&FOOTER_MAGIC)
            && u32_at(head, 4) as usize == self.entries.len()
            && footer_at(&self.source, at, salt).unwrap_or(false)
    }

    /// A frame's bytes.
    pub fn frame<'a>(
        &'a self,
        entry: &FrameEntry,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FormatError> {
        let length = usize::try_from(entry.length).unwrap_or(usize::MAX);
        self.source
            .bytes(entry.offset, length, scratch)
            .map_err(|e| e.within(&self.name, number_of(&self.name)))
    }
}

/// The header and its length, or its damage. The outer error ends the read: the segment can't be read by this build, or it is unlisted and
/// has no complete header, and so no frames, yet.
fn header_or_damage(
    source: &SegmentSource,
    storage: &dyn Storage,
    known: Option<&Arc<RunInfo>>,
    listed: bool,
) -> Result<Result<(Header, usize), FormatError>, FormatError> {
    match read_start(source, storage, known) {
        Ok(start) => Ok(Ok(start)),
        Err(e) if e.is_refusal() || matches!(e, FormatError::Io { .. }) => Err(e),
        Err(e @ FormatError::Incomplete { .. }) if !listed => Err(e),
        Err(_) if !listed && header_unwritten(source)? => Err(FormatError::Incomplete {
            file: String::new(),
            what: "segment header",
            have: 0,
            need: PREFIX as u64,
        }),
        Err(e) => Ok(Err(e)),
    }
}
