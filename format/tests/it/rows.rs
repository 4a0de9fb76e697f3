//! Rows of batches in the metadata of steps: stored, read back, damaged, cut, recovered.

use std::path::PathBuf;
use std::sync::Arc;

use hindcast_format::{
    Derive, Durability, Extension, FindingKind, FormatError, FsStorage, HELD_OUT, LossKind,
    MemStorage, ROWS, RowLayout, RowRecord, RowSplit, RowTensor, RowType, RunWriter, Severity,
    StepMeta, Storage, Trace, recover_storage, verify,
};

use crate::common::*;
use crate::damage::small_plan;

/// Rows of two tensors: two numbers and a label.
fn row_layout() -> RowLayout {
    let tensor = |dtype, shape: &[usize]| RowTensor {
        dtype,
        shape: shape.to_vec(),
    };
    RowLayout::new(vec![tensor(RowType::F32, &[2]), tensor(RowType::U8, &[])]).unwrap()
}

fn row(index: u64) -> Vec<u8> {
    let x = [index as f32, 1.5].map(f32::to_le_bytes);
    [x.as_flattened(), &[index as u8]].concat()
}

fn record(split: RowSplit, next: u64, indices: &[u64]) -> RowRecord {
    let layout = row_layout();
    let rows: Vec<Vec<u8>> = indices.iter().map(|&i| row(i)).collect();
    RowRecord {
        split,
        next,
        indices: indices.to_vec(),
        digests: rows.iter().map(|row| layout.digest(row)).collect(),
        rows: Some(Arc::new(rows.concat())),
        layout,
    }
}

/// A step whose batch has two new rows and one of the step before. Step 0 also has three validation rows.
fn with_rows(mut meta: StepMeta) -> StepMeta {
    let first = 2 * meta.step;
    meta.indices = vec![first, first + 1, first.saturating_sub(1)];
    let train = record(RowSplit::Train, first + 2, &[first, first + 1]);
    meta.extensions = vec![Extension::of_rows(&train).unwrap()];
    if meta.step == 0 {
        let held = record(RowSplit::Validation, 3, &[0, 1, 2]);
        meta.extensions.push(Extension::of_rows(&held).unwrap());
    }
    meta
}

fn golden_plan() -> Plan {
    Plan {
        gaps: vec![2],
        ..small_plan()
    }
}

/// Records the plan with rows, and returns what its states must be.
fn record_rows(storage: Arc<dyn Storage>, plan: &Plan) -> Truth {
    let mut truth = truth(plan);
    truth.metas = truth.metas.into_iter().map(with_rows).collect();
    record_truth(storage, plan, &truth).unwrap();
    truth
}

fn recorded_rows() -> (Arc<MemStorage>, Truth) {
    let storage = Arc::new(MemStorage::new());
    let truth = record_rows(Arc::clone(&storage) as Arc<dyn Storage>, &golden_plan());
    (storage, truth)
}

/// Checks the rows with these indices, and that no other is there.
fn check(trace: &Trace, indices: impl IntoIterator<Item = u64>) {
    let rows = trace.rows(&RowSplit::ALL).unwrap();
    let train = rows.split(RowSplit::Train);
    let mut found = 0;
    for index in indices {
        let (group, at) = train.place(index).unwrap_or_else(|| panic!("row {index}"));
        let group = &train.groups()[group];
        assert_eq!(group.bytes[9 * at..9 * at + 9], row(index), "row {index}");
        assert_eq!(group.digests[at], row_layout().digest(&row(index)));
        found += 1;
    }
    let all: usize = train.groups().iter().map(|g| g.indices.len()).sum();
    assert_eq!(all, found);
}

