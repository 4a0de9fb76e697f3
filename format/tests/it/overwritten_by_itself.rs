//! The beginning of a segment is copied over a later part of it, and a bit of the copy flips. `verify` counts exactly the steps that
//! readers read.

use std::sync::Arc;

use hindcast_format::{MemStorage, Storage, Trace, verify_storage};

use crate::common::*;
use crate::damage::small_plan;

/// The bytes at which frames and the footer begin.
fn places(bytes: &[u8]) -> Vec<usize> {
    let magic = |at: &usize| {
        [b"HCFR", b"HCIX"]
            .iter()
            .any(|m| bytes[*at..].starts_with(*m))
    };
    (0..bytes.len()).filter(magic).collect()
}

/// The number of steps that can be read one by one.
fn read(trace: &Trace, steps: u64) -> u64 {
    (0..steps).filter(|&t| trace.read(t).is_ok()).count() as u64
}

#[test]
fn steps_of_a_segment_with_a_copy_of_its_beginning_are_counted_as_they_are_read() {
    let plan = small_plan();
    let (storage, _) = recorded(&plan);
    let mut tried = 0;
    let mut wrong = Vec::new();
    for (name, bytes) in storage.files() {
        if !name.ends_with(".hcs") {
            continue;
        }
        let places = places(&bytes);
        for &to in &places {
            for &length in &places {
                if to + length > bytes.len() {
                    continue;
                }
                for flip in (0..length).step_by(5) {
                    let mut image = bytes.clone();
                    image.copy_within(..length, to);
                    image[to + flip] ^= 1 << (flip % 8);
                    let files = storage.files().into_iter();
                    let files = files
                        .filter(|(n, _)| *n != name)
                        .chain([(name.clone(), image)]);
                    let folder: Arc<dyn Storage> = Arc::new(MemStorage::from_files(files));
                    let report = verify_storage(&folder).unwrap();
                    let read = read(&Trace::open_storage(folder).unwrap(), plan.steps);
                    tried += 1;
                    if report.steps_ok != read {
                        wrong.push(format!("{name}: {length} bytes copied to {to}, flip {flip}: verify {} read {read}", report.steps_ok));
                    }
                }
            }
        }
    }
    println!("{tried} runs");
    assert!(
        wrong.is_empty(),
        "{} of {tried}: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(40)]
    );
}
