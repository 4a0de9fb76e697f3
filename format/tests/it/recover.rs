//! A damaged run is recovered into a new, intact one. The original is never touched, and the report says exactly what was lost.

use std::ops::Range;
use std::sync::Arc;

use hindcast_format::{
    DType, Durability, FormatError, Layout, LossKind, MANIFEST, MemStorage, RecoverReport, Role,
    RunWriter, Severity, Status, Storage, Trace, recover_storage, verify_storage,
};

use crate::common::*;
use crate::damage::small_plan;

/// Recovers, and checks that the original is untouched and the new run is intact.
pub(crate) fn recovered_from(storage: &MemStorage) -> Result<(Trace, RecoverReport), FormatError> {
    let before = storage.files();
    let calls = storage.calls();
    let target = MemStorage::new();
    let (source, new): (Arc<dyn Storage>, Arc<dyn Storage>) =
        (Arc::new(storage.clone()), Arc::new(target.clone()));
    let report = recover_storage(&source, &new, &mut |done, total| assert!(done <= total));
    assert_eq!(storage.files(), before, "the original has changed");
    assert_eq!(storage.calls(), calls, "the original was written to");
    let report = report?;
    let verified = verify_storage(&new).unwrap();
    assert!(
        verified
            .findings
            .iter()
            .all(|f| f.severity == Severity::Note),
        "{verified:#?}"
    );
    let trace = open(&target).unwrap();
    assert_ne!(trace.status(), Status::Open);
    assert_eq!(trace.status(), report.status);
    assert_eq!(
        trace
            .head_digest()
            .map(|d| hindcast_format::hex(&d))
            .unwrap(),
        report.head_digest
    );
    let kept = trace.sizes();
    assert_eq!(kept.iter().map(|s| s.recorded).sum::<u64>(), report.steps);
    assert_eq!(kept.iter().map(|s| s.gaps).sum::<u64>(), report.gaps);
    Ok((trace, report))
}

pub(crate) fn steps_of(report: &RecoverReport, kind: LossKind) -> Vec<u64> {
    let of_kind = report.losses.iter().filter(|l| l.kind == kind);
    of_kind.flat_map(|l| l.steps.clone()).collect()
}

pub(crate) fn kinds(report: &RecoverReport) -> Vec<LossKind> {
    report.losses.iter().map(|l| l.kind).collect()
}

/// Offsets of the frames of a segment.
fn frames(storage: &MemStorage, name: &str) -> Vec<usize> {
    let files = storage.files();
    let bytes = &files.iter().find(|(n, _)| n == name).unwrap().1;
    (0..bytes.len() - 4)
        .filter(|&i| &bytes[i..i + 4] == b"HCFR")
        .collect()
}

/// Flips a bit in the last chunk of frame `nth`, which ends twelve bytes before the next frame.
fn damage_tensors(storage: &MemStorage, name: &str, nth: usize) {
    let frames = frames(storage, name);
    storage.edit(name, |b| b[frames[nth + 1] - 13] ^= 1);
}

fn damage_metadata(storage: &MemStorage, name: &str, nth: usize) {
    let frames = frames(storage, name);
    storage.edit(name, |b| b[frames[nth] + 66] ^= 1);
}

fn damage_header(storage: &MemStorage, name: &str, nth: usize) {
    let frames = frames(storage, name);
    storage.edit(name, |b| b[frames[nth] + 20] ^= 1);
}

