//! Runs recorded from bytes, without candle's types, against runs of the same numbers recorded from candle's variables.

use std::sync::Arc;

use candle_core::{DType as Type, Device, Tensor, Var};
use hindcast_format::{MemStorage, RowSplit, Status, Trace};
use hindcast_recorder::{
    BatchInfo, Builder, DType, Keep, Named, RowSlice, RowType, Slice, SliceRecorder, SliceStep,
    StepInfo, UpdateRule,
};

use crate::common::*;

/// A model of two parameters in two groups, a buffer and a momentum, whose values follow from the step alone.
struct Values {
    weight: Var,
    bias: Var,
    mean: Var,
    momentum: [Var; 2],
}

const NAMES: [&str; 2] = ["bias", "weight"];

impl Values {
    fn at(step: u64) -> Self {
        let values = |n: usize, salt: f64| -> Vec<f64> {
            (0..n)
                .map(|i| ((step * 31 + i as u64 * 7) as f64 * 0.37 + salt).sin())
                .collect()
        };
        let var = |n, shape: &[usize], salt, dtype| {
            let tensor = Tensor::from_vec(values(n, salt), shape, &Device::Cpu).unwrap();
            Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap()
        };
        Self {
            weight: var(6, &[2, 3], 1.0, Type::F32),
            bias: var(3, &[3], 2.0, Type::BF16),
            mean: var(2, &[2], 3.0, Type::F64),
            momentum: [
                var(3, &[3], 4.0, Type::BF16),
                var(6, &[2, 3], 5.0, Type::F32),
            ],
        }
    }

    fn set(&self, to: &Values) {
        let pairs = self.all().into_iter().zip(to.all());
        pairs.for_each(|(here, there)| here.set(there.as_tensor()).unwrap());
    }

    fn all(&self) -> [&Var; 5] {
        let [first, second] = &self.momentum;
        [&self.bias, &self.weight, &self.mean, first, second]
    }

    fn named(&self) -> Vec<Named> {
        vec![
            Named::parameter("weight", &self.weight).group(1),
            Named::parameter("bias", &self.bias),
            Named::buffer("mean", &self.mean),
            Named::optimizer_state("momentum.bias", &self.momentum[0]),
            Named::optimizer_state("momentum.weight", &self.momentum[1]),
        ]
    }
}

/// Calls `with` with the values as slices. Their order differs from the layout's.
fn with_slices<T>(values: &Values, with: impl FnOnce(&[Slice<'_>]) -> T) -> T {
    let bytes = values.all().map(|var| tensor_bytes(var));
    let [bias, weight, mean, first, second] = &bytes;
    with(&[
        Slice::optimizer_state("momentum.weight", DType::F32, &[2, 3], second),
        Slice::buffer("mean", DType::F64, &[2], mean),
        Slice::parameter("weight", DType::F32, &[2, 3], weight).group(1),
        Slice::parameter("bias", DType::Bf16, &[3], bias),
        Slice::optimizer_state("momentum.bias", DType::Bf16, &[3], first),
    ])
}

fn builder(storage: &Arc<MemStorage>, keep: Keep) -> Builder {
    Builder::on(
        Arc::clone(storage) as Arc<dyn hindcast_format::Storage>,
        "run",
    )
    .rule(UpdateRule::sgd().momentum(0.9))
    .seed(5)
    .keep(keep)
    .segment_steps(4)
    .note("why", "test")
}

/// The rows of a step's batch: an input and a label.
fn rows(step: u64) -> (Tensor, Tensor) {
    let x: Vec<f32> = (0..4).map(|i| ((step * 3 + i) % 7) as f32).collect();
    let y: Vec<u32> = x.iter().map(|x| *x as u32 % 2).collect();
    (
        Tensor::from_vec(x, (2, 2), &Device::Cpu).unwrap(),
        Tensor::from_vec(y[..2].to_vec(), 2, &Device::Cpu).unwrap(),
    )
}

fn info<'a>(step: u64, indices: &'a [u64]) -> BatchInfo<'a> {
    BatchInfo::new(step / 5, indices)
        .clip_norm(1.5)
        .scalar("temperature", step as f64)
}

/// What differs between the two kinds of batches of this test.
#[derive(Clone, Copy, PartialEq)]
enum Batches {
    Indices,
    Rows,
}

