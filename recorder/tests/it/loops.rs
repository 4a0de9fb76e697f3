//! Every kind of loop: wrapped optimizer, own update with momentum, BatchNorm, parameter groups, accumulated gradients.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{
    AdamW, Module, ModuleT, Optimizer, ParamsAdamW, SGD, VarBuilder, VarMap, batch_norm, linear,
};
use hindcast_format::meta::BatchWeights;
use hindcast_recorder::{
    BatchInfo, DataIdentity, GroupHyper, LossValues, Named, OptimizerState, Recorder, Role,
    SplitFingerprint, StepInfo,
};

use crate::common::*;

#[test]
fn a_wrapped_loop_is_recorded_bit_for_bit() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder
        .seed(7)
        .task("name = \"toy\"")
        .note("who", "me")
        .create(&net.map)
        .unwrap();
    let mut sgd = sgd(&run, &net);
    let seen = train(&run, &mut sgd, &net, 0..10, 3).unwrap();
    assert_eq!(run.next_step(), 10);
    let summary = run.finish().unwrap();
    assert_eq!(summary.steps, 10);
    assert!(summary.head.is_some());
    assert_eq!(summary.statistics.written, 10);
    assert_eq!(summary.statistics.raw_bytes, 160);

    let trace = open(&storage);
    let info = trace.info();
    assert_eq!(
        (info.seed, info.task.as_deref(), info.keep.as_str()),
        (7, Some("name = \"toy\""), "all")
    );
    assert_eq!(info.notes["who"], "me");
    assert_eq!(states(&trace), (0..).zip(seen).collect::<Vec<_>>());
    let (last, key) = trace.final_state().unwrap().unwrap();
    assert_eq!(last.bytes(), net.bytes());
    assert!(key.optimizer().is_empty());
    let meta = trace.read(4).unwrap().meta;
    assert_eq!((meta.step, meta.epoch, meta.indices), (4, 1, indices(4)));
    assert_eq!(
        meta.groups,
        [GroupHyper {
            learning_rate: RATE,
            weight_decay: 0.0
        }]
    );
    assert_eq!(
        (meta.trained, meta.weights, meta.optimizer_step),
        (vec![true, true], BatchWeights::Mean, 4)
    );
    assert!(trace.verify().unwrap().findings.is_empty());
}

#[test]
fn the_loss_is_recorded_as_the_policy_says() {
    for (policy, wanted) in [
        (LossValues::OnCpu, true),
        (LossValues::Always, true),
        (LossValues::Never, false),
    ] {
        let (storage, builder) = in_memory();
        let net = Linear::of(DType::F64);
        let run = builder.loss_values(policy).create(&net.map).unwrap();
        let expected = net.loss(&indices(0)).unwrap().to_scalar::<f64>().unwrap();
        train(&run, &mut sgd(&run, &net), &net, 0..1, 1).unwrap();
        run.finish().unwrap();
        assert_eq!(
            open(&storage).read(0).unwrap().meta.loss,
            wanted.then_some(expected)
        );
    }
}

#[test]
fn a_changed_learning_rate_is_seen_and_a_variable_without_gradient_is_marked() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    train(&run, &mut sgd, &net, 0..1, 1).unwrap();
    sgd.set_learning_rate(0.01);
    run.batch(1, &[0]).unwrap();
    sgd.backward_step(&net.w.sqr().unwrap().sum_all().unwrap())
        .unwrap();
    run.finish().unwrap();
    let meta = open(&storage).read(1).unwrap().meta;
    assert_eq!(meta.groups[0].learning_rate, 0.01);
    assert_eq!(meta.trained, [false, true]);
}

/// A generic function that doesn't know the recorder.
fn any_loop(optimizer: &mut impl Optimizer, loss: &Tensor) -> candle_core::Result<()> {
    optimizer.backward_step(loss)
}

