//! Training a Task: the values of a step, and that a step can be repeated.

use candle_core::Device;
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode, Split};
use hindcast_model::task::Task;
use hindcast_model::train::{
    ModelState, Stepper, TrainError, Trainer, WeightedBatch, evaluate, gradient, losses,
};

use crate::net::{all_layers, batch, close, net_of};
use crate::task::with_layers;

fn digits(sets: &[(&str, &str)]) -> Task {
    let mut task = Task::builtin("digits").unwrap();
    let mut all = vec![
        ("data.train", "300"),
        ("data.validation", "100"),
        ("data.test", "0"),
        ("train.epochs", "2"),
    ];
    all.extend(sets);
    task.set_all(&all).unwrap();
    task
}

fn ignore<T>(_: &hindcast_model::train::StepRecord<'_, T>) -> Result<(), TrainError> {
    Ok(())
}

/// Takes all steps of a run.
fn run(task: &Task) -> ModelState<f32> {
    let data = task.load_data(None).unwrap();
    let net = Net::new(&task.model, &task.loss).unwrap();
    let mut trainer = Trainer::new(task, &net, data.as_ref(), &Device::Cpu).unwrap();
    while trainer.step(ignore).unwrap() {}
    assert_eq!(trainer.next_step(), trainer.batches().steps());
    trainer.into_state()
}

#[test]
fn digits_are_learnt() {
    let task = digits(&[("data.train", "1500"), ("train.epochs", "4")]);
    let data = task.load_data(None).unwrap();
    let net = Net::new(&task.model, &task.loss).unwrap();
    let see = |state: &ModelState<f32>| {
        evaluate(
            &net,
            &state.parameters,
            &state.buffers,
            data.as_ref(),
            Split::Validation,
            &Device::Cpu,
        )
        .unwrap()
    };
    let start = Trainer::<f32>::new(&task, &net, data.as_ref(), &Device::Cpu)
        .unwrap()
        .into_state();
    let (before, after) = (see(&start), see(&run(&task)));
    assert!(before.error_rate().unwrap() > 0.7, "{before:?}");
    assert!(
        after.error_rate().unwrap() < 0.4 && after.loss < before.loss,
        "{after:?}"
    );
    let indices: Vec<u64> = (0..100).collect();
    let each = losses(
        &net,
        &start.parameters,
        &[],
        data.as_ref(),
        Split::Validation,
        &indices,
        &Device::Cpu,
    )
    .unwrap();
    close(&[each.iter().sum::<f64>() / 100.0], &[before.loss], 1e-12);
}

#[test]
fn a_resumed_run_ends_in_the_same_bits() {
    let task = digits(&[
        ("optimizer.kind", "adamw"),
        ("augment.pad_crop", "2"),
        ("model.layers.4.kind", "dropout"),
        ("model.layers.5", "{ kind = 'flatten' }"),
    ]);
    let mut task = task;
    let mut layers = task.model.layers.clone();
    layers.push(hindcast_model::task::Layer::Linear {
        out: 10,
        bias: true,
    });
    task.model.layers = layers;
    task.validate().unwrap();
    let data = task.load_data(None).unwrap();
    let net = Net::new(&task.model, &task.loss).unwrap();
    let whole = run(&task);
    assert_eq!(whole, run(&task));
    let mut first = Trainer::<f32>::new(&task, &net, data.as_ref(), &Device::Cpu).unwrap();
    for _ in 0..13 {
        assert!(first.step(ignore).unwrap());
    }
    let (step, state) = (first.next_step(), first.into_state());
    let mut second =
        Trainer::resume(&task, &net, data.as_ref(), &Device::Cpu, step, state).unwrap();
    while second.step(ignore).unwrap() {}
    assert_eq!(second.into_state(), whole);
}

/// The values that a trace records are sufficient to repeat a step.
#[test]
fn a_recorded_step_can_be_repeated() {
    let task = digits(&[
        ("train.micro_batch", "10"),
        ("optimizer.momentum", "0.9"),
        ("optimizer.clip_norm", "0.5"),
        ("loss.penalty", "0.01"),
        ("loss.penalty_in", "batch"),
    ]);
    let data = task.load_data(None).unwrap();
    let net = Net::new(&task.model, &task.loss).unwrap();
    let stepper = Stepper::new(&net, &task.optimizer);
    let mut trainer = Trainer::<f32>::new(&task, &net, data.as_ref(), &Device::Cpu).unwrap();
    for _ in 0..3 {
        let mut again = None;
        trainer
            .step(|record| {
                assert_eq!(record.micro_batches, [10, 10, 10, 2]);
                let draws = Draws {
                    seed: task.train.seed,
                    step: record.step,
                };
                let mut weights = record.weights.values(record.indices.len()).into_iter();
                let mut at = 0;
                let mut parts = Vec::new();
                for &len in record.micro_batches {
                    let indices = &record.indices[at..at + len];
                    at += len;
                    parts.push(WeightedBatch {
                        batch: data.batch(
                            Split::Train,
                            indices,
                            Some(draws),
                            candle_core::DType::F32,
                            &Device::Cpu,
                        )?,
                        weights: weights.by_ref().take(len).collect(),
                    });
                }
                let mut state = record.before.clone();
                let gradient = stepper.gradient(&state, &parts, draws)?;
                assert_eq!(gradient.loss, record.loss);
                stepper.update(record.settings, gradient, &mut state)?;
                again = Some(state);
                Ok::<(), TrainError>(())
            })
            .unwrap();
        assert_eq!(again.as_ref(), Some(trainer.state()));
    }
}