fn by_candle(storage: &Arc<MemStorage>, keep: Keep, batches: Batches, steps: u64) {
    let values = Values::at(0);
    let run = builder(storage, keep).create_from(values.named()).unwrap();
    let (x, y) = rows(99);
    if batches == Batches::Rows {
        run.validation_of(&[&x, &y]).unwrap();
    }
    for step in 0..steps {
        values.set(&Values::at(step));
        match batches {
            Batches::Indices => run.batch_with(info(step, &[step, 3])).unwrap(),
            Batches::Rows => {
                let (x, y) = rows(step);
                let batch = hindcast_recorder::RowBatch::new(step / 5, &[&x, &y]);
                let batch = batch.clip_norm(1.5).scalar("temperature", step as f64);
                run.batch_of_with(&batch).unwrap();
            }
        }
        let flags = [step % 2 == 0, true];
        let info = StepInfo::announced(0.1).loss(step as f64).trained(&flags);
        run.step(&info).unwrap();
    }
    values.set(&Values::at(steps));
    run.finish().unwrap();
}

fn slice_steps(run: &SliceRecorder, batches: Batches, steps: std::ops::Range<u64>) {
    for step in steps {
        match batches {
            Batches::Indices => run.batch_with(info(step, &[step, 3])).unwrap(),
            Batches::Rows => {
                let (x, y) = rows(step);
                let (x, y) = (tensor_bytes(&x), label_bytes(&y));
                let tensors = row_slices(&x, &y);
                run.batch_of_with(info(step, &[]), &[&tensors]).unwrap();
            }
        }
        let trained = &NAMES[(step % 2) as usize..];
        let said = SliceStep::new(0.1).loss(step as f64).trained(trained);
        with_slices(&Values::at(step), |slices| run.step(&said, slices)).unwrap();
    }
}

fn label_bytes(y: &Tensor) -> Vec<u8> {
    let labels: Vec<u32> = y.to_vec1().unwrap();
    labels
        .iter()
        .flat_map(|label| label.to_le_bytes())
        .collect()
}

fn row_slices<'a>(x: &'a [u8], y: &'a [u8]) -> [RowSlice<'a>; 2] {
    [
        RowSlice {
            dtype: RowType::F32,
            shape: &[2, 2],
            bytes: x,
        },
        RowSlice {
            dtype: RowType::U32,
            shape: &[2],
            bytes: y,
        },
    ]
}

fn by_slices(storage: &Arc<MemStorage>, keep: Keep, batches: Batches, steps: u64) {
    let run = with_slices(&Values::at(0), |s| builder(storage, keep).create_of(s)).unwrap();
    if batches == Batches::Rows {
        let (x, y) = rows(99);
        let (x, y) = (tensor_bytes(&x), label_bytes(&y));
        run.validation_of(&row_slices(&x, &y)).unwrap();
    }
    slice_steps(&run, batches, 0..steps);
    with_slices(&Values::at(steps), |slices| run.finish(slices)).unwrap();
}

/// Compares everything that two traces hold, except their salts.
fn same(a: &Trace, b: &Trace) {
    assert_eq!(a.layout(), b.layout());
    assert_eq!((a.span(), a.status()), (b.span(), b.status()));
    let (mut first, mut second) = (a.forward(0..u64::MAX), b.forward(0..u64::MAX));
    let mut steps = 0;
    while let Some(x) = first.next().unwrap() {
        let y = second.next().unwrap().unwrap();
        let metas = [x.meta, y.meta].map(|meta| meta.clone().without_session());
        assert_eq!(metas[0], metas[1]);
        assert!(
            x.state.bytes() == y.state.bytes(),
            "state of step {}",
            x.meta.step
        );
        assert!(x.key == y.key, "key state of step {}", x.meta.step);
        steps += 1;
    }
    assert!(second.next().unwrap().is_none());
    assert!(steps > 0 && a.final_state().unwrap() == b.final_state().unwrap());
    // Segment by segment, the same frames of the same lengths.
    let sizes = |trace: &Trace| -> Vec<_> {
        let bytes = trace.sizes().into_iter();
        bytes
            .map(|s| (s.number, s.steps, s.recorded, s.gaps))
            .collect()
    };
    assert_eq!(sizes(a), sizes(b));
    let rows = |trace: &Trace| {
        let rows = trace.rows(&RowSplit::ALL).unwrap();
        RowSplit::ALL.map(|split| {
            let groups = rows.split(split).groups().iter();
            let groups = groups.map(|g| (g.indices.clone(), g.digests.clone(), g.bytes.clone()));
            groups.collect::<Vec<_>>()
        })
    };
    assert_eq!(rows(a), rows(b));
    for trace in [a, b] {
        let report = trace.verify().unwrap();
        assert!(report.is_ok(), "{:?}", report.findings);
    }
    let (a, b) = (a.info(), b.info());
    assert_eq!((&a.rule, &a.keep, &a.notes), (&b.rule, &b.keep, &b.notes));
}

