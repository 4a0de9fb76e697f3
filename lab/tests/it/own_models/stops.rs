//! Losses with stop-gradients: targets from the same parameters, and a teacher that is an average of older ones. Their runs
//! are replayed bit for bit, their scores equal differences of repeated training, and the check follows the update.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder, VarMap, linear};
use hindcast_analyzer::check::{CheckOptions, CheckReport, check_run};
use hindcast_analyzer::estimators::{Question, choose};
use hindcast_analyzer::run::RecordedEnd;
use hindcast_analyzer::{
    AutodiffEngine, Query, RecordedRun, ReplayCheckOptions, Window, answer, replay_check,
};
use hindcast_format::MemStorage;
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::{Buffer, OwnModel, stop_gradient};
use hindcast_recorder::Builder;

use super::training::{error_of_scores, scaled, trace, train_by_sgd};
use super::{CLASSES, SIDE, TRAIN, data, initialise, state};

const HIDDEN: usize = 5;
const STEPS: u64 = 8;
const RATE: f64 = 0.3;

/// A classifier whose outputs are also drawn towards those of a teacher.
struct Net {
    hidden: Linear,
    out: Linear,
    /// An average of the weights of `out`.
    teacher: Buffer,
}

/// The targets of a training pass.
type Target = fn(&Net, &Tensor, &Tensor) -> Result<Tensor>;

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            hidden: linear(SIDE * SIDE, HIDDEN, vb.pp("hidden"))?,
            out: linear(HIDDEN, CLASSES, vb.pp("out"))?,
            teacher: Buffer::get(
                &vb.pp("teacher"),
                (CLASSES, HIDDEN),
                "weight",
                Init::Const(0.0),
            )?,
        })
    }

    /// Logits and targets, side by side.
    fn forward(&self, x: &Tensor, train: bool, target: Target) -> Result<Tensor> {
        let h = self.hidden.forward(&x.flatten_from(1)?)?.tanh()?;
        let logits = self.out.forward(&h)?;
        let target = if train {
            target(self, &h, &logits)?
        } else {
            logits.clone()
        };
        Tensor::cat(&[&logits, &target], 1)
    }
}

/// Cross entropy, and the squared distance to the targets.
fn loss(outputs: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let logits = outputs.narrow(1, 0, CLASSES)?;
    let away = (&logits - outputs.narrow(1, CLASSES, CLASSES)?)?;
    ops::cross_entropy(&logits, labels)? + (away.sqr()?.sum(1)? * 0.4)?
}

/// A function of the current parameters: the derivative of the step goes through it.
fn current(_: &Net, _: &Tensor, logits: &Tensor) -> Result<Tensor> {
    stop_gradient(&(ops::log_softmax(logits)?.exp()? * 2.0)?)
}

/// Two constants, the second of which depends on the first.
fn nested(_: &Net, h: &Tensor, logits: &Tensor) -> Result<Tensor> {
    let inner = stop_gradient(&h.sqr()?.sum_keepdim(1)?)?;
    stop_gradient(&logits.tanh()?.broadcast_mul(&inner)?)
}

/// The outputs of the teacher, which follows the parameters at each step.
fn averaged(net: &Net, h: &Tensor, _: &Tensor) -> Result<Tensor> {
    let weight = ((net.teacher.value() * 0.7)? + (net.out.weight() * 0.3)?)?;
    net.teacher.set(&weight)?;
    stop_gradient(&h.matmul(&weight.t()?)?)
}

/// As `current`, with a `detach()` that is not declared.
fn bare(_: &Net, _: &Tensor, logits: &Tensor) -> Result<Tensor> {
    Ok((ops::log_softmax(logits)?.exp()? * 2.0)?.detach())
}

/// A constant that depends on the parameters in a way that candle's graph doesn't show.
fn cut_inside(_: &Net, _: &Tensor, logits: &Tensor) -> Result<Tensor> {
    stop_gradient(&(logits * logits.detach())?)
}

/// A constant whose function has a wrong derivative.
fn wrong_inside(_: &Net, h: &Tensor, logits: &Tensor) -> Result<Tensor> {
    let b = h.dim(0)?;
    let four = h.narrow(1, 0, 4)?.contiguous()?.reshape((b, 1, 2, 2))?;
    let largest = four.max_pool2d(2)?.reshape((b, 1))?;
    stop_gradient(&logits.broadcast_mul(&largest)?)
}

fn objective(target: Target) -> Arc<OwnModel> {
    let forward = move |net: &Net, x: &Tensor, train: bool| net.forward(x, train, target);
    let model = OwnModel::new(Net::new, forward, loss).unwrap();
    Arc::new(model.buffers_where(|name| name.starts_with("teacher")))
}

fn train(
    target: Target,
    dtype: DType,
    changed: Option<(u64, f64)>,
    record: Option<&Arc<MemStorage>>,
) -> RecordedEnd {
    let data = data();
    let variables = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(&variables, dtype, &Device::Cpu)).unwrap();
    initialise(&variables, 0.6);
    let options = |builder: Builder| {
        let builder = builder.buffers(|name| name.starts_with("teacher"));
        builder.fingerprint(data.fingerprint())
    };
    train_by_sgd(&variables, (RATE, STEPS), record, options, |step| {
        let indices: Vec<u64> = (0..5)
            .map(|k| (step * 5 + k * 3 + step / 3) % TRAIN as u64)
            .collect();
        let batch = data
            .batch(Split::Train, &indices, None, dtype, &Device::Cpu)
            .unwrap();
        let outputs = net.forward(&batch.inputs, true, target).unwrap();
        let losses = loss(&outputs, &batch.targets).unwrap();
        let loss = match changed {
            None => losses.mean_all().unwrap(),
            Some(changed) => scaled(&losses, &indices, changed),
        };
        (0, indices, loss)
    });
    state(&variables, objective(target).as_ref())
}

