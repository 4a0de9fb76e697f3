//! Storage that fails: the error names place and step, the writer stays stopped, and everything acknowledged is there.

use std::io;
use std::sync::Arc;

use hindcast_format::{Durability, FormatError, MemStorage, RunWriter};

use crate::common::*;

#[test]
fn acknowledged_steps_survive_a_failure_of_any_storage_call() {
    for durability in [Durability::Os, Durability::Seals, Durability::Every(4)] {
        let plan = Plan {
            durability,
            ..Plan::new(24)
        };
        let calls = {
            let storage = MemStorage::new();
            record(Arc::new(storage.clone()), &plan).unwrap();
            storage.calls()
        };
        for (nth, for_good) in (0..calls).flat_map(|n| [(n, false), (n, true)]) {
            let storage = MemStorage::new();
            storage.fail_nth(nth, for_good, io::ErrorKind::StorageFull);
            let truth = truth(&plan);
            let mut acknowledged = 0;
            let result =
                RunWriter::create(Arc::new(storage.clone()), info(&plan.layout), durability)
                    .and_then(|writer| {
                        record_from(writer, &plan, &truth, 0, |step, _| acknowledged = step + 1)
                    });
            let error = result.unwrap_err();
            let FormatError::Io { path, source, .. } = &error else {
                panic!("call {nth}: {error}")
            };
            assert!(
                path.starts_with("memory") && source.kind() == io::ErrorKind::StorageFull,
                "call {nth}: {error}"
            );
            if nth == 0 {
                assert!(matches!(open(&storage), Err(FormatError::NotARun { .. })));
                continue;
            }
            let trace = open(&storage).unwrap();
            let steps = check_forward(&trace, &truth);
            assert_eq!(steps, (0..steps.len() as u64).collect::<Vec<_>>());
            assert!(
                steps.len() as u64 >= acknowledged,
                "call {nth}: {acknowledged} acknowledged, {} there",
                steps.len()
            );
            assert!(trace.verify().unwrap().is_ok());
        }
    }
}

#[test]
fn after_its_first_failure_the_writer_refuses_every_call() {
    let plan = Plan::new(10);
    let truth = truth(&plan);
    let storage = MemStorage::new();
    let mut writer = RunWriter::create(
        Arc::new(storage.clone()),
        info(&plan.layout),
        Durability::Seals,
    )
    .unwrap();
    let mut encoder = writer.encoder().unwrap();
    writer.open_segment(0).unwrap();
    let key = key_for(&plan.layout, 0);
    writer
        .append(
            encoder
                .keyframe(&truth.metas[0], &truth.states[0], &key)
                .unwrap(),
        )
        .unwrap();
    storage.fail_nth(storage.calls(), false, io::ErrorKind::Other);
    let frame = || encoder_frame(&plan, &truth, 1);
    let first = writer.append(frame()).unwrap_err().to_string();
    assert!(
        first.contains("step 1") && first.contains("seg-00000000.hcs"),
        "{first}"
    );
    // The storage would work again, but the content of the disk is unknown.
    for error in [
        writer.append(frame()).unwrap_err(),
        writer.seal().unwrap_err(),
        writer.sync().unwrap_err(),
        writer.drop_oldest(1).unwrap_err(),
    ] {
        assert!(
            matches!(&error, FormatError::Poisoned { first: f, .. } if *f == first),
            "{error}"
        );
    }
    assert!(matches!(
        writer.abandon(Default::default()),
        Err(FormatError::Poisoned { .. })
    ));
    assert_eq!(check_forward(&open(&storage).unwrap(), &truth), [0]);
}

fn encoder_frame(plan: &Plan, truth: &Truth, step: u64) -> hindcast_format::EncodedFrame {
    let mut encoder = hindcast_format::Encoder::new(&info(&plan.layout)).unwrap();
    let t = step as usize;
    encoder
        .difference(
            &truth.metas[t],
            step - 1,
            &truth.states[t - 1],
            &truth.states[t],
        )
        .unwrap()
}

#[test]
fn frames_out_of_order_are_refused_and_do_no_harm() {
    let plan = Plan::new(10);
    let truth = truth(&plan);
    let storage = MemStorage::new();
    let mut writer = RunWriter::create(
        Arc::new(storage.clone()),
        info(&plan.layout),
        Durability::Seals,
    )
    .unwrap();
    let mut encoder = writer.encoder().unwrap();
    let key = key_for(&plan.layout, 0);
    let keyframe = encoder
        .keyframe(&truth.metas[0], &truth.states[0], &key)
        .unwrap();
    assert!(matches!(
        writer.append(keyframe.clone()),
        Err(FormatError::Order { .. })
    ));
    writer.open_segment(0).unwrap();
    assert!(matches!(
        writer.append(encoder_frame(&plan, &truth, 1)),
        Err(FormatError::Order { .. })
    ));
    writer.append(keyframe.clone()).unwrap();
    assert!(matches!(
        writer.append(keyframe),
        Err(FormatError::Order { .. })
    ));
    assert!(matches!(
        writer.append(encoder_frame(&plan, &truth, 2)),
        Err(FormatError::Order { .. })
    ));
    writer.append(encoder_frame(&plan, &truth, 1)).unwrap();
    assert!(matches!(
        writer.append(encoder_frame(&plan, &truth, 1)),
        Err(FormatError::Order { .. })
    ));
    writer.abandon(Default::default()).unwrap();
    assert_eq!(check_forward(&open(&storage).unwrap(), &truth), [0, 1]);
    // Metadata that lacks the flag of one parameter.
    let mut meta = truth.metas[0].clone();
    meta.trained.pop();
    assert!(matches!(
        encoder.keyframe(&meta, &truth.states[0], &key),
        Err(FormatError::Mismatch { .. })
    ));
}