#[test]
fn bytes_and_variables_record_the_same_trace() {
    for keep in [Keep::All, Keep::LastEpoch, Keep::EveryNth(3)] {
        for batches in [Batches::Indices, Batches::Rows] {
            let (candle, slices) = (Arc::new(MemStorage::new()), Arc::new(MemStorage::new()));
            by_candle(&candle, keep, batches, 17);
            by_slices(&slices, keep, batches, 17);
            same(&open(&candle), &open(&slices));
        }
    }
}

#[test]
fn a_resumed_run_of_bytes_ends_like_an_uninterrupted_one() {
    let whole = Arc::new(MemStorage::new());
    by_candle(&whole, Keep::All, Batches::Rows, 17);
    let storage = Arc::new(MemStorage::new());
    let create = |values: &Values| {
        with_slices(values, |slices| {
            builder(&storage, Keep::All).create_or_resume_of(slices)
        })
        .unwrap()
    };
    let (run, at) = create(&Values::at(0));
    assert_eq!((at.step, at.tensors.len()), (0, 0));
    let (x, y) = rows(99);
    let (x, y) = (tensor_bytes(&x), label_bytes(&y));
    run.validation_of(&row_slices(&x, &y)).unwrap();
    slice_steps(&run, Batches::Rows, 0..11);
    run.flush().unwrap();
    drop(run);
    // The newest keyframe has the optimizer's state. The program's own values don't matter.
    let (run, at) = create(&Values::at(50));
    assert_eq!(
        (at.step, at.epoch, at.optimizer_step, at.end),
        (8, Some(1), 8, 11)
    );
    let recorded = Values::at(8);
    assert_eq!(at.tensors["weight"], tensor_bytes(&recorded.weight));
    assert_eq!(at.tensors["bias"], tensor_bytes(&recorded.bias));
    // The buffers before step 8 are those after step 7.
    assert_eq!(at.tensors["mean"], tensor_bytes(&Values::at(7).mean));
    let momentum = tensor_bytes(&recorded.momentum[1]);
    assert_eq!(at.optimizer_state["momentum.weight"], momentum);
    slice_steps(&run, Batches::Rows, 8..17);
    with_slices(&Values::at(17), |slices| run.finish(slices)).unwrap();
    let trace = open(&storage);
    assert_eq!(trace.status(), Status::Finished);
    assert_eq!(trace.manifest().unwrap().forks.len(), 1);
    same(&open(&whole), &trace);
    let error = with_slices(&Values::at(0), |slices| {
        builder(&storage, Keep::All).create_or_resume_of(slices)
    });
    assert!(error.unwrap_err().to_string().contains("it is finished"));
}

/// Adagrad's sums begin with the rule's value, not with zero.
#[test]
fn a_restarted_optimizer_begins_with_the_rules_initial_state() {
    let storage = Arc::new(MemStorage::new());
    let builder = || {
        let storage = Arc::clone(&storage) as Arc<dyn hindcast_format::Storage>;
        Builder::on(storage, "run").rule(UpdateRule::adagrad().initial_accumulator_value(0.25))
    };
    let bytes = [1f32, 2.0].map(f32::to_le_bytes).concat();
    let sums = [3f32, 4.0].map(f32::to_le_bytes).concat();
    let tensors = [
        Slice::parameter("w", DType::F32, &[2], &bytes),
        Slice::optimizer_state("sum.w", DType::F32, &[2], &sums),
    ];
    let run = builder().create_of(&tensors).unwrap();
    let read = || [("sum.w".to_owned(), sums.clone())].into_iter().collect();
    for step in 0..3 {
        run.batch(0, &[step]).unwrap();
        let said = SliceStep::new(0.1).optimizer(&read);
        run.step(&said, &tensors[..1]).unwrap();
    }
    run.flush().unwrap();
    drop(run);
    let (_, at) = builder()
        .restart_optimizer()
        .resume_of(&tensors, 3)
        .unwrap();
    let initial = [0.25f32; 2].map(f32::to_le_bytes).concat();
    assert_eq!(at.optimizer_state["sum.w"], initial);
}

