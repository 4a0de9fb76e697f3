//! A ring of segments: the oldest are dropped, the chain holds.

use std::sync::Arc;

use hindcast_format::{
    Crash, Durability, FindingKind, MemStorage, RunWriter, SegmentPolicy, Segmenter,
};

use crate::common::*;

/// Keeps the last complete epoch and the current one.
fn ring(storage: &MemStorage, plan: &Plan, truth: &Truth) {
    let mut writer = RunWriter::create(
        Arc::new(storage.clone()),
        info(&plan.layout),
        plan.durability,
    )
    .unwrap();
    let mut encoder = writer.encoder().unwrap();
    let mut segmenter = Segmenter::new(SegmentPolicy {
        cut_every_epoch: true,
        ..plan.policy
    });
    for (t, meta) in truth.metas.iter().enumerate() {
        let step = t as u64;
        if segmenter.place(meta).cut {
            if t > 0 {
                writer
                    .append(
                        encoder
                            .link(step, step - 1, &truth.states[t - 1], &truth.states[t])
                            .unwrap(),
                    )
                    .unwrap();
                writer.seal().unwrap();
                let kept = writer.segments().unwrap().count();
                writer.drop_oldest(kept.saturating_sub(1)).unwrap();
            }
            writer.open_segment(step).unwrap();
            writer
                .append(
                    encoder
                        .keyframe(meta, &truth.states[t], &key_for(&plan.layout, step))
                        .unwrap(),
                )
                .unwrap();
        } else {
            writer
                .append(
                    encoder
                        .difference(meta, step - 1, &truth.states[t - 1], &truth.states[t])
                        .unwrap(),
                )
                .unwrap();
        }
    }
    let step = plan.steps;
    let last = step as usize - 1;
    writer
        .append(
            encoder
                .link(step, step - 1, &truth.states[last], &truth.states[last + 1])
                .unwrap(),
        )
        .unwrap();
    writer
        .finish(
            &truth.states[last + 1],
            &truth.final_key,
            Default::default(),
        )
        .unwrap();
}

#[test]
fn dropped_segments_leave_their_digests_and_the_rest_is_read() {
    let plan = Plan {
        steps_an_epoch: 8,
        ..Plan::new(40)
    };
    let truth = truth(&plan);
    let storage = MemStorage::new();
    ring(&storage, &plan, &truth);
    let trace = open(&storage).unwrap();
    assert!(trace.ranges().unwrap().iter().eq([&(24..40)]));
    assert_eq!(trace.epochs().unwrap(), [(3, 24..32), (4, 32..40)]);
    assert_eq!(check_forward(&trace, &truth).len(), 16);
    let mut backward = 0;
    let mut steps = trace.reverse(24..40);
    while steps.next().unwrap().is_some() {
        backward += 1;
    }
    assert_eq!(backward, 16);
    // Buffers before the window: the keyframe has them.
    assert_eq!(trace.read(24).unwrap().key, Some(key_for(&plan.layout, 24)));
    let report = trace.verify().unwrap();
    assert!(report.is_ok());
    assert_eq!(
        report.findings.iter().map(|f| f.kind).collect::<Vec<_>>(),
        [FindingKind::Dropped]
    );
    assert_eq!(trace.manifest().unwrap().segments.len(), 6);
}

#[test]
fn killed_or_cut_from_power_while_dropping_a_ring_holds_an_epoch_at_least() {
    for durability in [Durability::Os, Durability::Seals] {
        let plan = Plan {
            steps_an_epoch: 8,
            durability,
            ..Plan::new(40)
        };
        let truth = truth(&plan);
        let storage = MemStorage::logged();
        ring(&storage, &plan, &truth);
        for operations in 1..=storage.operations() {
            let image = storage.crash_image(Crash::Kill {
                operations,
                bytes: 0,
            });
            let trace = open(&image).unwrap();
            assert!(trace.ranges().unwrap().len() <= 1);
            check_forward(&trace, &truth);
            assert!(trace.verify().unwrap().is_ok());
            for seed in 0..4u64 {
                let mut noise = Noise(operations as u64 * 4 + seed);
                let image = storage.crash_image(Crash::PowerLoss {
                    operations,
                    keep: &mut || noise.next() % 4 < seed,
                });
                if let Ok(trace) = open(&image) {
                    check_forward(&trace, &truth);
                } else {
                    assert_eq!(durability, Durability::Os, "after {operations} operations");
                }
            }
        }
    }
}
