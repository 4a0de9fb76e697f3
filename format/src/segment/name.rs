//! File names of segments.

/// A segment's file name: its number and, once the run was cut, the number of cuts. No name is used twice.
pub(crate) fn name(number: u64, fork: u32) -> String {
    if fork == 0 {
        format!("seg-{number:08}.hcs")
    } else {
        format!("seg-{number:08}.f{fork}.hcs")
    }
}

/// The inverse of [`name`]; `None` for any other file.
pub(crate) fn parse_name(file: &str) -> Option<(u64, u32)> {
    let stem = file.strip_prefix("seg-")?.strip_suffix(".hcs")?;
    let (number, fork) = match stem.split_once(".f") {
        Some((number, fork)) => (number.parse().ok()?, fork.parse().ok()?),
        None => (stem.parse().ok()?, 0),
    };
    (name(number, fork) == file).then_some((number, fork))
}

/// Number of the segment with this file name, for errors; `None` for any other file.
pub(crate) fn number_of(file: &str) -> Option<u64> {
    parse_name(file).map(|(number, _)| number)
}

/// Whether a file name is that of a segment, such as `seg-00000012.hcs`, or one that a copying tool made of it, such as
/// `seg-00000012 (1).hcs`.
pub fn is_segment_name(file: &str) -> bool {
    file.strip_prefix("seg-")
        .and_then(|rest| rest.strip_suffix(".hcs"))
        .is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_writer_makes_are_parsed() {
        for (number, fork) in [(0, 0), (12, 3), (123_456_789, 0), (u64::MAX, u32::MAX)] {
            assert_eq!(parse_name(&name(number, fork)), Some((number, fork)));
        }
        for bad in [
            "seg-1.hcs",
            "seg-00000001.f0.hcs",
            "seg-+0000001.hcs",
            "seg-00000001.hcs~",
            "manifest.json",
            "seg-.hcs",
        ] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn copies_of_a_segment_have_a_segments_name() {
        for segment in [
            "seg-00000012.hcs",
            "seg-00000012.f3.hcs",
            "seg-00000012 (1).hcs",
        ] {
            assert!(is_segment_name(segment), "{segment}");
        }
        for other in ["seg-notes.hcs", "seg-.hcs", "seg-00000012.hcs~"] {
            assert!(!is_segment_name(other), "{other}");
        }
    }
}
