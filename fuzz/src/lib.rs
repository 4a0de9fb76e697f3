//! What the fuzz targets do with their bytes. Each target is a plain function, so that the tests can call it with any
//! compiler.
//!
//! Checksums stop a fuzzer, because hardly any of its changes keep them valid. An attacker can compute valid checksums,
//! and so does [`repair`], which is written from docs/format.md alone. Every target tries its bytes as they are and
//! with valid checksums.

mod exercise;
pub mod golden;
pub mod repair;
mod round_trip;

pub use round_trip::round_trip;

use exercise::exercise;
use golden::{Files, Golden};
use hindcast_format::{MANIFEST, Manifest};

/// Makes a fuzz target of a function. Under `cargo fuzz`, libFuzzer calls it. Otherwise it is called with the files
/// named on the command line.
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

/// A whole folder: one file after another, each as one byte for its name, three bytes for its length, and its content.
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

/// The input of [`open`] for these files. For seeds.
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

/// One segment of a golden run. The first byte selects the run and the segment, and whether there is a manifest that lists it.
pub fn segment(bytes: &[u8]) {
    let Some((&how, segment)) = bytes.split_first() else {
        return;
    };
    let run = Golden::ALL[usize::from(how >> 6) % Golden::ALL.len()];
    let mut files = run.files();
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

/// The bytes after the first keyframe of a segment without a footer.
pub fn frame(bytes: &[u8]) {
    for run in Golden::ALL {
        let (mut segment, _) = run.after_the_keyframe();
        segment.extend_from_slice(bytes);
        let files = Files::from([(NAMES[1].to_owned(), segment)]);
        exercise(&files);
        exercise(&repair::all(&files));
    }
}

/// A manifest with the golden run's segments.
pub fn manifest(bytes: &[u8]) {
    let sealed = repair::manifest(bytes);
    let keys = golden::keys();
    for bytes in [bytes, &sealed] {
        if let Ok((manifest, seal)) = Manifest::from_bytes(bytes, Some(keys.as_ref())) {
            // A manifest that was read can be written, and reads back the same.
            let written = manifest.to_bytes().expect("JSON of a manifest");
            let (again, other) =
                Manifest::from_bytes(&written, Some(keys.as_ref())).expect("an own manifest");
            assert_eq!(again, manifest);
            assert!(written != bytes || seal == other);
        }
        let mut files = Golden::Plain.files();
        files.insert(MANIFEST.to_owned(), bytes.to_vec());
        exercise(&files);
    }
}