#[test]
fn rows_are_read_back_from_steps_and_gaps_and_readers_of_steps_do_not_see_them() {
    let (storage, truth) = recorded_rows();
    let trace = open(&storage).unwrap();
    check(&trace, 0..16);
    let rows = trace.rows(&[RowSplit::Validation]).unwrap();
    assert!(rows.split(RowSplit::Train).is_empty());
    assert_eq!(rows.split(RowSplit::Validation).len(), 3);
    let index = trace.row_index(0..u64::MAX).unwrap();
    assert_eq!(
        (index.by_rows, index.next, index.missing),
        (Some(true), 16, 0)
    );
    assert_eq!((index.held_out, index.raw_bytes), ([3, 0], 16 * 9));
    assert_eq!(index.indices[&row_layout().digest(&row(5))], 5);
    // The steps before 3 have six rows.
    assert_eq!(trace.row_index(0..3).unwrap().next, 6);
    assert!(trace.has_rows().unwrap());
    for (step, meta) in (0..).zip(&truth.metas) {
        let plain = StepMeta {
            extensions: vec![],
            ..meta.clone()
        };
        assert_eq!(trace.meta(step).unwrap(), plain);
    }
    let report = trace.verify().unwrap();
    assert!(report.is_ok());
    assert!(report.findings.iter().all(|f| f.kind != FindingKind::Rows));
    let (plain, _) = recorded(&small_plan());
    assert!(!open(&plain).unwrap().has_rows().unwrap());
}

#[test]
fn rows_that_contradict_their_digests_are_found_although_every_checksum_is_valid() {
    for change in [0, 1] {
        let storage = Arc::new(MemStorage::new());
        let plan = golden_plan();
        let mut truth = truth(&plan);
        truth.metas = truth.metas.into_iter().map(with_rows).collect();
        let mut forged = record(RowSplit::Train, 10, &[8, 9]);
        match change {
            0 => forged.digests[1][0] ^= 1,
            _ => forged.rows = Some(Arc::new([row(8), row(7)].concat())),
        }
        truth.metas[4].extensions = vec![Extension::of_rows(&forged).unwrap()];
        record_truth(Arc::clone(&storage) as Arc<dyn Storage>, &plan, &truth).unwrap();
        let trace = open(&storage).unwrap();
        let report = trace.verify().unwrap();
        let found: Vec<_> = report
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].kind, found[0].step), (FindingKind::Rows, Some(4)));
        assert!(
            found[0].text.contains("row 9 with the digest"),
            "{}",
            found[0].text
        );
        // All tensors are readable, and all other rows are there.
        assert_eq!(report.steps_ok, report.steps);
        let rows = trace.rows(&[RowSplit::Train]).unwrap();
        assert_eq!(rows.damage().len(), 1);
        check(&trace, (0..8).chain(10..16));
    }
}

#[test]
fn a_record_that_is_not_one_is_damage_with_its_step() {
    let plan = golden_plan();
    for bytes in [vec![], vec![9; 40], vec![0, 0, 0, 0, 1]] {
        let storage = Arc::new(MemStorage::new());
        let mut truth = truth(&plan);
        truth.metas = truth.metas.into_iter().map(with_rows).collect();
        truth.metas[6].extensions = vec![Extension { id: ROWS, bytes }];
        record_truth(Arc::clone(&storage) as Arc<dyn Storage>, &plan, &truth).unwrap();
        let trace = open(&storage).unwrap();
        let error = trace.row_index(0..u64::MAX).unwrap_err();
        assert!(
            error.is_damage() && error.to_string().contains("step 6"),
            "{error}"
        );
        check(&trace, (0..12).chain(14..16));
        assert!(!trace.verify().unwrap().is_ok());
        // Steps can still be read.
        assert_eq!(check_forward(&trace, &truth_without_rows(&truth)).len(), 7);
    }
}

/// A run in which `change` has changed the metadata, with valid checksums.
fn forged(change: impl FnOnce(&mut [StepMeta])) -> Arc<MemStorage> {
    let storage = Arc::new(MemStorage::new());
    let plan = golden_plan();
    let mut truth = truth(&plan);
    truth.metas = truth.metas.into_iter().map(with_rows).collect();
    change(&mut truth.metas);
    record_truth(Arc::clone(&storage) as Arc<dyn Storage>, &plan, &truth).unwrap();
    storage
}

fn recovered(storage: &Arc<MemStorage>) -> (Trace, hindcast_format::RecoverReport) {
    let target = Arc::new(MemStorage::new());
    let (from, to) = (
        Arc::clone(storage) as Arc<dyn Storage>,
        Arc::clone(&target) as Arc<dyn Storage>,
    );
    let report = recover_storage(&from, &to, &mut |_, _| {}).unwrap();
    (open(&target).unwrap(), report)
}

