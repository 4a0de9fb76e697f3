//! Tensors of every type and shape are recorded bit for bit.

use candle_core::{DType, Device, Tensor, Var};
use hindcast_recorder::{BatchInfo, Named, StepInfo};

use crate::common::*;

#[test]
fn every_float_type_is_recorded_bit_for_bit() {
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
        let (storage, builder) = in_memory();
        let net = Linear::of(dtype);
        let run = builder.segment_steps(4).create(&net.map).unwrap();
        let seen = train(&run, &mut sgd(&run, &net), &net, 0..9, 3).unwrap();
        run.finish().unwrap();
        assert_eq!(
            states(&open(&storage)),
            (0..).zip(seen).collect::<Vec<_>>(),
            "{dtype:?}"
        );
    }
}

#[test]
fn types_may_be_mixed_and_tensors_scalar_or_empty() {
    let (storage, builder) = in_memory();
    let cpu = &Device::Cpu;
    let scalar = Var::from_tensor(&Tensor::new(2.5f64, cpu).unwrap()).unwrap();
    let empty = Var::zeros((0, 3), DType::F32, cpu).unwrap();
    let half = Var::ones((2, 1, 2), DType::BF16, cpu).unwrap();
    let named = vec![
        Named::parameter("scalar", &scalar),
        Named::parameter("empty", &empty),
        Named::buffer("half", &half),
    ];
    let run = builder.create_from(named).unwrap();
    for step in 0..3u32 {
        scalar
            .set(&Tensor::new(f64::from(step), cpu).unwrap())
            .unwrap();
        run.step(&StepInfo::new(BatchInfo::new(0, &[0]), 0.1))
            .unwrap();
    }
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(trace.layout().frame_bytes(), 16);
    let half = tensor_bytes(&half);
    for (step, bytes) in states(&trace) {
        assert_eq!(
            bytes,
            [(step as f64).to_le_bytes().to_vec(), half.clone()].concat()
        );
    }
}

#[test]
fn a_state_that_is_a_view_with_strides_is_laid_out_row_major() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let whole = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu).unwrap();
    let view = || Ok(vec![("view".to_owned(), whole.t()?)]);
    let run = builder.optimizer_state(&view).create(&net.map).unwrap();
    run.step(&StepInfo::new(BatchInfo::new(0, &[0]), 0.1).optimizer(&view))
        .unwrap();
    run.finish_with(&view).unwrap();
    let expected: Vec<u8> = [1f32, 4., 2., 5., 3., 6.]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(
        open(&storage).read(0).unwrap().key.unwrap().optimizer(),
        expected
    );
}

#[test]
fn values_that_are_not_finite_are_recorded_and_reported() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut seen = Vec::new();
    for step in 0..6u32 {
        if step >= 2 {
            let payload = f32::from_bits(0x7fc0_1000 + step);
            net.b
                .set(&Tensor::new(&[payload], &Device::Cpu).unwrap())
                .unwrap();
        }
        seen.push(net.bytes());
        run.step(&StepInfo::new(BatchInfo::new(0, &[0]), 0.1))
            .unwrap();
    }
    run.flush().unwrap();
    let statistics = run.statistics();
    let first = statistics.non_finite.unwrap();
    assert_eq!(
        (
            first.step,
            first.tensor.as_str(),
            statistics.non_finite_steps
        ),
        (2, "b", 4)
    );
    // The final state isn't a step.
    let summary = run.finish().unwrap();
    assert_eq!(summary.statistics.non_finite_steps, 4);
    assert_eq!(states(&open(&storage)), (0..).zip(seen).collect::<Vec<_>>());
}

/// The loss is the first value that stops being finite. The parameters of that step are still finite.
#[test]
fn a_loss_that_is_not_finite_is_recorded_and_reported() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    for loss in [0.5, 0.25, f64::NAN, f64::INFINITY, 1.0] {
        run.step(&StepInfo::new(BatchInfo::new(0, &[0]), 0.1).loss(loss))
            .unwrap();
    }
    run.flush().unwrap();
    let statistics = run.statistics();
    let first = statistics.non_finite.clone().unwrap();
    assert_eq!(
        (
            first.step,
            first.tensor.as_str(),
            statistics.non_finite_steps
        ),
        (2, "loss", 2)
    );
    assert!(
        statistics
            .to_string()
            .contains("(first \"loss\" at step 2)"),
        "{statistics}"
    );
    run.finish().unwrap();
    let trace = open(&storage);
    assert!(trace.meta(2).unwrap().loss.unwrap().is_nan());
    assert_eq!(trace.meta(3).unwrap().loss, Some(f64::INFINITY));
}

#[test]
fn any_number_of_encoders_writes_the_same_trace() {
    let record = |encoders| {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder
            .encoders(encoders)
            .segment_steps(7)
            .create(&net.map)
            .unwrap();
        train(&run, &mut sgd(&run, &net), &net, 0..60, 9).unwrap();
        run.finish().unwrap();
        let trace = open(&storage);
        assert!(trace.verify().unwrap().findings.is_empty());
        let metas: Vec<_> = (0..60).map(|step| trace.read(step).unwrap().meta).collect();
        let sizes: Vec<_> = storage
            .files()
            .into_iter()
            .map(|(name, bytes)| (name, bytes.len()))
            .collect();
        (states(&trace), metas, sizes)
    };
    let one = record(1);
    for encoders in [2, 5] {
        assert!(record(encoders) == one, "{encoders} encoders");
    }
    let (_, builder) = in_memory();
    let error = builder
        .encoders(0)
        .create(&Linear::new().map)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expected 1 to 64 encoders, got 0"),
        "{error}"
    );
}
