//! What is read equals what was recorded: forward, backward, one by one, from a folder and from memory.

use std::sync::Arc;

use hindcast_format::{
    BatchWeights, Encoder, Extension, FsStorage, RunInfo, RunWriter, Status, Trace, verify,
};

use crate::allocations::peak;
use crate::common::*;

#[test]
fn a_run_is_read_as_it_was_recorded() {
    let plan = Plan {
        gaps: vec![5, 6, 20],
        ..Plan::new(50)
    };
    let (storage, truth) = recorded(&plan);
    let trace = open(&storage).unwrap();
    assert_eq!(trace.status(), Status::Finished);
    assert_eq!(trace.ranges().unwrap(), [0..5, 7..20, 21..50]);
    assert_eq!(trace.span(), 0..50);
    let forward = check_forward(&trace, &truth);
    assert_eq!(
        forward,
        (0..50)
            .filter(|t| !plan.gaps.contains(t))
            .collect::<Vec<_>>()
    );

    let mut backward = Vec::new();
    let mut steps = trace.reverse(0..50);
    while let Some(step) = steps.next().unwrap() {
        assert!(step.state == &truth.states[step.meta.step as usize]);
        assert_eq!(step.meta, &truth.metas[step.meta.step as usize]);
        backward.push(step.meta.step);
    }
    backward.reverse();
    assert_eq!(backward, forward);

    for &t in &forward {
        let step = trace.read(t).unwrap();
        assert!(step.state == truth.states[t as usize]);
        assert_eq!(step.key.is_some(), trace.start_of(t).unwrap() == t);
    }
    assert_eq!(
        trace
            .metas(0..50)
            .map(|m| m.unwrap().step)
            .collect::<Vec<_>>(),
        (0..50).collect::<Vec<_>>()
    );
    assert_eq!(
        trace.gap_digest(20).unwrap(),
        Some(truth.states[20].digest())
    );
    let (state, key) = trace.final_state().unwrap().unwrap();
    assert!(state == truth.states[50]);
    assert_eq!(key, truth.final_key);
    let report = trace.verify().unwrap();
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!((report.steps, report.steps_ok, report.gaps), (47, 47, 3));
}

#[test]
fn a_folder_holds_the_same_bytes_as_memory() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan::new(40);
    let (memory, _) = recorded(&plan);
    for (name, storage) in [
        (
            "mapped",
            FsStorage::new(folder.path().join("mapped")).through_maps(),
        ),
        ("plain", FsStorage::new(folder.path().join("plain"))),
    ] {
        let truth = record(Arc::new(storage), &plan).unwrap();
        let path = folder.path().join(name);
        for (file, bytes) in memory.files() {
            assert!(
                std::fs::read(path.join(&file)).unwrap() == bytes,
                "{name}/{file}"
            );
        }
        assert_eq!(
            std::fs::read_dir(&path).unwrap().count(),
            memory.files().len()
        );
        check_forward(&Trace::open(&path).unwrap(), &truth);
        assert!(verify(&path).unwrap().findings.is_empty());
    }
}

#[test]
fn a_run_is_never_overwritten_and_a_folder_without_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let create = || {
        RunWriter::create(
            Arc::new(FsStorage::new(&path)),
            info(&layout()),
            Default::default(),
        )
    };
    drop(create().unwrap());
    assert!(create().unwrap_err().to_string().contains("exists already"));
    let missing = Trace::open(folder.path().join("nowhere"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("nowhere") && missing.contains("not a recorded run"),
        "{missing}"
    );
}

#[test]
fn an_open_run_is_read_up_to_its_last_step() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(45)
    };
    let (storage, truth) = recorded(&plan);
    let trace = open(&storage).unwrap();
    assert_eq!(trace.status(), Status::Open);
    assert_eq!(check_forward(&trace, &truth), (0..45).collect::<Vec<_>>());
    let mut steps = trace.reverse(3..44);
    let mut expected = 43;
    while let Some(step) = steps.next().unwrap() {
        assert_eq!(step.meta.step, expected);
        assert!(step.state == &truth.states[expected as usize]);
        expected -= 1;
    }
    assert_eq!(expected, 2);
    assert!(trace.verify().unwrap().is_ok());
}

#[test]
fn metadata_like_that_of_the_step_before_is_encoded_without_an_allocation() {
    let layout = layout();
    let mut meta = meta(&layout, 1, 10);
    meta.indices = (0..100_000).collect();
    meta.weights = BatchWeights::SumOfEach(vec![0.5; 100_000]);
    meta.micro_batches = vec![50_000; 2];
    meta.trained[0] = false;
    meta.scalars = vec![("accuracy".repeat(1000), 0.5)];
    meta.extensions = vec![Extension {
        id: 9,
        bytes: vec![7; 10_000],
    }];
    let mut encoder = Encoder::new(&RunInfo::new(layout.clone(), 0)).unwrap();
    let mut encode = || {
        let frame = encoder.gap(&meta, &[5; 32]).unwrap();
        let bytes = frame.bytes().len();
        encoder.recycle(frame);
        bytes
    };
    let (first, bytes) = peak(&mut encode);
    assert!(first >= bytes);
    assert_eq!(peak(&mut encode), (0, bytes));
}
