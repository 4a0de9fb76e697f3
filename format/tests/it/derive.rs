//! Runs made from an intact one: which steps they hold, that the original is untouched, and what a comparison with it finds.

use std::sync::Arc;

use hindcast_format::{
    DType, Derive, DeriveReport, FormatError, Layout, MemStorage, Role, Selection, Severity,
    Signer, Status, Storage, Trace, derive_storage, descent, is_lineage_key, lineage,
    recover_storage, verify_storage,
};

use crate::common::*;

/// Derives, and checks that the original is untouched, the new run intact, and what its notes say true.
pub(crate) fn derived_from(
    storage: &MemStorage,
    what: &Derive,
) -> Result<(MemStorage, DeriveReport), FormatError> {
    let before = storage.files();
    let calls = storage.calls();
    let target = MemStorage::new();
    let (source, new): (Arc<dyn Storage>, Arc<dyn Storage>) =
        (Arc::new(storage.clone()), Arc::new(target.clone()));
    let report = derive_storage(&source, &new, what, None, &mut |done, total| {
        assert!(done <= total);
    });
    assert_eq!(storage.files(), before, "the original has changed");
    assert_eq!(storage.calls(), calls, "the original was written to");
    let report = report?;
    let verified = verify_storage(&new).unwrap();
    let noted = |f: &hindcast_format::Finding| f.severity == Severity::Note;
    assert!(verified.findings.iter().all(noted), "{verified:#?}");
    let (run, original) = (open(&target).unwrap(), open(storage).unwrap());
    assert_ne!(run.info().salt, original.info().salt);
    let found = descent(&run, &original, &mut |_, _| {}).unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!(found.by, [what.kind()]);
    assert_eq!((found.steps, found.gaps), (report.steps, report.gaps));
    assert_eq!(run.status(), original.status());
    let head = |t: &Trace| hindcast_format::hex(&t.head_digest().unwrap());
    assert_eq!(report.head_digest, head(&run));
    assert_eq!(report.original_head, head(&original));
    Ok((target, report))
}

fn prune(text: &str) -> Derive {
    Derive::Prune(text.parse().unwrap())
}

/// A layout without optimizer state, so that any step can open a segment.
fn plain() -> Layout {
    let tensors = layout().tensors().to_vec();
    let plain = tensors
        .into_iter()
        .filter(|t| t.role != Role::OptimizerState);
    Layout::new(plain.collect()).unwrap()
}

/// Tensors that the run holds must be those of the truth, and gaps have the truth's metadata and digest. Returns both.
fn against(trace: &Trace, truth: &Truth) -> (Vec<u64>, Vec<u64>) {
    let mut seen = Vec::new();
    let mut steps = trace.forward(0..u64::MAX);
    while let Some(step) = steps.next().unwrap() {
        let t = step.meta.step as usize;
        assert_eq!(step.meta, &truth.metas[t]);
        assert!(step.state == &truth.states[t], "state of step {t}");
        seen.push(t as u64);
    }
    let mut back = Vec::new();
    let mut steps = trace.reverse(0..u64::MAX);
    while let Some(step) = steps.next().unwrap() {
        assert!(step.state == &truth.states[step.meta.step as usize]);
        back.insert(0, step.meta.step);
    }
    assert_eq!(seen, back);
    let mut gaps = Vec::new();
    for meta in trace.metas(0..u64::MAX) {
        let meta = meta.unwrap();
        if !seen.contains(&meta.step) {
            assert_eq!(meta, truth.metas[meta.step as usize]);
            let digest = truth.states[meta.step as usize].digest();
            assert_eq!(trace.gap_digest(meta.step).unwrap(), Some(digest));
            gaps.push(meta.step);
        }
    }
    (seen, gaps)
}

