//! The segment that is being written.

use std::io;

use crate::encoder::EncodedFrame;
use crate::frame::FrameKind;
use crate::manifest::SegmentRecord;
use crate::segment::{FrameEntry, footer};
use crate::storage::WriteFile;

pub(super) struct OpenSegment {
    file: Box<dyn WriteFile>,
    hasher: blake3::Hasher,
    entries: Vec<FrameEntry>,
    unsynced: u32,
    record: SegmentRecord,
    /// The digest, once the footer has been written.
    sealed: Option<[u8; 32]>,
}

impl OpenSegment {
    pub fn new(
        file: Box<dyn WriteFile>,
        name: String,
        number: u64,
        first_step: u64,
        is_final: bool,
    ) -> OpenSegment {
        let record = SegmentRecord {
            number,
            file: name,
            first_step,
            end_step: first_step,
            steps: 0,
            gaps: 0,
            bytes: 0,
            digest: [0; 32],
            is_final,
            dropped: false,
        };
        OpenSegment {
            file,
            hasher: blake3::Hasher::new(),
            entries: Vec::new(),
            unsynced: 0,
            record,
            sealed: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.record.file
    }

    pub fn position(&self) -> u64 {
        self.file.position()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn has_state(&self) -> bool {
        self.record.steps > 0
    }

    pub fn linked(&self) -> bool {
        self.entries
            .last()
            .is_some_and(|e| e.kind == FrameKind::Link)
    }

    pub fn unsynced(&self) -> u32 {
        self.unsynced
    }

    /// Appends bytes that are not a frame, such as the header.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    pub fn append(&mut self, frame: &EncodedFrame) -> io::Result<()> {
        self.append_raw(frame.kind, frame.step, &frame.bytes)
    }

    pub fn append_raw(&mut self, kind: FrameKind, step: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = self.file.position();
        self.write(bytes)?;
        self.entries.push(FrameEntry {
            offset,
            length: bytes.len() as u64,
            step,
            kind,
        });
        if kind.has_meta() {
            self.record.end_step = step + 1;
            self.unsynced += 1;
            if kind.has_state() {
                self.record.steps += 1;
            } else {
                self.record.gaps += 1;
            }
        }
        Ok(())
    }

    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.unsynced = 0;
        Ok(())
    }

    /// Frees everything after the last complete frame.
    pub fn trim(&mut self) -> io::Result<()> {
        self.file.trim()
    }

    /// Writes the footer and frees reserved space. Returns the segment's digest. May be called again after an error.
    pub fn seal(&mut self, salt: u32) -> io::Result<[u8; 32]> {
        let digest = match self.sealed {
            // Only freeing the space had failed. Writing the footer again would add a second one.
            Some(digest) => digest,
            None => {
                let (bytes, digest) = footer(
                    &self.entries,
                    self.file.position(),
                    salt,
                    self.hasher.clone(),
                );
                self.file.write(&bytes)?;
                *self.sealed.insert(digest)
            }
        };
        self.file.trim()?;
        Ok(digest)
    }

    pub fn record(&self, digest: [u8; 32]) -> SegmentRecord {
        SegmentRecord {
            digest,
            bytes: self.file.position(),
            ..self.record.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose first trim fails.
    #[derive(Default)]
    struct Untrimmed {
        bytes: u64,
        trims: u32,
    }

    impl WriteFile for Untrimmed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.bytes += bytes.len() as u64;
            Ok(())
        }

        fn position(&self) -> u64 {
            self.bytes
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn trim(&mut self) -> io::Result<()> {
            self.trims += 1;
            if self.trims == 1 {
                return Err(io::ErrorKind::Other.into());
            }
            Ok(())
        }
    }

    #[test]
    fn sealing_again_after_a_failed_trim_writes_no_second_footer() {
        let file = Box::new(Untrimmed::default());
        let mut open = OpenSegment::new(file, "seg-00000000.hcs".to_owned(), 0, 0, false);
        open.append_raw(FrameKind::Gap, 0, b"frame").unwrap();
        open.seal(7).unwrap_err();
        let length = open.position();
        let digest = open.seal(7).unwrap();
        assert_eq!(open.position(), length);
        assert_eq!(open.record(digest).bytes, length);
    }
}