#[test]
fn a_whole_run_is_recovered_without_loss_however_it_ended() {
    for end in [End::Finish, End::Abandon, End::Leave] {
        for gaps in [
            vec![],
            vec![3, 4, 17],
            (1..40).filter(|t| t % 5 != 0).collect(),
        ] {
            let plan = Plan {
                end,
                gaps: gaps.clone(),
                ..Plan::new(40)
            };
            let (storage, truth) = recorded(&plan);
            let (trace, report) = recovered_from(&storage).unwrap();
            assert!(report.is_lossless(), "{:?}", report.losses);
            let with_tensors: Vec<u64> = (0..40).filter(|t| !gaps.contains(t)).collect();
            assert_eq!(check_forward(&trace, &truth), with_tensors);
            for &gap in &gaps {
                assert_eq!(trace.meta(gap).unwrap(), truth.metas[gap as usize]);
                let digest = truth.states[gap as usize].digest();
                assert_eq!(trace.gap_digest(gap).unwrap(), Some(digest));
            }
            // The keyframes are at the same steps.
            let keys = |trace: &Trace| -> Vec<u64> {
                let sizes = trace.sizes();
                sizes.iter().map(|s| s.steps.start).collect()
            };
            assert_eq!(keys(&trace), keys(&open(&storage).unwrap()));
            match end {
                End::Finish => {
                    let (state, key) = trace.final_state().unwrap().unwrap();
                    assert!(state == truth.states[40] && key == truth.final_key);
                    assert_eq!(trace.final_step(), Some(40));
                    let counters = &trace.manifest().unwrap().counters;
                    assert_eq!(counters["gaps"], gaps.len() as u64);
                }
                End::Abandon | End::Leave => assert_eq!(trace.status(), Status::Unfinished),
            }
        }
    }
}

#[test]
fn the_new_run_says_where_it_comes_from() {
    let (storage, _) = recorded(&Plan::new(24));
    damage_metadata(&storage, "seg-00000000.hcs", 2);
    let original = open(&storage).unwrap();
    let (trace, report) = recovered_from(&storage).unwrap();
    let (old, new) = (original.info(), trace.info());
    assert_ne!(old.salt, new.salt, "its bytes differ");
    assert_eq!(
        (&old.created, &old.writer, old.seed, &old.data),
        (&new.created, &new.writer, new.seed, &new.data),
        "who recorded it, and when, has not changed"
    );
    let note = |key: &str| new.notes[&format!("recovery-1.{key}")].clone();
    assert_eq!(note("original-salt"), hindcast_format::hex(&old.salt));
    assert_eq!(Some(note("original-head")), report.original_head);
    assert_eq!(note("original-status"), "finished");
    assert_eq!(note("digest-disagreed"), "seg-00000000.hcs");
    assert!(note("lost").starts_with("step 2: "), "{}", note("lost"));
    assert!(note("time").ends_with('Z'));
    assert!(note("writer").starts_with("hindcast-format "));
    assert_eq!(trace.manifest().unwrap().counters["recovery_steps_lost"], 1);

    // Recovered again, it keeps its notes, and nothing more is lost.
    let target = MemStorage::new();
    let source = Arc::clone(trace.storage());
    let new: Arc<dyn Storage> = Arc::new(target.clone());
    let report = recover_storage(&source, &new, &mut |_, _| {}).unwrap();
    assert!(report.is_lossless(), "{:?}", report.losses);
    let again = open(&target).unwrap();
    assert_eq!(again.info().notes["recovery-1.lost"], note("lost"));
    assert_eq!(again.info().notes["recovery-2.lost"], "nothing");
}

#[test]
fn steps_between_two_damaged_frames_become_gaps_and_a_keyframe_follows_where_its_state_is_known() {
    // Without buffers and optimizer state, a keyframe is known wherever the parameters are.
    let layout = Layout::new(vec![tensor("w", Role::Parameter, DType::F32, &[5])]).unwrap();
    let plan = Plan {
        layout,
        ..Plan::new(40)
    };
    let (storage, truth) = recorded(&plan);
    damage_tensors(&storage, "seg-00000000.hcs", 3);
    damage_tensors(&storage, "seg-00000000.hcs", 6);
    let (trace, report) = recovered_from(&storage).unwrap();
    assert_eq!(steps_of(&report, LossKind::Tensors), [3, 4, 5]);
    // One range, although the damage of the first step isn't what hides the others.
    assert_eq!(kinds(&report), [LossKind::Tensors]);
    assert_eq!(report.losses[0].others, 2);
    assert_eq!(report.losses[0].tensors, ["w"]);
    assert_eq!(trace.ranges().unwrap(), [0..3, 6..40]);
    assert!(!trace.covers(0..40).unwrap() && trace.covers(6..40).unwrap());
    assert_eq!(trace.meta(4).unwrap(), truth.metas[4]);
    assert!(trace.read(6).unwrap().key.is_some(), "a keyframe follows");
    let refused = trace.read(4).unwrap_err().to_string();
    assert!(
        refused.contains("step 4") && refused.contains("gap"),
        "{refused}"
    );
}