#[test]
fn a_pruned_run_holds_the_chosen_steps_and_the_final_state() {
    // Ten steps per epoch, segments of at most 16 steps: they begin at 0, 10, 20, 30.
    for (text, with_tensors, without) in [
        ("last-epoch", (30..40).collect::<Vec<u64>>(), vec![]),
        ("last-steps=25", (15..40).collect(), vec![]),
        ("12..17", (12..17).collect(), vec![]),
        ("0..40", (0..40).collect(), vec![]),
        ("35..900", (35..40).collect(), vec![]),
        (
            "every=7",
            vec![0, 7, 14, 21, 28, 35],
            (0..40).filter(|t| t % 7 != 0).collect(),
        ),
        ("every=1", (0..40).collect(), vec![]),
    ] {
        let plan = Plan {
            layout: plain(),
            ..Plan::new(40)
        };
        let (storage, truth) = recorded(&plan);
        let (target, report) = derived_from(&storage, &prune(text)).unwrap();
        let run = open(&target).unwrap();
        assert_eq!(
            against(&run, &truth),
            (with_tensors.clone(), without),
            "{text}"
        );
        let (state, key) = run.final_state().unwrap().unwrap();
        assert!(
            state == truth.states[40] && key == truth.final_key,
            "{text}"
        );
        assert_eq!(run.final_step(), Some(40));
        assert_eq!(report.steps, with_tensors.len() as u64);
        let thinned = if text.starts_with("every") {
            report.gaps
        } else {
            0
        };
        assert_eq!(report.tensors_left_out, thinned);
        assert_eq!(
            report.steps_left_out,
            40 - report.steps - report.gaps,
            "{text}"
        );
        // The first step's key state is the recorded one, or what the step before it left.
        let first = run.read(with_tensors[0]).unwrap();
        let key = first.key.unwrap();
        if [0, 30].contains(&with_tensors[0]) {
            assert_eq!(key, key_for(&plan.layout, with_tensors[0]));
        } else {
            let before = &truth.states[with_tensors[0] as usize - 1];
            assert_eq!(key.buffers_before(), before.buffers());
        }
    }
}

#[test]
fn an_optimizer_state_moves_the_beginning_to_a_step_that_has_it() {
    let (storage, truth) = recorded(&Plan::new(40));
    let starts: Vec<u64> = open(&storage).unwrap().sizes()[..]
        .iter()
        .map(|s| s.steps.start)
        .collect();
    assert_eq!(starts, [0, 10, 20, 30, 40]);
    let (target, report) = derived_from(&storage, &prune("15..28")).unwrap();
    assert_eq!(
        against(&open(&target).unwrap(), &truth).0,
        (10..28).collect::<Vec<_>>()
    );
    assert_eq!(report.key_states_left_out, 0);
    // Steps that open a segment keep their tensors, because only they have the optimizer's state.
    let (target, _) = derived_from(&storage, &prune("every=7")).unwrap();
    let run = open(&target).unwrap();
    assert_eq!(against(&run, &truth).0, [0, 7, 10, 14, 20, 21, 28, 30, 35]);
    for step in [0, 10, 20, 30] {
        assert_eq!(
            run.read(step).unwrap().key.unwrap(),
            key_for(run.layout(), step)
        );
    }
}

#[test]
fn last_epoch_keeps_the_one_before_an_incomplete_one_as_a_recorder_does() {
    for (steps, end, first) in [
        (40, End::Finish, 30),
        (35, End::Finish, 20),
        (40, End::Abandon, 20),
        (8, End::Finish, 0),
    ] {
        let plan = Plan {
            end,
            ..Plan::new(steps)
        };
        let (storage, truth) = recorded(&plan);
        let (target, _) = derived_from(&storage, &prune("last-epoch")).unwrap();
        let run = open(&target).unwrap();
        assert_eq!(against(&run, &truth).0, (first..steps).collect::<Vec<_>>());
        assert_eq!(run.status(), open(&storage).unwrap().status());
        assert_eq!(run.info().keep, "last-epoch");
    }
}

