//! The only unsafe code of this crate: memory maps.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::{Mmap, MmapMut, MmapOptions};

/// A whole file in memory.
#[derive(Debug, Clone)]
pub struct Mapped {
    inner: Inner,
    length: usize,
}

#[derive(Debug, Clone)]
enum Inner {
    Map(Arc<Mmap>),
    Bytes(Arc<Vec<u8>>),
}

impl Mapped {
    /// Bytes that are in memory anyway.
    pub fn from_bytes(bytes: Arc<Vec<u8>>) -> Mapped {
        let length = bytes.len();
        Mapped {
            inner: Inner::Bytes(bytes),
            length,
        }
    }

    /// Only the first `length` bytes.
    pub(crate) fn shortened(mut self, length: u64) -> Mapped {
        self.length = usize::try_from(length).map_or(self.length, |n| n.min(self.length));
        self
    }

    /// Maps the first `most` bytes of a sealed segment, or all of it where it is shorter.
    pub(crate) fn sealed(file: &File, most: u64) -> io::Result<Mapped> {
        let length = file.metadata()?.len().min(most);
        if length == 0 {
            return Ok(Mapped::from_bytes(Arc::default()));
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a map is undefined behaviour if the file is changed underneath. Sealed segments are written once: nothing in Hindcast
        // opens one for writing again (a resumed run writes a segment of another name), so only a foreign program that edits or cuts the
        // file in place could break this, as with every program that maps files. Bytes are checked by checksums as they are read.
        let map = unsafe { MmapOptions::new().len(length).map(file)? };
        let length = map.len();
        Ok(Mapped {
            inner: Inner::Map(Arc::new(map)),
            length,
        })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole: &[u8] = match &self.inner {
            Inner::Map(map) => map,
            Inner::Bytes(bytes) => bytes,
        };
        whole.get(..self.length).unwrap_or(whole)
    }
}

/// A window of an open segment whose blocks have been reserved.
pub(super) struct Window {
    map: MmapMut,
    pub start: u64,
    pub length: usize,
    /// How far pages have been made ready.
    ready: usize,
}

/// Bytes that are stored word by word; no header of a frame is longer.
const HEAD: usize = 256;

/// Pages are made ready so many bytes at once: a fault for each would cost a small step more than encoding it does.
const AHEAD: usize = 1 << 17;

impl Window {
    /// Maps `length` bytes from `start` on; `start` is a multiple of the page size and the blocks are allocated.
    pub fn new(file: &File, start: u64, length: usize) -> io::Result<Window> {
        // SAFETY: the file was created by this process for appending and is written by this process alone; readers use positioned reads
        // and never rely on bytes that aren't published. The blocks behind the window were allocated by `fallocate` on a file system
        // known to honour it, so that a store can't fail for want of space.
        let map = unsafe { MmapOptions::new().offset(start).len(length).map_mut(file)? };
        Ok(Window {
            map,
            start,
            length,
            ready: 0,
        })
    }

    /// Makes the pages up to `end` ready for stores, and some more.
    fn prepare(&mut self, end: usize) {
        if end <= self.ready {
            return;
        }
        let from = self.ready;
        self.ready = end.next_multiple_of(AHEAD).min(self.length);
        // Where the system has no such call, pages become ready one by one as they are stored to.
        #[cfg(target_os = "linux")]
        let _ = self.map.advise_range(
            memmap2::Advice::PopulateWrite,
            from,
            self.ready.saturating_sub(from),
        );
        #[cfg(not(target_os = "linux"))]
        let _ = from;
    }

    /// Copies `bytes` to `at` (relative to the window) in ascending order, so that a process killed midway leaves a prefix.
    pub fn store(&mut self, mut at: usize, bytes: &[u8]) {
        self.prepare(at + bytes.len());
        // memcpy may copy a piece's end before its middle, hence pieces: a frame's header goes word by word, since one with a hole in it
        // can't be told from damage; the length at its end stands alone.
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

    /// Hands the window's dirty pages to the disk.
    pub fn flush(&self, upto: usize) -> io::Result<()> {
        if upto == 0 {
            Ok(())
        } else {
            self.map.flush_range(0, upto.min(self.length))
        }
    }
}