/// Whatever `rows` leaves out as damage, `verify` reports as an error, and `recover` names it and keeps every step.
#[test]
fn rows_that_contradict_each_other_are_found_and_not_used() {
    // Where the indices of a record with the rows of this test begin: after split, layout, `next` and the count.
    let indices = 4 + 4 + (8 + 8) + 8 + 8 + 8;
    let twice = |metas: &mut [StepMeta]| {
        let bytes = &mut metas[4].extensions[0].bytes;
        bytes.copy_within(indices..indices + 8, indices + 8);
    };
    // Row 3 is another row in step 5 than in step 1.
    let two_rows = |metas: &mut [StepMeta]| {
        let mut other = record(RowSplit::Train, 12, &[3, 10, 11]);
        let rows = [row(99), row(10), row(11)];
        other.digests[0] = row_layout().digest(&rows[0]);
        other.rows = Some(Arc::new(rows.concat()));
        metas[5].extensions = vec![Extension::of_rows(&other).unwrap()];
    };
    let digests_only = |metas: &mut [StepMeta]| {
        let mut other = record(RowSplit::Train, 12, &[3, 10, 11]);
        other.digests[0] = [7; 32];
        other.rows = None;
        let full = Extension::of_rows(&record(RowSplit::Train, 12, &[10, 11])).unwrap();
        metas[5].extensions = vec![Extension::of_rows(&other).unwrap(), full];
    };
    let held_out = |metas: &mut [StepMeta]| {
        let mut other = record(RowSplit::Validation, 3, &[1]);
        other.digests = vec![row_layout().digest(&row(50))];
        other.rows = Some(Arc::new(row(50)));
        metas[5]
            .extensions
            .push(Extension::of_rows(&other).unwrap());
    };
    let beyond = |metas: &mut [StepMeta]| metas[6].indices[2] = u64::MAX;
    type Change<'a> = &'a dyn Fn(&mut [StepMeta]);
    let all = 0..16u64;
    let cases: [(Change<'_>, u64, &str, Vec<u64>); 5] = [
        (&twice, 4, "got 8 twice", vec![8, 9]),
        (&two_rows, 5, "row 3 with the digest", vec![3]),
        (&digests_only, 5, "row 3 with the digest", vec![3]),
        (&held_out, 5, "row 1 with the digest", vec![]),
        (
            &beyond,
            6,
            "indices below 14, got 18446744073709551615",
            vec![12, 13],
        ),
    ];
    for (change, step, text, lost) in cases {
        let storage = forged(|metas| change(metas));
        let trace = open(&storage).unwrap();
        let report = trace.verify().unwrap();
        let errors = report
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Error);
        let [error] = errors.collect::<Vec<_>>().try_into().unwrap();
        assert_eq!((error.kind, error.step), (FindingKind::Rows, Some(step)));
        assert!(
            error.text.contains(text) && error.file.starts_with("seg-"),
            "{}",
            error.text
        );
        let rows = trace.rows(&RowSplit::ALL).unwrap();
        assert_eq!(rows.damage().len(), 1, "{text}");
        let damage = rows.damage()[0].to_string();
        assert!(
            damage.contains(text) && damage.starts_with("seg-"),
            "{damage}"
        );
        let train = rows.split(RowSplit::Train);
        for index in all.clone() {
            let place = train.place(index);
            assert_eq!(
                place.is_none(),
                lost.contains(&index),
                "{text}: row {index}"
            );
        }
        if text.starts_with("row 1") {
            assert_eq!(rows.split(RowSplit::Validation).place(1), None);
        }
        let (copy, recovery) = recovered(&storage);
        let loss = recovery
            .losses
            .iter()
            .find(|l| l.kind == LossKind::Rows)
            .unwrap();
        assert_eq!(loss.steps, step..step + 1);
        assert!(loss.to_string().contains(text), "{loss}");
        assert_eq!((recovery.steps, recovery.gaps), (7, 1));
        assert!(copy.final_state().unwrap().is_some());
    }
}