#[test]
fn after_a_lost_step_no_keyframe_claims_an_unknown_state() {
    let (storage, truth) = recorded(&Plan::new(40));
    damage_header(&storage, "seg-00000000.hcs", 3);
    let (trace, report) = recovered_from(&storage).unwrap();
    assert_eq!(kinds(&report), [LossKind::Step]);
    assert_eq!(trace.ranges().unwrap(), [0..3, 4..40]);
    // The momentum before step 4 was never recorded, so the segment continues across the hole.
    assert!(trace.read(4).unwrap().key.is_none());
    assert!(trace.read(4).unwrap().state == truth.states[4]);
    let refused = trace.read(3).unwrap_err().to_string();
    assert!(refused.contains("steps 0..3, 4..40"), "{refused}");
}

#[test]
fn a_damaged_keyframe_costs_what_only_it_holds() {
    let (storage, truth) = recorded(&Plan::new(40));
    // The last chunk of a keyframe is optimizer state.
    damage_tensors(&storage, "seg-00000001.hcs", 0);
    let step = open(&storage).unwrap().sizes()[1].steps.start;
    let (trace, report) = recovered_from(&storage).unwrap();
    assert_eq!(kinds(&report), [LossKind::KeyState]);
    assert_eq!(steps_of(&report, LossKind::KeyState), [step]);
    assert_eq!(check_forward(&trace, &truth).len(), 40);
    let read = trace.read(step).unwrap();
    assert!(read.key.is_none(), "the step is kept as a difference");
    assert_eq!(trace.start_of(step).unwrap(), 0);

    // The very first keyframe can't be replaced by a difference. It is written, and says what isn't known.
    let (storage, truth) = recorded(&Plan::new(40));
    damage_tensors(&storage, "seg-00000000.hcs", 0);
    let (trace, report) = recovered_from(&storage).unwrap();
    assert_eq!(steps_of(&report, LossKind::KeyState), [0]);
    let key = trace.read(0).unwrap().key.unwrap();
    assert!(key.buffers_known() && !key.optimizer_known());
    assert_eq!(
        key.buffers_before(),
        key_for(trace.layout(), 0).buffers_before()
    );
    assert!(trace.read(0).unwrap().state == truth.states[0]);
    let mut momentum = Vec::new();
    key.optimizer_f64(&mut momentum);
    assert!(
        momentum.iter().all(|v| v.is_nan()),
        "it can't be mistaken for real values"
    );
}

#[test]
fn a_run_that_begins_with_damage_begins_later() {
    let (storage, truth) = recorded(&Plan::new(40));
    // The keyframe and the frame after it: step 0 can't be reached from either side.
    damage_header(&storage, "seg-00000000.hcs", 0);
    damage_tensors(&storage, "seg-00000000.hcs", 1);
    let (trace, report) = recovered_from(&storage).unwrap();
    assert_eq!(steps_of(&report, LossKind::Step), [0]);
    assert_eq!(steps_of(&report, LossKind::KeyState), [1]);
    let first = trace.read(1).unwrap();
    assert!(first.state == truth.states[1]);
    let key = first.key.unwrap();
    assert!(!key.buffers_known() && !key.optimizer_known());
    assert_eq!(trace.span(), 1..40);
}

