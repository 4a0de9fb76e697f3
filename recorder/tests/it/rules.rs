//! The text of an update rule in a trace.

use hindcast_recorder::{Builder, UpdateRule};

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
    let cases: [(UpdateRule, &str); 12] = [
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
    ];
    for (rule, text) in cases {
        let typed = recorded(|builder| builder.rule(rule));
        assert_eq!(typed.as_deref(), Some(text));
        assert_eq!(typed, recorded(|builder| builder.rule_text(text)));
    }
    assert_eq!(recorded(|builder| builder), None);
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
