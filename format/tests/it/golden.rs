//! Traces of every released format version stay readable. A newer version is refused by its number.

use std::path::PathBuf;
use std::sync::Arc;

use hindcast_format::{FormatError, FsStorage, MANIFEST, MemStorage, Trace, verify};

use crate::common::*;
use crate::damage::small_plan;

fn folder(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

fn golden_plan() -> Plan {
    Plan {
        gaps: vec![2],
        ..small_plan()
    }
}

#[test]
fn the_golden_trace_of_version_1_is_read() {
    let plan = golden_plan();
    let truth = truth(&plan);
    let trace = Trace::open(folder(1)).unwrap();
    assert_eq!(trace.ranges().unwrap(), [0..2, 3..8]);
    assert_eq!(check_forward(&trace, &truth), [0, 1, 3, 4, 5, 6, 7]);
    assert_eq!(trace.gap_digest(2).unwrap(), Some(truth.states[2].digest()));
    assert!(trace.final_state().unwrap().unwrap().0 == truth.states[8]);
    assert!(verify(folder(1)).unwrap().is_ok());
    assert_eq!(trace.info(), &info(&plan.layout));
}

/// The keys of the golden run of version 2.
#[cfg(feature = "encrypt")]
fn golden_keys() -> PathBuf {
    folder(2).with_extension("key")
}

#[cfg(feature = "encrypt")]
#[test]
fn the_golden_trace_of_version_2_is_read() {
    let keys = std::fs::read_to_string(golden_keys()).unwrap();
    let keys = Arc::new(hindcast_format::Identities::read(&keys).unwrap());
    let plan = golden_plan();
    let truth = truth(&plan);
    let storage: Arc<dyn hindcast_format::Storage> = Arc::new(hindcast_format::Keyed::new(
        Arc::new(FsStorage::new(folder(2))),
        keys,
    ));
    let trace = Trace::open_storage(Arc::clone(&storage)).unwrap();
    assert_eq!(check_forward(&trace, &truth), [0, 1, 3, 4, 5, 6, 7]);
    assert_eq!(trace.gap_digest(2).unwrap(), Some(truth.states[2].digest()));
    assert!(trace.final_state().unwrap().unwrap().0 == truth.states[8]);
    assert!(hindcast_format::verify_storage(&storage).unwrap().is_ok());
    let described = hindcast_format::RunInfo {
        encryption: trace.info().encryption.clone(),
        ..info(&plan.layout)
    };
    assert_eq!(trace.info(), &described);
}

#[cfg(feature = "encrypt")]
#[test]
#[ignore = "writes the golden trace of version 2; those of released versions are never written again"]
fn write_the_golden_trace_of_version_2() {
    let folder = folder(2);
    assert!(!folder.exists(), "a golden trace is written once");
    let (secret, public) = hindcast_format::Identities::generate();
    std::fs::write(golden_keys(), secret).unwrap();
    let recipients = hindcast_format::Recipients::read(&public).unwrap();
    let (plan, truth) = (golden_plan(), truth(&golden_plan()));
    let described = hindcast_format::RunInfo {
        encryption: Some(recipients.encryption().unwrap()),
        ..info(&plan.layout)
    };
    let storage = Arc::new(FsStorage::new(folder));
    let writer = hindcast_format::RunWriter::create(storage, described, plan.durability).unwrap();
    record_from(writer, &plan, &truth, 0, |_, _| {}).unwrap();
}

#[test]
#[ignore = "writes the golden trace of a new format version; those of released versions are never written again"]
fn write_the_golden_trace() {
    let folder = folder(1);
    assert!(!folder.exists(), "a golden trace is written once");
    record(Arc::new(FsStorage::new(folder)), &golden_plan()).unwrap();
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let (storage, _) = recorded(&small_plan());
    // A manifest of version 9 with a valid seal.
    let newer = MemStorage::from_files(storage.files());
    newer.edit(MANIFEST, |bytes| {
        let text = String::from_utf8(bytes.clone())
            .unwrap()
            .replace("\"format\": 1,", "\"format\": 9,");
        let body = text[..text.rfind(",\n  \"seal\"").unwrap()].to_owned();
        let seal = hindcast_format::hex(blake3::hash(body.as_bytes()).as_bytes());
        *bytes = format!("{body},\n  \"seal\": \"{seal}\"\n}}\n").into_bytes();
    });
    let error = open(&newer).unwrap_err();
    assert!(
        matches!(&error, FormatError::NewerVersion { found: 9, supported: 2, file } if file == MANIFEST),
        "{error}"
    );
    // A segment of version 7 with a valid checksum over its first 16 bytes, next to a lost manifest.
    let name = "seg-00000000.hcs";
    let newer = MemStorage::from_files(storage.files().into_iter().filter(|(n, _)| n == name));
    newer.edit(name, |bytes| {
        bytes[8..12].copy_from_slice(&7u32.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..16]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    });
    let error = open(&newer).unwrap_err();
    assert!(
        matches!(&error, FormatError::NewerVersion { found: 7, supported: 2, file } if file == name),
        "{error}"
    );
    // A flipped bit in the version is damage, not a newer version.
    let flipped = MemStorage::from_files(storage.files().into_iter().filter(|(n, _)| n == name));
    flipped.edit(name, |bytes| bytes[8] ^= 2);
    assert!(open(&flipped).unwrap_err().is_damage());
}

#[test]
fn a_lost_or_damaged_manifest_costs_no_step() {
    let plan = small_plan();
    let (storage, truth) = recorded(&plan);
    for damaged in [
        MemStorage::from_files(storage.files().into_iter().filter(|(n, _)| n != MANIFEST)),
        {
            let copy = MemStorage::from_files(storage.files());
            copy.edit(MANIFEST, |b| b[40] ^= 4);
            copy
        },
    ] {
        let trace = open(&damaged).unwrap();
        assert_eq!(check_forward(&trace, &truth).len(), 8);
        assert_eq!(trace.info(), &info(&plan.layout));
        assert_eq!(trace.problems().len(), 1);
        assert!(!trace.verify().unwrap().is_ok());
    }
}
