//! Texts in [`Corruption::what`](crate::Corruption) by which other modules recognise damage, and copies of damage.

use crate::FormatError;

/// A listed file is missing.
pub(crate) const SEGMENT_FILE: &str = "segment file";
/// A listed file is longer or shorter than listed.
pub(super) const SEGMENT_LENGTH: &str = "length of the segment file in bytes";
/// An unlisted segment has no end although another segment follows it.
pub(crate) const CUT_OFF: &str = "end of the segment";

/// Copies of a segment's damage for the trace's report. Errors that aren't damage are left out.
pub(super) fn copies(problems: &[FormatError]) -> Vec<FormatError> {
    let copy = |p: &FormatError| match p {
        FormatError::Corrupt(c) => Some(FormatError::Corrupt(c.clone())),
        FormatError::Incomplete {
            file,
            what,
            have,
            need,
        } => Some(FormatError::Incomplete {
            file: file.clone(),
            what,
            have: *have,
            need: *need,
        }),
        _ => None,
    };
    problems.iter().filter_map(copy).collect()
}
