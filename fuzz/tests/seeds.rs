//! Runs the targets on the golden run and on some thousands of changes to it, without a fuzzer.

use std::sync::Arc;

use hindcast_format::{FindingKind, MemStorage, Storage, verify_storage};
use hindcast_fuzz::golden::Golden;
use hindcast_fuzz::{frame, manifest, open, pack, repair, round_trip, segment};

/// Number of changed inputs per target.
const ROUNDS: u64 = 600;

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)) as usize >> 8
    }
}

/// Changes bytes as a fuzzer does: flipped, overwritten, removed, inserted and repeated.
fn changed(seed: &[u8], noise: &mut Noise) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + noise.next() % 4 {
        if bytes.is_empty() {
            return bytes;
        }
        let (at, length) = (noise.next() % bytes.len(), noise.next() % 24);
        let end = (at + length).min(bytes.len());
        match noise.next() % 6 {
            0 => bytes[at] ^= 1 << (length % 8),
            1 => bytes[at] = noise.next() as u8,
            2 => bytes[at..end].fill(0xff),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn on_changes(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    let mut noise = Noise(11);
    for seed in seeds {
        target(seed);
    }
    for round in 0..ROUNDS {
        target(&changed(&seeds[round as usize % seeds.len()], &mut noise));
    }
}

#[test]
fn a_folder_of_changed_files() {
    on_changes(open, &Golden::ALL.map(|run| pack(&run.files())));
}

#[test]
fn a_changed_segment() {
    let seeds: Vec<Vec<u8>> = [
        (0, 0u8),
        (1, 1),
        (2, 2),
        (0, 0x12),
        (1, 0x22),
        (0, 0x42),
        (1, 0x40),
    ]
    .map(|(number, how)| {
        // The byte modulo 3 is the number of the segment.
        assert_eq!(how % 3, number);
        let files = Golden::ALL[usize::from(how >> 6) % Golden::ALL.len()].files();
        [&[how], files[&format!("seg-{number:08}.hcs")].as_slice()].concat()
    })
    .into();
    on_changes(segment, &seeds);
}

#[test]
fn changed_frames() {
    on_changes(frame, &Golden::ALL.map(|run| run.after_the_keyframe().1));
}

#[test]
fn a_changed_manifest() {
    on_changes(
        manifest,
        &Golden::ALL.map(|run| run.files()["manifest.json"].clone()),
    );
}

#[test]
fn states_of_all_kinds() {
    let seeds: Vec<Vec<u8>> = (0..8)
        .map(|seed| {
            let mut noise = Noise(seed);
            (0..700).map(|_| noise.next() as u8).collect()
        })
        .collect();
    on_changes(round_trip, &seeds);
}

/// The checksums that this crate computes are those of the format: a whole run is left as it is.
#[test]
fn nothing_is_repaired_in_a_run_that_is_whole() {
    for run in Golden::ALL {
        assert_eq!(repair::all(&run.files()), run.files());
    }
    // A run whose checksums were all erased gets them back.
    let whole = Golden::Rows.files();
    let mut lost = whole.clone();
    for (name, bytes) in &mut lost {
        if name.ends_with(".hcs") {
            bytes[16..20].fill(0);
            let end = bytes.len();
            bytes[end - 4..].fill(0);
            bytes[end - 44..end - 12].fill(0);
            let frames: Vec<usize> = (0..end - 4)
                .filter(|&i| bytes[i..].starts_with(b"HCFR"))
                .collect();
            for at in frames {
                bytes[at + 40..at + 44].fill(0);
                bytes[at + 60..at + 64].fill(0);
            }
        }
    }
    assert_ne!(lost, whole);
    assert_eq!(repair::all(&lost), whole);
}

/// Finds what only a hostile writer makes: rows that contradict their lists, their digests or each other, with valid
/// checksums.
#[test]
fn rows_that_no_recorder_writes() {
    let seed = Golden::Rows.files();
    let mut noise = Noise(23);
    let (mut changes, mut found) = (0, 0);
    for _ in 0..2 * ROUNDS {
        let mut files = seed.clone();
        let name = ["seg-00000000.hcs", "seg-00000001.hcs"][noise.next() % 2];
        let bytes = files.get_mut(name).expect("a segment");
        let frames: Vec<usize> = (0..bytes.len() - 76)
            .filter(|&i| bytes[i..].starts_with(b"HCFR"))
            .collect();
        let frame = frames[noise.next() % frames.len()];
        let length =
            u32::from_le_bytes(bytes[frame + 32..frame + 36].try_into().expect("four")) as usize;
        if length == 0 {
            continue;
        }
        // Metadata and records are lists of words of 8 bytes with a few of 4: small numbers in them reach every check.
        let at = frame + 64 + noise.next() % length;
        match noise.next() % 3 {
            0 => bytes[at] = (noise.next() % 20) as u8,
            1 => bytes[at] ^= 1 << (noise.next() % 8),
            _ => {
                let end = (at + 8).min(frame + 64 + length);
                bytes[at..end].fill(if noise.next() % 2 == 0 { 0xff } else { 0 });
            }
        }
        changes += 1;
        open(&pack(&files));
        let storage: Arc<dyn Storage> = Arc::new(MemStorage::from_files(repair::all(&files)));
        let report = verify_storage(&storage).expect("storage in memory");
        let about_rows = report
            .findings
            .iter()
            .filter(|f| f.kind == FindingKind::Rows);
        found += usize::from(about_rows.count() > 0);
    }
    // The changes reach the checks of rows, and not only those before them.
    assert!(
        found > changes / 4,
        "{found} of {changes} runs had wrong rows"
    );
}
