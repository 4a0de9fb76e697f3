//! Segments under other names, in each other's places, emptied, cut or exchanged. Recovery finds each by its content, readers refuse a
//! segment that isn't the promised one, and the readable steps are counted correctly.

use std::sync::Arc;

use hindcast_format::{LossKind, MANIFEST, MemStorage, SegmentPolicy, Storage, verify_storage};

use crate::common::*;
use crate::recover::{kinds, recovered_from, steps_of};

const SEGMENT: u64 = 8;

fn plan() -> Plan {
    Plan {
        policy: SegmentPolicy {
            max_steps: SEGMENT as u32,
            min_steps: SEGMENT as u32,
            cut_every_epoch: false,
        },
        ..Plan::new(40)
    }
}

fn segment(number: u64) -> String {
    format!("seg-{number:08}.hcs")
}

/// A folder in which files are renamed, from the old name to the new one.
fn renamed(storage: &MemStorage, names: &[(String, String)]) -> MemStorage {
    let files = storage.files().into_iter().map(|(name, bytes)| {
        let new = names.iter().find(|(old, _)| *old == name);
        (new.map_or(name, |(_, new)| new.clone()), bytes)
    });
    MemStorage::from_files(files)
}

fn bytes(storage: &MemStorage, name: &str) -> Vec<u8> {
    let files = storage.files();
    files.into_iter().find(|(n, _)| n == name).unwrap().1
}

/// The folder with one more file, or with one exchanged.
fn with(storage: &MemStorage, name: &str, bytes: Vec<u8>) -> MemStorage {
    let files = storage.files().into_iter().filter(|(n, _)| n != name);
    MemStorage::from_files(files.chain([(name.to_owned(), bytes)]))
}

/// Recovers with the manifest and without it. Expects that nothing is lost except, without it, the information that only it holds.
fn all_is_recovered(storage: &MemStorage, truth: &Truth, what: &str) {
    for manifest in [true, false] {
        let storage = MemStorage::from_files(storage.files());
        if !manifest {
            storage.remove(MANIFEST).unwrap();
        }
        let (trace, report) = recovered_from(&storage).unwrap();
        assert_eq!(
            check_forward(&trace, truth).len(),
            40,
            "{what}: {report:#?}"
        );
        assert!(trace.final_state().unwrap().is_some(), "{what}");
        let expected: &[LossKind] = if manifest { &[] } else { &[LossKind::Manifest] };
        assert_eq!(kinds(&report), expected, "{what}: {report:#?}");
    }
}

#[test]
fn segments_under_any_name_are_found_by_their_content() {
    let (storage, truth) = recorded(&plan());
    let count = storage.files().len() as u64 - 1;
    assert_eq!(count, 6);
    for number in 0..count {
        for new in [
            format!("seg-{number:08} (1).hcs"),
            format!("seg-{number:08}.hcs.bak"),
            format!("copy of {number}"),
            segment(77),
            format!("seg-{number:08}.f3.hcs"),
        ] {
            let image = renamed(&storage, &[(segment(number), new.clone())]);
            all_is_recovered(&image, &truth, &new);
        }
        for with in 0..number {
            let (a, b) = (segment(number), segment(with));
            let image = renamed(&storage, &[(a.clone(), b.clone()), (b.clone(), a.clone())]);
            all_is_recovered(&image, &truth, &format!("{a} and {b} swapped"));
            // Readers look segments up by name, and never take one for another.
            let trace = open(&image).unwrap();
            let mut steps = trace.forward(0..u64::MAX);
            let error = loop {
                match steps.next() {
                    Ok(step) => assert!(step.is_some(), "{a} and {b} swapped: fewer steps"),
                    Err(e) => break e,
                }
            };
            assert!(
                error.is_damage() && error.to_string().contains("hindcast recover"),
                "{error}"
            );
        }
    }
    // All segments' names rotated, with odd names.
    let odd: Vec<_> = (0..count)
        .map(|n| (segment(n), format!("{}.hcs", (n * 7 + 3) % 11)))
        .collect();
    all_is_recovered(&renamed(&storage, &odd), &truth, "odd names");
    let ring: Vec<_> = (0..count)
        .map(|n| (segment(n), segment((n + 1) % count)))
        .collect();
    all_is_recovered(&renamed(&storage, &ring), &truth, "a ring");
}

