//! Encrypted runs. The program that records needs no secret key, except for resuming a run.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use hindcast_format::{Identities, Keys, MemStorage, Recipients};
use hindcast_recorder::{Builder, OnError, RecorderError};

use crate::common::*;

/// A storage, a builder that encrypts, and the reader's keys.
fn encrypting() -> (Arc<MemStorage>, Builder, Arc<dyn Keys>) {
    let (secret, public) = Identities::generate();
    let encryption = Recipients::read(&public).unwrap().encryption().unwrap();
    let (storage, builder) = in_memory();
    let keys = Arc::new(Identities::read(&secret).unwrap());
    (storage, builder.encrypt(encryption), keys)
}

#[test]
fn a_run_is_recorded_without_a_secret_key_also_across_a_storage_failure() {
    let (storage, builder, keys) = encrypting();
    let net = Linear::new();
    let run = builder
        .on_error(OnError::TrainOn)
        .segment_steps(4)
        .create(&net.map)
        .unwrap();
    let mut sgd = sgd(&run, &net);
    let mut seen = Vec::new();
    for step in 0..40 {
        match step {
            10 => storage.fail_nth(storage.calls(), true, ErrorKind::StorageFull),
            25 => {
                storage.fail_nth(u64::MAX, false, ErrorKind::Other);
                // The recorder waits before it tries storage again.
                std::thread::sleep(Duration::from_millis(1_100));
            }
            _ => {}
        }
        seen.extend(train(&run, &mut sgd, &net, step..step + 1, 10).unwrap());
        let _ = run.flush();
    }
    let summary = run.finish().unwrap();
    assert!(summary.head.is_some() && summary.statistics.lost > 10);
    assert!(summary.statistics.written > 20, "{}", summary.statistics);
    storage.give_keys(keys);
    let trace = open(&storage);
    assert_eq!(trace.head_digest(), summary.head);
    let states = states(&trace);
    assert_eq!(states.len() as u64, summary.statistics.written);
    assert!(
        states
            .iter()
            .all(|(step, state)| seen[*step as usize] == *state)
    );
}

#[test]
fn resuming_takes_the_key_and_keeps_the_encryption() {
    let (storage, builder, keys) = encrypting();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    train(&run, &mut sgd(&run, &net), &net, 0..6, 10).unwrap();
    drop(run);
    let error = on(&storage).create_or_resume(&net.map).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the run is encrypted, and no key was given"),
        "{error}"
    );
    let (run, resumed) = on(&storage)
        .keys(Arc::clone(&keys))
        .restore_variables()
        .create_or_resume(&net.map)
        .unwrap();
    train(&run, &mut sgd(&run, &net), &net, resumed.step..9, 10).unwrap();
    run.finish().unwrap();
    storage.give_keys(keys);
    let trace = open(&storage);
    assert!(trace.info().encryption.is_some());
    assert_eq!(kept(&trace), (0..9).collect::<Vec<_>>());
    // A run that isn't encrypted can't become so.
    let (plain, _) = in_memory();
    let run = on(&plain).create(&net.map).unwrap();
    train(&run, &mut sgd(&run, &net), &net, 0..6, 10).unwrap();
    drop(run);
    let (_, public) = Identities::generate();
    let encryption = Recipients::read(&public).unwrap().encryption().unwrap();
    let error = on(&plain)
        .encrypt(encryption)
        .create_or_resume(&net.map)
        .unwrap_err();
    assert!(matches!(error, RecorderError::Setup { .. }), "{error}");
    assert!(
        error.to_string().contains("the trace is not encrypted"),
        "{error}"
    );
}
