//! Frozen variables: recorded once by their digests, and refused when they change.

use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::{AdamW as CandleAdamW, Optimizer, SGD};
use hindcast_format::{FrozenTensor, MemStorage, Trace};
use hindcast_recorder::{Builder, Recorded, Recorder, RowType, UpdateRule};

use crate::common::*;

fn frozen_b(builder: Builder) -> Builder {
    builder.frozen(|name| name == "b")
}

fn head(net: &Linear) -> SGD {
    SGD::new(vec![net.w.clone()], RATE).unwrap()
}

fn steps<O: Optimizer + 'static>(
    run: &Recorder,
    optimizer: &mut Recorded<O>,
    net: &Linear,
    range: std::ops::Range<u64>,
) -> Result<(), hindcast_recorder::RecorderError> {
    for step in range {
        run.batch(0, &indices(step))?;
        optimizer.backward_step(&net.loss(&indices(step)).unwrap())?;
    }
    Ok(())
}

fn digests(trace: &Trace) -> Vec<FrozenTensor> {
    FrozenTensor::of_notes(&trace.info().notes)
}

#[test]
fn frozen_variables_are_recorded_by_their_digests_alone() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let base = (net.w.as_tensor() * 3.0).unwrap();
    let run = frozen_b(builder)
        .frozen_tensors([("base", &base)])
        .unwrap()
        .frozen_bytes("table", RowType::U32, &[1], &[1, 0, 0, 0])
        .create(&net.map)
        .unwrap();
    let mut sgd = run.wrap(head(&net));
    steps(&run, &mut sgd, &net, 0..6).unwrap();
    let summary = run.finish().unwrap();
    assert!(summary.statistics.not_updated.is_empty(), "{summary}");
    let trace = open(&storage);
    let names: Vec<_> = trace
        .layout()
        .tensors()
        .iter()
        .map(|t| t.name.clone())
        .collect();
    assert_eq!(names, ["w"]);
    let expected = [
        FrozenTensor::of("b", RowType::F32, [1], &tensor_bytes(&net.b)),
        FrozenTensor::of("base", RowType::F32, [3, 1], &tensor_bytes(&base)),
        FrozenTensor::of("table", RowType::U32, [1], &[1, 0, 0, 0]),
    ];
    assert_eq!(digests(&trace), expected);
    assert!(trace.verify().unwrap().is_ok());
}

#[test]
fn a_frozen_variable_that_is_trained_is_refused() {
    // candle's SGD tells that it holds the variable.
    let (_, builder) = in_memory();
    let net = Linear::new();
    let run = frozen_b(builder).create(&net.map).unwrap();
    let mut sgd = run.wrap(SGD::new(vec![net.w.clone(), net.b.clone()], RATE).unwrap());
    let why = steps(&run, &mut sgd, &net, 0..1).unwrap_err().to_string();
    assert!(why.contains("holds \"b\", which is frozen"), "{why}");
    // candle's AdamW doesn't tell; its first step shows it.
    let (_, builder) = in_memory();
    let net = Linear::new();
    let run = frozen_b(builder).create(&net.map).unwrap();
    let vars = vec![net.w.clone(), net.b.clone()];
    let mut adamw = run.wrap(CandleAdamW::new_lr(vars, 0.1).unwrap());
    let why = steps(&run, &mut adamw, &net, 0..2).unwrap_err().to_string();
    assert!(why.contains("frozen variable \"b\" has changed"), "{why}");
    // A change in between shows at the end.
    let (_, builder) = in_memory();
    let net = Linear::new();
    let run = frozen_b(builder).create(&net.map).unwrap();
    let mut sgd = run.wrap(head(&net));
    steps(&run, &mut sgd, &net, 0..4).unwrap();
    net.b.set(&Tensor::ones_like(&net.b).unwrap()).unwrap();
    let why = run.finish().unwrap_err().to_string();
    assert!(why.contains("frozen variable \"b\" has changed"), "{why}");
}

#[test]
fn a_resumed_run_needs_the_same_frozen_values() {
    let start = |storage: &Arc<MemStorage>, choose: fn(Builder) -> Builder, net: &Linear| {
        let builder = choose(on(storage).rule(UpdateRule::sgd()).segment_steps(4));
        builder.create_or_resume(&net.map)
    };
    let (storage, _) = in_memory();
    let net = Linear::new();
    let (run, _) = start(&storage, frozen_b, &net).unwrap();
    steps(&run, &mut run.wrap(head(&net)), &net, 0..6).unwrap();
    drop(run);
    let net = Linear::new();
    let why = start(
        &storage,
        |builder| builder.exclude(|name| name == "b"),
        &net,
    );
    let why = why.err().unwrap().to_string();
    assert!(
        why.contains("\"b\", which the builder doesn't name"),
        "{why}"
    );
    net.b.set(&Tensor::ones_like(&net.b).unwrap()).unwrap();
    let why = start(&storage, frozen_b, &net).err().unwrap().to_string();
    assert!(why.contains("frozen tensor \"b\" differs"), "{why}");
    let net = Linear::new();
    let more = |builder: Builder| frozen_b(builder).frozen_bytes("new", RowType::U8, &[1], &[7]);
    let why = start(&storage, more, &net).err().unwrap().to_string();
    assert!(
        why.contains("\"new\", with which the run was not started"),
        "{why}"
    );
    let (run, at) = start(&storage, frozen_b, &net).unwrap();
    assert_eq!(at.step, 5);
    steps(&run, &mut run.wrap(head(&net)), &net, 5..9).unwrap();
    run.finish().unwrap();
    assert_eq!(open(&storage).span(), 0..9);
}

#[test]
fn each_mistake_in_frozen_tensors_and_notes_is_refused_before_the_run_exists() {
    let net = Linear::new();
    let refused = |choose: &dyn Fn(Builder) -> Builder| {
        let (storage, builder) = in_memory();
        let error = choose(builder).create(&net.map).err().unwrap();
        assert_eq!(storage.files().len(), 0);
        error.to_string()
    };
    // Bytes of another type, or a row too few.
    for (bytes, shape) in [(24, vec![3]), (8, vec![3]), (0, vec![usize::MAX, 2])] {
        let bytes = vec![0; bytes];
        let why = refused(&|b| b.frozen_bytes("t", RowType::F32, &shape, &bytes));
        assert!(
            why.contains("the frozen tensor \"t\" is f32 of shape"),
            "{why}"
        );
        assert!(
            why.contains(&format!("but {} were given", bytes.len())),
            "{why}"
        );
    }
    let twice = refused(&|b| {
        let w = net.w.as_tensor();
        let b = b.frozen_tensors([("b", w)]).unwrap();
        frozen_b(b)
    });
    assert!(twice.contains("\"b\" is given twice"), "{twice}");
    for key in ["frozen.layers", "held-out.validation"] {
        let why = refused(&|b| b.note(key, "3"));
        assert!(why.contains(&format!("the note {key:?}")), "{why}");
    }
}