#[test]
fn a_recorded_optimizer_is_an_optimizer() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    let error = any_loop(&mut sgd, &net.loss(&[0]).unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("step 0 of the run has no batch"), "{error}");
    run.batch(0, &[0]).unwrap();
    any_loop(&mut sgd, &net.loss(&[0]).unwrap()).unwrap();
    assert_eq!(sgd.learning_rate(), RATE);
    assert!(hindcast_recorder::Recorded::<SGD>::new(vec![], 0.1).is_err());
    run.finish().unwrap();
    assert_eq!(kept(&open(&storage)), [0]);
}

/// SGD with momentum. Its velocities are plain tensors that are replaced in every step.
struct Momentum {
    vars: Vec<(String, Var)>,
    velocity: Vec<Tensor>,
    rate: f64,
}

impl Momentum {
    fn new(vars: Vec<(String, Var)>, rate: f64) -> Self {
        let velocity = vars
            .iter()
            .map(|(_, var)| var.zeros_like().unwrap())
            .collect();
        Self {
            vars,
            velocity,
            rate,
        }
    }

    fn update(&mut self, gradients: &candle_core::backprop::GradStore) -> candle_core::Result<()> {
        for ((_, var), velocity) in self.vars.iter().zip(&mut self.velocity) {
            if let Some(gradient) = gradients.get(var) {
                *velocity = ((&*velocity * 0.9)? + gradient)?;
                var.set(&(var.as_tensor() - (&*velocity * self.rate)?)?)?;
            }
        }
        Ok(())
    }
}

impl OptimizerState for Momentum {
    fn tensors(&self) -> candle_core::Result<Vec<(String, Tensor)>> {
        Ok(self
            .vars
            .iter()
            .zip(&self.velocity)
            .map(|((name, _), velocity)| (format!("{name}.velocity"), velocity.clone()))
            .collect())
    }
}

#[test]
fn an_own_update_with_momentum_records_its_state_at_keyframes() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let mut momentum = Momentum::new(
        vec![("w".into(), net.w.clone()), ("b".into(), net.b.clone())],
        RATE,
    );
    let run = builder
        .optimizer_state(&momentum)
        .segment_steps(3)
        .create(&net.map)
        .unwrap();
    let mut velocities = Vec::new();
    for step in 0..8 {
        let batch = indices(step);
        let loss = net.loss(&batch).unwrap();
        let gradients = loss.backward().unwrap();
        velocities.push(
            [
                tensor_bytes(&momentum.velocity[1]),
                tensor_bytes(&momentum.velocity[0]),
            ]
            .concat(),
        );
        let batch = BatchInfo::new(step / 4, &batch)
            .clip_norm(5.0)
            .scalar("temperature", 0.5);
        let info = StepInfo::new(batch, RATE)
            .weight_decay(0.1)
            .loss(f64::from(loss.to_scalar::<f32>().unwrap()));
        run.step(&info.gradients(&gradients).optimizer(&momentum))
            .unwrap();
        momentum.update(&gradients).unwrap();
    }
    run.finish_with(&momentum).unwrap();
    let trace = open(&storage);
    assert_eq!(
        trace
            .layout()
            .optimizer_state()
            .iter()
            .map(|spec| spec.name.as_str())
            .collect::<Vec<_>>(),
        ["b.velocity", "w.velocity"]
    );
    for keyframe in [0, 3, 6] {
        let key = trace.read(keyframe).unwrap().key.unwrap();
        assert_eq!(
            key.optimizer(),
            velocities[keyframe as usize],
            "at step {keyframe}"
        );
    }
    assert!(trace.read(4).unwrap().key.is_none());
    let meta = trace.read(5).unwrap().meta;
    assert_eq!(
        (meta.clip_norm, meta.groups[0].weight_decay),
        (Some(5.0), 0.1)
    );
    assert_eq!(meta.scalars, [("temperature".to_owned(), 0.5)]);
    assert!(meta.loss.is_some());
    let (_, key) = trace.final_state().unwrap().unwrap();
    assert_eq!(
        key.optimizer(),
        [
            tensor_bytes(&momentum.velocity[1]),
            tensor_bytes(&momentum.velocity[0])
        ]
        .concat()
    );
}

