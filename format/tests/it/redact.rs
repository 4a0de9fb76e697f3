//! Redacted runs: nothing that identifies people and places is in any of their bytes, and everything else is the original's.

use std::sync::Arc;

use hindcast_format::{
    Derive, Extension, MemStorage, Redaction, RowLayout, RowRecord, RowSplit, RowTensor, RowType,
    RunWriter, SESSION, Storage, descent, lineage,
};

use crate::common::*;
use crate::derive::derived_from;

/// Words that identify somebody, in every place where a run has them.
const NAMES: [&str; 7] = [
    "anna",
    "charite",
    "kernel 6.1-clinic",
    "/home/anna/train",
    "c0ffee",
    "train-heart",
    "secretkey",
];

fn plan() -> Plan {
    Plan {
        gaps: vec![5],
        ..Plan::new(24)
    }
}

/// A run with such words in its description, in a resumed session's record, and in rows.
fn named(rows: bool) -> (MemStorage, Truth) {
    let storage = MemStorage::new();
    let mut truth = truth(&plan());
    for meta in &mut truth.metas {
        if meta.step == 10 {
            let facts = [
                ("made.program", "train-heart"),
                ("made.processor", "Model 9"),
                ("made.vectors", "avx2"),
            ];
            let facts = facts.map(|(k, v)| (k.to_owned(), v.to_owned()));
            meta.extensions.push(Extension::of_session(&facts.into()));
        }
        if rows {
            let tensor = RowTensor {
                dtype: RowType::U8,
                shape: vec![4],
            };
            let layout = RowLayout::new(vec![tensor]).unwrap();
            let row = b"anna";
            meta.indices = vec![0];
            let record = RowRecord {
                split: RowSplit::Train,
                next: 1,
                indices: if meta.step == 0 { vec![0] } else { vec![] },
                digests: if meta.step == 0 {
                    vec![layout.digest(row)]
                } else {
                    vec![]
                },
                rows: (meta.step == 0).then(|| Arc::new(row.to_vec())),
                layout,
            };
            meta.extensions.push(Extension::of_rows(&record).unwrap());
        }
    }
    let mut info = info(&plan().layout);
    info.task = Some("name = \"charite\"".to_owned());
    for (key, text) in [
        ("by", "anna"),
        ("charite", "yes"),
        ("prune-1.time", "2026-01-01T00:00:00Z"),
        ("prune-1.original-head", "00"),
        ("made.program", "train-heart"),
        ("made.command", "/home/anna/train"),
        ("made.commit", "c0ffee"),
        ("made.os", "Linux, kernel 6.1-clinic"),
        ("made.processor", "Model 9"),
        ("made.vectors", "avx2"),
        ("data-rows.train", "keyed 1:0011223344556677"),
        ("data-rows.test", "1:0011223344556677"),
        ("data-rows.key", "secretkey"),
        ("held-out.validation", "3"),
    ] {
        info.notes.insert(key.to_owned(), text.to_owned());
    }
    let writer = RunWriter::create(
        Arc::new(storage.clone()) as Arc<dyn Storage>,
        info,
        plan().durability,
    )
    .unwrap();
    record_from(writer, &plan(), &truth, 0, |_, _| {}).unwrap();
    (storage, truth)
}

fn contains(storage: &MemStorage, word: &str) -> bool {
    let files = storage.files();
    let in_file = |bytes: &[u8]| bytes.windows(word.len()).any(|w| w == word.as_bytes());
    files.iter().any(|(_, bytes)| in_file(bytes))
}

