//! Which parameters a step trains: those that the optimizer updates, not all that have a gradient.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, SGD};
use hindcast_recorder::{
    Adam, BatchInfo, GroupHyper, Recorder, RecorderError, StepInfo, UpdateRule,
};

use crate::common::*;

/// Gradient descent in a type that the recorder doesn't know.
struct Own {
    vars: Vec<Var>,
    rate: f64,
    /// Number of updates to leave out first.
    skips: u64,
}

impl Optimizer for Own {
    type Config = f64;

    fn new(vars: Vec<Var>, rate: f64) -> candle_core::Result<Self> {
        Ok(Self {
            vars,
            rate,
            skips: 0,
        })
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        if self.skips > 0 {
            self.skips -= 1;
            return Ok(());
        }
        for var in &self.vars {
            if let Some(gradient) = gradients.get(var) {
                var.set(&(var.as_tensor() - (gradient * self.rate)?)?)?;
            }
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.rate
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }
}

fn steps<O: Optimizer + 'static>(
    run: &Recorder,
    mut optimizer: hindcast_recorder::Recorded<O>,
    net: &Linear,
    count: u64,
) -> Result<(), RecorderError> {
    for _ in 0..count {
        let batch = indices(run.next_step());
        run.batch(0, &batch)?;
        optimizer.backward_step(&net.loss(&batch).unwrap())?;
    }
    Ok(())
}

/// The trained flags of every step. Parameter 0 is `b`, parameter 1 is `w`.
fn flags(storage: &std::sync::Arc<hindcast_format::MemStorage>) -> Vec<Vec<bool>> {
    let trace = open(storage);
    let metas = trace.span().map(|step| trace.meta(step).unwrap().trained);
    metas.collect()
}

#[test]
fn sgd_is_asked_for_the_variables_that_it_holds() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let before = tensor_bytes(&net.w);
    let sgd = run.wrap(SGD::new(vec![net.b.clone()], RATE).unwrap());
    steps(&run, sgd, &net, 5).unwrap();
    assert_eq!(
        tensor_bytes(&net.w),
        before,
        "the rebuilt SGD still holds only b"
    );
    assert_ne!(tensor_bytes(&net.b), [0; 4]);
    let summary = run.finish().unwrap();
    assert!(summary.statistics.not_updated.is_empty());
    assert_eq!(flags(&storage), vec![vec![true, false]; 5]);
}

/// Gradual unfreezing: the optimizer gets the variable later.
#[test]
fn a_variable_that_sgd_gets_later_is_trained_from_then_on() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut sgd = run.wrap(SGD::new(vec![net.b.clone()], RATE).unwrap());
    train(&run, &mut sgd, &net, 0..3, 10).unwrap();
    sgd.optimizer_mut().push(&net.w);
    train(&run, &mut sgd, &net, 3..6, 10).unwrap();
    run.finish().unwrap();
    let expected = [vec![vec![true, false]; 3], vec![vec![true, true]; 3]].concat();
    assert_eq!(flags(&storage), expected);
}