#[test]
fn the_final_state_is_reached_over_the_link_if_its_own_frame_is_damaged() {
    let (storage, truth) = recorded(&Plan::new(24));
    let name = open(&storage).unwrap().sizes().last().unwrap().file.clone();
    let at = frames(&storage, &name)[0];
    // The first chunk, after header and chunk table.
    let table = {
        let files = storage.files();
        let bytes = &files.iter().find(|(n, _)| *n == name).unwrap().1;
        u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()) as usize
    };
    storage.edit(&name, |b| b[at + 64 + table] ^= 1);
    let (trace, report) = recovered_from(&storage).unwrap();
    assert!(report.is_lossless(), "{:?}", report.losses);
    let (state, key) = trace.final_state().unwrap().unwrap();
    assert!(state == truth.states[24] && key == truth.final_key);

    // Without the file, the buffers are those of the state, and the momentum is lost.
    let (storage, truth) = recorded(&Plan::new(24));
    storage.remove(&name).unwrap();
    let before = storage.calls();
    let (trace, report) = recovered_from(&storage).unwrap();
    assert_eq!(storage.calls(), before);
    assert_eq!(kinds(&report), [LossKind::KeyState]);
    let (state, key) = trace.final_state().unwrap().unwrap();
    assert!(state == truth.states[24] && !key.optimizer_known());
    assert_eq!(key.buffers_before(), state.buffers());
    assert_eq!(trace.final_step(), Some(24));
}

#[test]
fn a_lost_segment_costs_its_own_steps_and_no_others() {
    let (whole, truth) = recorded(&Plan::new(40));
    let sizes = open(&whole).unwrap().sizes();
    for size in &sizes {
        let storage = MemStorage::from_files(whole.files());
        storage.remove(&size.file).unwrap();
        let (trace, report) = recovered_from(&storage).unwrap();
        let lost: Vec<u64> = size.steps.clone().collect();
        assert_eq!(steps_of(&report, LossKind::Step), lost, "{}", size.file);
        assert_eq!(check_forward(&trace, &truth).len(), 40 - lost.len());
        let ranges = trace.ranges().unwrap();
        if size.steps.start > 0 && size.recorded > 0 {
            let mut left = vec![0..size.steps.start, size.steps.end..40];
            left.retain(|r| !r.is_empty());
            assert_eq!(ranges, left);
        }
        // With the manifest lost as well, the numbers show that something is missing in the middle.
        storage.remove(MANIFEST).unwrap();
        let (trace, report) = recovered_from(&storage).unwrap();
        assert!(kinds(&report).contains(&LossKind::Manifest));
        if size.steps.start > 0 && size.recorded > 0 {
            assert_eq!(steps_of(&report, LossKind::Step), lost, "{}", size.file);
        }
        assert_eq!(check_forward(&trace, &truth).len(), 40 - lost.len());
        assert_eq!(trace.info().notes["recovery-1.original-status"], "unknown");
    }
}

#[test]
fn a_lost_manifest_and_a_damaged_header_cost_no_step() {
    for nth in 0..3 {
        let (storage, truth) = recorded(&Plan::new(40));
        storage.remove(MANIFEST).unwrap();
        storage.edit(&format!("seg-{nth:08}.hcs"), |b| b[100] ^= 1);
        let (trace, report) = recovered_from(&storage).unwrap();
        assert_eq!(kinds(&report), [LossKind::Manifest]);
        assert_eq!(check_forward(&trace, &truth).len(), 40);
        assert_eq!(trace.status(), Status::Finished);
    }
}

#[test]
fn damage_in_an_open_segment_costs_the_tensors_after_it_but_not_their_metadata() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(24)
    };
    let (storage, truth) = recorded(&plan);
    let name = storage.files().last().unwrap().0.clone();
    let start = open(&storage).unwrap().sizes().last().unwrap().steps.start;
    damage_tensors(&storage, &name, 2);
    let (trace, report) = recovered_from(&storage).unwrap();
    let behind: Vec<u64> = (start + 2..24).collect();
    assert_eq!(steps_of(&report, LossKind::Tensors), behind);
    assert_eq!(
        trace.ranges().unwrap(),
        vec![Range {
            start: 0,
            end: start + 2
        }]
    );
    for t in behind {
        assert_eq!(trace.meta(t).unwrap(), truth.metas[t as usize]);
    }
    // A torn tail was never acknowledged. Nothing is lost, and a remark mentions it.
    let (storage, truth) = recorded(&plan);
    storage.edit(&name, |b| b.truncate(b.len() - 20));
    let (trace, report) = recovered_from(&storage).unwrap();
    assert!(
        report.is_lossless() && report.remarks.len() == 1,
        "{report:?}"
    );
    assert_eq!(check_forward(&trace, &truth).len(), 23);
}