#[test]
fn the_best_of_several_copies_is_used() {
    let (storage, truth) = recorded(&plan());
    let (name, copy) = (segment(1), "seg-00000001 (1).hcs");
    let whole = bytes(&storage, &name);
    let hurt = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let cut = whole[..whole.len() / 2].to_vec();
    for bad in [
        hurt(whole.len() / 2),
        hurt(90),
        hurt(whole.len() - 20),
        cut,
        vec![],
    ] {
        let image = with(&with(&storage, copy, whole.clone()), &name, bad.clone());
        all_is_recovered(&image, &truth, "the copy is whole");
        let image = with(&storage, copy, bad);
        all_is_recovered(&image, &truth, "the copy is damaged");
    }
    // A complete segment whose name was given to a copy of its neighbour.
    let image = with(&storage, copy, whole.clone());
    let image = with(&image, &name, bytes(&storage, &segment(2)));
    all_is_recovered(&image, &truth, "a neighbour in its place");
    let (_, report) = recovered_from(&image).unwrap();
    let told = |what: &str| report.remarks.iter().any(|r| r.contains(what));
    assert!(
        told("was read as seg-00000001.hcs") && told("was not used"),
        "{:#?}",
        report.remarks
    );
}

/// Contents for a listed segment's file, each with its name in messages.
fn exchanged(storage: &MemStorage, number: u64) -> Vec<(&'static str, Vec<u8>)> {
    let own = bytes(storage, &segment(number));
    let (other, _) = {
        let mut foreign = plan();
        foreign.steps = 40;
        let other = MemStorage::new();
        let mut about = info(&foreign.layout);
        about.salt = *b"of another run..";
        let writer =
            hindcast_format::RunWriter::create(Arc::new(other.clone()), about, foreign.durability)
                .unwrap();
        let truth = truth(&foreign);
        record_from(writer, &foreign, &truth, 0, |_, _| {}).unwrap();
        (other, truth)
    };
    vec![
        ("emptied", vec![]),
        ("zeros", vec![0; own.len()]),
        ("cut in its header", own[..40].to_vec()),
        ("garbage", vec![0x5a; own.len()]),
        (
            "a copy of its neighbour",
            bytes(storage, &segment((number + 1) % 5)),
        ),
        ("of another run", bytes(&other, &segment(number))),
    ]
}

#[test]
fn missing_steps_are_never_counted_and_always_reported() {
    let (storage, truth) = recorded(&plan());
    for number in 0..5 {
        let steps = number * SEGMENT..(number + 1) * SEGMENT;
        for (what, with_bytes) in exchanged(&storage, number) {
            let image = with(&storage, &segment(number), with_bytes);
            let shared: Arc<dyn Storage> = Arc::new(image.clone());
            let report = verify_storage(&shared).unwrap();
            assert!(!report.is_ok(), "{number} {what}");
            assert_eq!(
                (report.steps_ok, report.steps),
                (40 - SEGMENT, 40),
                "{number} {what}: {:#?}",
                report.findings
            );
            let trace = open(&image).unwrap();
            let readable = trace.readable(0..u64::MAX).unwrap();
            assert_eq!(readable.steps, 40 - SEGMENT, "{number} {what}");
            assert!(
                readable
                    .ranges
                    .iter()
                    .all(|r| r.end <= steps.start || r.start >= steps.end)
            );
            assert!(!readable.damage.is_empty());
            // Every read of a lost step reports damage. None ends early without an error.
            let middle = steps.start + 3;
            for error in [
                trace.forward(steps.clone()).next().err(),
                trace.reverse(steps.clone()).next().err(),
                trace.metas(steps.clone()).next().transpose().err(),
                trace.read(middle).err(),
                trace.state(middle).err(),
                trace.meta(middle).err(),
                trace.checkpoint(middle).err(),
                trace.epochs().err(),
            ] {
                let error = error.unwrap_or_else(|| panic!("{number} {what}: no error"));
                assert!(error.is_damage(), "{number} {what}: {error}");
            }
            // Steps of other segments can still be read.
            let beside = if number == 0 { 8..16 } else { 0..SEGMENT };
            let mut walk = trace.forward(beside.clone());
            let mut seen = 0;
            while let Some(step) = walk.next().unwrap() {
                assert!(step.state == &truth.states[step.meta.step as usize]);
                seen += 1;
            }
            assert_eq!(seen, SEGMENT, "{number} {what}");
            let (recovered, lost) = recovered_from(&image).unwrap();
            assert_eq!(
                steps_of(&lost, LossKind::Step),
                steps.clone().collect::<Vec<_>>(),
                "{number} {what}: {:#?}",
                lost.losses
            );
            assert_eq!(lost.losses.len(), 1, "one range: {:#?}", lost.losses);
            assert_eq!(
                check_forward(&recovered, &truth).len() as u64,
                40 - SEGMENT,
                "{number} {what}"
            );
        }
    }
}

