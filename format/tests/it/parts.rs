//! The check of single segments, for runs that are too large to be read or copied.

use std::sync::Arc;

use hindcast_format::{MANIFEST, MemStorage, Storage, verify_steps};

use crate::common::*;

/// With the manifest, a single segment can be checked where no other one is.
#[test]
fn a_part_of_a_run_is_checked_without_the_rest() {
    let plan = Plan::new(40);
    let (whole, _) = recorded(&plan);
    let trace = open(&whole).unwrap();
    let segments = trace.manifest().unwrap().segments.clone();
    assert!(segments.len() > 3, "{segments:?}");
    let verify = |storage: &MemStorage, steps| {
        let storage: Arc<dyn Storage> = Arc::new(storage.clone());
        verify_steps(&storage, steps, &mut |_, _| {})
    };
    for (at, segment) in segments.iter().enumerate() {
        let steps = segment.first_step..segment.end_step.max(segment.first_step + 1);
        let (part, _) = recorded(&plan);
        for other in segments.iter().filter(|other| other.file != segment.file) {
            part.remove(&other.file).unwrap();
        }
        part.replace(MANIFEST, &whole.map(MANIFEST).unwrap())
            .unwrap();
        part.replace(&segment.file, &whole.map(&segment.file).unwrap())
            .unwrap();
        let report = verify(&part, steps.clone()).unwrap();
        assert!(report.findings.is_empty(), "{at}: {report:#?}");
        assert_eq!((report.segments, report.steps), (1, segment.steps));
        let mut bytes = whole.map(&segment.file).unwrap().to_vec();
        for byte in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            bytes[byte] ^= 1;
            part.replace(&segment.file, &bytes).unwrap();
            assert!(!verify(&part, steps.clone()).unwrap().is_ok(), "{at}");
            bytes[byte] ^= 1;
        }
        // Another segment isn't there.
        part.replace(&segment.file, &bytes).unwrap();
        let other = &segments[(at + 1) % segments.len()];
        let elsewhere = other.first_step..other.first_step + 1;
        assert!(!verify(&part, elsewhere).unwrap().is_ok(), "{at}");
    }
    let report = verify(&whole, 0..u64::MAX).unwrap();
    assert_eq!(report.segments as usize, segments.len());
    let error = verify(&whole, 99..100).unwrap_err();
    assert!(
        error.to_string().contains("holds the steps 0..40"),
        "{error}"
    );
}
