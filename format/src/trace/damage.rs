//! Names of damaged things that other modules look for, and copies of damage.

use crate::FormatError;

/// The damaged thing in the error for a listed file that is missing.
pub(crate) const SEGMENT_FILE: &str = "segment file";
/// The damaged thing in the error for a listed file that is longer or shorter than listed.
pub(super) const SEGMENT_LENGTH: &str = "length of the segment file in bytes";
/// The damaged thing in the error for an unlisted segment without an end that another segment follows.
pub(crate) const CUT_OFF: &str = "end of the segment";

/// Damage that the segment keeps and the trace reports. Other errors are left out.
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