#[test]
fn a_step_that_its_observer_refuses_is_not_taken() {
    let task = digits(&[]);
    let data = task.load_data(None).unwrap();
    let net = Net::new(&task.model, &task.loss).unwrap();
    let mut trainer = Trainer::<f32>::new(&task, &net, data.as_ref(), &Device::Cpu).unwrap();
    let before = trainer.state().clone();
    let refused = trainer.step(|_| Err(TrainError::Data("the disk is full".into())));
    assert_eq!(refused.unwrap_err().to_string(), "the disk is full");
    assert_eq!((trainer.next_step(), trainer.state()), (0, &before));
}

#[test]
fn gradients_of_micro_batches_add_up_to_that_of_the_batch() {
    let net = net_of(
        &with_layers(
            "[4]",
            "{ kind = 'linear', out = 3 }, { kind = 'tanh' }, { kind = 'linear', out = 2 }",
            "cross-entropy",
        )
        .replace(
            "[schedule]",
            "penalty = 0.1\npenalty_in = 'batch'\n[schedule]",
        ),
    );
    let values: Vec<f64> = (0..20).map(|i| (i as f64 * 0.7).sin()).collect();
    let whole = batch(&[4], values, &[0, 1, 1, 0, 1]);
    let weights = [0.1, 0.2, 0.3, 0.25, 0.15];
    let rule = hindcast_model::update::UpdateRule::sgd();
    let stepper = Stepper::new(&net, &rule);
    let state = ModelState {
        parameters: net.initial_parameters::<f64>(0),
        buffers: vec![],
        optimizer: vec![],
    };
    let draws = Draws { seed: 0, step: 0 };
    let part = |range: std::ops::Range<usize>| WeightedBatch {
        batch: Batch {
            indices: whole.indices[range.clone()].to_vec(),
            inputs: whole.inputs.narrow(0, range.start, range.len()).unwrap(),
            targets: whole.targets.narrow(0, range.start, range.len()).unwrap(),
        },
        weights: weights[range].to_vec(),
    };
    let once = stepper.gradient(&state, &[part(0..5)], draws).unwrap();
    let twice = stepper
        .gradient(&state, &[part(0..2), part(2..5)], draws)
        .unwrap();
    close(&twice.gradient, &once.gradient, 1e-13);
    close(&[twice.loss], &[once.loss], 1e-14);
    close(&twice.per_example, &once.per_example, 1e-14);
    assert!(stepper.gradient(&state, &[], draws).is_err());
}

#[test]
fn a_batch_without_rows_has_only_the_penalty() {
    for (inside, penalised) in [("examples", false), ("batch", true)] {
        let net = all_layers(&format!(
            "penalty = 0.5\npenalty_in = '{inside}'\n[schedule]"
        ));
        let p: Vec<f64> = net.initial_parameters(0);
        let r: Vec<f64> = net.initial_buffers();
        let empty = batch(&[2, 6, 7], vec![], &[]);
        let draws = Draws { seed: 0, step: 0 };
        let g = gradient(&net, &p, &r, &empty, Mode::Train, draws, &[]).unwrap();
        let expected: Vec<f64> = p
            .iter()
            .map(|x| if penalised { 0.5 * x } else { 0.0 })
            .collect();
        close(&g.gradient, &expected, 1e-14);
        assert_eq!(g.buffers, r);
        assert!(g.trained.iter().all(|&t| t));
    }
}

#[test]
fn data_that_does_not_fit_the_model_is_refused() {
    let mut task = digits(&[]);
    let data = task.load_data(None).unwrap();
    task.model.input = vec![1, 20, 20];
    let e = task.check_data(data.as_ref()).unwrap_err().to_string();
    assert!(
        e.contains("[1, 28, 28]") && e.contains("[1, 20, 20]"),
        "{e}"
    );
    let task = digits(&[("model.layers.5.out", "9")]);
    let e = task.check_data(data.as_ref()).unwrap_err().to_string();
    assert!(e.contains("10 classes") && e.contains("9 apart"), "{e}");
    let task = digits(&[]);
    let net = Net::new(&task.model, &task.loss).unwrap();
    let short = ModelState::<f32>::default();
    let e = Trainer::resume(&task, &net, data.as_ref(), &Device::Cpu, 0, short)
        .err()
        .unwrap()
        .to_string();
    assert!(
        e.contains("parameters: expected") && e.contains("got 0"),
        "{e}"
    );
}