/// The number of validation rows is in the description, which every segment repeats.
#[test]
fn lost_held_out_rows_are_named() {
    let storage = Arc::new(MemStorage::new());
    let plan = golden_plan();
    let mut truth = truth(&plan);
    truth.metas = truth.metas.into_iter().map(with_rows).collect();
    let mut info = info(&plan.layout);
    info.notes.insert(HELD_OUT[0].to_owned(), "3".to_owned());
    let writer = RunWriter::create(
        Arc::clone(&storage) as Arc<dyn Storage>,
        info,
        plan.durability,
    );
    record_from(writer.unwrap(), &plan, &truth, 0, |_, _| {}).unwrap();
    let whole = open(&storage).unwrap().verify().unwrap();
    assert!(whole.findings.iter().all(|f| f.kind != FindingKind::Rows));
    for (name, bytes) in storage.files() {
        if let Some(at) = bytes.windows(9).position(|window| window == row(1)) {
            storage.edit(&name, |bytes| bytes[at] ^= 1);
        }
    }
    let (copy, report) = recovered(&storage);
    let text = "started with 3 validation rows, and none is in the trace";
    assert!(
        report.remarks.iter().any(|r| r.contains(text)),
        "{:?}",
        report.remarks
    );
    let again = copy.verify().unwrap();
    assert!(again.is_ok() && again.findings.iter().any(|f| f.text.contains(text)));
}

fn truth_without_rows(truth: &Truth) -> Truth {
    Truth {
        metas: truth
            .metas
            .iter()
            .map(|meta| StepMeta {
                extensions: vec![],
                ..meta.clone()
            })
            .collect(),
        states: truth.states.clone(),
        final_key: truth.final_key.clone(),
        manifest: truth.manifest.clone(),
    }
}

#[test]
fn rows_are_refused_when_they_exceed_the_memory() {
    // Four equal rows of a megabyte, which take little space in the file.
    let layout = RowLayout::new(vec![RowTensor {
        dtype: RowType::U8,
        shape: vec![1 << 20],
    }])
    .unwrap();
    let bytes = vec![7; 1 << 22];
    let digest = layout.digest(&bytes[..1 << 20]);
    let large = RowRecord {
        split: RowSplit::Train,
        layout,
        // The batch of step 0 has the rows 0, 3, 6 and 9.
        next: 10,
        indices: (0..4).collect(),
        digests: vec![digest; 4],
        rows: Some(Arc::new(bytes)),
    };
    let storage = MemStorage::new();
    let plan = golden_plan();
    let mut truth = truth(&plan);
    truth.metas[0].extensions = vec![Extension::of_rows(&large).unwrap()];
    record_truth(Arc::new(storage.clone()), &plan, &truth).unwrap();
    let trace = open(&storage).unwrap();
    // The fixed part of every bound is 64 MiB.
    storage.limit_memory((64 << 20) + (4 << 20));
    let error = trace.rows(&RowSplit::ALL).unwrap_err();
    assert!(matches!(error, FormatError::Memory { .. }), "{error}");
    // The rows, and once more while they are decompressed.
    storage.limit_memory((64 << 20) + (9 << 20));
    let rows = trace.rows(&RowSplit::ALL).unwrap();
    assert_eq!(rows.split(RowSplit::Train).groups()[0].indices.len(), 4);
}

#[test]
fn a_cut_keeps_the_rows_of_the_steps_that_stay() {
    let (storage, truth) = recorded_rows();
    let (mut writer, _) = RunWriter::resume(
        Arc::clone(&storage) as Arc<dyn Storage>,
        5,
        Durability::Seals,
    )
    .unwrap();
    let mut encoder = writer.encoder().unwrap();
    writer.open_segment(5).unwrap();
    let key = key_for(&golden_plan().layout, 5);
    let frame = encoder.keyframe(&truth.metas[5], &truth.states[5], &key);
    writer.append(frame.unwrap()).unwrap();
    writer.abandon(Default::default()).unwrap();
    check(&open(&storage).unwrap(), 0..12);
}

