//! Retraining by the kernels agrees with retraining by candle, up to rounding.

use std::ops::ControlFlow;

use candle_core::Device;
use hindcast_analyzer::counterfactual::Arithmetic;
use hindcast_analyzer::{
    CounterfactualOptions, CounterfactualReport, Denominators, EngineKind, Query, RecordedRun,
    Removal, Window, counterfactuals,
};
use hindcast_lab::record_task;
use hindcast_model::task::Task;
use hindcast_recorder::Recorder;

/// A task with batch norm, dropout, pooling, momentum and a penalty, in float64, for a few steps of 16 examples.
const TASK: &str = r#"
name = "small"
[data]
source = "digits"
train = 96
validation = 40
[model]
input = [1, 28, 28]
layers = [
  { kind = "conv2d", out = 4, kernel = 5, stride = 2 },
  { kind = "batch_norm" },
  { kind = "gelu" },
  { kind = "max_pool2d", kernel = 2 },
  { kind = "flatten" },
  { kind = "dropout", p = 0.2 },
  { kind = "linear", out = 10 },
]

[loss]
kind = "cross-entropy"
penalty = 0.01

[optimizer]
kind = "sgd"
momentum = 0.9

[schedule]
kind = "constant"
learning_rate = 0.05

[train]
epochs = 1
batch = 16
seed = 3
dtype = "f64"
"#;

fn report(
    subject: &RecordedRun<'_>,
    sets: &[Vec<u64>],
    by: EngineKind,
    removal: Removal,
) -> CounterfactualReport {
    let run = &subject;
    let options = CounterfactualOptions {
        arithmetic: subject.arithmetic(Some(by), &Device::Cpu).unwrap(),
        removal,
        denominators: Denominators::Fixed,
        ..CounterfactualOptions::new(Window::All.resolve(run.source()).unwrap())
    };
    assert_eq!(
        matches!(options.arithmetic, Arithmetic::Kernels(_)),
        by == EngineKind::Kernels
    );
    let queries: Vec<Query> = ["validation", "train:3,9"]
        .map(|q| q.parse().unwrap())
        .to_vec();
    counterfactuals(run, &options, &queries, sets, &|_, _| {
        ControlFlow::Continue(())
    })
    .unwrap()
}

#[test]
fn retraining_by_kernels_gives_the_same_parameters_losses_and_errors() {
    let task = Task::from_toml(TASK).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let data = task.load_data(None).unwrap();
    record_task(
        &task,
        data.as_ref(),
        &Device::Cpu,
        Recorder::builder(&path),
        &mut |_, _, _| {},
    )
    .unwrap();
    let subject = RecordedRun::open(&path, None).unwrap();
    // One example, a few, and a whole batch, which is then empty.
    let batch: Vec<u64> = subject
        .trace()
        .unwrap()
        .metas(2..3)
        .next()
        .unwrap()
        .unwrap()
        .indices;
    let sets = [vec![5], vec![1, 8, 30, 77], batch];
    for removal in [Removal::LossOnly, Removal::Absent] {
        let want = report(&subject, &sets, EngineKind::Autodiff, removal);
        let got = report(&subject, &sets, EngineKind::Kernels, removal);
        assert!(want.reproduction.bit_identical);
        assert!(
            got.reproduction.max_relative_error < 1e-9,
            "{:?}",
            got.reproduction
        );
        let runs = |r: &CounterfactualReport| {
            std::iter::once(r.everyone.clone())
                .chain(r.outcomes.iter().cloned())
                .collect::<Vec<_>>()
        };
        for (want, got) in runs(&want).iter().zip(&runs(&got)) {
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(1e-3);
            let all = |a: &[f64], b: &[f64]| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b))
            };
            assert!(all(&got.parameters, &want.parameters));
            assert!(all(&got.buffers, &want.buffers));
            assert!(
                all(&got.queries, &want.queries),
                "{:?} {:?}",
                got.queries,
                want.queries
            );
            for (got, want) in got.losses.iter().zip(&want.losses) {
                assert!(near(got.loss, want.loss));
                assert_eq!(got.error_rate, want.error_rate);
                assert_eq!(got.examples, want.examples);
            }
        }
        // Leaving out has an effect; otherwise the comparison would say nothing.
        assert!(got.change(2, 0).unwrap().abs() > 1e-6);
    }
}
