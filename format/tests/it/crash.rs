//! A process killed at any byte loses nothing acknowledged. A power cut loses no more than the durability allows, and a segment that the
//! manifest lists as sealed is complete.

use std::sync::Arc;

use hindcast_format::{Crash, Durability, FormatError, MemStorage, RunWriter, Severity, Trace};

use crate::common::*;

/// At one acknowledgement: the number of operations so far, the last step taken, and the last durable step.
type Acknowledged = (usize, u64, Option<u64>);

/// A logged run and its acknowledgements.
fn logged(plan: &Plan) -> (MemStorage, Truth, Vec<Acknowledged>) {
    let storage = MemStorage::logged();
    let mut truth = truth(plan);
    let writer = RunWriter::create(
        Arc::new(storage.clone()),
        info(&plan.layout),
        plan.durability,
    )
    .unwrap();
    let mut acknowledged = Vec::new();
    let log = storage.clone();
    truth.manifest = record_from(writer, plan, &truth, 0, |step, durable| {
        acknowledged.push((log.operations(), step, durable))
    })
    .unwrap();
    (storage, truth, acknowledged)
}

/// The steps that an image holds: one prefix without gaps, with every state unchanged.
fn recovered(image: &MemStorage, truth: &Truth, read_all: bool) -> Result<u64, FormatError> {
    let trace = open(image)?;
    let ranges = trace.ranges()?;
    let steps = match &ranges[..] {
        [] => 0,
        [one] if one.start == 0 => one.end,
        other => panic!("not a prefix: {other:?}"),
    };
    if read_all {
        assert_eq!(check_forward(&trace, truth).len() as u64, steps);
    } else if steps > 0 {
        assert!(trace.read(steps - 1)?.state == truth.states[steps as usize - 1]);
    }
    Ok(steps)
}

#[test]
fn a_process_killed_at_any_byte_of_a_50_step_run_loses_nothing_acknowledged() {
    let plan = Plan::new(50);
    let (storage, truth, acknowledged) = logged(&plan);
    let (mut images, mut longest) = (0u32, 0);
    for operations in 0..storage.operations() {
        // A run that doesn't exist yet has promised nothing.
        if operations == 0 {
            continue;
        }
        let owed = acknowledged
            .iter()
            .take_while(|(done, ..)| *done <= operations)
            .last()
            .map_or(0, |(_, step, _)| step + 1);
        for bytes in 0..storage.operation_bytes(operations).max(2) {
            let image = storage.crash_image(Crash::Kill { operations, bytes });
            let steps = recovered(&image, &truth, images % 97 == 0)
                .unwrap_or_else(|e| panic!("{operations} operations and {bytes} bytes: {e}"));
            assert!(
                owed <= steps && steps <= owed + 1,
                "{owed} steps were acknowledged and {steps} are there"
            );
            if images % 211 == 0 {
                let report = Trace::open_storage(Arc::new(image))
                    .unwrap()
                    .verify()
                    .unwrap();
                assert!(report.is_ok(), "a kill leaves no damage: {report:#?}");
            }
            images += 1;
            longest = longest.max(steps);
        }
    }
    println!("{images} crash images of a 50-step run");
    assert_eq!(longest, 50);
}

#[test]
fn a_power_cut_loses_no_more_than_the_durability_says() {
    for (durability, window) in [
        (Durability::Os, u64::MAX),
        (Durability::Seals, 17),
        (Durability::Every(3), 3),
        (Durability::Always, 1),
    ] {
        let plan = Plan {
            durability,
            ..Plan::new(40)
        };
        let (storage, truth, acknowledged) = logged(&plan);
        let mut worst = 0;
        for operations in 1..=storage.operations() {
            let before = acknowledged
                .iter()
                .take_while(|(done, ..)| *done <= operations)
                .last();
            let (taken, durable) = before.map_or((0, 0), |(_, step, durable)| {
                (step + 1, durable.map_or(0, |d| d + 1))
            });
            assert!(
                taken - durable < window.saturating_add(1),
                "{durability:?}: {taken} steps taken and {durable} durable"
            );
            for seed in 0..8 {
                let mut noise = Noise(operations as u64 * 8 + seed);
                // All lost, all kept, and mixtures.
                let mut keep = || match seed {
                    0 => false,
                    1 => true,
                    _ => noise.next() % 3 < seed % 3 + 1,
                };
                let image = storage.crash_image(Crash::PowerLoss {
                    operations,
                    keep: &mut keep,
                });
                let steps = match recovered(&image, &truth, true) {
                    Ok(steps) => steps,
                    Err(e) => {
                        assert_eq!(
                            durable, 0,
                            "{durability:?} after {operations} operations, seed {seed}: {e}"
                        );
                        continue;
                    }
                };
                assert!(
                    steps >= durable,
                    "{durability:?} after {operations} operations, seed {seed}: {durable} steps durable, {steps} there"
                );
                worst = worst.max(taken.saturating_sub(steps));
                listed_segments_are_whole(&image);
            }
        }
        println!("{durability:?}: at most {worst} of 40 steps lost to a power cut");
    }
}

/// Sealing is atomic: a segment that the manifest lists is complete, and only the open tail can be damaged.
fn listed_segments_are_whole(image: &MemStorage) {
    let trace = open(image).unwrap();
    let Some(manifest) = trace.manifest() else {
        return;
    };
    let listed: Vec<&str> = manifest.segments.iter().map(|s| s.file.as_str()).collect();
    for finding in trace.verify().unwrap().findings {
        assert!(
            finding.severity < Severity::Error || !listed.contains(&finding.file.as_str()),
            "{finding:?}"
        );
    }
}
