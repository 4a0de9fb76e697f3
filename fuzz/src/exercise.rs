//! Reads a run in every possible way. Whatever the bytes are, there is no panic and no endless loop, iterators stay
//! failed, and the ways agree with one another.

use std::sync::Arc;

use hindcast_format::{FormatError, MemStorage, RowSplit, Steps, Storage, Trace, verify_storage};

use crate::golden::Files;

/// A step and the digest of its state.
type Seen = Vec<(u64, [u8; 32])>;

pub fn exercise(files: &Files) {
    let storage = MemStorage::from_files(files.clone());
    storage.give_keys(crate::golden::keys());
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let report = verify_storage(&storage);
    let Ok(trace) = Trace::open_storage(Arc::clone(&storage)) else {
        assert!(!report.is_ok_and(|report| report.is_ok()));
        return;
    };
    let bytes: usize = files.values().map(Vec::len).sum();
    let (ranges, epochs) = (trace.ranges(), trace.epochs());
    let _ = (
        epochs,
        trace.final_state(),
        trace.sizes(),
        trace.covers(0..9),
    );
    let index = (trace.has_rows(), trace.row_index(0..u64::MAX));
    let rows = trace.rows(&RowSplit::ALL);
    if let Ok(rows) = &rows {
        // Every row has the bytes of its digest.
        for group in RowSplit::ALL
            .iter()
            .flat_map(|split| rows.split(*split).groups())
        {
            let each = group.bytes.chunks_exact(group.layout.bytes());
            for (row, digest) in each.zip(&group.digests) {
                assert_eq!(group.layout.digest(row), *digest);
            }
        }
    }
    let forward = walk(trace.forward(0..u64::MAX));
    let backward = walk(trace.reverse(0..u64::MAX));
    let tolerant = walk(trace.reverse(0..u64::MAX).tolerant());
    // A frame has at least 76 bytes, which limits the number of steps.
    for (seen, _) in [&forward, &backward, &tolerant] {
        assert!(seen.len() <= bytes / 76, "{} steps", seen.len());
    }
    // Both directions give the same states, unless one reports damage.
    if let ((there, true), (mut back, true)) = (forward, backward.clone()) {
        back.reverse();
        assert_eq!(there, back);
        // Random access gives the same states.
        for (step, digest) in there.iter().take(3).chain(there.iter().rev().take(1)) {
            if let Ok((state, _)) = trace.state(*step) {
                assert_eq!(state.digest(), *digest, "step {step}");
            }
        }
    }
    for step in [0, 3, 7, u64::MAX] {
        let _ = (trace.read(step), trace.meta(step), trace.gap_digest(step));
    }
    let metas = trace.metas(0..u64::MAX).count();
    assert!(metas <= bytes / 76 + 1, "{metas} steps of metadata");
    let Ok(report) = report else { return };
    if report.is_ok() {
        // A run in which verification found nothing can be read completely.
        assert!(ranges.is_ok() && backward.1, "{report:?}");
        assert_eq!(backward.0.len() as u64, report.steps_ok, "{report:?}");
        // So can all its rows.
        assert!(index.0.is_ok() && index.1.is_ok(), "{index:?} {report:?}");
        let rows = rows.expect("the rows of a sound run");
        assert!(rows.damage().is_empty(), "{:?} {report:?}", rows.damage());
    }
}

/// Walks to the end or to the first error. Returns the steps, and whether the end was reached.
fn walk(mut steps: Steps<'_>) -> (Seen, bool) {
    let mut seen = Seen::new();
    loop {
        match steps.next() {
            Ok(Some(step)) => seen.push((step.meta.step, step.state.digest())),
            Ok(None) => {
                assert!(matches!(steps.next(), Ok(None)), "an end after the end");
                return (seen, true);
            }
            Err(_) => {
                for _ in 0..2 {
                    assert!(matches!(steps.next(), Err(FormatError::Failed { .. })));
                }
                return (seen, false);
            }
        }
    }
}
