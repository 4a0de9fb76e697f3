//! Batches that are announced by their tensors: their rows identify the examples, and the run stores them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use hindcast_format::{HELD_OUT, MemStorage, RowSplit, Status, Trace};
use hindcast_recorder::{Keep, OnError, Recorder, RecorderError, RowBatch, StoreRows, WhenFull};

use crate::common::*;

/// Rows of the loader, by their number: three inputs and a label.
fn batch(rows: &[u64]) -> (Tensor, Tensor) {
    let x: Vec<f32> = rows
        .iter()
        .flat_map(|row| (0..3).map(move |i| (row * 10 + i) as f32))
        .collect();
    let y: Vec<u32> = rows.iter().map(|row| (row % 4) as u32).collect();
    let cpu = &Device::Cpu;
    (
        Tensor::from_vec(x, (rows.len(), 3), cpu).unwrap(),
        Tensor::from_vec(y, rows.len(), cpu).unwrap(),
    )
}

/// The bytes of a row, written by hand.
fn row_bytes(row: u64) -> Vec<u8> {
    let x = (0..3).flat_map(|i| ((row * 10 + i) as f32).to_le_bytes());
    x.chain(((row % 4) as u32).to_le_bytes()).collect()
}

/// The rows that a step uses. They don't come in the order of their numbers, and some of them only in some epochs.
fn rows_of(step: u64) -> Vec<u64> {
    (0..BATCH).map(|i| (step * 5 + i * 3) % 17 + 100).collect()
}

/// Takes steps whose batches are announced by their tensors.
fn steps(run: &Recorder, net: &Linear, range: std::ops::Range<u64>) -> Result<(), RecorderError> {
    let mut sgd = sgd(run, net);
    for step in range {
        let (x, y) = batch(&rows_of(step));
        run.batch_of(step / 6, &[&x, &y])?;
        sgd.backward_step(&net.loss(&indices(step)).unwrap())?;
    }
    Ok(())
}

/// The rows that each step of a trace uses, from what the trace stores.
fn used(trace: &Trace) -> Vec<Vec<Vec<u8>>> {
    let rows = trace.rows(&[RowSplit::Train]).unwrap();
    assert!(rows.damage().is_empty());
    let train = rows.split(RowSplit::Train);
    let content = |index: &u64| {
        let (group, at) = train.place(*index).expect("the row is stored");
        let group = &train.groups()[group];
        assert_eq!(group.indices[at], *index);
        let length = group.layout.bytes();
        group.bytes[at * length..(at + 1) * length].to_vec()
    };
    let metas = trace.metas(0..u64::MAX).map(Result::unwrap);
    metas
        .map(|meta| meta.indices.iter().map(content).collect())
        .collect()
}

fn expected(range: std::ops::Range<u64>) -> Vec<Vec<Vec<u8>>> {
    let of = |step| rows_of(step).into_iter().map(row_bytes).collect();
    range.map(of).collect()
}

fn indices_of(trace: &Trace) -> Vec<Vec<u64>> {
    let metas = trace.metas(0..u64::MAX).map(Result::unwrap);
    metas.map(|meta| meta.indices).collect()
}

fn whole(storage: &Arc<MemStorage>) -> Trace {
    let trace = open(storage);
    let report = trace.verify().unwrap();
    let rows = |f: &&hindcast_format::Finding| f.kind == hindcast_format::FindingKind::Rows;
    assert!(report.is_ok(), "{:?}", report.findings);
    assert_eq!(report.findings.iter().find(rows), None);
    trace
}

