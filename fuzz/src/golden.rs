//! The golden run of the newest format version, compiled in.

use std::collections::BTreeMap;

use hindcast_format::MANIFEST;

/// A folder's files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

macro_rules! golden_file {
    ($name:literal) => {
        include_bytes!(concat!("../../format/tests/golden/v1/", $name)).as_slice()
    };
}

/// A small run: two segments of steps and the final one.
pub fn golden() -> Files {
    [
        (MANIFEST, golden_file!("manifest.json")),
        ("seg-00000000.hcs", golden_file!("seg-00000000.hcs")),
        ("seg-00000001.hcs", golden_file!("seg-00000001.hcs")),
        ("seg-00000002.hcs", golden_file!("seg-00000002.hcs")),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
    .collect()
}

/// Position of the second frame in the first segment of the golden run.
pub fn second_frame() -> usize {
    let segment = golden_file!("seg-00000000.hcs");
    let mut frames = (0..segment.len() - 4).filter(|&i| segment[i..].starts_with(b"HCFR"));
    frames.nth(1).unwrap_or(segment.len())
}
