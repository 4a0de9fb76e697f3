//! The linear scan: finds the frames of a segment that has no index, and distinguishes "not yet complete" from "corrupt".

use std::collections::BTreeSet;

use super::entry::{FrameEntry, Tail};
use super::footer::{FOOTER_MAGIC, footer_at};
use super::source::{STRIDE, SegmentSource};
use crate::FormatError;
use crate::decoder::Decoder;
use crate::frame::{FRAME_HEADER, FRAME_MAGIC, Frame, FrameHeader};
use crate::storage::Storage;

/// Number of damaged places of one segment that are kept.
const MOST_PROBLEMS: usize = 1000;
/// How many times to re-read a damaged place of a segment that may be growing.
const REREADS: u32 = 3;

/// What a scan found.
#[derive(Debug)]
pub(super) struct Scan {
    pub entries: Vec<FrameEntry>,
    /// Whether each of them is undamaged.
    pub intact: Vec<bool>,
    pub tail: Tail,
    /// The byte at which the frames end.
    pub end: u64,
    pub problems: Vec<FormatError>,
    /// Number of entries before the first damage that hides the tensors of later frames.
    pub sound: usize,
}

/// Scans from byte `start`, the end of the header, and checks every frame's checksums.
pub(super) fn scan(
    source: &SegmentSource,
    start: u64,
    decoder: &Decoder,
    storage: &dyn Storage,
) -> Result<Scan, FormatError> {
    let mut scanner = Scanner {
        source,
        decoder,
        storage,
        salt: decoder.context.salt,
        found: Scan {
            entries: Vec::new(),
            intact: Vec::new(),
            tail: Tail::Clean,
            end: start,
            problems: Vec::new(),
            sound: usize::MAX,
        },
        read_at: start,
        reads: 0,
    };
    let mut scratch = Vec::new();
    let mut at = start;
    while at < source.length() {
        match scanner.place(at, &mut scratch)? {
            Some(next) => at = next,
            None => break,
        }
    }
    scanner.found.drop_damaged_copies();
    Ok(scanner.found)
}

impl Scan {
    /// Drops damaged frames of which there is an undamaged copy in the segment.
    fn drop_damaged_copies(&mut self) {
        if self.intact.iter().all(|intact| *intact) {
            return;
        }
        let frames = self.entries.iter().zip(&self.intact);
        let name = |entry: &FrameEntry| (entry.step, entry.kind as u8);
        let intact = frames.clone().filter(|(_, intact)| **intact);
        let copies: BTreeSet<(u64, u8)> = intact.map(|(entry, _)| name(entry)).collect();
        let kept: Vec<bool> = frames
            .map(|(entry, intact)| *intact || !copies.contains(&name(entry)))
            .collect();
        let before = kept.iter().take(self.sound);
        let dropped = before.filter(|kept| !**kept).count();
        self.sound = self.sound.saturating_sub(dropped);
        let mut keep = kept.iter().copied();
        self.entries.retain(|_| keep.next().unwrap_or(true));
        let mut keep = kept.iter().copied();
        self.intact.retain(|_| keep.next().unwrap_or(true));
    }
}

struct Scanner<'a> {
    source: &'a SegmentSource,
    decoder: &'a Decoder,
    storage: &'a dyn Storage,
    salt: u32,
    found: Scan,
    /// The place that was read last, and how many times.
    read_at: u64,
    reads: u32,
}