/// A segment that is cut between two frames ends with a valid frame. The missing frames must still be noticed.
#[test]
fn a_segment_that_is_cut_between_frames_never_looks_like_a_shorter_run() {
    let (storage, _) = recorded(&plan());
    for number in 0..5 {
        let whole = bytes(&storage, &segment(number));
        let frames: Vec<usize> = (0..whole.len() - 4)
            .filter(|&i| &whole[i..i + 4] == b"HCFR")
            .collect();
        for (nth, &at) in frames.iter().enumerate().skip(1) {
            let image = with(&storage, &segment(number), whole[..at].to_vec());
            let trace = open(&image).unwrap();
            assert!(!trace.problems().is_empty(), "the length alone shows it");
            let shared: Arc<dyn Storage> = Arc::new(image.clone());
            let report = verify_storage(&shared).unwrap();
            // The last frame is the link. Every step is there, but not all can be reached backward.
            let left = (nth as u64).min(SEGMENT);
            assert_eq!(report.steps_ok, 32 + left, "{number} cut at frame {nth}");
            let steps = number * SEGMENT..(number + 1) * SEGMENT;
            let mut walk = trace.forward(steps.clone());
            let mut seen = 0;
            let ended = loop {
                match walk.next() {
                    Ok(Some(_)) => seen += 1,
                    other => break other.map(|_| ()),
                }
            };
            if left < SEGMENT {
                assert!(ended.is_err(), "{seen} of {SEGMENT} steps, and no error");
                assert!(trace.meta(steps.end - 1).unwrap_err().is_damage());
                assert!(trace.state(steps.end - 1).unwrap_err().is_damage());
                // A window before the cut is complete.
                let mut walk = trace.forward(steps.start..steps.start + left);
                (0..left).for_each(|_| assert!(walk.next().unwrap().is_some()));
            }
        }
    }
}

/// In a run that was never closed, only the files themselves show how many segments there are.
#[test]
fn a_missing_unlisted_segment_is_damage_and_the_segments_after_it_are_recovered() {
    let (storage, truth) = recorded(&Plan {
        end: End::Leave,
        ..plan()
    });
    // The manifest as it was when the run was created. It lists nothing yet.
    let unlisted = {
        let (empty, _) = recorded(&Plan {
            end: End::Leave,
            steps: 0,
            ..plan()
        });
        with(&storage, MANIFEST, bytes(&empty, MANIFEST))
    };
    assert_eq!(check_forward(&open(&unlisted).unwrap(), &truth).len(), 40);
    unlisted.remove(&segment(2)).unwrap();
    let shared: Arc<dyn Storage> = Arc::new(unlisted.clone());
    let report = verify_storage(&shared).unwrap();
    assert!(
        report.findings.iter().any(|f| f.file == segment(2)),
        "{report:#?}"
    );
    assert!(!report.is_ok());
    let (trace, report) = recovered_from(&unlisted).unwrap();
    assert_eq!(
        steps_of(&report, LossKind::Step),
        (16..24).collect::<Vec<_>>(),
        "{report:#?}"
    );
    assert_eq!(check_forward(&trace, &truth).len(), 32);
}

