//! The text of an update rule in a trace.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use hindcast_recorder::{Builder, Describe, Recorded, Recorder, RecorderError, UpdateRule};

use crate::common::*;

/// The rule that a run created with these choices stores.
fn recorded(choose: impl FnOnce(Builder) -> Builder) -> Option<String> {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = choose(builder).create(&net.map).unwrap();
    run.finish().unwrap();
    open(&storage).info().rule.clone()
}

#[test]
fn a_typed_rule_is_recorded_as_its_text() {
    let sgd = UpdateRule::sgd;
    let cases: [(UpdateRule, &str); 22] = [
        (sgd().into(), "kind = \"sgd\""),
        (
            sgd().weight_decay(0.0005).into(),
            "kind = \"sgd\"\nweight_decay = 0.0005",
        ),
        (
            sgd().clip_norm(1.0).weight_decay(1e-12).into(),
            "kind = \"sgd\"\nweight_decay = 0.000000000001\nclip_norm = 1.0",
        ),
        (sgd().momentum(0.9).into(), "kind = \"sgd\"\nmomentum = 0.9"),
        (
            sgd().momentum(0.8).dampening(0.3).into(),
            "kind = \"sgd\"\nmomentum = 0.8\ndampening = 0.3",
        ),
        (
            sgd().momentum(0.9).nesterov().weight_decay(0.01).into(),
            "kind = \"sgd\"\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.01",
        ),
        (
            sgd().clip_norm(0.1).momentum(0.5).nesterov().into(),
            "kind = \"sgd\"\nmomentum = 0.5\nnesterov = true\nclip_norm = 0.1",
        ),
        (UpdateRule::adam().into(), "kind = \"adam\""),
        (
            UpdateRule::adam().weight_decay(1.0).eps(0.01).into(),
            "kind = \"adam\"\neps = 0.01\nweight_decay = 1.0",
        ),
        (UpdateRule::adam_w().into(), "kind = \"adamw\""),
        (
            UpdateRule::adam_w().beta2(0.99).beta1(0.8).into(),
            "kind = \"adamw\"\nbeta1 = 0.8\nbeta2 = 0.99",
        ),
        (
            UpdateRule::adam_w().weight_decay(0.1).clip_norm(2.0).into(),
            "kind = \"adamw\"\nweight_decay = 0.1\nclip_norm = 2.0",
        ),
        (UpdateRule::rms_prop().into(), "kind = \"rmsprop\""),
        (
            UpdateRule::rms_prop()
                .momentum(0.5)
                .centered()
                .alpha(0.9)
                .clip_norm(1.0)
                .into(),
            "kind = \"rmsprop\"\nalpha = 0.9\nmomentum = 0.5\ncentered = true\nclip_norm = 1.0",
        ),
        (UpdateRule::adagrad().into(), "kind = \"adagrad\""),
        (
            UpdateRule::adagrad()
                .initial_accumulator_value(0.1)
                .lr_decay(0.25)
                .weight_decay(1.0)
                .into(),
            "kind = \"adagrad\"\nlr_decay = 0.25\ninitial_accumulator_value = 0.1\nweight_decay = 1.0",
        ),
        (UpdateRule::lamb().into(), "kind = \"lamb\""),
        (
            UpdateRule::lamb().eps(0.5).beta1(0.5).beta2(0.75).into(),
            "kind = \"lamb\"\nbeta1 = 0.5\nbeta2 = 0.75\neps = 0.5",
        ),
        (UpdateRule::lion().into(), "kind = \"lion\""),
        (
            UpdateRule::lion().beta2(0.75).weight_decay(0.5).into(),
            "kind = \"lion\"\nbeta2 = 0.75\nweight_decay = 0.5",
        ),
        (UpdateRule::muon().into(), "kind = \"muon\""),
        (
            UpdateRule::muon().without_nesterov().momentum(0.5).into(),
            "kind = \"muon\"\nmomentum = 0.5\nnesterov = false",
        ),
    ];
    for (rule, text) in cases {
        let typed = recorded(|builder| builder.rule(rule));
        assert_eq!(typed.as_deref(), Some(text));
        assert_eq!(typed, recorded(|builder| builder.rule_text(text)));
    }
    assert_eq!(recorded(|builder| builder), None);
}

