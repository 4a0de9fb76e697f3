//! The recorder writes the update rule of a run, and the model crate reads it. Neither depends on the other.

use hindcast_model::update;
use hindcast_recorder::UpdateRule;

/// Every setting of a rule is read back by the model crate.
#[test]
fn an_analysis_reads_the_rule_that_the_recorder_was_given() {
    let sgd = |momentum, dampening, nesterov, weight_decay, clip_norm| update::UpdateRule::Sgd {
        momentum,
        dampening,
        nesterov,
        weight_decay,
        clip_norm,
    };
    let given = UpdateRule::sgd;
    agree([
        (given().into(), update::UpdateRule::sgd()),
        (
            given().weight_decay(0.1).clip_norm(2.0).into(),
            sgd(0.0, 0.0, false, 0.1, Some(2.0)),
        ),
        (
            given().momentum(0.9).nesterov().weight_decay(5e-4).into(),
            sgd(0.9, 0.0, true, 5e-4, None),
        ),
        (
            given().momentum(0.9).dampening(0.5).clip_norm(1.0).into(),
            sgd(0.9, 0.5, false, 0.0, Some(1.0)),
        ),
        (UpdateRule::adam_w().into(), update::UpdateRule::adamw()),
        (
            UpdateRule::adam_w()
                .beta1(0.8)
                .beta2(0.9)
                .eps(1e-6)
                .weight_decay(0.2)
                .clip_norm(3.0)
                .into(),
            update::UpdateRule::AdamW {
                beta1: 0.8,
                beta2: 0.9,
                eps: 1e-6,
                weight_decay: 0.2,
                clip_norm: Some(3.0),
            },
        ),
        (
            UpdateRule::adam().into(),
            update::UpdateRule::Adam {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.0,
                clip_norm: None,
            },
        ),
    ]);
}

/// The same for the optimizers besides SGD and Adam.
#[test]
fn an_analysis_reads_the_rules_of_other_optimizers() {
    agree([
        (
            UpdateRule::rms_prop().into(),
            update::UpdateRule::RmsProp {
                alpha: 0.99,
                eps: 1e-8,
                momentum: 0.0,
                centered: false,
                weight_decay: 0.0,
                clip_norm: None,
            },
        ),
        (
            UpdateRule::rms_prop()
                .alpha(0.9)
                .eps(1e-3)
                .momentum(0.5)
                .centered()
                .weight_decay(0.1)
                .clip_norm(2.0)
                .into(),
            update::UpdateRule::RmsProp {
                alpha: 0.9,
                eps: 1e-3,
                momentum: 0.5,
                centered: true,
                weight_decay: 0.1,
                clip_norm: Some(2.0),
            },
        ),
        (
            UpdateRule::adagrad()
                .lr_decay(0.1)
                .initial_accumulator_value(0.5)
                .into(),
            update::UpdateRule::Adagrad {
                lr_decay: 0.1,
                eps: 1e-10,
                initial_accumulator_value: 0.5,
                weight_decay: 0.0,
                clip_norm: None,
            },
        ),
        (
            UpdateRule::lamb().into(),
            update::UpdateRule::Lamb {
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-6,
                weight_decay: 0.0,
                clip_norm: None,
            },
        ),
        (
            UpdateRule::lion().weight_decay(0.1).into(),
            update::UpdateRule::Lion {
                beta1: 0.9,
                beta2: 0.99,
                weight_decay: 0.1,
                clip_norm: None,
            },
        ),
        (
            UpdateRule::muon().without_nesterov().into(),
            update::UpdateRule::Muon {
                momentum: 0.95,
                nesterov: false,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.0,
                clip_norm: None,
            },
        ),
    ]);
}

fn agree<const N: usize>(cases: [(UpdateRule, update::UpdateRule); N]) {
    for (written, read) in cases {
        let text = written.to_string();
        // What the recorder tells at the start of a run is what an analysis says.
        assert_eq!(written.has_adjoint(), read.no_adjoint().is_none(), "{text}");
        assert_eq!(update::UpdateRule::from_toml(&text), Ok(read), "{text}");
    }
}

/// If all settings are given, both crates write the same text, apart from the newline at the end.
#[test]
fn both_crates_write_the_same_text() {
    let sgd = UpdateRule::sgd().momentum(0.9).dampening(0.5).nesterov();
    let rules: [UpdateRule; 6] = [
        sgd.weight_decay(1e-7).clip_norm(1.0).into(),
        UpdateRule::adam()
            .beta1(0.5)
            .beta2(0.75)
            .eps(1e-8)
            .weight_decay(3.0)
            .clip_norm(1e-3)
            .into(),
        UpdateRule::rms_prop()
            .alpha(0.5)
            .eps(1e-8)
            .momentum(0.75)
            .centered()
            .weight_decay(3.0)
            .clip_norm(1e-3)
            .into(),
        UpdateRule::adagrad()
            .lr_decay(0.5)
            .eps(1e-8)
            .initial_accumulator_value(0.25)
            .weight_decay(3.0)
            .clip_norm(1e-3)
            .into(),
        UpdateRule::lamb()
            .beta1(0.5)
            .beta2(0.75)
            .eps(1e-8)
            .weight_decay(3.0)
            .clip_norm(1e-3)
            .into(),
        UpdateRule::lion()
            .beta1(0.5)
            .beta2(0.75)
            .weight_decay(3.0)
            .clip_norm(1e-3)
            .into(),
    ];
    for rule in rules {
        let text = rule.to_string();
        let read = update::UpdateRule::from_toml(&text).unwrap();
        assert_eq!(read.to_toml().unwrap(), text + "\n");
    }
}