#[test]
fn every_distinct_row_is_stored_once_and_numbered_by_its_first_appearance() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.segment_steps(4).create(&net.map).unwrap();
    steps(&run, &net, 0..20).unwrap();
    let summary = run.finish().unwrap();
    let (rows, bytes) = (summary.statistics.rows, summary.statistics.row_bytes);
    assert_eq!(
        (rows, bytes, summary.statistics.row_uses),
        (17, 17 * 16, 80)
    );
    assert!(
        summary.to_string().contains("17 distinct rows"),
        "{summary}"
    );
    let trace = whole(&storage);
    assert_eq!(used(&trace), expected(0..20));
    // The order of first appearance, found here.
    let mut seen = Vec::new();
    for (step, indices) in (0..20).zip(indices_of(&trace)) {
        for (row, index) in rows_of(step).into_iter().zip(indices) {
            let at = seen.iter().position(|other| *other == row);
            let at = at.unwrap_or_else(|| {
                seen.push(row);
                seen.len() - 1
            });
            assert_eq!(index, at as u64);
        }
    }
    // One digest, hashed here: the layout as in docs/format.md, then the row.
    let mut bytes = Vec::new();
    for word in [2u32, 3, 1] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(3u64.to_le_bytes());
    for word in [1u32, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(row_bytes(seen[0]));
    let rows = trace.rows(&[RowSplit::Train]).unwrap();
    let digest = rows.split(RowSplit::Train).groups()[0].digests[0];
    assert_eq!(digest, *blake3::hash(&bytes).as_bytes());
}

#[test]
fn a_resumed_run_has_the_same_indices_and_rows() {
    let run_whole = {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.create(&net.map).unwrap();
        steps(&run, &net, 0..20).unwrap();
        run.finish().unwrap();
        indices_of(&open(&storage))
    };
    for at in [0, 1, 3, 4, 7, 10] {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.segment_steps(4).create(&net.map).unwrap();
        steps(&run, &net, 0..11).unwrap();
        drop(run);
        let net = Linear::new();
        let (run, _) = on(&storage)
            .segment_steps(4)
            .restore_variables()
            .resume(&net.map, at)
            .unwrap();
        steps(&run, &net, at..20).unwrap();
        run.finish().unwrap();
        let trace = whole(&storage);
        assert_eq!(indices_of(&trace), run_whole, "resumed at {at}");
        assert_eq!(used(&trace), expected(0..20), "resumed at {at}");
    }
}

#[test]
fn a_ring_keeps_the_rows_of_its_steps_and_held_out_rows() {
    for (keep, resumed) in [
        (Keep::LastEpoch, None),
        (Keep::LastSteps(8), None),
        (Keep::LastEpoch, Some(18)),
        (Keep::LastSteps(8), Some(20)),
    ] {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let (x, y) = batch(&[1, 2, 3]);
        let run = builder
            .keep(keep)
            .segment_steps(4)
            .create(&net.map)
            .unwrap();
        run.validation_of(&[&x, &y]).unwrap();
        // A run without its final state resumes at its last step.
        steps(&run, &net, 0..resumed.map_or(30, |at| at + 1)).unwrap();
        let run = match resumed {
            None => run,
            Some(at) => {
                drop(run);
                let (run, _) = on(&storage)
                    .segment_steps(4)
                    .restore_variables()
                    .resume(&net.map, at)
                    .unwrap();
                steps(&run, &net, at..30).unwrap();
                run
            }
        };
        run.finish().unwrap();
        let trace = whole(&storage);
        let span = trace.span();
        assert!(span.start > 0, "{keep}: steps were dropped");
        assert_eq!(
            used(&trace),
            expected(span),
            "{keep}, resumed at {resumed:?}"
        );
        let rows = trace.rows(&[RowSplit::Validation]).unwrap();
        let [group] = rows.split(RowSplit::Validation).groups() else {
            panic!("one group of validation rows");
        };
        let by_hand: Vec<u8> = [1, 2, 3].into_iter().flat_map(row_bytes).collect();
        assert_eq!(
            (&group.bytes, &group.indices[..]),
            (&by_hand, &[0, 1, 2][..])
        );
    }
}