#[test]
fn a_frozen_variable_of_any_other_optimizer_is_found_by_its_bits() {
    for adamw in [false, true] {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder
            .rule_later()
            .segment_steps(2)
            .create(&net.map)
            .unwrap();
        let held = vec![net.b.clone()];
        if adamw {
            let adamw = AdamW::new(held, ParamsAdamW::default()).unwrap();
            steps(&run, run.wrap(adamw), &net, 5).unwrap();
        } else {
            steps(&run, run.wrap(Own::new(held, RATE).unwrap()), &net, 5).unwrap();
        }
        let summary = run.finish().unwrap();
        assert_eq!(summary.statistics.not_updated, ["w"]);
        let text = summary.to_string();
        assert!(text.contains("\"w\" recorded as not trained"), "{text}");
        assert_eq!(flags(&storage), vec![vec![true, false]; 5]);
        assert_eq!(kept(&open(&storage)), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn an_update_that_was_left_out_is_recorded_as_training_nothing() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.rule_later().create(&net.map).unwrap();
    let mut own = Own::new(net.map.all_vars(), RATE).unwrap();
    own.skips = 2;
    steps(&run, run.wrap(own), &net, 4).unwrap();
    run.finish().unwrap();
    let expected = [vec![vec![false, false]; 2], vec![vec![true, true]; 2]].concat();
    assert_eq!(flags(&storage), expected);
}

/// A graph that is cut before a parameter leaves it without a gradient in every step.
#[test]
fn a_parameter_that_never_had_a_gradient_is_named_in_the_summary() {
    for held in [true, false] {
        let (_, builder) = in_memory();
        let net = Linear::new();
        let run = builder.create(&net.map).unwrap();
        let vars = if held {
            net.map.all_vars()
        } else {
            vec![net.b.clone()]
        };
        let mut sgd = run.wrap(SGD::new(vars, RATE).unwrap());
        for _ in 0..3 {
            run.batch(0, &[1]).unwrap();
            let w = net.w.detach().sum_all().unwrap();
            let loss = (net.b.sqr().unwrap().sum_all().unwrap() + w).unwrap();
            sgd.backward_step(&loss).unwrap();
        }
        let summary = run.finish().unwrap();
        let expected: &[&str] = if held { &["w"] } else { &[] };
        assert_eq!(summary.statistics.without_gradient, expected);
        let text = summary.to_string();
        assert_eq!(text.contains("\"w\" never had a gradient"), held, "{text}");
        assert_eq!(text.contains("hindcast_model::own"), held, "{text}");
    }
    // One gradient suffices.
    let (_, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    run.batch(0, &[1]).unwrap();
    let loss = net.b.sqr().unwrap().sum_all().unwrap();
    sgd.backward_step(&loss).unwrap();
    train(&run, &mut sgd, &net, 1..2, 1).unwrap();
    let summary = run.finish().unwrap();
    assert!(summary.statistics.without_gradient.is_empty(), "{summary}");
}

#[test]
fn a_gradient_of_zero_proves_nothing() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.rule_later().create(&net.map).unwrap();
    let mut own = run.wrap(Own::new(net.map.all_vars(), RATE).unwrap());
    run.batch(0, &[0]).unwrap();
    let loss = net.loss(&[0]).unwrap();
    own.backward_step(&(&loss - &loss).unwrap()).unwrap();
    steps(&run, own, &net, 1).unwrap();
    let summary = run.finish().unwrap();
    assert!(summary.statistics.not_updated.is_empty(), "{summary}");
    assert_eq!(flags(&storage), vec![vec![true, true]; 2]);
}

#[test]
fn listed_variables_take_precedence_over_the_comparison() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.rule_later().create(&net.map).unwrap();
    let own = Own::new(vec![net.b.clone()], RATE).unwrap();
    steps(&run, run.wrap(own).updates([&net.b]), &net, 3).unwrap();
    let summary = run.finish().unwrap();
    assert!(summary.statistics.not_updated.is_empty());
    assert_eq!(flags(&storage), vec![vec![true, false]; 3]);
}

/// A loop that computes its own update passes the gradients, but leaves out a variable.
#[test]
fn an_own_update_that_leaves_a_trained_parameter_out_is_refused_at_the_next_step() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut own = Own::new(vec![net.b.clone()], RATE).unwrap();
    let mut step = |flags: Option<&[bool]>| -> Result<(), RecorderError> {
        let batch = indices(run.next_step());
        let gradients = net.loss(&batch).unwrap().backward().unwrap();
        let info = StepInfo::new(BatchInfo::new(0, &batch), RATE);
        match flags {
            Some(flags) => run.step(&info.trained(flags))?,
            None => run.step(&info.gradients(&gradients))?,
        }
        own.step(&gradients).unwrap();
        Ok(())
    };
    for _ in 0..3 {
        step(Some(&[true, false])).unwrap();
    }
    step(None).unwrap();
    for _ in 0..2 {
        let error = step(None).unwrap_err().to_string();
        assert!(
            error.contains("step 3 was recorded as one that trains \"w\"")
                && error.contains("StepInfo::trained(&flags)"),
            "{error}"
        );
    }
    drop(run);
    assert_eq!(kept(&open(&storage)), [0, 1, 2, 3]);
}

#[test]
fn an_own_update_of_all_parameters_is_recorded_as_it_is() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut own = Own::new(net.map.all_vars(), RATE).unwrap();
    for step in 0..4 {
        let batch = indices(step);
        let gradients = net.loss(&batch).unwrap().backward().unwrap();
        let info = StepInfo::new(BatchInfo::new(0, &batch), RATE);
        run.step(&info.gradients(&gradients)).unwrap();
        own.step(&gradients).unwrap();
    }
    run.finish().unwrap();
    assert_eq!(flags(&storage), vec![vec![true, true]; 4]);
}

fn adamw(net: &Linear, weight_decay: f64) -> AdamW {
    let params = ParamsAdamW {
        weight_decay,
        ..Default::default()
    };
    AdamW::new(net.map.all_vars(), params).unwrap()
}

/// The weight decay of every step.
fn decays(storage: &std::sync::Arc<hindcast_format::MemStorage>) -> Vec<f64> {
    let trace = open(storage);
    let decay = |step| trace.meta(step).unwrap().groups[0].weight_decay;
    trace.span().map(decay).collect()
}