#[test]
fn only_lion_has_no_adjoint() {
    assert!(!UpdateRule::from(UpdateRule::lion()).has_adjoint());
    let rules: [UpdateRule; 7] = [
        UpdateRule::sgd().into(),
        UpdateRule::adam().into(),
        UpdateRule::adam_w().into(),
        UpdateRule::rms_prop().into(),
        UpdateRule::adagrad().into(),
        UpdateRule::lamb().into(),
        UpdateRule::muon().into(),
    ];
    assert!(rules.iter().all(UpdateRule::has_adjoint));
}

#[test]
fn a_decay_that_is_negative_or_not_finite_is_refused() {
    for decay in [f64::NAN, f64::INFINITY, -0.1] {
        let (_, builder) = in_memory();
        let rule = UpdateRule::sgd().weight_decay(decay);
        let error = builder.rule(rule).create(&Linear::new().map).unwrap_err();
        assert!(error.to_string().contains("weight_decay"), "{error}");
    }
}

/// Records `steps` steps. Returns the summary's text and the trace.
fn record<O: Optimizer + 'static>(
    choose: impl FnOnce(Builder) -> Builder,
    wrap: impl FnOnce(&Recorder, &Linear) -> Recorded<O>,
    mut before: impl FnMut(u64, &mut Recorded<O>),
) -> Result<(String, hindcast_format::Trace), RecorderError> {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = choose(builder).create(&net.map)?;
    let mut optimizer = wrap(&run, &net);
    for step in 0..4 {
        before(step, &mut optimizer);
        run.batch(0, &indices(step))?;
        optimizer.backward_step(&net.loss(&indices(step)).unwrap())?;
    }
    let text = run.finish()?.to_string();
    Ok((text, open(&storage)))
}

const ADAMW: &str =
    "kind = \"adamw\"\nbeta1 = 0.9\nbeta2 = 0.999\neps = 0.00000001\nweight_decay = 0.01";

fn adamw(params: ParamsAdamW) -> impl FnOnce(&Recorder, &Linear) -> Recorded<AdamW> {
    move |run, net| run.wrap(AdamW::new(net.map.all_vars(), params).unwrap())
}

#[test]
fn candles_optimizers_need_no_rule() {
    let (text, trace) = record(
        |b| b.note("who", "me").seed(7),
        adamw(ParamsAdamW::default()),
        |_, _| (),
    )
    .unwrap();
    assert!(!text.contains("no update rule"), "{text}");
    let info = trace.info();
    assert_eq!(info.rule.as_deref(), Some(ADAMW));
    // Everything else is as the builder said.
    assert_eq!((info.notes["who"].as_str(), info.seed), ("me", 7));
    assert_eq!(kept(&trace), [0, 1, 2, 3]);
    assert!(trace.verify().unwrap().findings.is_empty());
    let (_, trace) = record(|b| b, sgd, |_, _| ()).unwrap();
    assert_eq!(trace.info().rule.as_deref(), Some("kind = \"sgd\""));
}

#[test]
fn a_rule_of_the_builder_is_stored_unchanged_and_must_agree() {
    let (_, trace) = record(
        |b| b.rule(UpdateRule::adam_w()),
        adamw(ParamsAdamW::default()),
        |_, _| (),
    )
    .unwrap();
    assert_eq!(trace.info().rule.as_deref(), Some("kind = \"adamw\""));
    let wrong = record(
        |b| b.rule(UpdateRule::adam_w().beta2(0.99)),
        adamw(ParamsAdamW::default()),
        |_, _| (),
    );
    let error = wrong.unwrap_err().to_string();
    assert!(
        error.contains("beta2 = 0.99, and the optimizer AdamW says beta2 = 0.999"),
        "{error}"
    );
}