#[test]
fn gaps_and_holes_of_the_original_stay_what_they_are() {
    let plan = Plan {
        gaps: vec![0, 3, 4, 17, 31, 32],
        ..Plan::new(40)
    };
    let plan = Plan {
        gaps: plan.gaps[1..].to_vec(),
        ..plan
    };
    let (storage, truth) = recorded(&plan);
    for text in ["every=2", "last-epoch", "2..20", "31..40"] {
        let (target, report) = derived_from(&storage, &prune(text)).unwrap();
        let (with, without) = against(&open(&target).unwrap(), &truth);
        assert!(with.iter().all(|s| !plan.gaps.contains(s)), "{text}");
        assert_eq!(without.len() as u64, report.gaps);
    }
    // Of a recovered run with a hole.
    let target = MemStorage::new();
    storage.edit("seg-00000001.hcs", |b| {
        let frame = (0..b.len() - 4)
            .filter(|&i| &b[i..i + 4] == b"HCFR")
            .nth(2)
            .unwrap();
        b[frame + 66] ^= 1;
    });
    let error = derived_from(&storage, &prune("last-epoch")).unwrap_err();
    assert!(matches!(error, FormatError::NotIntact { .. }), "{error}");
    assert!(error.to_string().contains("hindcast recover"), "{error}");
    let new: Arc<dyn Storage> = Arc::new(target.clone());
    recover_storage(
        &(Arc::new(storage) as Arc<dyn Storage>),
        &new,
        &mut |_, _| {},
    )
    .unwrap();
    let (again, _) = derived_from(&target, &prune("every=2")).unwrap();
    let run = open(&again).unwrap();
    let made: Vec<_> = lineage(run.info())
        .iter()
        .map(|a| (a.by.name(), a.number))
        .collect();
    assert_eq!(made, [("recovery", 1), ("prune", 2)]);
    let left: Vec<u64> = run.metas(0..u64::MAX).map(|m| m.unwrap().step).collect();
    assert_eq!(left.len(), 39, "one step is lost: {left:?}");
}

#[test]
fn open_runs_and_choices_of_nothing_are_refused() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(24)
    };
    let (storage, _) = recorded(&plan);
    let error = derived_from(&storage, &prune("last-epoch")).unwrap_err();
    assert!(matches!(error, FormatError::StillOpen { .. }), "{error}");
    let plan = Plan {
        gaps: (11..15).collect(),
        ..Plan::new(24)
    };
    let (storage, _) = recorded(&plan);
    for text in ["90..95", "24..30", "12..15"] {
        let error = derived_from(&storage, &prune(text))
            .unwrap_err()
            .to_string();
        assert!(error.contains("none of these steps has tensors"), "{error}");
        assert!(error.contains("0..24"), "{error}");
    }
}