#[test]
fn a_ring_and_a_resumed_run_are_recovered_as_they_are() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(40)
    };
    let (storage, truth) = recorded(&plan);
    let (mut writer, _) =
        RunWriter::resume(Arc::new(storage.clone()), 30, Durability::Seals).unwrap();
    writer.drop_oldest(1).unwrap();
    record_from(
        writer,
        &Plan {
            end: End::Finish,
            ..plan.clone()
        },
        &truth,
        30,
        |_, _| {},
    )
    .unwrap();
    let span = open(&storage).unwrap().span();
    assert!(span.start > 0 && span.end == 40);
    let (trace, report) = recovered_from(&storage).unwrap();
    assert!(
        report.is_lossless(),
        "what was dropped on purpose is not lost: {report:?}"
    );
    assert_eq!(
        check_forward(&trace, &truth),
        span.clone().collect::<Vec<_>>()
    );
    let notes = &trace.info().notes;
    assert!(
        notes["recovery-1.resumed"].starts_with("at step 30 on "),
        "{notes:?}"
    );
    assert!(notes["recovery-1.dropped-before"].contains(&format!("0..{}", span.start)));
    // It can be resumed, dropped from and recovered again like any other run.
    let target = MemStorage::from_files(trace.storage().list().unwrap().into_iter().map(|e| {
        let bytes = trace.storage().map(&e.name).unwrap().to_vec();
        (e.name, bytes)
    }));
    let (writer, _) = RunWriter::resume(Arc::new(target.clone()), 35, Durability::Seals).unwrap();
    record_from(
        writer,
        &Plan {
            end: End::Finish,
            ..plan
        },
        &truth,
        35,
        |_, _| {},
    )
    .unwrap();
    assert!(open(&target).unwrap().verify().unwrap().findings.is_empty());
}

#[test]
fn bytes_altered_on_purpose_are_kept_without_their_proof() {
    // Written again with valid checksums, as somebody who knows the format would.
    let plan = small_plan();
    let (storage, _) = recorded(&plan);
    let other = MemStorage::new();
    let mut changed = truth(&plan);
    changed.metas[1].loss = Some(-1.0);
    let writer =
        RunWriter::create(Arc::new(other.clone()), info(&plan.layout), plan.durability).unwrap();
    record_from(writer, &plan, &changed, 0, |_, _| {}).unwrap();
    let name = "seg-00000000.hcs";
    let forged = other
        .files()
        .into_iter()
        .find(|(n, _)| n == name)
        .unwrap()
        .1;
    storage.edit(name, |b| *b = forged);
    let (trace, report) = recovered_from(&storage).unwrap();
    assert!(
        kinds(&report).contains(&LossKind::Proof),
        "{:#?}",
        report.losses
    );
    assert_eq!(trace.meta(1).unwrap().loss, Some(-1.0));
    assert!(trace.info().notes["recovery-1.digest-disagreed"].contains(name));
}

#[test]
fn if_nothing_can_be_recovered_nothing_is_written() {
    let refused = |storage: &MemStorage| {
        let target = MemStorage::new();
        let error = recover_storage(
            &(Arc::new(storage.clone()) as Arc<dyn Storage>),
            &(Arc::new(target.clone()) as Arc<dyn Storage>),
            &mut |_, _| {},
        )
        .unwrap_err();
        assert!(target.list().is_err(), "a run was begun");
        error
    };
    let error = refused(&MemStorage::new());
    assert!(matches!(error, FormatError::NotARun { .. }), "{error}");
    let (empty, _) = recorded(&Plan {
        end: End::Leave,
        ..Plan::new(0)
    });
    let error = refused(&empty).to_string();
    assert!(error.contains("no step yet"), "{error}");
    let (storage, _) = recorded(&small_plan());
    for (name, _) in storage.files() {
        storage.edit(&name, |b| b.fill(0x55));
    }
    let error = refused(&storage);
    assert!(
        matches!(error, FormatError::NothingToRecover { .. }),
        "{error}"
    );
}
