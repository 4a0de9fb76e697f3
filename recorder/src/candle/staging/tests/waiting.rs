//! Who waits for copies, and when.

use hindcast_format::Status;

use super::*;
use crate::WhenFull;

/// Two copies may be under way. The third step waits for the first of them.
#[test]
fn training_waits_only_while_both_stages_are_in_use() {
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, builder) = in_memory(&fake);
    let run = builder.segment_steps(4).create(&net.map).unwrap();
    let first = fake.see(|copies| copies.begun);
    fake.set(Ends::Held);
    net.steps(&run, 0..2);
    assert_eq!(fake.see(|copies| copies.begun), first + 2);
    assert_eq!(run.statistics().stalls, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 0..8 {
                // The training thread says that it waits before it does.
                while run.statistics().stalls == step {
                    std::thread::yield_now();
                }
                assert_eq!(fake.see(|copies| copies.begun), first + step + 2);
                fake.end(first + step);
            }
            fake.set(Ends::AtOnce);
        });
        net.steps(&run, 2..10);
    });
    let statistics = run.statistics();
    assert_eq!(statistics.stalls, 8);
    assert!(!statistics.stalled.is_zero());
    run.finish().unwrap();
    assert_eq!(fake.see(|copies| copies.most), 2);
    assert_eq!(kept(&open(&storage)).len(), 10);
}

/// A copy that ends before an earlier one frees its stage, but steps are written in order.
#[test]
fn copies_that_end_out_of_order_are_written_in_order() {
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, builder) = in_memory(&fake);
    let run = builder.create(&net.map).unwrap();
    let first = fake.see(|copies| copies.begun);
    fake.set(Ends::Held);
    net.steps(&run, 0..2);
    fake.end(first + 1);
    fake.wait_until(|copies| copies.waiting == 1);
    assert!(
        !storage
            .files()
            .iter()
            .any(|(name, _)| name != "manifest.json")
    );
    fake.end(first);
    run.drain().unwrap();
    assert_eq!(kept(&open(&storage)), [0, 1]);
    fake.set(Ends::AtOnce);
    run.finish().unwrap();
}

/// A step that the queue has no room for needs its digest at once, so training waits for its copy.
#[test]
fn skipped_steps_take_a_digest_of_the_copied_values() {
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, builder) = in_memory(&fake);
    let run = builder
        .queue_bytes(1)
        .segment_steps(4)
        .when_full(WhenFull::Skip)
        .create(&net.map)
        .unwrap();
    let first = fake.see(|copies| copies.begun);
    // The first step stays in the queue until its copy ends. The others find no room.
    fake.set(Ends::Held);
    net.step(&run, 0).unwrap();
    let mut expected = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 1..4 {
                fake.wait_until(|copies| copies.begun == first + step + 1);
                fake.end(first + step);
            }
        });
        for step in 1..4 {
            net.forward(step);
            expected.push(state(&net).digest());
            net.step(&run, step).unwrap();
        }
    });
    fake.set(Ends::AtOnce);
    run.drain().unwrap();
    net.step(&run, 4).unwrap();
    let statistics = run.finish().unwrap().statistics;
    assert_eq!(statistics.skipped, 3, "{statistics}");
    let trace = open(&storage);
    assert_eq!(kept(&trace), [0, 4]);
    let key = trace.read(4).unwrap().key.unwrap();
    let buffers: Vec<u8> = [3.5f32, -3.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(key.buffers_before(), buffers);
    assert_eq!(digests(&trace), expected);
}

/// The state that a frame of the next step must hold.
fn state(net: &Net) -> hindcast_format::State {
    let other = on(&Arc::new(MemStorage::new()), None);
    let layout = other.create(&net.map).unwrap().layout();
    let mut bytes = Vec::new();
    for var in net.parameters.iter().chain([&net.mean]) {
        let mut here = vec![0; crate::candle::tensor_bytes::byte_len(var)];
        crate::candle::tensor_bytes::copy_tensor(var, &mut here).unwrap();
        bytes.extend(here);
    }
    hindcast_format::State::new(&layout, bytes).unwrap()
}

/// The digests of the steps without tensors.
fn digests(trace: &Trace) -> Vec<[u8; 32]> {
    let gaps = (1..4).map(|step| trace.gap_digest(step).unwrap().unwrap());
    gaps.collect()
}

/// A dropped recorder waits for the copies and seals what it has.
#[test]
fn a_dropped_recorder_seals_the_steps_whose_copies_are_under_way() {
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, builder) = in_memory(&fake);
    let run = builder.create(&net.map).unwrap();
    fake.set(Ends::Held);
    net.steps(&run, 0..2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fake.wait_until(|copies| copies.waiting == 1);
            fake.set(Ends::AtOnce);
        });
        drop(run);
    });
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Unfinished);
    assert_eq!(kept(&trace), [0, 1]);
    assert_eq!(fake.see(|copies| copies.stages), 0);
}

/// The final state is copied like every other, and finishing waits for it.
#[test]
fn finishing_waits_for_all_copies() {
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, builder) = in_memory(&fake);
    let run = builder.create(&net.map).unwrap();
    let first = fake.see(|copies| copies.begun);
    fake.set(Ends::Held);
    net.steps(&run, 0..1);
    net.forward(7);
    let expected = state(&net);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fake.wait_until(|copies| copies.begun == first + 2);
            fake.end(first + 1);
            fake.end(first);
        });
        run.finish().unwrap();
    });
    let end = open(&storage).checkpoint(1).unwrap();
    assert_eq!(end.parameters.unwrap(), expected.parameters());
    assert_eq!(end.buffers.unwrap(), expected.buffers());
}
