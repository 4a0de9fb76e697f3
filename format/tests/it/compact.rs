//! Compacted runs: fewer bytes, and every state, metadata and digest as before.

use std::sync::Arc;

use hindcast_format::{
    Compaction, DType, Derive, Durability, Layout, MemStorage, Role, RunWriter, SegmentPolicy,
    State, Storage,
};

use crate::common::*;
use crate::derive::derived_from;

fn compact(level: i32, segment_steps: Option<u64>) -> Derive {
    Derive::Compact(Compaction {
        level,
        segment_steps,
    })
}

fn short_segments(steps: u32) -> SegmentPolicy {
    SegmentPolicy {
        max_steps: steps,
        min_steps: 1,
        cut_every_epoch: false,
    }
}

#[test]
fn every_step_comes_back_in_longer_segments() {
    for gaps in [vec![], vec![3, 4, 17, 25]] {
        let plan = Plan {
            policy: short_segments(4),
            gaps,
            ..Plan::new(40)
        };
        let (storage, truth) = recorded(&plan);
        let (target, report) = derived_from(&storage, &compact(19, None)).unwrap();
        let run = open(&target).unwrap();
        assert_eq!(check_forward(&run, &truth).len(), 40 - plan.gaps.len());
        for &gap in &plan.gaps {
            assert_eq!(run.meta(gap).unwrap(), truth.metas[gap as usize]);
        }
        // Each segment begins with a state of the optimizer that follows from nothing.
        assert_eq!(report.key_states_left_out, 0);
        assert_eq!(report.segments, report.original_segments);
        let (target, report) = derived_from(&storage, &compact(19, Some(1000))).unwrap();
        assert_eq!(report.segments, 2);
        assert!(report.key_states_left_out > 5, "{report:?}");
        assert!(report.bytes < report.original_bytes, "{report:?}");
        let run = open(&target).unwrap();
        let mut steps = run.reverse(0..u64::MAX);
        while let Some(step) = steps.next().unwrap() {
            assert!(*step.state == truth.states[step.meta.step as usize]);
        }
        let (state, key) = run.final_state().unwrap().unwrap();
        assert!(state == truth.states[40] && key == truth.final_key);
        let (_, report) = derived_from(&storage, &compact(1, Some(12))).unwrap();
        assert!(report.segments > 3, "{report:?}");
    }
}

/// Without optimizer state and buffers, the state with which a segment begins is that of its step, so segments are joined at no loss.
#[test]
fn segments_are_joined_where_nothing_is_lost() {
    let layout = Layout::new(vec![tensor("w", Role::Parameter, DType::F32, &[400])]).unwrap();
    let plan = Plan {
        layout,
        policy: short_segments(3),
        ..Plan::new(300)
    };
    let (storage, truth) = recorded(&plan);
    let (target, report) = derived_from(&storage, &compact(19, None)).unwrap();
    assert_eq!(
        (report.key_states_left_out, report.left_out.as_str()),
        (0, "nothing")
    );
    let run = open(&target).unwrap();
    let steps: Vec<u64> = run.sizes().iter().map(|s| s.recorded).collect();
    assert_eq!(steps.iter().sum::<u64>(), 300);
    assert!(
        steps.iter().all(|&n| n <= 256) && steps.len() == 3,
        "{steps:?}"
    );
    assert_eq!(check_forward(&run, &truth).len(), 300);
    let ratio = report.bytes as f64 / report.original_bytes as f64;
    assert!(ratio < 0.95, "{ratio}");
}

/// A state on a grid, one of noise, and one that stays: each form of a chunk is the shorter one somewhere.
#[test]
fn no_frame_gets_longer() {
    let layout = Layout::new(vec![
        tensor("grid", Role::Parameter, DType::F32, &[70_000]),
        tensor("noise", Role::Parameter, DType::F64, &[3_000]),
        tensor("still", Role::Parameter, DType::F32, &[10, 10]),
        tensor("half", Role::Parameter, DType::Bf16, &[5_000]),
    ])
    .unwrap();
    let storage = MemStorage::new();
    let info = info(&layout);
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let mut writer = RunWriter::create(shared, info, Durability::Os).unwrap();
    let mut encoder = writer.encoder().unwrap();
    let mut noise = Noise(3);
    let mut states: Vec<State> = Vec::new();
    for step in 0..6u64 {
        let mut state = states
            .last()
            .cloned()
            .unwrap_or_else(|| State::zeros(&layout));
        let grid = layout.range(layout.index_of(Role::Parameter, "grid").unwrap());
        for element in state.bytes_mut()[grid].chunks_exact_mut(4) {
            let value = (noise.next() % 64) as f32 / 64.0;
            element.copy_from_slice(&value.to_le_bytes());
        }
        let drawn = layout.range(layout.index_of(Role::Parameter, "noise").unwrap());
        for element in state.bytes_mut()[drawn].chunks_exact_mut(8) {
            element.copy_from_slice(&noise.float().to_le_bytes());
        }
        let meta = meta(&layout, step, 10);
        let frame = match states.last() {
            Some(before) => encoder.difference(&meta, step - 1, before, &state).unwrap(),
            None => {
                writer.open_segment(step).unwrap();
                let key = hindcast_format::KeyState::zeros(&layout);
                encoder.keyframe(&meta, &state, &key).unwrap()
            }
        };
        writer.append(frame).unwrap();
        states.push(state);
    }
    writer.abandon(Default::default()).unwrap();
    for level in [1, 9, 19] {
        let (target, report) = derived_from(&storage, &compact(level, None)).unwrap();
        let run = open(&target).unwrap();
        let mut steps = run.forward(0..u64::MAX);
        while let Some(step) = steps.next().unwrap() {
            assert!(*step.state == states[step.meta.step as usize]);
        }
        // The notes take some bytes in both places that repeat the description.
        let notes = 3_000;
        assert!(
            report.bytes < report.original_bytes + notes,
            "{level}: {report:?}"
        );
    }
}
