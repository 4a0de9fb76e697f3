//! Resuming after an interruption: the trace is cut back to a step of the user's choice, and never destroyed in the process.

use std::io;
use std::sync::Arc;

use hindcast_format::{
    Crash, Durability, FormatError, MemStorage, RunWriter, Severity, Status, Storage, Trace,
    recover_storage,
};

use crate::common::*;

/// Resumes at `at`, and records the same states to the end of the run.
fn resume(storage: &MemStorage, plan: &Plan, truth: &Truth, at: u64) -> Result<(), FormatError> {
    let (writer, point) = RunWriter::resume(Arc::new(storage.clone()), at, plan.durability)?;
    assert_eq!(point.step, at);
    assert_eq!(point.last, at.checked_sub(1));
    if let Some(state) = &point.state {
        assert!(state == &truth.states[at as usize]);
        assert_eq!(point.meta.as_ref(), Some(&truth.metas[at as usize]));
    }
    record_from(
        writer,
        &Plan {
            end: End::Finish,
            ..plan.clone()
        },
        truth,
        at,
        |_, _| {},
    )
    .map(drop)
}

#[test]
fn a_run_is_resumed_at_any_step_however_it_ended() {
    for end in [End::Leave, End::Abandon, End::Finish] {
        let plan = Plan {
            end,
            ..Plan::new(40)
        };
        for at in 0..=40 {
            let (storage, truth) = recorded(&plan);
            resume(&storage, &plan, &truth, at).unwrap();
            let trace = open(&storage).unwrap();
            assert_eq!(trace.status(), Status::Finished);
            assert_eq!(
                check_forward(&trace, &truth),
                (0..40).collect::<Vec<_>>(),
                "resumed at {at}"
            );
            let mut backward = 0;
            let mut steps = trace.reverse(0..40);
            while let Some(step) = steps.next().unwrap() {
                assert!(step.state == &truth.states[step.meta.step as usize]);
                backward += 1;
            }
            assert_eq!(backward, 40);
            let report = trace.verify().unwrap();
            assert!(report.findings.is_empty(), "resumed at {at}: {report:#?}");
            let forks = &trace.manifest().unwrap().forks;
            assert_eq!(
                (forks.len(), forks[0].at_step, forks[0].end_step),
                (1, at, 40)
            );
        }
    }
}

#[test]
fn a_closed_run_says_when_it_ended_and_an_open_one_does_not() {
    let (storage, _) = recorded(&Plan::new(30));
    let ended = |storage: &MemStorage| open(storage).unwrap().manifest().unwrap().ended();
    assert_eq!(ended(&storage).unwrap(), "2026-01-02T03:05:00Z");
    let storage = Arc::new(storage);
    let (mut writer, _) = RunWriter::resume(storage.clone(), 21, Durability::Seals).unwrap();
    writer.open_segment(21).unwrap();
    assert_eq!(ended(&storage), None);
    writer.abandon(Default::default()).unwrap();
    let now = ended(&storage).unwrap();
    assert!(now.as_str() > "2026-11-01T00:00:00Z", "{now}");
    // A recovered run ended when its original did.
    let (storage, _) = recorded(&Plan::new(30));
    let (from, to): (Arc<dyn Storage>, Arc<dyn Storage>) =
        (Arc::new(storage.clone()), Arc::new(MemStorage::new()));
    recover_storage(&from, &to, &mut |_, _| {}).unwrap();
    let again = Trace::open_storage(to).unwrap().manifest().unwrap().ended();
    assert_eq!(again, ended(&storage));
}

#[test]
fn a_run_is_resumed_again_and_again() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(40)
    };
    let (storage, truth) = recorded(&plan);
    for at in [35, 20, 21, 40, 16] {
        resume(&storage, &plan, &truth, at).unwrap();
    }
    let trace = open(&storage).unwrap();
    assert_eq!(check_forward(&trace, &truth).len(), 40);
    assert!(trace.verify().unwrap().findings.is_empty());
    assert_eq!(
        trace
            .manifest()
            .unwrap()
            .forks
            .iter()
            .map(|f| f.at_step)
            .collect::<Vec<_>>(),
        [35, 20, 21, 40, 16]
    );
}