#[test]
fn the_notes_name_the_original_its_signer_and_what_was_done() {
    let (storage, _) = recorded(&Plan::new(24));
    let original = open(&storage).unwrap();
    let target = MemStorage::new();
    let signer = Signer {
        key: "0123456789ABCDEF".to_owned(),
        checked: true,
    };
    let (source, new): (Arc<dyn Storage>, Arc<dyn Storage>) =
        (Arc::new(storage.clone()), Arc::new(target.clone()));
    derive_storage(
        &source,
        &new,
        &prune("10..20"),
        Some(&signer),
        &mut |_, _| {},
    )
    .unwrap();
    let run = open(&target).unwrap();
    let ancestors = lineage(run.info());
    assert_eq!(ancestors.len(), 1);
    let fact = |name: &str| ancestors[0].fact(name).unwrap().to_owned();
    assert_eq!(
        fact("original-head"),
        hindcast_format::hex(&original.head_digest().unwrap())
    );
    assert_eq!(
        fact("original-salt"),
        hindcast_format::hex(&original.info().salt)
    );
    assert_eq!(fact("original-status"), "finished");
    assert_eq!(fact("options"), "10..20");
    assert_eq!(fact("left-out"), "steps 0..10, steps 20..24");
    assert_eq!(
        (fact("signed-by"), fact("signature")),
        (signer.key, "checked".to_owned())
    );
    assert!(fact("time").ends_with('Z') && fact("writer").starts_with("hindcast-format "));
    assert!(run.info().notes.keys().all(|key| is_lineage_key(key)));
    let (old, new) = (original.info(), run.info());
    assert_eq!(
        (&old.created, &old.writer, old.seed, &old.data, &old.keep),
        (&new.created, &new.writer, new.seed, &new.data, &new.keep)
    );
    assert_eq!(
        run.manifest().unwrap().ended(),
        original.manifest().unwrap().ended()
    );

    // A run made from that one names both, and either can be compared with it.
    let (last, _) = derived_from(&target, &prune("every=3")).unwrap();
    let last = open(&last).unwrap();
    let chain: Vec<_> = lineage(last.info()).iter().map(|a| a.number).collect();
    assert_eq!(chain, [1, 2]);
    let found = descent(&last, &original, &mut |_, _| {}).unwrap();
    assert_eq!((found.problems, found.by.len()), (vec![], 2));
}

/// A run with another state, batch, rate, final state or seed than its original isn't what its notes say.
#[test]
fn a_run_that_is_not_its_originals_is_found_out() {
    let (storage, truth) = recorded(&Plan::new(24));
    let (target, _) = derived_from(&storage, &prune("every=4")).unwrap();
    let original = open(&storage).unwrap();
    let problems = |run: &MemStorage, original: &Trace| {
        descent(&open(run).unwrap(), original, &mut |_, _| {})
            .unwrap()
            .problems
    };
    // Another run of the same layout.
    let other = MemStorage::new();
    let mut changed = hindcast_format_truth(&truth);
    changed.metas[5].loss = Some(0.25);
    changed.states[9].bytes_mut()[0] ^= 1;
    record_truth(Arc::new(other.clone()), &Plan::new(24), &changed).unwrap();
    let found = problems(&target, &open(&other).unwrap());
    assert!(found[0].contains("as the original's head"), "{found:?}");
    assert!(
        found.contains(&"step 5: the metadata differs".to_owned()),
        "{found:?}"
    );
    assert!(
        found.iter().any(|p| p.starts_with("step 9: the digest")),
        "{found:?}"
    );
    assert_eq!(problems(&target, &original), Vec::<String>::new());
    // A run that wasn't made from another one.
    let error = descent(&original, &original, &mut |_, _| {}).unwrap_err();
    assert!(
        error.to_string().contains("not made from another run"),
        "{error}"
    );
}

fn hindcast_format_truth(truth: &Truth) -> Truth {
    Truth {
        metas: truth.metas.clone(),
        states: truth.states.clone(),
        final_key: truth.final_key.clone(),
        manifest: None,
    }
}

#[test]
fn small_runs_of_every_type_come_back() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        let layout = Layout::new(vec![tensor("w", Role::Parameter, dtype, &[5])]).unwrap();
        let plan = Plan {
            layout,
            ..Plan::new(20)
        };
        let (storage, truth) = recorded(&plan);
        let (target, report) = derived_from(&storage, &prune("5..20")).unwrap();
        assert_eq!(against(&open(&target).unwrap(), &truth).0.len(), 15);
        assert_eq!(report.status, Status::Finished);
    }
}

/// The smallest choice is one step.
#[test]
fn one_step_is_a_run() {
    let (storage, truth) = recorded(&Plan::new(24));
    let selection = Selection::LastSteps(1);
    let (target, _) = derived_from(&storage, &Derive::Prune(selection)).unwrap();
    assert_eq!(against(&open(&target).unwrap(), &truth).0, [20, 21, 22, 23]);
}