#[test]
fn the_optimizers_state_can_be_read_at_keyframes_only() {
    let storage = Arc::new(MemStorage::new());
    let values = Values::at(0);
    let run = with_slices(&values, |s| builder(&storage, Keep::All).create_of(s)).unwrap();
    let reads = std::cell::Cell::new(0);
    for step in 0..9 {
        run.batch(0, &[step]).unwrap();
        let values = Values::at(step);
        let read = || {
            reads.set(reads.get() + 1);
            let names = ["momentum.bias", "momentum.weight"].map(str::to_owned);
            let bytes = values.momentum.iter().map(|var| tensor_bytes(var));
            names.into_iter().zip(bytes).collect()
        };
        let said = SliceStep::new(0.1).optimizer(&read);
        with_slices(&values, |slices| {
            let [_, mean, weight, bias, _] = *slices else {
                panic!("five tensors");
            };
            run.step(&said, &[mean, weight, bias])
        })
        .unwrap();
    }
    with_slices(&Values::at(9), |slices| run.finish(slices)).unwrap();
    assert_eq!(reads.get(), 3, "segments begin at steps 0, 4 and 8");
    let (_, key) = open(&storage).state(8).unwrap();
    let expected: Vec<u8> = Values::at(8)
        .momentum
        .iter()
        .flat_map(|v| tensor_bytes(v))
        .collect();
    assert_eq!(key.unwrap().optimizer(), expected);
}

#[test]
fn each_mistake_in_the_bytes_has_its_message_and_records_nothing() {
    let storage = Arc::new(MemStorage::new());
    let one = |shape: &'static [usize], bytes: &'static [u8]| {
        Slice::parameter("w", DType::F32, shape, bytes)
    };
    let refused = |slices: &[Slice<'_>]| {
        let error = builder(&storage, Keep::All).create_of(slices).unwrap_err();
        error.to_string()
    };
    assert!(refused(&[]).contains("no parameter"));
    assert!(refused(&[one(&[2], &[0; 7])]).contains("so it has 8 bytes, but 7 were given"));
    assert!(refused(&[one(&[1], &[0; 4]), one(&[1], &[0; 4])]).contains("layout: w"));
    let run = builder(&storage, Keep::All)
        .create_of(&[one(&[2], &[0; 8])])
        .unwrap();
    let step = |said: &SliceStep<'_>, slices: &[Slice<'_>]| run.step(said, slices);
    let plain = SliceStep::new(0.1);
    let text = |error: hindcast_recorder::RecorderError| error.to_string();
    assert!(text(step(&plain, &[one(&[2], &[0; 8])]).unwrap_err()).contains("has no batch"));
    run.batch(0, &[1]).unwrap();
    let changed = text(step(&plain, &[one(&[1], &[0; 4])]).unwrap_err());
    assert!(
        changed.contains("expected f32 of shape [2], got f32 of shape [1]"),
        "{changed}"
    );
    assert!(text(step(&plain, &[]).unwrap_err()).contains("\"w\", which the run records"));
    let extra = Slice::parameter("v", DType::F32, &[1], &[0; 4]);
    let more = text(step(&plain, &[one(&[2], &[0; 8]), extra]).unwrap_err());
    assert!(
        more.contains("\"v\" is not one that the run records"),
        "{more}"
    );
    let unknown = text(step(&plain.trained(&["u"]), &[one(&[2], &[0; 8])]).unwrap_err());
    assert!(unknown.contains("no parameter \"u\""), "{unknown}");
    // The announced batch is still there.
    step(&plain, &[one(&[2], &[0; 8])]).unwrap();
    run.finish(&[one(&[2], &[0; 8])]).unwrap();
    let other = builder(&storage, Keep::All).resume_of(&[one(&[2], &[1; 8])], 1);
    let other = text(other.err().unwrap());
    assert!(
        other.contains("\"w\" differs from the trace's value"),
        "{other}"
    );
}