#[test]
fn rows_that_only_lost_steps_stored_are_stored_again() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder
        .on_error(OnError::TrainOn)
        .segment_steps(4)
        .create(&net.map)
        .unwrap();
    let (x, y) = batch(&[1, 2, 3]);
    run.validation_of(&[&x, &y]).unwrap();
    steps(&run, &net, 0..3).unwrap();
    run.flush().unwrap();
    storage.fail_nth(storage.calls(), true, std::io::ErrorKind::StorageFull);
    for step in 3..7 {
        // Each step is lost before the next.
        steps(&run, &net, step..step + 1).unwrap();
        let _ = run.flush();
    }
    storage.fail_nth(u64::MAX, false, std::io::ErrorKind::Other);
    // A second after the failure, storage is tried again.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    steps(&run, &net, 7..9).unwrap();
    let _ = run.flush();
    steps(&run, &net, 9..20).unwrap();
    let summary = run.finish().unwrap();
    assert!(summary.statistics.lost > 0, "{summary}");
    assert_eq!(summary.statistics.held_out_lost, 0, "{summary}");
    let trace = whole(&storage);
    assert_eq!(held_out(&trace), [1, 2, 3].map(row_bytes).concat());
    let kept: Vec<u64> = trace
        .metas(0..u64::MAX)
        .map(|meta| meta.unwrap().step)
        .collect();
    let rows = kept.iter().flat_map(|&step| expected(step..step + 1));
    assert_eq!(used(&trace), rows.collect::<Vec<_>>());
}

#[test]
fn micro_batches_of_other_shapes_are_rows_of_their_own_layout() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    let long = Tensor::arange(0u32, 10, &Device::Cpu)
        .unwrap()
        .reshape((2, 5))
        .unwrap();
    let short = Tensor::arange(0u32, 9, &Device::Cpu)
        .unwrap()
        .reshape((3, 3))
        .unwrap();
    let weights = [0.25; 5];
    let two = RowBatch::new(0, &[&long])
        .and(&[&short])
        .clip_norm(2.0)
        .weights(&weights);
    assert_eq!(run.batch_of_with(&two).unwrap(), [0, 1, 2, 3, 4]);
    sgd.backward_step(&net.loss(&indices(0)).unwrap()).unwrap();
    run.finish().unwrap();
    let trace = whole(&storage);
    let meta = trace.meta(0).unwrap();
    assert_eq!(
        (meta.micro_batches, meta.clip_norm),
        (vec![2, 3], Some(2.0))
    );
    let rows = trace.rows(&[RowSplit::Train]).unwrap();
    let shapes = rows.split(RowSplit::Train).groups().iter();
    let shapes: Vec<_> = shapes
        .map(|g| g.layout.tensors()[0].shape.clone())
        .collect();
    assert_eq!(shapes, [vec![5], vec![3]]);
    assert!(
        meta.extensions.is_empty(),
        "readers of steps don't get the rows"
    );
}

#[test]
fn each_mistake_has_its_message_and_records_nothing() {
    let net = Linear::new();
    let (x, y) = batch(&[1, 2]);
    let refused =
        |run: &Recorder, tensors: &[&Tensor]| run.batch_of(0, tensors).unwrap_err().to_string();
    let (_, builder) = in_memory();
    let run = builder
        .store_rows(StoreRows::Within(40))
        .create(&net.map)
        .unwrap();
    let mut wrapped = sgd(&run, &net);
    assert!(refused(&run, &[&x, &y.narrow(0, 0, 1).unwrap()]).contains("first axes"));
    assert_eq!(run.batch_of(0, &[&x, &y]).unwrap(), [0, 1]);
    let again = refused(&run, &[&x, &y]);
    assert!(again.contains("already has a batch of 2"), "{again}");
    wrapped
        .backward_step(&net.loss(&indices(0)).unwrap())
        .unwrap();
    let mixed = run.batch(0, &[3]).unwrap_err().to_string();
    assert!(mixed.contains("numbers its examples in one way"), "{mixed}");
    let (x, y) = batch(&[3, 4]);
    let many = refused(&run, &[&x, &y]);
    assert!(many.contains("more than the limit of 40 B"), "{many}");
    assert!(many.contains("Data that never repeats"), "{many}");
    // A skipped batch gives its indices back.
    let (x, y) = batch(&[3]);
    let two = batch(&[1]);
    assert_eq!(run.batch_of(0, &[&two.0, &two.1]).unwrap(), [0]);
    run.skip_batch();
    assert!(refused(&run, &[&x, &y]).contains("3 distinct rows"));
    // After indices, no rows.
    let (_, builder) = in_memory();
    let run = builder.create(&net.map).unwrap();
    run.batch(0, &[0]).unwrap();
    sgd(&run, &net)
        .backward_step(&net.loss(&[0]).unwrap())
        .unwrap();
    assert!(refused(&run, &[&x, &y]).contains("in one way"));
    // A fingerprint numbers the examples already.
    let (_, builder) = in_memory();
    let splits = [("train".to_owned(), 12, [7; 32])];
    let run = builder.fingerprint(splits).create(&net.map).unwrap();
    assert!(refused(&run, &[&x, &y]).contains("leave out Builder::fingerprint"));
    let odd = x.to_dtype(DType::F64).unwrap();
    let (_, builder) = in_memory();
    let run = builder
        .store_rows(StoreRows::Never)
        .create(&net.map)
        .unwrap();
    assert!(
        run.validation_of(&[&odd])
            .unwrap_err()
            .to_string()
            .contains("StoreRows::Never")
    );
}

