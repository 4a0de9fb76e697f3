//! A segment's bytes: header, frames, footer.

mod ends;
mod entry;
mod file;
mod footer;
mod header;
mod name;
mod order;
mod scan;
mod source;

pub(crate) use ends::{header_of, trailer_of};
pub(crate) use entry::{FrameEntry, Tail};
pub(crate) use file::{Segment, Trust};
pub(crate) use footer::{Trailer, footer};
pub(crate) use header::{Header, write_header};
pub use name::is_segment_name;
pub(crate) use name::{name, number_of, parse_name};
pub(crate) use source::SegmentSource;