const DECLARED: [(&str, Target); 3] = [
    ("current", current),
    ("nested", nested),
    ("averaged", averaged),
];

#[test]
fn scores_equal_the_differences_of_repeated_training() {
    for (name, target) in DECLARED {
        let storage = Arc::new(MemStorage::new());
        train(target, DType::F64, None, Some(&storage));
        let trace = trace(&storage);
        let (data, objective) = (data(), objective(target));
        let run = RecordedRun::from_trace(&trace, objective.clone(), data.as_ref(), None).unwrap();
        let query: Query = "validation".parse().unwrap();
        let trained = |example, factor| train(target, DType::F64, Some((example, factor)), None);
        let error = error_of_scores(&run, objective, &query, (STEPS, TRAIN as u64), &trained);
        println!("stop-gradient, {name}: {error:.1e}");
        assert!(error < 1e-6, "{name}: {error:e}");
    }
}

fn check(target: Target) -> CheckReport {
    let storage = Arc::new(MemStorage::new());
    train(target, DType::F64, None, Some(&storage));
    let trace = trace(&storage);
    let data = data();
    let run = RecordedRun::from_trace(&trace, objective(target), data.as_ref(), None).unwrap();
    check_run(&run, &CheckOptions::default(), &mut |_| {}).unwrap()
}

#[test]
fn declared_constants_pass_the_check_and_others_are_refused() {
    for (name, target) in DECLARED {
        let report = check(target);
        assert!(report.passed() && report.worst() < 1e-6, "{name}: {report}");
        let jacobian = |row: &hindcast_analyzer::check::CheckRow| {
            row.what.starts_with("Jacobian of the gradient")
        };
        assert_eq!(report.rows.iter().filter(|row| jacobian(row)).count(), 2);
    }
    let text = check(bare).to_string();
    assert!(text.contains("own::stop_gradient"), "{text}");
    for (name, target) in [("cut", cut_inside as Target), ("wrong", wrong_inside)] {
        let report = check(target);
        let wrong: Vec<&str> = report
            .rows
            .iter()
            .filter(|row| !row.passed)
            .map(|row| row.what.as_str())
            .collect();
        assert!(
            !wrong.is_empty() && wrong.iter().all(|w| w.starts_with("Jacobian")),
            "{name}: {wrong:?}"
        );
    }
}

#[test]
fn steps_with_constants_are_replayed_bit_for_bit() {
    for (name, target) in DECLARED {
        for dtype in [DType::F32, DType::F64] {
            let storage = Arc::new(MemStorage::new());
            train(target, dtype, None, Some(&storage));
            let trace = trace(&storage);
            let data = data();
            let model = objective(target);
            let run = RecordedRun::from_trace(&trace, model, data.as_ref(), None).unwrap();
            let options = ReplayCheckOptions {
                samples: 0,
                ..ReplayCheckOptions::new(&run)
            };
            let report = replay_check(&run, &options, &mut |_, _| {
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(report.steps.len() as u64, STEPS);
            assert!(report.bit_identical(), "{name}: {:?}", report.worst());
        }
    }
}

/// A net without buffers, whose targets are a function of its own parameters.
fn without_buffers() -> Arc<OwnModel> {
    let build = |vb: VarBuilder<'static>| linear(SIDE * SIDE, CLASSES, vb.pp("out"));
    let forward = |out: &Linear, x: &Tensor, _: bool| {
        let logits = out.forward(&x.flatten_from(1)?)?;
        let target = stop_gradient(&logits.tanh()?)?;
        Tensor::cat(&[&logits, &target], 1)
    };
    Arc::new(OwnModel::new(build, forward, loss).unwrap())
}

/// The forward estimates need the Jacobian of the gradient itself, not its transpose.
#[test]
fn forward_estimates_are_refused() {
    let storage = Arc::new(MemStorage::new());
    let (data, variables) = (data(), VarMap::new());
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
    let out = linear(SIDE * SIDE, CLASSES, vb.pp("out")).unwrap();
    let options = |builder: Builder| builder.fingerprint(data.fingerprint());
    train_by_sgd(&variables, (RATE, 3), Some(&storage), options, |step| {
        let indices = vec![step, step + 1, step + 2];
        let batch = data
            .batch(Split::Train, &indices, None, DType::F64, &Device::Cpu)
            .unwrap();
        let logits = out.forward(&batch.inputs.flatten_from(1).unwrap()).unwrap();
        let target = stop_gradient(&logits.tanh().unwrap()).unwrap();
        let outputs = Tensor::cat(&[&logits, &target], 1).unwrap();
        let loss = loss(&outputs, &batch.targets).unwrap().mean_all().unwrap();
        (0, indices, loss)
    });
    let trace = trace(&storage);
    let run = RecordedRun::from_trace(&trace, without_buffers(), data.as_ref(), None).unwrap();
    let mut engine = AutodiffEngine::new(without_buffers(), DType::F64, &Device::Cpu).unwrap();
    let window: Window = "0..3".parse().unwrap();
    let queries = [Query::default()];
    for (method, refused) in [("sgd", false), ("forward", true)] {
        let question = Question::new(&run, &queries, &window);
        let chosen = choose(method, &[]).unwrap();
        let answer = answer(&question, &chosen, &mut engine, &mut |_| {
            ControlFlow::Continue(())
        });
        let text = answer.map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(text.is_err(), refused, "{method}: {text:?}");
        if let Err(text) = text {
            assert!(text.contains("stop-gradients"), "{text}");
        }
    }
}
