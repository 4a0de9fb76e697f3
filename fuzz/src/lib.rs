//! What the fuzz targets do with their bytes. Each is a plain function, so that the tests here can call it on any compiler.
//!
//! Checksums stand in a fuzzer's way: hardly any change that it makes passes them. An attacker makes them fit, and so does
//! [`repair`], an independent reading of docs/format.md: every target looks at its bytes as they are and with checksums
//! that fit.

mod exercise;
pub mod golden;
pub mod repair;
mod round_trip;

pub use round_trip::round_trip;

use exercise::exercise;
use golden::{Files, golden, second_frame};
use hindcast_format::{MANIFEST, Manifest};

/// Makes a target of a function: driven by libFuzzer under `cargo fuzz`, by the files named on the command line otherwise.
#[macro_export]
macro_rules! target {
    ($function:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $function(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            for path in std::env::args_os().skip(1) {
                $function(&std::fs::read(&path)?);
                println!("{}: nothing found", path.display());
            }
            Ok(())
        }
    };
}

/// A whole folder: files one after another, each a byte that names it, its length in three bytes, and its bytes.
pub fn open(bytes: &[u8]) {
    let files = unpack(bytes);
    exercise(&files);
    exercise(&repair::all(&files));
}

/// File names that [`open`] knows.
pub const NAMES: [&str; 8] = [
    MANIFEST,
    "seg-00000000.hcs",
    "seg-00000001.hcs",
    "seg-00000002.hcs",
    "seg-00000003.hcs",
    "seg-00000000.f1.hcs",
    "seg-00000001.f1.hcs",
    "manifest.json.tmp",
];

fn unpack(mut bytes: &[u8]) -> Files {
    let mut files = Files::new();
    while let [name, a, b, c, rest @ ..] = bytes {
        let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        let (file, after) = rest.split_at(length.min(rest.len()));
        let name = NAMES[usize::from(*name) % NAMES.len()];
        files.insert(name.to_owned(), file.to_vec());
        bytes = after;
    }
    files
}

/// The inverse of what [`open`] does to its bytes, for seeds.
pub fn pack(files: &Files) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, file) in files {
        if let Some(number) = NAMES.iter().position(|known| known == name) {
            bytes.push(number as u8);
            bytes.extend_from_slice(&(file.len() as u32).to_le_bytes()[..3]);
            bytes.extend_from_slice(file);
        }
    }
    bytes
}

/// One segment of the golden run: the first byte says which, and whether there is a manifest that lists it.
pub fn segment(bytes: &[u8]) {
    let Some((&how, segment)) = bytes.split_first() else {
        return;
    };
    let mut files = golden();
    let name = format!("seg-{:08}.hcs", how % 3);
    files.insert(name.clone(), segment.to_vec());
    if how & 0x10 != 0 {
        files.remove(MANIFEST);
    }
    if how & 0x20 != 0 {
        files.retain(|other, _| other == MANIFEST || *other == name);
    }
    exercise(&files);
    exercise(&repair::all(&files));
}

/// What follows the first keyframe of a segment that has no end yet.
pub fn frame(bytes: &[u8]) {
    let golden = golden();
    let Some(first) = golden.get(NAMES[1]) else {
        return;
    };
    let mut segment = first[..second_frame()].to_vec();
    segment.extend_from_slice(bytes);
    let files = Files::from([(NAMES[1].to_owned(), segment)]);
    exercise(&files);
    exercise(&repair::all(&files));
}

/// A manifest beside the golden run's segments.
pub fn manifest(bytes: &[u8]) {
    let sealed = repair::manifest(bytes);
    for bytes in [bytes, &sealed] {
        if let Ok((manifest, seal)) = Manifest::from_bytes(bytes) {
            // What was read can be written, and reads back as the same.
            let written = manifest.to_bytes().expect("JSON of a manifest");
            let (again, other) = Manifest::from_bytes(&written).expect("an own manifest");
            assert_eq!(again, manifest);
            assert!(written != bytes || seal == other);
        }
        let mut files = golden();
        files.insert(MANIFEST.to_owned(), bytes.to_vec());
        exercise(&files);
    }
}