impl Scanner<'_> {
    /// Examines the bytes at `at`; returns where to continue, or `None` at the end of the frames.
    fn place(&mut self, at: u64, scratch: &mut Vec<u8>) -> Result<Option<u64>, FormatError> {
        let source = self.source;
        let n = (source.length() - at).min(FRAME_HEADER as u64) as usize;
        let head = source.bytes(at, n, scratch)?;
        if head.starts_with(&FOOTER_MAGIC) {
            self.found.end = at;
            return Ok(self.ends(Tail::Sealed));
        }
        match FrameHeader::read(head, self.salt) {
            Ok(header) if header.length > source.length() - at => self.cut_frame(&header, at),
            Ok(header) => self.frame(&header, at, scratch),
            Err(error) => {
                let head = head.to_vec();
                self.no_header(error, &head, at, scratch)
            }
        }
    }

    /// A frame whose header is complete and whose bytes go beyond the file's end.
    fn cut_frame(&mut self, header: &FrameHeader, at: u64) -> Result<Option<u64>, FormatError> {
        // If another frame follows, bytes were deleted from this one.
        let Some(next) = resync(self.source, at + FRAME_HEADER as u64, self.salt)? else {
            return Ok(self.ends(Tail::Torn(at)));
        };
        if self.read_again(at) {
            return Ok(Some(at));
        }
        let error = FormatError::corrupt(
            "frame length",
            format!("{} bytes", header.length),
            format!("{} bytes before the next frame", next - at),
        );
        self.keep(vec![error.at_step(header.step)]);
        self.hide_tensors();
        Ok(Some(next))
    }

    /// A frame that lies inside the file.
    fn frame(
        &mut self,
        header: &FrameHeader,
        at: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<u64>, FormatError> {
        let source = self.source;
        let end = at + header.length;
        let frame = Frame::read(
            source.bytes(at, header.length as usize, scratch)?,
            self.salt,
        )?;
        crate::memory::metadata(self.storage, u64::from(header.meta_length))?;
        let damage = self.decoder.check(&frame);
        if frame.is_unfinished() && source.all_zero(end, &mut Vec::new())? {
            return Ok(self.ends(Tail::Torn(at)));
        }
        if !damage.is_empty() && self.read_again(at) {
            return Ok(Some(at));
        }
        if damage.iter().any(hides_tensors) {
            self.hide_tensors();
        }
        let mut next = end;
        // If bytes were inserted into a damaged frame or deleted from it, the next one doesn't begin where its length says.
        if !damage.is_empty() && !self.begins(end)? {
            let found = resync(source, at + FRAME_HEADER as u64, self.salt)?;
            next = found.filter(|&found| found < end).unwrap_or(end);
        }
        self.found.intact.push(damage.is_empty());
        self.keep(damage);
        self.found.entries.push(FrameEntry {
            offset: at,
            length: header.length,
            step: header.step,
            kind: header.kind,
        });
        Ok(Some(next))
    }

    /// Bytes that are neither a frame header nor a footer. `head` is a copy of the first of them.
    fn no_header(
        &mut self,
        error: FormatError,
        head: &[u8],
        at: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<u64>, FormatError> {
        let source = self.source;
        if source.all_zero(at, scratch)? {
            return Ok(self.ends(Tail::Clean));
        }
        // A header is stored from its magic on. A torn one begins like a header, and only zeros follow it.
        let begun = begins_like(head, &FRAME_MAGIC) || begins_like(head, &FOOTER_MAGIC);
        if begun && source.all_zero(at + head.len() as u64, scratch)? {
            return Ok(self.ends(Tail::Torn(at)));
        }
        if self.read_again(at) {
            return Ok(Some(at));
        }
        self.keep(vec![error]);
        self.hide_tensors();
        match resync(source, at + 1, self.salt)? {
            Some(next) => Ok(Some(next)),
            None => Ok(self.ends(Tail::Damaged(at))),
        }
    }

    fn ends(&mut self, tail: Tail) -> Option<u64> {
        self.found.tail = tail;
        None
    }

    /// Whether to read a damaged place again before it is called damaged, because a recorder may be writing there.
    fn read_again(&mut self, at: u64) -> bool {
        self.reads = if self.read_at == at {
            self.reads + 1
        } else {
            1
        };
        self.read_at = at;
        self.source.may_grow() && self.reads <= REREADS
    }

    /// Adds damage to the list. Only the first places are kept.
    fn keep(&mut self, damage: Vec<FormatError>) {
        let room = MOST_PROBLEMS.saturating_sub(self.found.problems.len());
        self.found.problems.extend(damage.into_iter().take(room));
    }

    /// Notes damage that hides the tensors of the frames from here on.
    fn hide_tensors(&mut self) {
        self.found.sound = self.found.sound.min(self.found.entries.len());
    }

    /// Whether a frame or the footer begins at `at`, or the file ends there.
    fn begins(&self, at: u64) -> Result<bool, FormatError> {
        let n = self
            .source
            .length()
            .saturating_sub(at)
            .min(FRAME_HEADER as u64) as usize;
        let mut scratch = Vec::new();
        let head = self.source.bytes(at, n, &mut scratch)?;
        Ok(n == 0 || head.starts_with(&FOOTER_MAGIC) || FrameHeader::read(head, self.salt).is_ok())
    }
}

/// Whether the frame's difference is lost. It isn't if only the metadata or the repeated length is damaged.
fn hides_tensors(problem: &FormatError) -> bool {
    !matches!(problem, FormatError::Corrupt(c) if c.what.starts_with("metadata") || c.what.starts_with("frame length at"))
}

/// Whether `head` begins with the magic, or consists of a beginning of the magic and zeros.
fn begins_like(head: &[u8], magic: &[u8; 4]) -> bool {
    let agreeing = head.iter().zip(magic).take_while(|(a, b)| a == b).count();
    agreeing == 4 || agreeing > 0 && head[agreeing..].iter().all(|&b| b == 0)
}

/// The next byte from `at` on where a frame with a valid header or a footer with a valid index begins.
pub(super) fn resync(
    source: &SegmentSource,
    mut at: u64,
    salt: u32,
) -> Result<Option<u64>, FormatError> {
    let (mut scratch, mut header) = (Vec::new(), Vec::new());
    loop {
        at = source.data_from(at);
        if at >= source.length() {
            break;
        }
        let n = (source.length() - at).min(STRIDE as u64) as usize;
        let window = source.bytes(at, n, &mut scratch)?;
        for i in 0..n.saturating_sub(3) {
            let magic = &window[i..i + 4];
            let here = at + i as u64;
            if magic == FRAME_MAGIC && source.length() - here >= FRAME_HEADER as u64 {
                let head = source.bytes(here, FRAME_HEADER, &mut header)?;
                if FrameHeader::read(head, salt).is_ok_and(|h| h.length <= source.length() - here) {
                    return Ok(Some(here));
                }
            } else if magic == FOOTER_MAGIC && footer_at(source, here, salt)? {
                return Ok(Some(here));
            }
        }
        if n < STRIDE {
            break;
        }
        // A magic may lie across two windows.
        at += (n - 3) as u64;
    }
    Ok(None)
}
