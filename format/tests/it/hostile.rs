//! Truncated and hostile files never make a reader panic, loop, or need more memory than a multiple of their size.

use std::sync::Arc;

use hindcast_format::{FormatError, MANIFEST, Manifest, MemStorage, Storage, verify_storage};

use crate::allocations::peak;
use crate::common::*;
use crate::damage::small_plan;

/// Reads everything, in every way.
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

/// Allowed peak memory in bytes: this fixed part, for zstd's contexts and serde's initial buffers, plus [`MULTIPLE`] times the files' size.
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

/// Reads the run's manifest after an edit, with a valid seal.
fn with_manifest(
    storage: &MemStorage,
    change: impl FnOnce(&mut Manifest),
) -> Result<Manifest, FormatError> {
    let files: std::collections::BTreeMap<_, _> = storage.files().into_iter().collect();
    let (mut manifest, _) = Manifest::from_bytes(&files[MANIFEST], None).unwrap();
    change(&mut manifest);
    let bytes = manifest.to_bytes().unwrap();
    let image = MemStorage::from_files(files);
    image.edit(MANIFEST, |b| b.clone_from(&bytes));
    bounded(&image, "a manifest by hand");
    Manifest::from_bytes(&bytes, None).map(|(manifest, _)| manifest)
}

/// Lists that no writer makes are refused: one that leads out of the folder, from which a resumed run would remove files, and ones whose
/// numbers contradict each other.
#[test]
fn a_manifest_whose_list_of_segments_contradicts_itself_is_refused() {
    let (storage, _) = recorded(&small_plan());
    with_manifest(&storage, |_| {}).unwrap();
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 8] = [
        ("name", |m| {
            m.segments[0].file = "../seg-00000000.hcs".into()
        }),
        ("name", |m| m.segments[1].file = "/etc/passwd".into()),
        ("name", |m| m.segments[1].file = "seg-00000004.hcs".into()),
        ("numbers that ascend", |m| m.segments.swap(0, 1)),
        ("steps that ascend", |m| m.segments[1].first_step = u64::MAX),
        ("steps that ascend", |m| m.segments[0].end_step = 7),
        ("at most 4 steps", |m| m.segments[0].steps = 5),
        ("at most 4 steps", |m| m.segments[0].gaps = u64::MAX),
    ];
    for (expected, change) in changes {
        let error = with_manifest(&storage, change).unwrap_err();
        assert!(
            error.is_damage() && error.to_string().contains(expected),
            "{expected}: {error}"
        );
    }
}

/// Frames with valid checksums in an order that no writer makes. The order is reported, and a reader gets only the frames before them.
#[test]
fn frames_out_of_order_are_damage() {
    let (storage, truth) = recorded(&Plan {
        steps: 7,
        end: End::Leave,
        ..small_plan()
    });
    let name = "seg-00000001.hcs";
    let files: std::collections::BTreeMap<_, _> = storage.files().into_iter().collect();
    let bytes = &files[name];
    let mut at: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&i| &bytes[i..i + 4] == b"HCFR")
        .collect();
    at.push(bytes.len());
    // Steps 4, 5 and 6.
    let frame = |i: usize| &bytes[at[i]..at[i + 1]];
    for (order, kept) in [
        ([0, 2, 1].as_slice(), 1),
        (&[0, 1, 1, 2], 2),
        (&[0, 1, 0], 2),
        (&[0, 1, 2, 1], 3),
    ] {
        let image = MemStorage::from_files(files.clone());
        image.edit(name, |b| {
            b.truncate(at[0]);
            order.iter().for_each(|&i| b.extend(frame(i)));
        });
        bounded(&image, "frames out of order");
        let trace = open(&image).unwrap();
        assert_eq!(trace.problems().len(), 1, "{order:?}");
        assert!(!trace.verify().unwrap().is_ok(), "{order:?}");
        let mut steps = trace.forward(0..9);
        let mut seen = 0;
        while let Ok(Some(step)) = steps.next() {
            assert!(step.state == &truth.states[seen]);
            seen += 1;
        }
        assert!(seen <= 4 + kept, "{order:?}: {seen} steps");
    }
}

#[test]
fn the_largest_u64_is_refused_as_a_step() {
    let plan = small_plan();
    let mut writer = hindcast_format::RunWriter::create(
        Arc::new(MemStorage::new()),
        info(&plan.layout),
        plan.durability,
    )
    .unwrap();
    let mut encoder = writer.encoder().unwrap();
    let state = first_state(&plan.layout, 1);
    let step = hindcast_format::StepMeta {
        step: u64::MAX,
        ..meta(&plan.layout, 0, 1)
    };
    writer.open_segment(u64::MAX).unwrap();
    let frame = encoder.keyframe(&step, &state, &key_for(&plan.layout, 1));
    let error = writer.append(frame.unwrap()).unwrap_err();
    assert!(matches!(error, FormatError::Order { .. }), "{error}");
}