/// A program must not train on from its own initial values in the place of recorded ones.
#[test]
fn a_step_without_tensors_is_not_restored() {
    let storage = Arc::new(MemStorage::new());
    let run = with_slices(&Values::at(0), |s| {
        builder(&storage, Keep::EveryNth(3)).create_of(s)
    });
    let run = run.unwrap();
    slice_steps(&run, Batches::Indices, 0..8);
    run.flush().unwrap();
    drop(run);
    let resume = |at: u64| {
        let builder = builder(&storage, Keep::EveryNth(3))
            .restore_variables()
            .restart_optimizer();
        with_slices(&Values::at(50), |slices| builder.resume_of(slices, at))
    };
    // A gap, and the end of a run that was stopped.
    for at in [7, 8] {
        let why = resume(at).err().unwrap().to_string();
        assert!(
            why.contains(&format!("step {at} cannot be restored")),
            "{why}"
        );
        assert!(why.contains("no tensors of that step"), "{why}");
    }
    // The buffers before step 3 are those after step 2, which is a gap, and step 3 is no keyframe.
    let why = resume(3).err().unwrap().to_string();
    assert!(why.contains("not the buffers before it"), "{why}");
    // Nothing was removed.
    assert_eq!(open(&storage).span(), 0..8);
    let (_, at) = resume(0).unwrap();
    assert_eq!(at.tensors["weight"], tensor_bytes(&Values::at(0).weight));
}

#[test]
fn tensors_that_the_run_does_not_record_are_refused_at_every_step() {
    let storage = Arc::new(MemStorage::new());
    let values = Values::at(0);
    let run = with_slices(&values, |s| builder(&storage, Keep::All).create_of(s)).unwrap();
    slice_steps(&run, Batches::Indices, 0..1);
    // Step 1 opens no segment, so it needs no optimizer state.
    run.batch(0, &[1]).unwrap();
    let said = SliceStep::new(0.1);
    let refused = |change: &dyn Fn(&mut Vec<Slice<'_>>)| {
        with_slices(&values, |slices| {
            let mut slices = slices[..4].to_vec();
            change(&mut slices);
            run.step(&said, &slices).unwrap_err().to_string()
        })
    };
    let misspelt = refused(&|slices| {
        slices[0] = Slice::optimizer_state("momentum.wieght", DType::F32, &[1], &[0; 4]);
    });
    assert!(
        misspelt.contains("the optimizer state \"momentum.wieght\" is not one"),
        "{misspelt}"
    );
    let twice = refused(&|slices| slices[0] = slices[2]);
    assert!(
        twice.contains("the parameter \"weight\" is given twice"),
        "{twice}"
    );
    with_slices(&values, |slices| run.step(&said, &slices[..4])).unwrap();
    // The first step of a run opens a segment.
    let storage = Arc::new(MemStorage::new());
    let run = with_slices(&values, |s| builder(&storage, Keep::All).create_of(s)).unwrap();
    run.batch(0, &[1]).unwrap();
    for (name, part) in [
        ("momentum.extra", "is not one"),
        ("momentum.bias", "is given twice"),
    ] {
        let read = || {
            let names = ["momentum.bias", "momentum.weight"].map(str::to_owned);
            let bytes = values.momentum.iter().map(|var| tensor_bytes(var));
            let state = names.into_iter().zip(bytes);
            state.chain([(name.to_owned(), vec![0; 6])]).collect()
        };
        let said = SliceStep::new(0.1).optimizer(&read);
        let why = with_slices(&values, |slices| run.step(&said, &slices[1..4]));
        let why = why.unwrap_err().to_string();
        assert!(why.contains(&format!("{name:?} {part}")), "{why}");
    }
    run.skip_batch();
    let (x, y) = rows(0);
    let (x, y) = (tensor_bytes(&x), label_bytes(&y));
    let storage = Arc::new(MemStorage::new());
    let run = with_slices(&values, |s| builder(&storage, Keep::All).create_of(s)).unwrap();
    let why = run.batch_of_with(info(0, &[5]), &[&row_slices(&x, &y)]);
    let why = why.unwrap_err().to_string();
    assert!(why.contains("BatchInfo::new(epoch, &[])"), "{why}");
}
