//! Any flipped bit is detected and located, and costs at most the frame that contains it. Any edit, removal, swap or splice is detected.

use std::collections::BTreeSet;
use std::sync::Arc;

use hindcast_format::{
    DType, FindingKind, FormatError, Layout, MANIFEST, MemStorage, Role, SegmentPolicy, Severity,
    Storage, VerifyReport, verify_storage,
};

use crate::common::*;

type Files = std::collections::BTreeMap<String, Vec<u8>>;

pub fn small_plan() -> Plan {
    let layout = Layout::new(vec![
        tensor("bias", Role::Parameter, DType::F32, &[3]),
        tensor("weight", Role::Parameter, DType::F32, &[3, 4]),
        tensor("mean", Role::Buffer, DType::F32, &[2]),
        tensor("momentum", Role::OptimizerState, DType::F32, &[3]),
    ])
    .unwrap();
    let policy = SegmentPolicy {
        max_steps: 4,
        min_steps: 4,
        cut_every_epoch: false,
    };
    Plan {
        layout,
        steps_per_epoch: 100,
        policy,
        ..Plan::new(8)
    }
}

fn verified(storage: &MemStorage) -> VerifyReport {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    verify_storage(&storage).unwrap()
}

/// Flips every bit of every file; returns their number.
fn flip_every_bit(storage: &MemStorage) -> usize {
    let mut flips = 0;
    for (name, bytes) in storage.files() {
        for bit in 0..8 * bytes.len() {
            let image = MemStorage::from_files(storage.files());
            image.edit(&name, |b| b[bit / 8] ^= 1 << (bit % 8));
            let report = match verify_storage(&(Arc::new(image) as Arc<dyn Storage>)) {
                Ok(report) => report,
                Err(e) => panic!("{name}, bit {bit}: {e}"),
            };
            let errors: Vec<_> = report
                .findings
                .iter()
                .filter(|f| f.severity == Severity::Error)
                .collect();
            assert!(
                errors.iter().any(|f| f.file == name),
                "{name}, bit {bit} of {}: {:?}",
                8 * bytes.len(),
                report.findings
            );
            flips += 1;
        }
    }
    flips
}

#[test]
fn every_flipped_bit_of_a_finished_run_is_found_in_its_file() {
    let (storage, _) = recorded(&small_plan());
    assert!(verified(&storage).findings.is_empty());
    println!(
        "{} bits flipped, each found in its file",
        flip_every_bit(&storage)
    );
}

#[test]
fn every_flipped_bit_of_an_open_run_is_found_in_its_file() {
    let (storage, _) = recorded(&Plan {
        end: End::Leave,
        ..Plan {
            steps: 6,
            ..small_plan()
        }
    });
    // As a recorder with reserved blocks leaves it.
    storage.edit("seg-00000001.hcs", |b| b.resize(b.len() + 96, 0));
    assert!(
        verified(&storage).findings.is_empty(),
        "{:#?}",
        verified(&storage)
    );
    println!(
        "{} bits flipped, each found in its file",
        flip_every_bit(&storage)
    );
}

#[test]
fn a_flipped_bit_costs_the_frame_that_it_is_in_and_no_other() {
    let plan = small_plan();
    let (storage, truth) = recorded(&plan);
    let all: BTreeSet<u64> = (0..plan.steps).collect();
    for (name, bytes) in storage.files() {
        for byte in 0..bytes.len() {
            let image = MemStorage::from_files(storage.files());
            image.edit(&name, |b| b[byte] ^= 0x10);
            let trace = open(&image).unwrap_or_else(|e| panic!("{name}, byte {byte}: {e}"));
            let report = verified(&image);
            let mut read = BTreeSet::new();
            let mut steps = trace.reverse(0..plan.steps).tolerant();
            while let Some(step) = steps.next().unwrap() {
                let t = step.meta.step;
                assert!(
                    step.state == &truth.states[t as usize]
                        && step.meta == &truth.metas[t as usize],
                    "{name}, byte {byte}: step {t} is wrong"
                );
                read.insert(t);
            }
            let lost: Vec<u64> = all.difference(&read).copied().collect();
            assert!(
                lost.len() <= 1,
                "{name}, byte {byte}: steps {lost:?} are lost"
            );
            assert_eq!(
                report.steps_ok,
                read.len() as u64,
                "{name}, byte {byte}: {:#?}",
                report.findings
            );
            if let [step] = lost[..] {
                assert!(
                    report
                        .findings
                        .iter()
                        .any(|f| f.step == Some(step) || f.kind == FindingKind::Frame),
                    "{name}, byte {byte}: {:#?}",
                    report.findings
                );
            }
        }
    }
}

