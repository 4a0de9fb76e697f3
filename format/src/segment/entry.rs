//! What a reader knows about a segment before it decodes anything: where its frames are, and how it ends.

use crate::frame::FrameKind;

/// One frame's place in its segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameEntry {
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    pub step: u64,
    pub kind: FrameKind,
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tail {
    /// With a footer.
    Sealed,
    /// After a complete frame, at the file's end or before reserved zeros.
    Clean,
    /// With a frame or footer that begins at this byte and was not written completely: the writer is still writing it, or was killed.
    Torn(u64),
    /// With other bytes, from this byte on. The segment's problems describe them.
    Damaged(u64),
}