#[test]
fn resuming_drops_a_torn_tail() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(24)
    };
    let (storage, truth) = recorded(&plan);
    let name = storage.files().last().unwrap().0.clone();
    storage.edit(&name, |b| b.truncate(b.len() - 20));
    let steps = open(&storage).unwrap().span().end;
    assert_eq!(steps, 23);
    resume(&storage, &plan, &truth, steps).unwrap();
    assert!(
        open(&storage)
            .unwrap()
            .verify()
            .unwrap()
            .findings
            .is_empty()
    );
}

#[test]
fn a_kill_while_resuming_leaves_the_old_run_or_the_cut_one() {
    let plan = Plan {
        end: End::Abandon,
        ..Plan::new(40)
    };
    let truth = truth(&plan);
    let storage = MemStorage::logged();
    record(Arc::new(storage.clone()), &plan).unwrap();
    let before = storage.operations();
    let resumed = RunWriter::resume(Arc::new(storage.clone()), 21, Durability::Seals);
    resumed.unwrap().0.open_segment(21).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for operations in before..=storage.operations() {
        let length = if operations < storage.operations() {
            storage.operation_bytes(operations).max(2)
        } else {
            1
        };
        for bytes in (0..length).step_by(7) {
            let image = storage.crash_image(Crash::Kill { operations, bytes });
            let steps = check_forward(&open(&image).unwrap(), &truth).len();
            assert!(
                steps == 40 || steps == 21,
                "{steps} steps after {operations} operations and {bytes} bytes"
            );
            seen.insert(steps);
            assert!(
                Trace::open_storage(Arc::new(image.clone()))
                    .unwrap()
                    .verify()
                    .unwrap()
                    .is_ok()
            );
            // It can be resumed again from there.
            if bytes == 0 {
                resume(&image, &plan, &truth, 15).unwrap();
                assert!(open(&image).unwrap().verify().unwrap().findings.is_empty());
            }
        }
        for keep in [false, true] {
            let image = storage.crash_image(Crash::PowerLoss {
                operations,
                keep: &mut || keep,
            });
            let steps = check_forward(&open(&image).unwrap(), &truth).len();
            assert!(
                steps == 40 || steps == 21,
                "{steps} steps after a power cut"
            );
        }
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_failing_disk_while_resuming_destroys_nothing() {
    let plan = Plan {
        end: End::Abandon,
        ..Plan::new(40)
    };
    let truth = truth(&plan);
    for nth in 0.. {
        let storage = MemStorage::new();
        record(Arc::new(storage.clone()), &plan).unwrap();
        storage.fail_nth(storage.calls() + nth, true, io::ErrorKind::StorageFull);
        let resumed = RunWriter::resume(Arc::new(storage.clone()), 21, Durability::Seals)
            .and_then(|(mut writer, _)| writer.open_segment(21));
        let steps = check_forward(&open(&storage).unwrap(), &truth).len();
        assert!(steps == 40 || steps == 21);
        if resumed.is_ok() {
            assert_eq!(steps, 21);
            break;
        }
    }
}

/// On a real disk, the new manifest may be in place although its replacement failed, because the sync of the folder did.
#[test]
fn a_cut_whose_folder_cannot_be_synced_keeps_every_file_that_either_manifest_lists() {
    let plan = Plan {
        end: End::Abandon,
        ..Plan::new(40)
    };
    let truth = truth(&plan);
    let mut failed = 0;
    for for_good in [false, true] {
        for nth in 0..12 {
            let storage = MemStorage::new();
            record(Arc::new(storage.clone()), &plan).unwrap();
            storage.fail_after_replacing(storage.calls() + nth, for_good, io::ErrorKind::Other);
            let Ok((mut writer, _)) =
                RunWriter::resume(Arc::new(storage.clone()), 21, Durability::Seals)
            else {
                continue;
            };
            if writer.open_segment(21).is_ok() {
                continue;
            }
            failed += 1;
            // A recorder whose training continues closes the run.
            let _ = writer.close_after_failure(Default::default());
            let trace = open(&storage).unwrap();
            let steps = check_forward(&trace, &truth).len();
            assert!(steps == 40 || steps == 21, "call {nth}: {steps} steps");
            let findings = trace.verify().unwrap().findings;
            let damage: Vec<_> = findings
                .iter()
                .filter(|f| f.severity == Severity::Error)
                .collect();
            assert!(damage.is_empty(), "call {nth}: {damage:?}");
        }
    }
    assert!(failed > 0);
}

/// A program that fails before its first step, again and again, must not eat the run from its end.
#[test]
fn a_resumed_run_in_which_nothing_is_recorded_stays_as_it_was() {
    for end in [End::Leave, End::Abandon, End::Finish] {
        let plan = Plan {
            end,
            ..Plan::new(40)
        };
        for at in [0, 16, 21, 39, 40] {
            let (storage, truth) = recorded(&plan);
            let steps = |storage| check_forward(&open(storage).unwrap(), &truth).len();
            let manifest = open(&storage).unwrap().manifest().cloned();
            let before = open(&storage).unwrap();
            let (status, last) = (before.status(), before.final_step());
            for ended in 0..3 {
                let (writer, _) =
                    RunWriter::resume(Arc::new(storage.clone()), at, plan.durability).unwrap();
                match ended {
                    0 => drop(writer),
                    1 => drop(writer.abandon(Default::default()).unwrap()),
                    _ => drop(writer.close_after_failure(Default::default()).unwrap()),
                }
                // At the end of an interrupted run there is nothing to cut away.
                if at < 40 || last.is_some() {
                    let after = open(&storage).unwrap();
                    assert_eq!(after.manifest(), manifest.as_ref(), "{end:?} {at} {ended}");
                    assert_eq!((after.status(), after.final_step()), (status, last));
                }
                assert_eq!(steps(&storage), 40, "{end:?} {at} {ended}");
            }
            resume(&storage, &plan, &truth, at).unwrap();
            let trace = open(&storage).unwrap();
            assert_eq!(steps(&storage), 40);
            assert!(trace.verify().unwrap().findings.is_empty());
        }
    }
}

#[test]
fn a_run_that_is_damaged_before_the_cut_is_not_resumed() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(24)
    };
    let (storage, _) = recorded(&plan);
    let name = storage.files().last().unwrap().0.clone();
    let length = storage.files().last().unwrap().1.len();
    storage.edit(&name, |b| b[length / 2] ^= 1);
    let error = RunWriter::resume(Arc::new(storage), 24, Durability::Seals)
        .unwrap_err()
        .to_string();
    assert!(error.contains("damaged before it"), "{error}");
}

/// Two recorders on one run would remove each other's segments.
#[test]
fn a_run_has_one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(hindcast_format::FsStorage::new(dir.path().join("run")));
    let plan = Plan::new(12);
    let first = RunWriter::create(storage.clone(), info(&plan.layout), plan.durability).unwrap();
    let second = RunWriter::resume(storage.clone(), 0, plan.durability).unwrap_err();
    assert!(matches!(second, FormatError::InUse { .. }), "{second}");
    // Reading needs no claim, and a writer that has ended in any way blocks no other writer.
    assert!(Trace::open_storage(storage.clone()).is_ok());
    drop(first);
    let (third, _) = RunWriter::resume(storage.clone(), 0, plan.durability).unwrap();
    assert!(RunWriter::resume(storage.clone(), 0, plan.durability).is_err());
    third.abandon(Default::default()).unwrap();
    assert!(RunWriter::resume(storage, 0, plan.durability).is_ok());
}