/// A folder in which one segment was exchanged before the manifest was lost. The run is the one to which most segments belong.
#[test]
fn one_segment_of_another_run_does_not_change_which_run_is_read() {
    let (storage, truth) = recorded(&plan());
    let foreign = exchanged(&storage, 0).pop().unwrap().1;
    let image = with(&storage, &segment(0), foreign);
    image.remove(MANIFEST).unwrap();
    let trace = open(&image).unwrap();
    assert_eq!(trace.readable(0..u64::MAX).unwrap().steps, 32);
    let (trace, report) = recovered_from(&image).unwrap();
    assert_eq!(check_forward(&trace, &truth).len(), 32);
    assert!(
        kinds(&report).contains(&LossKind::Segment),
        "{:#?}",
        report.losses
    );
}

/// Bytes inserted into a segment, deleted from it or doubled cost only the frames that contain them.
#[test]
fn frames_after_inserted_or_deleted_bytes_are_found() {
    let (storage, truth) = recorded(&plan());
    let name = segment(2);
    let whole = bytes(&storage, &name);
    let frames: Vec<usize> = (0..whole.len() - 4)
        .filter(|&i| &whole[i..i + 4] == b"HCFR")
        .collect();
    for nth in [1, 3, 6] {
        for n in [1, 5, 80] {
            let at = frames[nth] + 70;
            let mut inserted = whole.clone();
            inserted.splice(at..at, vec![0xa5; n]);
            let mut deleted = whole.clone();
            deleted.drain(at..at + n);
            let mut doubled = whole.clone();
            doubled.splice(at..at, whole[frames[nth - 1] + 30..at].to_vec());
            for (what, bytes) in [
                ("inserted", inserted),
                ("deleted", deleted),
                ("doubled", doubled),
            ] {
                let image = with(&storage, &name, bytes);
                let (trace, report) = recovered_from(&image).unwrap();
                let kept = check_forward(&trace, &truth).len() as u64;
                // A doubled frame is complete once. Otherwise its step is lost with its metadata.
                assert!(
                    kept >= 39,
                    "{what} {n} in frame {nth}: {kept} {:#?}",
                    report.losses
                );
                assert_eq!(
                    report.is_lossless(),
                    kept == 40,
                    "{what} {n} in frame {nth}"
                );
            }
        }
    }
}

/// Without a manifest, a file's own header says which segment it is. If the header is damaged, its frames may be those of another
/// segment.
#[test]
fn no_step_is_read_twice_if_a_headless_file_repeats_a_segment() {
    let (storage, truth) = recorded(&plan());
    for (into, from) in [(0, 2), (1, 0), (2, 0), (3, 1), (4, 3), (1, 2)] {
        let what = format!("segment {from} over {into}");
        let mut copy = bytes(&storage, &segment(from));
        copy[0] ^= 1;
        let image = with(&storage, &segment(into), copy);
        image.remove(MANIFEST).unwrap();
        let trace = open(&image).unwrap();
        let report = verify_storage(&(Arc::new(image) as Arc<dyn Storage>)).unwrap();
        assert!(!report.is_ok(), "{what}");
        let mut steps = trace.forward(0..u64::MAX).tolerant();
        let mut seen = Vec::new();
        while let Some(step) = steps.next().unwrap() {
            seen.push(step.meta.step);
            let expected = &truth.states[step.meta.step as usize];
            assert_eq!(step.state, expected, "{what}, step {}", step.meta.step);
        }
        assert!(
            seen.windows(2).all(|two| two[0] < two[1]),
            "{what}: {seen:?}"
        );
        assert_eq!(report.steps_ok, seen.len() as u64, "{what}: {report:#?}");
        assert_eq!(
            seen.len(),
            32,
            "{what}: all steps but those of segment {into}: {seen:?}"
        );
    }
}
