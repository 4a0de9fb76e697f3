//! Bytes out equal bytes in, whatever numbers they stand for. Reading backward gives the steps of reading forward, reversed, in the same
//! memory for any length.

use std::sync::Arc;

use hindcast_format::{
    DType, Durability, KeyState, Layout, MemStorage, Role, RunWriter, State, Trace,
};
use proptest::prelude::*;

use crate::allocations::peak;
use crate::common::*;

fn dtypes() -> impl Strategy<Value = DType> {
    prop_oneof![
        Just(DType::F32),
        Just(DType::F64),
        Just(DType::Bf16),
        Just(DType::F16)
    ]
}

fn roles() -> impl Strategy<Value = Role> {
    prop_oneof![
        Just(Role::Parameter),
        Just(Role::Buffer),
        Just(Role::OptimizerState)
    ]
}

/// Scalars, empty tensors, pools of small tensors, and sometimes a tensor that is cut into several chunks.
fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![0]),
        Just(vec![3, 0, 2]),
        (1usize..40).prop_map(|n| vec![n]),
        (1usize..9, 1usize..9).prop_map(|(a, b)| vec![a, b]),
        (900usize..1200).prop_map(|n| vec![n]),
        Just(vec![70_001]),
    ]
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::collection::vec((roles(), dtypes(), shapes()), 0..8).prop_map(|tensors| {
        let specs = tensors
            .iter()
            .enumerate()
            .map(|(i, (role, dtype, shape))| tensor(&format!("t{i}"), *role, *dtype, shape));
        Layout::new(specs.collect()).unwrap()
    })
}

/// Bit patterns: noise, bytes of special numbers (NaN payloads, −0.0, denormals, infinities), and small changes.
fn fill(bytes: &mut [u8], noise: &mut Noise, how: u8) {
    match how % 4 {
        0 => bytes.iter_mut().for_each(|b| *b = noise.next() as u8),
        1 => bytes
            .iter_mut()
            .for_each(|b| *b = [0x00, 0x80, 0xff, 0x7f, 0x01, 0xc0][noise.next() as usize % 6]),
        2 => bytes
            .iter_mut()
            .for_each(|b| *b = b.wrapping_add((noise.next() % 3) as u8)),
        _ => {}
    }
}

fn run(layout: &Layout, seed: u64, how: &[u8]) -> (MemStorage, Vec<State>, Vec<KeyState>) {
    let mut noise = Noise(seed);
    let storage = MemStorage::new();
    let mut writer =
        RunWriter::create(Arc::new(storage.clone()), info(layout), Durability::Os).unwrap();
    let mut encoder = writer.encoder().unwrap();
    let (mut states, mut keys): (Vec<State>, Vec<KeyState>) = (vec![], vec![]);
    for (t, &how) in how.iter().enumerate() {
        let mut state = states
            .last()
            .cloned()
            .unwrap_or_else(|| State::zeros(layout));
        fill(state.bytes_mut(), &mut noise, how);
        let mut key = KeyState::zeros(layout);
        fill(key.buffers_before_mut(), &mut noise, how);
        fill(key.optimizer_mut(), &mut noise, how);
        let step = t as u64;
        let meta = meta(layout, step, 100);
        // Segments of three steps.
        if t % 3 == 0 {
            if let Some(last) = states.last() {
                writer
                    .append(encoder.link(step, step - 1, last, &state).unwrap())
                    .unwrap();
            }
            writer.seal().unwrap();
            writer.open_segment(step).unwrap();
            writer
                .append(encoder.keyframe(&meta, &state, &key).unwrap())
                .unwrap();
        } else {
            writer
                .append(
                    encoder
                        .difference(&meta, step - 1, states.last().unwrap(), &state)
                        .unwrap(),
                )
                .unwrap();
        }
        states.push(state);
        keys.push(key);
    }
    let (last, key) = (states.last().unwrap().clone(), keys.last().unwrap().clone());
    let step = states.len() as u64;
    writer
        .append(encoder.link(step, step - 1, &last, &last).unwrap())
        .unwrap();
    writer.finish(&last, &key, Default::default()).unwrap();
    (storage, states, keys)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_bits_of_any_layout_come_back_in_both_directions(layout in layouts(), seed: u64, how in prop::collection::vec(0u8..4, 1..9)) {
        let (storage, states, keys) = run(&layout, seed, &how);
        let trace = Trace::open_storage(Arc::new(storage)).unwrap();
        let all = 0..states.len() as u64;
        let mut forward = trace.forward(all.clone());
        for (t, state) in states.iter().enumerate() {
            let step = forward.next().unwrap().unwrap();
            prop_assert_eq!(step.meta.step, t as u64);
            prop_assert!(step.state.bytes() == state.bytes());
            prop_assert_eq!(step.key.is_some(), t % 3 == 0);
            if let Some(key) = step.key {
                prop_assert!(key == &keys[t]);
            }
        }
        prop_assert!(forward.next().unwrap().is_none());
        let mut reverse = trace.reverse(all);
        for (t, state) in states.iter().enumerate().rev() {
            let step = reverse.next().unwrap().unwrap();
            prop_assert_eq!(step.meta.step, t as u64);
            prop_assert!(step.state.bytes() == state.bytes());
            prop_assert_eq!(step.key.is_some(), t % 3 == 0);
        }
        prop_assert!(reverse.next().unwrap().is_none());
        prop_assert!(trace.verify().unwrap().findings.is_empty());
    }

    #[test]
    fn any_range_read_backward_is_the_range_read_forward_reversed(from in 0u64..60, length in 0u64..60, gaps in prop::collection::vec(1u64..60, 0..6)) {
        let mut gaps = gaps;
        gaps.sort_unstable();
        gaps.dedup();
        let plan = Plan { gaps, end: End::Abandon, ..Plan::new(60) };
        let (storage, _) = recorded(&plan);
        let trace = open(&storage).unwrap();
        let range = from..(from + length).min(60);
        let mut forward = Vec::new();
        let mut steps = trace.forward(range.clone());
        while let Some(step) = steps.next().unwrap() {
            forward.push((step.meta.clone(), step.state.clone(), step.key.cloned()));
        }
        let mut backward = Vec::new();
        let mut steps = trace.reverse(range);
        while let Some(step) = steps.next().unwrap() {
            backward.push((step.meta.clone(), step.state.clone(), step.key.cloned()));
        }
        backward.reverse();
        prop_assert!(forward == backward);
    }
}

#[test]
fn walking_backwards_takes_the_same_memory_at_100_and_10_000_steps() {
    let walk = |steps: u64| {
        let mut plan = Plan {
            steps_per_epoch: 1 << 40,
            ..Plan::new(steps)
        };
        // Full segments in both runs, so that their indices have the same size.
        plan.policy.max_steps = 25;
        let (storage, _) = recorded(&plan);
        let trace = open(&storage).unwrap();
        peak(|| {
            let mut iterator = trace.reverse(0..steps);
            let mut count = 0;
            while iterator.next().unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, steps);
        })
        .0
    };
    let (short, long) = (walk(100), walk(10_000));
    println!("peak while walking backwards: {short} bytes for 100 steps, {long} bytes for 10,000");
    // The number of digits in file names and step numbers varies.
    assert!(
        long <= short + 512,
        "{short} bytes for 100 steps, {long} bytes for 10,000"
    );
}
