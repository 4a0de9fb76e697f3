//! The golden runs, compiled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use hindcast_format::{Identities, Keys, MANIFEST};

/// A folder's files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of a golden run.
macro_rules! golden_files {
    ($run:literal) => {
        golden_files!($run, "manifest.json", "seg-00000000.hcs", "seg-00000001.hcs", "seg-00000002.hcs")
    };
    ($run:literal, $($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../../format/tests/golden/", $run, "/", $name)).as_slice())),*]
    };
}

/// The golden runs. Each has two segments of steps and the final one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Golden {
    /// A run by indices.
    Plain,
    /// A run that stores the rows of its batches, and has a gap.
    Rows,
    /// A run by indices, encrypted.
    Encrypted,
}

/// The keys of the encrypted run.
pub fn keys() -> Arc<dyn Keys> {
    let text = include_str!("../../format/tests/golden/v2.key");
    Arc::new(Identities::read(text).expect("the keys of a golden run"))
}

impl Golden {
    /// All of them.
    pub const ALL: [Golden; 3] = [Golden::Plain, Golden::Rows, Golden::Encrypted];

    /// Its files.
    pub fn files(self) -> Files {
        let files = match self {
            Golden::Plain => golden_files!("v1"),
            Golden::Rows => golden_files!("v1-rows"),
            Golden::Encrypted => golden_files!("v2"),
        };
        debug_assert_eq!(files[0].0, MANIFEST);
        files
            .into_iter()
            .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
            .collect()
    }

    /// Its first segment, up to the second frame, and the rest.
    pub fn after_the_keyframe(self) -> (Vec<u8>, Vec<u8>) {
        let segment = self.files().remove("seg-00000000.hcs").unwrap_or_default();
        let mut frames = (0..segment.len() - 4).filter(|&i| segment[i..].starts_with(b"HCFR"));
        let at = frames.nth(1).unwrap_or(segment.len());
        let (first, rest) = segment.split_at(at);
        (first.to_vec(), rest.to_vec())
    }
}
