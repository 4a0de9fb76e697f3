//! The linear scan: finds the frames of a segment that has no index, and tells "not yet complete" from "corrupt".

use super::file::Source;
use super::footer::FOOTER_MAGIC;
use crate::FormatError;
use crate::decoder::Decoder;
use crate::frame::{FRAME_HEADER, FRAME_MAGIC, Frame, FrameHeader, FrameKind};
use crate::storage::Storage;

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub offset: u64,
    pub length: u64,
    pub step: u64,
    pub kind: FrameKind,
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tail {
    /// With a footer.
    Sealed,
    /// After a whole frame: at the file's end or in reserved zeros.
    Clean,
    /// In the middle of a frame that begins there: the writer hasn't finished it, or was killed.
    Torn(u64),
    /// In bytes that are neither; described among the problems.
    Damaged(u64),
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub entries: Vec<Entry>,
    pub tail: Tail,
    /// Where the frames end.
    pub end: u64,
    pub problems: Vec<FormatError>,
    /// Entries before the first damage that hides the tensors of what follows.
    pub sound: usize,
}

impl Scan {
    /// Adds damage to the list. Only the first places are kept.
    fn keep(&mut self, damage: Vec<FormatError>) {
        let room = MOST_PROBLEMS.saturating_sub(self.problems.len());
        self.problems.extend(damage.into_iter().take(room));
    }
}

/// Number of damaged places of one segment that are kept.
const MOST_PROBLEMS: usize = 1000;
/// So often is a damaged place looked at in a segment that may be growing.
const LOOKS: u32 = 3;
/// Bytes looked at in one go when searching.
const STRIDE: usize = 1 << 16;

/// Scans from the end of the header on, checking every frame's checksums.
pub(crate) fn scan(
    source: &Source,
    start: u64,
    decoder: &Decoder,
    storage: &dyn Storage,
) -> Result<Scan, FormatError> {
    let salt = decoder.context.salt;
    let length = source.length();
    let mut found = Scan {
        entries: Vec::new(),
        tail: Tail::Clean,
        end: start,
        problems: Vec::new(),
        sound: usize::MAX,
    };
    let mut scratch = Vec::new();
    let (mut at, mut looks, mut looks_at) = (start, 0, start);
    // A recorder may write on while this looks: what seems damaged is looked at again before it is called so.
    let mut again = |at: u64| {
        looks = if looks_at == at { looks + 1 } else { 1 };
        looks_at = at;
        source.may_grow() && looks <= LOOKS
    };
    while at < length {
        let head = source.bytes(
            at,
            (length - at).min(FRAME_HEADER as u64) as usize,
            &mut scratch,
        )?;
        if head.starts_with(&FOOTER_MAGIC) {
            (found.tail, found.end) = (Tail::Sealed, at);
            return Ok(found);
        }
        match FrameHeader::read(head, salt) {
            Ok(header) => {
                if header.length > length - at {
                    // The header is complete and the rest is missing. If a frame follows, bytes were deleted from this
                    // one.
                    let Some(next) = resync(source, at + FRAME_HEADER as u64, salt)? else {
                        found.tail = Tail::Torn(at);
                        return Ok(found);
                    };
                    if again(at) {
                        continue;
                    }
                    found.keep(vec![cut_short(&header, next - at)]);
                    found.sound = found.sound.min(found.entries.len());
                    at = next;
                    continue;
                }
                let bytes = source.bytes(at, header.length as usize, &mut scratch)?;
                let frame = Frame::read(bytes, salt)?;
                crate::memory::metadata(storage, u64::from(header.meta_length))?;
                let damage = decoder.check(&frame);
                if frame.is_unfinished() && all_zero(source, at + header.length, &mut Vec::new())? {
                    // The end was never written, and nothing follows.
                    found.tail = Tail::Torn(at);
                    return Ok(found);
                }
                if !damage.is_empty() && again(at) {
                    continue;
                }
                if damage.iter().any(hides_tensors) {
                    found.sound = found.sound.min(found.entries.len());
                }
                // If bytes were deleted from a frame or inserted into it, the next one doesn't begin at the offset that
                // its length gives.
                let next = match damage.is_empty() || begins(source, at + header.length, salt)? {
                    true => None,
                    false => resync(source, at + FRAME_HEADER as u64, salt)?
                        .filter(|&next| next < at + header.length),
                };
                found.keep(damage);
                found.entries.push(Entry {
                    offset: at,
                    length: header.length,
                    step: header.step,
                    kind: header.kind,
                });
                at = next.unwrap_or(at + header.length);
            }
            Err(error) => {
                let head = head.to_vec();
                if all_zero(source, at, &mut scratch)? {
                    found.tail = Tail::Clean;
                    return Ok(found);
                }
                // A header is stored from its magic on, so a torn one begins like a header, and nothing but zeros follows it.
                if (begins_like(&head, &FRAME_MAGIC) || begins_like(&head, &FOOTER_MAGIC))
                    && all_zero(source, at + head.len() as u64, &mut scratch)?
                {
                    found.tail = Tail::Torn(at);
                    return Ok(found);
                }
                if again(at) {
                    continue;
                }
                found.keep(vec![error]);
                found.sound = found.sound.min(found.entries.len());
                match resync(source, at + 1, salt)? {
                    Some(next) => at = next,
                    None => {
                        found.tail = Tail::Damaged(at);
                        return Ok(found);
                    }
                }
            }
        }
    }
    Ok(found)
}