#[test]
fn digests_alone_say_which_rows_a_step_used() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder
        .store_rows(StoreRows::Never)
        .create(&net.map)
        .unwrap();
    steps(&run, &net, 0..8).unwrap();
    run.finish().unwrap();
    let trace = open(&storage);
    let report = trace.verify().unwrap();
    assert!(report.is_ok());
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.text.contains("only their digests"))
    );
    let index = trace.row_index(0..u64::MAX).unwrap();
    assert_eq!((index.by_rows, index.stored.len()), (Some(true), 0));
    assert_eq!(index.indices.len() as u64, index.next);
}

/// Held-out rows are stored with a batch that is given by rows. A run by indices would lose them.
#[test]
fn held_out_rows_of_a_run_by_indices_are_refused() {
    let net = Linear::new();
    let run = in_memory().1.create(&net.map).unwrap();
    let (x, y) = batch(&[1, 2]);
    run.validation_of(&[&x, &y]).unwrap();
    let refused = run.batch(0, &[3]).unwrap_err().to_string();
    assert!(
        refused.contains("announce the batches with batch_of, or leave validation_of out"),
        "{refused}"
    );

    let run = in_memory().1.create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    run.batch(0, &indices(0)).unwrap();
    sgd.backward_step(&net.loss(&indices(0)).unwrap()).unwrap();
    let refused = run.test_of(&[&x, &y]).unwrap_err().to_string();
    assert!(refused.contains("the earlier ones by indices"), "{refused}");
}

/// The bytes of the validation rows that a trace stores.
fn held_out(trace: &Trace) -> Vec<u8> {
    let rows = trace.rows(&[RowSplit::Validation]).unwrap();
    let groups = rows.split(RowSplit::Validation).groups().iter();
    groups.flat_map(|group| group.bytes.clone()).collect()
}

/// Rows that come after the last step have no place in the trace. The final state can't be made again, so the run is
/// completed, and the error says what it lacks.
#[test]
fn held_out_rows_that_no_step_follows_are_an_error_of_a_complete_run() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    steps(&run, &net, 0..5).unwrap();
    let (x, y) = batch(&[1, 2, 3]);
    run.validation_of(&[&x, &y]).unwrap();
    let error = run.finish().unwrap_err();
    let text = error.to_string();
    let RecorderError::HeldOut {
        split, rows, head, ..
    } = error
    else {
        panic!("{text}");
    };
    assert_eq!((split, rows), ("validation", 3));
    assert!(
        text.contains("call validation_of before the first batch_of"),
        "{text}"
    );
    let trace = whole(&storage);
    assert_eq!((trace.status(), trace.span()), (Status::Finished, 0..5));
    assert_eq!(trace.head_digest(), head);
    assert!(trace.final_state().unwrap().is_some());

    // A run that is resumed at its end, where nothing else is to be done.
    for (before, refused) in [(false, true), (true, false)] {
        for keep in [Keep::All, Keep::LastEpoch] {
            let (storage, builder) = in_memory();
            let net = Linear::new();
            let run = builder.keep(keep).create(&net.map).unwrap();
            if before {
                run.test_of(&[&x, &y]).unwrap();
            }
            steps(&run, &net, 0..5).unwrap();
            run.flush().unwrap();
            drop(run);
            let (run, _) = on(&storage).resume(&net.map, 5).unwrap();
            run.test_of(&[&x, &y]).unwrap();
            let finished = run.finish();
            match finished {
                Err(error) => assert!(
                    refused && error.to_string().contains("3 test rows"),
                    "{error}"
                ),
                Ok(_) => assert!(!refused, "{keep}"),
            }
            let trace = whole(&storage);
            assert_eq!(trace.status(), Status::Finished);
            let rows = trace.rows(&[RowSplit::Test]).unwrap();
            assert_eq!(rows.split(RowSplit::Test).len(), if before { 3 } else { 0 });
        }
    }
}

