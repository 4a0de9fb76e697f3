//! A segment's bytes: header, frames, footer.

mod file;
mod footer;
mod header;
mod scan;

pub(crate) use file::{Segment, Source, Trust, header_of, trailer_of};
pub(crate) use footer::{Trailer, footer};
pub(crate) use header::{Header, VERSION, write_header};
pub(crate) use scan::{Entry, Tail};

/// A segment's file name: its number, and from the first cut on the number of cuts, so that no name is ever used twice.
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

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_read_as_written_and_no_other_way() {
        for (number, fork) in [(0, 0), (12, 3), (123_456_789, 0), (u64::MAX, u32::MAX)] {
            assert_eq!(
                super::parse_name(&super::name(number, fork)),
                Some((number, fork))
            );
        }
        for bad in [
            "seg-1.hcs",
            "seg-00000001.f0.hcs",
            "seg-+0000001.hcs",
            "seg-00000001.hcs~",
            "manifest.json",
            "seg-.hcs",
        ] {
            assert_eq!(super::parse_name(bad), None, "{bad}");
        }
    }
}
