//! The bytes of traces: whatever the order in which copies end, they are those of the CPU's path.

use super::*;
use crate::Keep;
use crate::candle::snapshot::{Copier, staged_bytes};

fn all_kinds() -> [Fake; 4] {
    [
        Fake::new(Ends::AtOnce),
        Fake::new(Ends::Shuffled),
        Fake::of(Ends::AtOnce, two_devices),
        Fake::of(Ends::Shuffled, two_devices),
    ]
}

#[test]
fn traces_have_the_bytes_of_the_cpu_path() {
    for keep in [Keep::All, Keep::EveryNth(3), Keep::LastSteps(12)] {
        for encoders in [1, 3] {
            same_on_devices(
                &all_kinds(),
                |builder| builder.keep(keep).segment_steps(4).encoders(encoders),
                |run, net| net.steps(run, 0..23),
            );
        }
    }
}

#[test]
fn a_flush_in_between_changes_nothing() {
    same_on_devices(
        &all_kinds(),
        |builder| builder.segment_steps(3),
        |run, net| {
            for step in 0..9 {
                net.step(run, step).unwrap();
                run.flush().unwrap();
                assert_eq!(run.durable_step(), Some(step));
            }
        },
    );
}

/// Strided views, views into the middle of a tensor, broadcasts and empty tensors.
#[test]
fn awkward_tensors_come_out_row_major() {
    let whole = Tensor::arange(0f32, 12., &Device::Cpu).unwrap();
    let whole = whole.reshape((3, 4)).unwrap();
    let empty = Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
    let tensors = [
        whole.t().unwrap(),
        whole.narrow(0, 1, 1).unwrap(),
        empty,
        whole.narrow(1, 1, 2).unwrap(),
        whole.narrow(1, 3, 1).unwrap().broadcast_as((3, 2)).unwrap(),
    ];
    let bytes: usize = tensors.iter().map(|tensor| 4 * tensor.elem_count()).sum();
    let expected: Vec<u8> = tensors
        .iter()
        .flat_map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .flat_map(f32::to_le_bytes)
        .collect();
    let fake = Fake::new(Ends::AtOnce);
    for devices in [None, Some(&fake as _)] {
        let copier = Copier::new(tensors.iter().cloned(), devices);
        let mut out = vec![0; bytes];
        copier.copy(&mut out).unwrap();
        assert_eq!(out, expected);
    }
    assert_eq!(
        fake.see(|copies| copies.begun),
        1,
        "one copy of all tensors"
    );
}

#[test]
fn the_estimate_counts_the_stages() {
    let net = Net::new();
    let fake = Fake::of(Ends::AtOnce, two_devices);
    let (_, builder) = in_memory(&fake);
    let before = builder.estimate(&net.map).unwrap();
    // Two stages each: `x` and the buffer, and `wide`. `half` is on the CPU.
    let staged = 2 * ((24 + 8 + 8) + 40);
    assert_eq!(before.device_memory, staged);
    assert!(
        before.to_string().ends_with(" and 160 B on the GPU"),
        "{before}"
    );
    let run = builder.create(&net.map).unwrap();
    assert_eq!(run.estimate(), before);
    drop(run);
    let (_, builder) = in_memory(&fake);
    let without = builder.without_staging().estimate(&net.map).unwrap();
    assert_eq!(without.device_memory, 0);
    assert_eq!(without.memory_peak + staged, before.memory_peak);
    assert_eq!(staged_bytes([], Some(&fake)), 0);
}

/// A run that is cut off while copies are under way has the steps whose copies had ended. The program continues it, and
/// ends at the same values.
#[test]
fn a_killed_run_has_the_landed_steps_and_is_continued() {
    let choose = |builder: Builder| builder.segment_steps(4);
    let net = Net::new();
    let fake = Fake::new(Ends::AtOnce);
    let (storage, builder) = in_memory(&fake);
    let run = choose(builder).create(&net.map).unwrap();
    net.steps(&run, 0..6);
    run.drain().unwrap();
    fake.set(Ends::Held);
    net.steps(&run, 6..8);
    let left = Arc::new(MemStorage::from_files(storage.files()));
    assert_eq!(kept(&open(&left)), (0..6).collect::<Vec<_>>());
    fake.set(Ends::AtOnce);
    net.steps(&run, 8..15);
    run.finish().unwrap();

    let again = Net::new();
    let other = Fake::new(Ends::Shuffled);
    let builder = choose(on(&left, Some(&other)));
    let (run, resumed) = builder.create_or_resume(&again.map).unwrap();
    again.steps(&run, resumed.step..15);
    run.finish().unwrap();
    let (whole, continued) = (open(&storage), open(&left));
    assert!(resumed.step >= 5 && kept(&continued).len() == 15);
    for step in 0..15 {
        let (a, b) = (whole.read(step).unwrap(), continued.read(step).unwrap());
        assert_eq!(a.state, b.state, "step {step}");
        if let (Some(a), Some(b)) = (a.key, b.key) {
            assert_eq!(a.buffers_before(), b.buffers_before(), "step {step}");
        }
    }
    assert!(continued.verify().unwrap().findings.is_empty());
}