#[test]
fn momentum_in_variables_needs_no_trait() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let velocity = Var::from_tensor(&net.w.ones_like().unwrap()).unwrap();
    let named = vec![
        Named::parameter("w", &net.w),
        Named::parameter("b", &net.b),
        Named::optimizer_state("w.velocity", &velocity),
    ];
    let run = builder.create_from(named).unwrap();
    run.step(&StepInfo::new(BatchInfo::new(0, &[1]), RATE))
        .unwrap();
    velocity.set(&velocity.zeros_like().unwrap()).unwrap();
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(
        trace.read(0).unwrap().key.unwrap().optimizer(),
        [1f32.to_le_bytes(); 3].concat()
    );
    assert_eq!(trace.final_state().unwrap().unwrap().1.optimizer(), [0; 12]);
}

#[test]
fn batch_norm_statistics_are_buffers_as_the_forward_pass_leaves_them() {
    let (storage, builder) = in_memory();
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let (first, norm) = (
        linear(3, 2, vb.pp("first")).unwrap(),
        batch_norm(2, 1e-5, vb.pp("norm")).unwrap(),
    );
    let x = Tensor::new(
        &[[1f32, 2., 3.], [0., 1., 0.], [4., 4., 1.], [2., 0., 2.]],
        &Device::Cpu,
    )
    .unwrap();
    let run = builder.segment_steps(2).create(&variables).unwrap();
    let statistic = |name: &str| tensor_bytes(variables.data().lock().unwrap()[name].as_tensor());
    let statistics = || {
        [
            statistic("norm.running_mean"),
            statistic("norm.running_var"),
        ]
        .concat()
    };
    let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.1).unwrap());
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for step in 0..5 {
        before.push(statistics());
        let loss = norm
            .forward_t(&first.forward(&x).unwrap(), true)
            .unwrap()
            .powf(3.0)
            .unwrap()
            .mean_all()
            .unwrap();
        after.push(statistics());
        run.batch(step, &[0, 1, 2, 3]).unwrap();
        sgd.backward_step(&loss).unwrap();
    }
    run.finish().unwrap();
    let trace = open(&storage);
    let names = |specs: &[hindcast_format::layout::TensorSpec]| {
        specs
            .iter()
            .map(|spec| spec.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(trace.layout().parameters()),
        ["first.bias", "first.weight", "norm.bias", "norm.weight"]
    );
    assert_eq!(
        names(trace.layout().buffers()),
        ["norm.running_mean", "norm.running_var"]
    );
    for step in 0..5 {
        let frame = trace.read(step as u64).unwrap();
        assert_eq!(
            frame.state.buffers(),
            after[step],
            "r after the forward pass of step {step}"
        );
        if step % 2 == 0 {
            assert_eq!(
                frame.key.unwrap().buffers_before(),
                before[step],
                "r before the forward pass of step {step}"
            );
        }
    }
    assert_eq!(trace.final_state().unwrap().unwrap().0.buffers(), after[4]);
}

#[test]
fn groups_have_their_own_rates() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder
        .groups(|name| u16::from(name == "b"))
        .create(&net.map)
        .unwrap();
    let adam = AdamW::new(
        net.map.all_vars(),
        ParamsAdamW {
            lr: 0.01,
            weight_decay: 0.2,
            ..Default::default()
        },
    )
    .unwrap();
    let mut adam = run.wrap(adam).hyper(|adam, groups| {
        // The entries already hold the decay of candle's AdamW.
        assert_eq!(groups[1].weight_decay, adam.params().weight_decay);
        groups[1].learning_rate *= 2.0;
    });
    run.batch(0, &[3]).unwrap();
    adam.backward_step(&net.loss(&[3]).unwrap()).unwrap();
    let error = run
        .step(&StepInfo::new(BatchInfo::new(0, &[1]), 0.1).groups(&[]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expected learning rates of 2 parameter groups, got 0"),
        "{error}"
    );
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(
        trace
            .layout()
            .parameters()
            .iter()
            .map(|spec| spec.group)
            .collect::<Vec<_>>(),
        [1, 0]
    );
    let hyper = |learning_rate, weight_decay| GroupHyper {
        learning_rate,
        weight_decay,
    };
    assert_eq!(
        trace.read(0).unwrap().meta.groups,
        [hyper(0.01, 0.2), hyper(0.02, 0.2)]
    );
}

