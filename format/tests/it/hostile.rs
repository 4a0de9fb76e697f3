//! Truncated and hostile files never panic, never loop, and never make a reader take more memory than a multiple of their size (P4).

use std::sync::Arc;

use hindcast_format::{MemStorage, Storage, verify_storage};

use crate::allocations::peak;
use crate::common::*;
use crate::damage::small_plan;

/// Reads all that can be read, by every way there is.
fn exercise(storage: &MemStorage) {
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let _ = verify_storage(&shared);
    let Ok(trace) = open(storage) else { return };
    let _ = (
        trace.ranges(),
        trace.epochs(),
        trace.final_state(),
        trace.sizes(),
    );
    let mut steps = trace.forward(0..u64::MAX);
    while let Ok(Some(_)) = steps.next() {}
    let mut steps = trace.reverse(0..u64::MAX).tolerant();
    while let Ok(Some(_)) = steps.next() {}
    for t in [0, 3, 7, u64::MAX] {
        let _ = trace.read(t);
    }
    assert!(trace.metas(0..u64::MAX).count() <= 64);
}

/// Peak memory while exercising, beside a fixed part for zstd's contexts and serde's caution.
const FIXED: usize = 3 << 20;
const MULTIPLE: usize = 16;

fn bounded(storage: &MemStorage, what: &str) {
    let size: usize = storage.files().iter().map(|(_, b)| b.len()).sum();
    let (peak, ()) = peak(|| exercise(storage));
    assert!(
        peak <= FIXED + MULTIPLE * size,
        "{what}: {peak} bytes taken for files of {size}"
    );
}

#[test]
fn every_prefix_of_every_file_is_read_or_refused_in_bounded_memory() {
    for end in [End::Finish, End::Leave] {
        let (storage, _) = recorded(&Plan {
            steps: 7,
            end,
            ..small_plan()
        });
        for (name, bytes) in storage.files() {
            for length in 0..bytes.len() {
                let image = MemStorage::from_files(storage.files());
                image.edit(&name, |b| b.truncate(length));
                bounded(&image, &format!("{name} cut to {length} bytes"));
            }
        }
    }
}

#[test]
fn any_mixture_of_bytes_is_read_or_refused_in_bounded_memory() {
    let (storage, _) = recorded(&small_plan());
    let mut noise = Noise(5);
    for round in 0..2000 {
        let image = MemStorage::from_files(storage.files());
        for (name, bytes) in storage.files() {
            image.edit(&name, |b| {
                for _ in 0..noise.next() % 4 {
                    let (at, with) = (noise.next() as usize % bytes.len(), noise.next());
                    match with % 3 {
                        0 => b[at] = with as u8,
                        // A length that is far too large.
                        1 => b[at..(at + 8).min(bytes.len())].fill(0xff),
                        _ => b[at..].rotate_left(1),
                    }
                }
            });
        }
        bounded(&image, &format!("round {round}"));
    }
}

#[test]
fn garbage_files_are_refused() {
    for garbage in [
        vec![],
        vec![0; 4096],
        vec![0xff; 4096],
        b"\x89HCS\r\n\x1a\n".to_vec(),
    ] {
        let image = MemStorage::from_files([
            ("manifest.json".to_owned(), garbage.clone()),
            ("seg-00000000.hcs".to_owned(), garbage),
        ]);
        assert!(open(&image).is_err());
        bounded(&image, "garbage");
    }
}