/// The steps that are left out have stored rows that the others use.
#[test]
fn a_pruned_run_stores_every_row_that_its_steps_use() {
    let (storage, _) = recorded_rows();
    // Step t uses the rows 2t − 1, 2t and 2t + 1.
    for (window, rows) in [("4..8", 7..16), ("1..3", 1..6), ("7..8", 13..16)] {
        let window: hindcast_format::Selection = window.parse().unwrap();
        let what = Derive::Prune(window.clone());
        let (target, report) = crate::derive::derived_from(&storage, &what).unwrap();
        let trace = open(&target).unwrap();
        let start = trace.span().start;
        // The beginning of a segment may come before the window's.
        let rows = rows.start.min((2 * start).saturating_sub(1))..rows.end;
        check(&trace, rows);
        let held = trace.rows(&[RowSplit::Validation]).unwrap();
        let held = held.split(RowSplit::Validation);
        assert_eq!(held.len(), 3, "{window}");
        assert_eq!(held.groups()[0].bytes, [row(0), row(1), row(2)].concat());
        let index = trace.row_index(0..u64::MAX).unwrap();
        assert_eq!((index.missing, index.by_rows), (0, Some(true)), "{window}");
        assert!(report.remarks.iter().all(|r| !r.contains("rows")));
    }
    // Nothing is stored twice if nothing is left out before.
    let what = Derive::Prune("0..6".parse().unwrap());
    let (target, _) = crate::derive::derived_from(&storage, &what).unwrap();
    check(&open(&target).unwrap(), 0..12);
}

#[test]
fn a_recovery_keeps_every_row_whose_metadata_can_be_read() {
    let (storage, _) = recorded_rows();
    let recovered = |storage: &Arc<MemStorage>| {
        let target = Arc::new(MemStorage::new());
        let (from, to) = (
            Arc::clone(storage) as Arc<dyn Storage>,
            Arc::clone(&target) as Arc<dyn Storage>,
        );
        recover_storage(&from, &to, &mut |_, _| {}).unwrap();
        open(&target).unwrap()
    };
    check(&recovered(&storage), 0..16);
    // A flipped bit in the rows of step 1: its metadata is lost, and with it two rows.
    let row_of_step_1 = row(3);
    let damaged = Arc::new(MemStorage::from_files(storage.files()));
    for (name, bytes) in storage.files() {
        let found = bytes.windows(9).position(|window| window == row_of_step_1);
        if let Some(at) = found {
            damaged.edit(&name, |bytes| bytes[at + 3] ^= 4);
        }
    }
    let trace = recovered(&damaged);
    check(&trace, (0..2).chain(4..16));
    let index = trace.row_index(0..u64::MAX).unwrap();
    assert_eq!((index.missing, index.first_missing), (1, Some(3)));
    let report = trace.verify().unwrap();
    let warned = report.findings.iter().find(|f| f.kind == FindingKind::Rows);
    let warned = warned.expect("missing rows are reported");
    assert_eq!(warned.severity, Severity::Note);
    assert!(
        warned.text.contains("the first with index 3"),
        "{}",
        warned.text
    );
}

fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1-rows")
}

#[test]
fn the_golden_trace_with_rows_is_read() {
    let trace = Trace::open(golden_folder()).unwrap();
    check(&trace, 0..16);
    let held = trace.rows(&[RowSplit::Validation]).unwrap();
    let [group] = held.split(RowSplit::Validation).groups() else {
        panic!("one group of validation rows");
    };
    assert_eq!(group.bytes, [row(0), row(1), row(2)].concat());
    assert!(verify(golden_folder()).unwrap().is_ok());
    let states = truth_without_rows(&Truth {
        metas: truth(&golden_plan())
            .metas
            .into_iter()
            .map(with_rows)
            .collect(),
        ..truth(&golden_plan())
    });
    assert_eq!(check_forward(&trace, &states), [0, 1, 3, 4, 5, 6, 7]);
}

#[test]
#[ignore = "writes the golden trace with rows; a released one is never written again"]
fn write_the_golden_trace_with_rows() {
    let folder = golden_folder();
    assert!(!folder.exists(), "a golden trace is written once");
    record_rows(Arc::new(FsStorage::new(folder)), &golden_plan());
}
