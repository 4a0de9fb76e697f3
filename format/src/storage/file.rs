//! An open segment on disk, written through a moving window of reserved blocks or by positioned writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate, fstatfs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::interface::WriteFile;
use super::map::Window;

/// Size of the first window in bytes. Later windows double up to [`LARGEST`].
const SMALLEST: u64 = 1 << 20;
const LARGEST: u64 = 1 << 26;
/// Windows begin at multiples of this. No page size in use is larger.
const ALIGN: u64 = 1 << 16;

/// File systems whose `fallocate` reserves blocks so that a later store can't lack space: ext2/3/4, XFS, tmpfs. On others (copy-on-write,
/// network, FUSE) a store into a map may find no space, which kills the process with SIGBUS. They are written without a map.
const HONOURED: [i128; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

pub(super) struct SegmentFile {
    file: File,
    position: u64,
    /// Bytes reserved, which is the file's length in mapped mode.
    reserved: u64,
    window: Option<Window>,
    mapped: bool,
}

/// Largest size in bytes to which this process may let a file grow. Callers never ask for more, because that would raise SIGXFSZ, which
/// kills a process that doesn't ignore it.
pub(super) fn largest_file() -> u64 {
    getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX)
}

impl SegmentFile {
    pub fn new(file: File, position: u64, map: bool) -> SegmentFile {
        let mapped = map && fstatfs(&file).is_ok_and(|s| HONOURED.contains(&i128::from(s.f_type)));
        SegmentFile {
            file,
            position,
            reserved: position,
            window: None,
            mapped,
        }
    }

    /// Moves the window to the position and reserves its blocks. Returns false if this file can't be mapped.
    fn advance(&mut self) -> bool {
        let start = self.position / ALIGN * ALIGN;
        let length = self.reserved.clamp(SMALLEST, LARGEST);
        let end = start + length.max(2 * ALIGN);
        if end > largest_file() {
            return false;
        }
        // `trim` frees whatever a failing call has reserved.
        self.reserved = end;
        if fallocate(&self.file, FallocateFlags::empty(), start, end - start).is_err() {
            // The call isn't supported here, or there isn't space for a whole window. Plain writes use the remaining space and report when
            // it is exhausted.
            return false;
        }
        // If the file can't be mapped (no address space left), plain writes continue.
        self.window = Window::new(&self.file, start, (end - start) as usize).ok();
        self.window.is_some()
    }
}

impl SegmentFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while self.mapped && !rest.is_empty() {
            if self
                .window
                .as_ref()
                .is_none_or(|w| w.start + w.length as u64 <= self.position)
            {
                // Frames are contiguous, so that no hole is left in a window.
                self.mapped = self.advance();
                continue;
            }
            if let Some(window) = &mut self.window {
                let at = (self.position - window.start) as usize;
                let (now, later) = rest.split_at(rest.len().min(window.length - at));
                window.store(at, now);
                self.position += now.len() as u64;
                rest = later;
            }
        }
        if !rest.is_empty() {
            self.window = None;
            if rest.len() as u64 > largest_file().saturating_sub(self.position) {
                return Err(Errno::FBIG.into());
            }
            self.file.write_all_at(rest, self.position)?;
            self.position += rest.len() as u64;
        }
        Ok(())
    }
}

impl WriteFile for SegmentFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.position;
        self.append(bytes).inspect_err(|_| {
            // The window may now lie after the position. Later bytes are written at positions.
            self.window = None;
            self.mapped = false;
            self.position = before;
        })
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(window) = &self.window {
            window.flush((self.position - window.start) as usize)?;
        }
        // fdatasync also writes back pages dirtied through earlier windows.
        self.file.sync_data()
    }

    fn trim(&mut self) -> io::Result<()> {
        self.window = None;
        self.mapped = false;
        // A failed write may also have left bytes after the position.
        if self.reserved > self.position || self.file.metadata()?.len() > self.position {
            self.file.set_len(self.position)?;
        }
        self.reserved = self.position;
        Ok(())
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        // Best effort: zeros after the last frame are valid, just wasteful.
        let _ = self.trim();
    }
}