#[test]
fn no_byte_of_a_redacted_run_names_anybody() {
    for rows in [false, true] {
        let (storage, truth) = named(rows);
        assert!(NAMES.iter().all(|name| contains(&storage, name)));
        let redaction = Redaction {
            task: Some("name = \"redacted\"".to_owned()),
            rows,
        };
        let (target, report) = derived_from(&storage, &Derive::Redact(redaction)).unwrap();
        for name in NAMES {
            assert!(!contains(&target, name), "{name} is still there");
        }
        let run = open(&target).unwrap();
        let notes = &run.info().notes;
        let stays = [
            "made.processor",
            "made.vectors",
            "data-rows.train",
            "held-out.validation",
        ];
        assert!(
            stays.iter().all(|key| notes.contains_key(*key)),
            "{notes:?}"
        );
        assert!(!notes.contains_key("data-rows.test"), "it confirms a guess");
        let chain: Vec<_> = lineage(run.info())
            .iter()
            .map(|a| (a.by.name(), a.number))
            .collect();
        assert_eq!(chain, [("prune", 1), ("redact", 2)]);
        assert!(
            report.removed.contains(&"the note by".to_owned()),
            "{report:?}"
        );
        assert!(report.removed.contains(&"the fact made.command".to_owned()));
        assert_eq!(report.steps_left_out + report.tensors_left_out, 0);
        // Everything else is there, and a session's processor.
        let mut steps = run.forward(0..u64::MAX);
        while let Some(step) = steps.next().unwrap() {
            let t = step.meta.step as usize;
            assert!(step.state == &truth.states[t]);
            assert_eq!(step.meta.indices, truth.metas[t].indices);
            assert_eq!(step.meta.loss, truth.metas[t].loss);
        }
        let session = hindcast_format::session_of(&run.meta(10).unwrap()).unwrap();
        assert_eq!(session["made.processor"], "Model 9");
        assert!(!session.contains_key("made.program"));
        assert!(
            run.meta(10)
                .unwrap()
                .extensions
                .iter()
                .any(|e| e.id == SESSION)
        );
    }
}

/// The digest of a row that is left out can't be confirmed, and stays the same for each use of the row.
#[test]
fn rows_are_left_out_only_if_that_is_asked_for() {
    let (storage, _) = named(true);
    let digest = |storage: &MemStorage| {
        let run = open(storage).unwrap();
        let index = run.row_index(0..u64::MAX).unwrap();
        assert_eq!((index.by_rows, index.indices.len()), (Some(true), 1));
        (*index.indices.keys().next().unwrap(), index.stored.len())
    };
    let (known, stored) = digest(&storage);
    assert_eq!(stored, 1);
    let redact = |rows| derived_from(&storage, &Derive::Redact(Redaction { task: None, rows }));
    let (kept, report) = redact(false).unwrap();
    assert_eq!(digest(&kept), (known, 1));
    assert!(
        report
            .remarks
            .iter()
            .any(|r| r.contains("stores the examples themselves")),
        "{report:?}"
    );
    let (left_out, report) = redact(true).unwrap();
    let (other, stored) = digest(&left_out);
    assert!(other != known && stored == 0);
    assert!(report.left_out.ends_with("stored rows"), "{report:?}");
    // Another key each time.
    assert_ne!(digest(&redact(true).unwrap().0).0, other);
}

/// A run whose notes don't say that it was redacted must have everything.
#[test]
fn what_is_missing_without_a_reason_is_found_out() {
    let (storage, _) = named(false);
    let (target, _) = derived_from(&storage, &Derive::Redact(Redaction::default())).unwrap();
    let original = open(&storage).unwrap();
    let mut run = open(&target).unwrap().info().clone();
    run.notes = run
        .notes
        .into_iter()
        .map(|(key, text)| (key.replace("redact-2", "compact-2"), text))
        .collect();
    run.seed += 1;
    let forged = MemStorage::new();
    let writer = RunWriter::create(
        Arc::new(forged.clone()) as Arc<dyn Storage>,
        run,
        plan().durability,
    )
    .unwrap();
    record_from(writer, &plan(), &truth(&plan()), 0, |_, _| {}).unwrap();
    let found = descent(&open(&forged).unwrap(), &original, &mut |_, _| {}).unwrap();
    for what in [
        "the seed",
        "the note \"by\"",
        "the note \"made.command\"",
        "session",
    ] {
        assert!(
            found.problems.iter().any(|p| p.contains(what)),
            "{what}: {found:?}"
        );
    }
}