#[test]
fn rate_and_decay_are_read_at_each_step_and_the_constants_must_not_change() {
    let change = |beta1: f64| {
        move |step, adamw: &mut Recorded<AdamW>| {
            if step == 2 {
                adamw.optimizer_mut().set_params(ParamsAdamW {
                    lr: 0.5,
                    weight_decay: 0.3,
                    beta1,
                    ..ParamsAdamW::default()
                });
            }
        }
    };
    let (_, trace) = record(|b| b, adamw(ParamsAdamW::default()), change(0.9)).unwrap();
    let hyper = |step| {
        let group = trace.meta(step).unwrap().groups[0];
        (group.learning_rate, group.weight_decay)
    };
    assert_eq!(hyper(1), (0.001, 0.01));
    assert_eq!(hyper(2), (0.5, 0.3));
    assert_eq!(trace.info().rule.as_deref(), Some(ADAMW));
    let error = record(|b| b, adamw(ParamsAdamW::default()), change(0.8)).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("step 2 of the run")
            && error.contains("beta1 = 0.9, and the optimizer AdamW says beta1 = 0.8"),
        "{error}"
    );
}

/// Gradient descent with decay in a type that the recorder doesn't know.
struct Decayed {
    variables: Vec<Var>,
    rate: f64,
    decay: f64,
}

impl Optimizer for Decayed {
    type Config = f64;

    fn new(variables: Vec<Var>, rate: f64) -> candle_core::Result<Self> {
        Ok(Self {
            variables,
            rate,
            decay: 0.5,
        })
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        for var in &self.variables {
            if let Some(gradient) = gradients.get(var) {
                let gradient: Tensor = (gradient + (var.as_tensor() * self.decay)?)?;
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

impl Describe for Decayed {
    fn rule(&self) -> UpdateRule {
        UpdateRule::sgd().weight_decay(self.decay).into()
    }

    fn variables(&self) -> Option<Vec<Var>> {
        Some(self.variables.clone())
    }
}

#[test]
fn an_optimizer_of_the_users_own_tells_its_rule_decay_and_variables() {
    let (_, trace) = record(
        |b| b,
        |run, net| run.wrap_described(Decayed::new(vec![net.w.clone()], RATE).unwrap()),
        |step, own| own.optimizer_mut().decay = 0.5 + step as f64,
    )
    .unwrap();
    assert_eq!(
        trace.info().rule.as_deref(),
        Some("kind = \"sgd\"\nweight_decay = 0.5")
    );
    for step in 0..4 {
        let meta = trace.meta(step).unwrap();
        assert_eq!(meta.groups[0].weight_decay, 0.5 + step as f64);
        assert_eq!(meta.trained, [false, true]);
    }
}

#[test]
fn an_optimizer_without_a_known_rule_is_announced_at_the_first_step() {
    let wrap =
        |run: &Recorder, net: &Linear| run.wrap(Decayed::new(net.map.all_vars(), RATE).unwrap());
    let error = record(|b| b, wrap, |_, _| ()).unwrap_err().to_string();
    for part in [
        "step 0 of the run: the update rule of the optimizer Decayed is not known",
        "rule(UpdateRule::..)",
        "rule_later()",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let (text, trace) = record(|b| b.rule_later(), wrap, |_, _| ()).unwrap();
    assert!(text.contains("no update rule is stated"), "{text}");
    assert_eq!(trace.info().rule, None);
    let rule = UpdateRule::sgd().weight_decay(0.5);
    let (text, _) = record(|b| b.rule(rule), wrap, |_, _| ()).unwrap();
    assert!(!text.contains("no update rule"), "{text}");
}