#[test]
fn the_summary_says_that_lost_steps_took_held_out_rows_with_them() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.on_error(OnError::TrainOn).create(&net.map).unwrap();
    let (x, y) = batch(&[1, 2, 3]);
    run.validation_of(&[&x, &y]).unwrap();
    storage.fail_nth(storage.calls(), true, std::io::ErrorKind::StorageFull);
    steps(&run, &net, 0..3).unwrap();
    let summary = run.finish().unwrap();
    assert_eq!(summary.statistics.held_out_lost, 3, "{summary}");
    assert!(
        summary
            .to_string()
            .contains("3 validation or test rows lost"),
        "{summary}"
    );
}

/// The number of rows is in the description, too, where it outlives the step that stores them.
#[test]
fn the_description_has_the_number_of_held_out_rows() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let (x, y) = batch(&[1, 2, 3]);
    run.test_of(&[&x, &y]).unwrap();
    steps(&run, &net, 0..2).unwrap();
    run.finish().unwrap();
    let trace = whole(&storage);
    let notes = HELD_OUT.map(|key| trace.info().notes.get(key).cloned());
    assert_eq!(notes, [None, Some("3".to_owned())]);
}

/// Rows that never repeat: a run that drops its old segments goes on, and every other ends at its limit.
#[test]
fn a_stream_of_rows_is_limited_by_segment_where_segments_are_dropped() {
    let stream = |keep: Keep| {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder
            .keep(keep)
            .segment_steps(4)
            .store_rows(StoreRows::Within(3 * 4 * 16))
            .create(&net.map)
            .unwrap();
        let mut sgd = sgd(&run, &net);
        for step in 0..30 {
            let rows: Vec<u64> = (0..BATCH).map(|i| step * BATCH + i).collect();
            let (x, y) = batch(&rows);
            run.batch_of(0, &[&x, &y])?;
            sgd.backward_step(&net.loss(&indices(step)).unwrap())?;
        }
        run.finish().map(|_| whole(&storage))
    };
    let trace = stream(Keep::LastSteps(8)).unwrap();
    assert!(trace.span().start > 0 && trace.span().end == 30);
    let of = |step: u64| (0..BATCH).map(|i| row_bytes(step * BATCH + i)).collect();
    assert_eq!(used(&trace), trace.span().map(of).collect::<Vec<Vec<_>>>());
    // Three steps fill a segment, although it may have four.
    assert!(
        trace
            .sizes()
            .iter()
            .all(|size| size.steps.end - size.steps.start <= 3),
        "{:?}",
        trace.sizes()
    );
    let text = stream(Keep::All).err().unwrap().to_string();
    assert!(
        text.contains("step 3") && text.contains("more than the limit of 192 B"),
        "{text}"
    );
}

/// The default limit of the queue has room for four steps with their rows, however large these are.
#[test]
fn large_batches_do_not_fill_the_queue_at_once() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.when_full(WhenFull::Stop).create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    // Nothing is written while the steps are taken.
    storage.slow_down(std::time::Duration::from_secs(2));
    for step in 0..4u8 {
        let row = Tensor::full(step, (1, 24 << 20), &Device::Cpu).unwrap();
        run.batch_of(0, &[&row]).unwrap();
        sgd.backward_step(&net.loss(&[0]).unwrap()).unwrap();
    }
    storage.slow_down(std::time::Duration::ZERO);
    let summary = run.finish().unwrap();
    assert_eq!(summary.statistics.rows, 4);
    assert!(
        summary.statistics.queue_peak_bytes > 72 << 20,
        "{summary:?}"
    );
}