fn cut_short(header: &FrameHeader, have: u64) -> FormatError {
    FormatError::corrupt(
        "frame length",
        format!("{} bytes", header.length),
        format!("{have} bytes before the next frame"),
    )
    .at_step(header.step)
}

/// Whether a frame or the footer begins there, or the file ends.
fn begins(source: &Source, at: u64, salt: u32) -> Result<bool, FormatError> {
    let n = source.length().saturating_sub(at).min(FRAME_HEADER as u64) as usize;
    let mut scratch = Vec::new();
    let head = source.bytes(at, n, &mut scratch)?;
    Ok(n == 0 || head.starts_with(&FOOTER_MAGIC) || FrameHeader::read(head, salt).is_ok())
}

/// Damage to anything but the metadata or the repeated length: the frame's difference is lost.
fn hides_tensors(problem: &FormatError) -> bool {
    !matches!(problem, FormatError::Corrupt(c) if c.what.starts_with("metadata") || c.what.starts_with("frame length at"))
}

/// Is this the magic, or its first bytes and then zeros?
fn begins_like(head: &[u8], magic: &[u8; 4]) -> bool {
    let agreeing = head.iter().zip(magic).take_while(|(a, b)| a == b).count();
    agreeing == 4 || agreeing > 0 && head[agreeing..].iter().all(|&b| b == 0)
}

/// Is everything from `at` on zero?
pub(super) fn all_zero(
    source: &Source,
    mut at: u64,
    scratch: &mut Vec<u8>,
) -> Result<bool, FormatError> {
    loop {
        at = source.data_from(at);
        if at >= source.length() {
            return Ok(true);
        }
        let n = (source.length() - at).min(STRIDE as u64) as usize;
        if source.bytes(at, n, scratch)?.iter().any(|&b| b != 0) {
            return Ok(false);
        }
        at += n as u64;
    }
}

/// The next place from `at` on where a frame with a good header or a footer begins.
pub(super) fn resync(source: &Source, mut at: u64, salt: u32) -> Result<Option<u64>, FormatError> {
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
            } else if magic == FOOTER_MAGIC && super::file::footer_at(source, here, salt)? {
                return Ok(Some(here));
            }
        }
        if n < STRIDE {
            break;
        }
        // The magic may lie across two windows.
        at += (n - 3) as u64;
    }
    Ok(None)
}