#[test]
fn a_batch_may_be_weighted_summed_and_split() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let weights = [0.5, 0.25, 0.25];
    run.step(&StepInfo::new(
        BatchInfo::new(0, &[1, 1, 2]).weights(&weights),
        RATE,
    ))
    .unwrap();
    run.step(
        &StepInfo::new(
            BatchInfo::new(0, &[1, 2, 3])
                .summed()
                .micro_batches(&[2, 1]),
            RATE,
        )
        .optimizer_step(40)
        .trained(&[true, false]),
    )
    .unwrap();
    run.batch_with(BatchInfo::new(1, &[5])).unwrap();
    run.step(&StepInfo::announced(RATE)).unwrap();
    run.finish().unwrap();
    let trace = open(&storage);
    let meta = |step| trace.read(step).unwrap().meta;
    assert_eq!(
        (meta(0).weights, meta(0).indices),
        (BatchWeights::Each(weights.to_vec()), vec![1, 1, 2])
    );
    assert_eq!(
        (meta(1).weights, meta(1).micro_batches, meta(1).trained),
        (BatchWeights::Sum, vec![2, 1], vec![true, false])
    );
    assert_eq!(
        (
            meta(0).optimizer_step,
            meta(1).optimizer_step,
            meta(2).optimizer_step
        ),
        (0, 40, 41)
    );
}

#[test]
fn a_refused_step_can_be_recorded_again_with_valid_values() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let splits = vec![SplitFingerprint {
        name: "train".into(),
        examples: EXAMPLES,
        root: [0; 32],
    }];
    let run = builder
        .data(DataIdentity::Fingerprint { splits })
        .create(&net.map)
        .unwrap();
    let batch = |batch: BatchInfo<'_>| run.batch_with(batch).unwrap_err().to_string();
    let expect = |error: String, part: &str| {
        assert!(
            error.starts_with("step 0 of the run") && error.contains(part),
            "{error}"
        )
    };
    expect(
        batch(BatchInfo::new(0, &[3, 12])),
        "index 12 (at position 1 of the batch, counted from 0) is outside of the training data, which has 12 examples",
    );
    expect(batch(BatchInfo::new(0, &[])), "the batch is empty");
    expect(
        batch(BatchInfo::new(0, &[1, 2]).weights(&[1.0])),
        "expected 2 weights, one per index, got 1",
    );
    expect(
        batch(BatchInfo::new(0, &[1]).weights(&[f64::NAN])),
        "a weight of NaN",
    );
    expect(
        batch(BatchInfo::new(0, &[1, 2]).micro_batches(&[1])),
        "add up to 1",
    );
    let many = (0..17).fold(BatchInfo::new(0, &[1]), |batch, _| batch.scalar("s", 1.0));
    expect(batch(many), "a step has at most 16 scalars");
    let step = |info: StepInfo<'_>| run.step(&info).unwrap_err().to_string();
    expect(
        step(StepInfo::new(BatchInfo::new(0, &[1]), f64::INFINITY)),
        "a learning rate of inf",
    );
    expect(
        step(StepInfo::new(BatchInfo::new(0, &[1]), RATE).trained(&[true])),
        "expected flags of 2 parameters, got 1",
    );
    expect(step(StepInfo::announced(RATE)), "has no batch");
    run.batch(0, &[1, 2]).unwrap();
    let error = run.batch(0, &[3]).unwrap_err().to_string();
    assert!(
        error.contains("already has a batch of 2 examples") && error.contains("skip_batch()"),
        "{error}"
    );
    run.skip_batch();
    train(&run, &mut sgd(&run, &net), &net, 0..3, 3).unwrap();
    run.finish().unwrap();
    assert_eq!(kept(&open(&storage)), [0, 1, 2]);
}