#[test]
fn damaged_tensors_are_named_and_their_step_is_read_from_the_other_side() {
    let plan = small_plan();
    let (storage, truth) = recorded(&plan);
    let name = "seg-00000000.hcs";
    let bytes = storage
        .files()
        .into_iter()
        .find(|(n, _)| n == name)
        .unwrap()
        .1;
    // The third frame is step 2; its chunks end twelve bytes before the fourth frame.
    let frames: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&i| &bytes[i..i + 4] == b"HCFR")
        .collect();
    storage.edit(name, |b| b[frames[3] - 13] ^= 1);
    let trace = open(&storage).unwrap();
    let report = verified(&storage);
    let finding = report
        .findings
        .iter()
        .find(|f| f.kind == FindingKind::Tensors)
        .unwrap();
    assert_eq!(
        (finding.step, finding.segment, finding.file.as_str()),
        (Some(2), Some(0), name)
    );
    assert_eq!(finding.tensors, ["mean"]);
    assert_eq!(report.steps_ok, plan.steps);
    // Random access bypasses the damage. A strict walk stops at it and stays stopped.
    assert!(trace.read(2).unwrap().state == truth.states[2]);
    assert_eq!(trace.meta(2).unwrap(), truth.metas[2]);
    let mut steps = trace.forward(0..8);
    for _ in 0..2 {
        assert!(steps.next().unwrap().is_some());
    }
    let error = steps.next().unwrap_err();
    assert!(
        matches!(&error, FormatError::Corrupt(c) if c.step == Some(2) && c.segment == Some(0)),
        "{error}"
    );
    assert!(matches!(
        steps.next().unwrap_err(),
        FormatError::Failed { .. }
    ));
    assert!(matches!(
        steps.next().unwrap_err(),
        FormatError::Failed { .. }
    ));
}

#[test]
fn removed_swapped_spliced_and_cut_files_are_found() {
    let plan = small_plan();
    let (storage, _) = recorded(&plan);
    let (other, _) = {
        // Another run of the same layout, steps and time, with its own salt.
        let other = MemStorage::new();
        let mut description = info(&plan.layout);
        description.salt = *b"another run salt";
        let truth = truth(&plan);
        let writer = hindcast_format::RunWriter::create(
            Arc::new(other.clone()),
            description,
            plan.durability,
        )
        .unwrap();
        record_from(writer, &plan, &truth, 0, |_, _| {}).unwrap();
        (other, truth)
    };
    let files = |s: &MemStorage| {
        s.files()
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let (ours, theirs) = (files(&storage), files(&other));
    let (a, b, last) = (
        "seg-00000000.hcs".to_owned(),
        "seg-00000001.hcs".to_owned(),
        "seg-00000002.hcs".to_owned(),
    );
    let mutate = |change: &dyn Fn(&mut Files)| {
        let mut files = ours.clone();
        change(&mut files);
        verified(&MemStorage::from_files(files))
    };
    let with_kind = |report: VerifyReport, kind: FindingKind| {
        assert!(
            !report.is_ok() && report.findings.iter().any(|f| f.kind == kind),
            "{kind:?} expected: {:#?}",
            report.findings
        );
    };
    for file in [&a, &b, &last] {
        with_kind(mutate(&|f| drop(f.remove(file))), FindingKind::MissingFile);
        with_kind(
            mutate(&|f| drop(f.insert(file.clone(), theirs[file].clone()))),
            FindingKind::Chain,
        );
        assert!(!mutate(&|f| f.get_mut(file).unwrap().truncate(ours[file].len() - 1)).is_ok());
        assert!(!mutate(&|f| f.get_mut(file).unwrap().push(0)).is_ok());
        assert!(!mutate(&|f| drop(f.insert(file.clone(), vec![]))).is_ok());
    }
    with_kind(
        mutate(&|f| {
            drop((
                f.insert(a.clone(), ours[&b].clone()),
                f.insert(b.clone(), ours[&a].clone()),
            ))
        }),
        FindingKind::Chain,
    );
    // A whole foreign run is a valid run. Only its head digest shows the difference.
    let foreign = verified(&other);
    assert!(foreign.is_ok());
    assert_ne!(foreign.head_digest, verified(&storage).head_digest);
    with_kind(
        mutate(&|f| drop(f.insert(MANIFEST.into(), theirs[MANIFEST].clone()))),
        FindingKind::Chain,
    );
    assert!(!mutate(&|f| drop(f.remove(MANIFEST))).is_ok());
    let report = mutate(&|f| drop(f.insert("notes.txt".into(), vec![1])));
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.kind == FindingKind::ExtraFile && f.file == "notes.txt")
    );
    // Cut at a frame's end. Only the index, the digest and the manifest can show it.
    let frames: Vec<usize> = (0..ours[&b].len() - 4)
        .filter(|&i| &ours[&b][i..i + 4] == b"HCFR")
        .collect();
    assert!(!mutate(&|f| f.get_mut(&b).unwrap().truncate(frames[2])).is_ok());
}

/// Wherever the last segment of a finished run is cut, its final state is the recorded one or damage. It is never silently missing, which
/// would mean that the run ended elsewhere.
#[test]
fn the_loss_of_a_final_state_is_always_reported() {
    let plan = small_plan();
    let (storage, truth) = recorded(&plan);
    let last = "seg-00000002.hcs";
    let files: Files = storage.files().into_iter().collect();
    let whole = files[last].len();
    let mut lost = 0;
    for length in 0..whole {
        let image = MemStorage::from_files(storage.files());
        image.edit(last, |bytes| bytes.truncate(length));
        let trace = open(&image).unwrap_or_else(|e| panic!("{length} bytes: {e}"));
        match trace.final_state() {
            Ok(Some((state, _))) => assert!(state == truth.states[8], "{length} bytes"),
            Ok(None) => panic!("{length} bytes: no final state, and no error"),
            Err(e) => {
                assert!(e.is_damage(), "{length} bytes: {e}");
                lost += 1;
            }
        }
    }
    assert!(lost > 0, "no cut reached the final state");
}
