//! Whatever is done to a run, the recovered part is right and the report says what is missing: damage to every byte, and random damage.

use std::collections::BTreeSet;

use hindcast_format::{FormatError, LossKind, MANIFEST, MemStorage, SegmentPolicy, Storage, Trace};

use crate::common::*;
use crate::damage::small_plan;
use crate::recover::{kinds, recovered_from, steps_of};

/// All steps, and the final state's bytes: state, buffers, optimizer state.
type Content = (
    Vec<hindcast_format::Recorded>,
    Option<(Vec<u8>, Vec<u8>, Vec<u8>)>,
);

/// The content of a run, however it is stored.
fn content(trace: &Trace) -> Content {
    let mut steps = Vec::new();
    let mut walk = trace.forward(0..u64::MAX);
    while let Some(step) = walk.next().unwrap() {
        steps.push(hindcast_format::Recorded {
            meta: step.meta.clone(),
            state: step.state.clone(),
            key: step.key.cloned(),
        });
    }
    let end = trace.final_state().unwrap();
    let end = end.map(|(state, key)| {
        (
            state.into_bytes(),
            key.buffers_before().to_vec(),
            key.optimizer().to_vec(),
        )
    });
    (steps, end)
}

/// Whichever byte is damaged, the recovered part is right, and everything missing is reported as lost.
#[test]
fn the_report_of_damage_to_any_byte_says_exactly_what_is_lost() {
    let plan = small_plan();
    for end in [End::Finish, End::Leave] {
        let plan = Plan {
            end,
            ..plan.clone()
        };
        let (storage, truth) = recorded(&plan);
        let whole = content(&open(&storage).unwrap());
        let (mut hits, mut harmless) = (0, 0);
        for (name, bytes) in storage.files() {
            for byte in 0..bytes.len() {
                let image = MemStorage::from_files(storage.files());
                image.edit(&name, |b| b[byte] ^= 0x10);
                let place = format!("{name}, byte {byte}");
                let (trace, report) =
                    recovered_from(&image).unwrap_or_else(|e| panic!("{place}: {e}"));
                let mut got = content(&trace);
                let read: BTreeSet<u64> = got.0.iter().map(|r| r.meta.step).collect();
                for r in &got.0 {
                    let t = r.meta.step as usize;
                    assert!(
                        r.state == truth.states[t] && r.meta == truth.metas[t],
                        "{place}: {t}"
                    );
                }
                for r in &mut got.0 {
                    let t = r.meta.step as usize;
                    let Some(key) = &mut r.key else { continue };
                    let true_key = key_for(trace.layout(), t as u64);
                    // A damaged r_t is taken from the previous step's state. In these tests the two differ, so the true one is restored
                    // before the comparison.
                    if t > 0 && key.buffers_before() == truth.states[t - 1].buffers() {
                        key.buffers_before_mut()
                            .copy_from_slice(true_key.buffers_before());
                    }
                    // A key state is the true one, or says that it isn't known.
                    assert!(
                        !key.buffers_known() || key.buffers_before() == true_key.buffers_before(),
                        "{place}: {t}"
                    );
                    assert!(
                        !key.optimizer_known() || key.optimizer() == true_key.optimizer(),
                        "{place}: {t}"
                    );
                }
                if let Some((_, buffers, _)) = &mut got.1
                    && buffers[..] == *truth.states[plan.steps as usize].buffers()
                {
                    *buffers = truth.final_key.buffers_before().to_vec();
                }
                let missing: Vec<u64> = (0..plan.steps).filter(|t| !read.contains(t)).collect();
                let mut said = steps_of(&report, LossKind::Step);
                said.extend(steps_of(&report, LossKind::Tensors));
                said.sort_unstable();
                // After damage to the last frame of an open run, at least one step is lost, and it is the next one.
                assert_eq!(said, missing, "{place}: {:#?}", report.losses);
                for t in steps_of(&report, LossKind::Tensors) {
                    assert_eq!(trace.meta(t).unwrap(), truth.metas[t as usize], "{place}");
                    assert_eq!(trace.gap_digest(t).unwrap(), None);
                }
                for t in steps_of(&report, LossKind::Step) {
                    assert!(matches!(
                        trace.meta(t),
                        Err(FormatError::NotRecorded { .. })
                    ));
                }
                // Nothing that is there is reported as lost, and everything that is missing is.
                let all = got == whole && trace.manifest().is_some();
                let of_the_run = report
                    .losses
                    .iter()
                    .any(|l| !matches!(l.kind, LossKind::Manifest | LossKind::Proof));
                assert_eq!(!of_the_run, all, "{place}: {:#?}", report.losses);
                assert_eq!(
                    name == MANIFEST,
                    kinds(&report).contains(&LossKind::Manifest),
                    "{place}"
                );
                hits += 1;
                harmless += usize::from(report.is_lossless());
            }
        }
        println!(
            "{hits} bytes hit, one at a time: {harmless} cost nothing, the rest what the report says"
        );
    }
}

#[test]
fn random_damage_never_panics_and_what_is_recovered_is_always_right() {
    let plan = Plan {
        policy: SegmentPolicy {
            max_steps: 5,
            min_steps: 5,
            cut_every_epoch: false,
        },
        ..small_plan()
    };
    let plan = Plan { steps: 23, ..plan };
    let (storage, truth) = recorded(&plan);
    let mut noise = Noise(9);
    let (mut kept, mut nothing) = (0, 0);
    for round in 0..300 {
        let image = MemStorage::from_files(storage.files());
        for _ in 0..1 + noise.next() % 12 {
            let files = image.files();
            let (name, bytes) = &files[noise.next() as usize % files.len()];
            let at = noise.next() as usize % bytes.len();
            let how = noise.next();
            match how % 8 {
                0 if noise.next().is_multiple_of(4) => image.remove(name).unwrap(),
                1 => image.edit(name, |b| b.truncate(at)),
                2 => image.edit(name, |b| b[at..].fill(0)),
                3 => image.edit(name, |b| b[at..].rotate_left(1)),
                _ => image.edit(name, |b| b[at] ^= 1 << (how % 7)),
            }
            if image.files().iter().any(|(_, b)| b.is_empty()) {
                break;
            }
        }
        match recovered_from(&image) {
            Ok((trace, report)) => {
                let seen = check_forward_states(&trace, &truth);
                assert_eq!(seen, report.steps, "round {round}");
                kept += seen;
            }
            Err(FormatError::NothingToRecover { .. } | FormatError::NotARun { .. }) => nothing += 1,
            Err(e) => panic!("round {round}: {e}"),
        }
    }
    println!(
        "300 runs of 23 steps, hit up to 12 times each: {kept} steps recovered, every one right; {nothing} runs had nothing left"
    );
    assert!(kept > 300);
}

fn check_forward_states(trace: &Trace, truth: &Truth) -> u64 {
    let mut seen = 0;
    let mut steps = trace.forward(0..u64::MAX);
    while let Some(step) = steps.next().unwrap() {
        let t = step.meta.step as usize;
        assert!(step.meta == &truth.metas[t] && step.state == &truth.states[t]);
        seen += 1;
    }
    seen
}
