//! Memory maps: the only unsafe code of this crate.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::{Mmap, MmapMut, MmapOptions};

/// A whole file in memory, or the first part of it.
#[derive(Debug, Clone)]
pub struct Mapped {
    backing: Backing,
    length: usize,
}

#[derive(Debug, Clone)]
enum Backing {
    Map(Arc<Mmap>),
    Bytes(Arc<Vec<u8>>),
}

impl Mapped {
    /// Bytes that are already in memory.
    pub fn from_bytes(bytes: Arc<Vec<u8>>) -> Mapped {
        let length = bytes.len();
        Mapped {
            backing: Backing::Bytes(bytes),
            length,
        }
    }

    /// Only the first `length` bytes.
    pub(crate) fn shortened(mut self, length: u64) -> Mapped {
        self.length = usize::try_from(length).map_or(self.length, |n| n.min(self.length));
        self
    }

    /// Maps the first `most` bytes of a sealed segment, or all of it if it is shorter.
    pub(crate) fn sealed(file: &File, most: u64) -> io::Result<Mapped> {
        let length = file.metadata()?.len().min(most);
        if length == 0 {
            return Ok(Mapped::from_bytes(Arc::default()));
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a map is undefined behaviour if the file changes while it is mapped. Sealed segments are written once, and nothing in
        // Hindcast opens one for writing again (a resumed run writes a segment with another name). Only a foreign program that edits or
        // cuts the file in place can break this, as for every program that maps files. Checksums are checked as the bytes are read.
        let map = unsafe { MmapOptions::new().len(length).map(file)? };
        let length = map.len();
        Ok(Mapped {
            backing: Backing::Map(Arc::new(map)),
            length,
        })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole: &[u8] = match &self.backing {
            Backing::Map(map) => map,
            Backing::Bytes(bytes) => bytes,
        };
        whole.get(..self.length).unwrap_or(whole)
    }
}

/// A window of an open segment whose blocks have been reserved.
pub(super) struct Window {
    map: MmapMut,
    pub start: u64,
    pub length: usize,
    /// Number of bytes from the start whose pages have been populated.
    ready: usize,
}

/// Number of bytes that are stored word by word. A frame's header isn't longer.
const HEAD: usize = 256;

/// Bytes of pages populated at a time. For small steps, a page fault per page would cost more than encoding.
const AHEAD: usize = 1 << 17;

impl Window {
    /// Maps `length` bytes from `start` on. `start` is a multiple of the page size, and the blocks are allocated.
    pub fn new(file: &File, start: u64, length: usize) -> io::Result<Window> {
        // SAFETY: this process created the file for appending, and it alone writes it. Readers use positioned reads and never rely on
        // unpublished bytes. `fallocate` allocated the blocks of the window on a file system that is known to honour it, so that a store
        // can't lack space.
        let map = unsafe { MmapOptions::new().offset(start).len(length).map_mut(file)? };
        Ok(Window {
            map,
            start,
            length,
            ready: 0,
        })
    }

    /// Populates the pages up to `end`, and some more.
    fn prepare(&mut self, end: usize) {
        if end <= self.ready {
            return;
        }
        let from = self.ready;
        self.ready = end.next_multiple_of(AHEAD).min(self.length);
        // If the system has no such call, pages are populated one by one by the stores.
        #[cfg(target_os = "linux")]
        let _ = self.map.advise_range(
            memmap2::Advice::PopulateWrite,
            from,
            self.ready.saturating_sub(from),
        );
        #[cfg(not(target_os = "linux"))]
        let _ = from;
    }

    /// Copies `bytes` to `at` (relative to the window) in ascending order, so that a killed process leaves a prefix.
    pub fn store(&mut self, mut at: usize, bytes: &[u8]) {
        self.prepare(at + bytes.len());
        // memcpy may copy the end of a piece before its middle. A frame's header goes word by word, because a header with a hole looks like
        // damage. The length at the frame's end is a piece of its own.
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD));
        let (body, tail) = rest.split_at(rest.len().saturating_sub(8));
        let pieces = head
            .chunks(8)
            .chain(body.chunks(4096))
            .chain(std::iter::once(tail));
        for piece in pieces.filter(|p| !p.is_empty()) {
            self.map[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// Starts writing the window's dirty pages to the disk, and waits for it.
    pub fn flush(&self, upto: usize) -> io::Result<()> {
        if upto == 0 {
            Ok(())
        } else {
            self.map.flush_range(0, upto.min(self.length))
        }
    }
}
