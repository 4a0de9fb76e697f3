//! A segment file as a reader sees it.

use super::footer::{TRAILER, Trailer};
use super::header::{Header, PREFIX, read_header, read_prefix};
use super::scan::{Entry, Tail, scan};
use crate::FormatError;
use crate::decoder::Decoder;
use crate::encoder::Context;
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
    },
}

impl Source {
    pub fn length(&self) -> u64 {
        match self {
            Source::Map(bytes) => bytes.len() as u64,
            Source::File { length, .. } => *length,
        }
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
            Source::File { file, path, .. } => {
                scratch.resize(length, 0);
                file.read_at(offset, scratch)
                    .map_err(|e| FormatError::io(path.clone(), "reading", e))?;
                Ok(scratch)
            }
        }
    }
}

/// A segment, its frames found.
pub(crate) struct Segment {
    pub name: String,
    pub source: Source,
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

impl Segment {
    /// Opens a segment. `known` is the run's description from elsewhere, for a header that is damaged; `listed` says that the
    /// manifest calls the segment sealed.
    pub fn load(
        storage: &dyn Storage,
        name: &str,
        known: Option<&RunInfo>,
        listed: bool,
    ) -> Result<Segment, FormatError> {
        let number = super::parse_name(name).map(|(number, _)| number);
        Segment::find(storage, name, known, listed)
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
        known: Option<&RunInfo>,
        listed: bool,
    ) -> Result<Segment, FormatError> {
        let path = format!("{}/{name}", storage.location());
        let io = |doing| {
            let path = path.clone();
            move |e| FormatError::io(path, doing, e)
        };
        let file = storage.open(name).map_err(io("opening"))?;
        let length = file.length().map_err(io("measuring"))?;
        let mut source = Source::File {
            file,
            length,
            path: path.clone(),
        };
        let mut problems = Vec::new();
        let trailer = read_end(&source);
        if trailer.is_ok() || listed {
            source = Source::Map(storage.map(name).map_err(io("mapping"))?);
        }
        let header = read_start(&source);
        let (header, start) = match header {
            Ok((header, start)) => (Some(header), Some(start as u64)),
            Err(e @ (FormatError::NewerVersion { .. } | FormatError::Io { .. })) => return Err(e),
            // A segment whose header isn't complete has no frames yet.
            Err(e @ FormatError::Incomplete { .. }) if !listed => return Err(e),
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
        let index = match &trailer {
            Ok(trailer) => match read_index(&source, trailer, decoder.context.salt) {
                Ok(entries) => Some(entries),
                Err(e) => {
                    problems.push(e);
                    None
                }
            },
            Err(_) => None,
        };
        let digest = trailer.as_ref().ok().map(|t| t.digest);
        if let Some(entries) = index {
            return Ok(Segment {
                name: name.to_owned(),
                source,
                header,
                sound: entries.len(),
                entries,
                tail: Tail::Sealed,
                digest,
                problems,
            });
        }
        // A damaged header may hide its own length; the first frame is found by its magic then.
        let found = scan(&source, start.unwrap_or(PREFIX as u64), &decoder)?;
        let from_scan = found
            .problems
            .into_iter()
            .filter(|p| start.is_some() || !is_magic(p));
        problems.extend(from_scan);
        if let (Err(e), true) = (trailer, listed || found.tail == Tail::Sealed) {
            problems.push(e);
        }
        let sound = found.sound.min(found.entries.len());
        Ok(Segment {
            name: name.to_owned(),
            source,
            header,
            sound,
            entries: found.entries,
            tail: found.tail,
            digest,
            problems,
        })
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

fn is_magic(problem: &FormatError) -> bool {
    matches!(problem, FormatError::Corrupt(c) if c.what == "frame magic")
}

fn read_start(source: &Source) -> Result<(Header, usize), FormatError> {
    let mut scratch = Vec::new();
    let first = (PREFIX as u64).min(source.length()) as usize;
    let length = read_prefix(source.bytes(0, first, &mut scratch)?)?;
    let have = (length as u64).min(source.length()) as usize;
    read_header(source.bytes(0, have, &mut scratch)?)
}