#[test]
fn the_recorded_decay_is_the_optimizers() {
    for rule in [UpdateRule::adam_w().weight_decay(0.1), UpdateRule::adam_w()] {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.rule(rule).create(&net.map).unwrap();
        steps(&run, run.wrap(adamw(&net, 0.1)), &net, 2).unwrap();
        run.finish().unwrap();
        assert_eq!(decays(&storage), [0.1, 0.1]);
    }
}

#[test]
fn a_decay_that_the_loop_leaves_out_is_the_rules() {
    for (rule, expected) in [
        (
            UpdateRule::from(UpdateRule::adam_w().weight_decay(0.1)),
            0.1,
        ),
        (UpdateRule::adam_w().into(), 0.01),
        (UpdateRule::sgd().into(), 0.0),
    ] {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.rule(rule).create(&net.map).unwrap();
        let info = StepInfo::new(BatchInfo::new(0, &[1]), RATE);
        run.step(&info).unwrap();
        let mut own = run.wrap(Own::new(net.map.all_vars(), RATE).unwrap());
        run.batch(0, &[1]).unwrap();
        own.backward_step(&net.loss(&[1]).unwrap()).unwrap();
        run.finish().unwrap();
        assert_eq!(decays(&storage), [expected, expected], "{rule}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let net = Linear::new();
    let create = |rule: Adam, decay: f64| {
        let (_, builder) = in_memory();
        builder.rule(rule).weight_decay(decay).create(&net.map)
    };
    let error = create(UpdateRule::adam_w().weight_decay(0.1), 0.0).unwrap_err();
    assert!(error.to_string().contains("weight_decay = 0.1"), "{error}");
    drop(create(UpdateRule::adam_w(), 0.3).unwrap());

    let (_, builder) = in_memory();
    let rule = UpdateRule::adam_w().weight_decay(0.1).clip_norm(1.0);
    let run = builder.rule(rule).create(&net.map).unwrap();
    let batch = BatchInfo::new(0, &[1]);
    let refused = |info: &StepInfo<'_>, what: &str| {
        let error = run.step(info).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(
        &StepInfo::new(batch, RATE).weight_decay(0.2),
        "weight_decay = 0.1",
    );
    let groups = [GroupHyper {
        learning_rate: RATE,
        weight_decay: 0.0,
    }];
    refused(
        &StepInfo::new(batch, RATE).groups(&groups),
        "weight_decay = 0.1",
    );
    refused(&StepInfo::new(batch.clip_norm(2.0), RATE), "clip_norm = 1");
    let wrapped = [0.2, 0.1].map(|decay| run.wrap(adamw(&net, decay)));
    run.step(&StepInfo::new(batch.clip_norm(1.0), RATE))
        .unwrap();
    for (optimizer, what) in wrapped
        .into_iter()
        .zip(["AdamW says weight_decay = 0.2", ""])
    {
        let done = steps(&run, optimizer, &net, 1);
        match what {
            "" => done.unwrap(),
            what => {
                let error = done.unwrap_err().to_string();
                assert!(error.contains(what), "{error}");
                run.skip_batch();
            }
        }
    }
    let error = steps(&run, sgd(&run, &net), &net, 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the optimizer SGD says kind = \"sgd\""),
        "{error}"
    );

    let (_, builder) = in_memory();
    let task = "[train]\nseed = 3\n[optimizer]\nkind = \"sgd\"";
    let error = builder.task(task).seed(4).create(&net.map).unwrap_err();
    assert!(error.to_string().contains("train.seed = 3"), "{error}");
}

/// A tensor without elements can't change.
#[test]
fn a_variable_without_elements_is_not_taken_for_frozen() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let empty = Var::from_tensor(
        &Tensor::zeros(0, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap(),
    )
    .unwrap();
    net.map
        .data()
        .lock()
        .unwrap()
        .insert("empty".to_owned(), empty.clone());
    let run = builder.rule_later().create(&net.map).unwrap();
    let held = vec![net.w.clone(), net.b.clone()];
    let mut own = run.wrap(Own::new(held, RATE).unwrap());
    for step in 0..2 {
        let loss = (net.loss(&indices(step)).unwrap() + empty.sum_all().unwrap()).unwrap();
        run.batch(0, &indices(step)).unwrap();
        own.backward_step(&loss).unwrap();
    }
    let summary = run.finish().unwrap();
    assert!(summary.statistics.not_updated.is_empty(), "{summary}");
    assert_eq!(flags(&storage), vec![vec![true, true, true]; 2]);
}