#[test]
fn roles_can_be_named_and_variables_left_out() {
    let (_, builder) = in_memory();
    let net = Linear::new();
    net.map.data().lock().unwrap().insert(
        "count".into(),
        Var::zeros(1, DType::U32, &Device::Cpu).unwrap(),
    );
    net.map.data().lock().unwrap().insert(
        "ema.w".into(),
        Var::zeros(3, DType::F32, &Device::Cpu).unwrap(),
    );
    let run = builder
        .exclude(|name| name == "count")
        .buffers(|name| name.starts_with("ema."))
        .create(&net.map)
        .unwrap();
    let roles: Vec<_> = run
        .layout()
        .tensors()
        .iter()
        .map(|spec| (spec.name.clone(), spec.role))
        .collect();
    assert_eq!(
        roles,
        [
            ("b".into(), Role::Parameter),
            ("w".into(), Role::Parameter),
            ("ema.w".into(), Role::Buffer)
        ]
    );
    let (_, builder) = in_memory();
    let error = builder.create(&net.map).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot start recording the run the run")
            && error.contains("\"count\" has type U32"),
        "{error}"
    );
}

#[test]
fn a_loop_whose_functions_return_candles_result_can_use_the_question_mark() {
    fn whole() -> candle_core::Result<()> {
        let (_, builder) = in_memory();
        let net = Linear::new();
        let run = builder.create(&net.map)?;
        run.batch(0, &[0])?;
        run.wrap(SGD::new(net.map.all_vars(), RATE)?)
            .backward_step(&net.loss(&[0])?)?;
        run.finish()?;
        Ok(())
    }
    whole().unwrap();
    let _ = Recorder::builder("nowhere").keep("last-steps=3".parse().unwrap());
}

#[test]
fn clip_grad_norm_clips_as_pytorch_and_is_recorded() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut sgd = sgd(&run, &net);
    let vars = net.map.all_vars();
    let gradients = || net.loss(&indices(0)).unwrap().backward().unwrap();
    let squares = |store: &candle_core::backprop::GradStore| -> f64 {
        let of = |var: &Var| {
            let g = store.get(var).unwrap().to_dtype(DType::F64).unwrap();
            let sum = g.sqr().unwrap().sum_all().unwrap();
            sum.to_scalar::<f64>().unwrap()
        };
        vars.iter().map(of).sum()
    };
    let norm = squares(&gradients()).sqrt();
    assert!(norm > 0.0);

    let mut clipped = gradients();
    let early = run.clip_grad_norm(&mut clipped, &vars, 1.0).unwrap_err();
    assert!(early.to_string().contains("batch"), "{early}");
    for (step, most) in [0.5 * norm, 2.0 * norm].into_iter().enumerate() {
        run.batch(0, &indices(step as u64)).unwrap();
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = run.clip_grad_norm(&mut clipped, &vars, wrong).unwrap_err();
            assert!(error.to_string().contains("positive and finite"), "{error}");
        }
        let other = Var::from_tensor(&Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
        let error = run
            .clip_grad_norm(&mut clipped, &[other.unwrap()], most)
            .unwrap_err();
        assert!(error.to_string().contains("isn't a parameter"), "{error}");
        clipped = gradients();
        let before = run.clip_grad_norm(&mut clipped, &vars, most).unwrap();
        let again = run.clip_grad_norm(&mut clipped, &vars, most).unwrap_err();
        assert!(again.to_string().contains("clipped twice"), "{again}");
        let here = squares(&gradients()).sqrt();
        assert!((before / here - 1.0).abs() < 1e-12, "{before} {here}");
        let want = here * (most / (here + 1e-6)).min(1.0);
        let after = squares(&clipped).sqrt();
        assert!((after / want - 1.0).abs() < 1e-6, "{after} {want}");
        sgd.step_with(&clipped, None).unwrap();
    }
    run.finish().unwrap();
    let trace = open(&storage);
    for (step, most) in [0.5 * norm, 2.0 * norm].into_iter().enumerate() {
        let meta = trace.read(step as u64).unwrap().meta;
        assert_eq!(meta.clip_norm, Some(most));
    }
}
