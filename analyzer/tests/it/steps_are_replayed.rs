//! The replay check on correct and on altered runs.

use hindcast_analyzer::check::ReplayCheckReport;
use hindcast_analyzer::{MemoryRun, RecordedRun, ReplayCheckOptions, replay_check};
use hindcast_model::update::UpdateRule;

use crate::tiny::{Recipe, TinyData, TinyNet, train};

fn check(recipe: &Recipe, recorded: &MemoryRun, samples: usize) -> ReplayCheckReport {
    let run = RecordedRun::new(
        recorded,
        TinyNet::new(0.0),
        &TinyData,
        recipe.rule.clone(),
        7,
    )
    .unwrap();
    let mut options = ReplayCheckOptions::new(&run);
    options.samples = samples;
    let mut calls = 0;
    let report = replay_check(&run, &options, &mut |_, _| {
        calls += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(calls, report.steps.len() + report.passes.len());
    report
}

#[test]
fn correct_runs_are_reproduced_bit_for_bit() {
    for text in [
        "kind = \"sgd\"",
        "kind = \"sgd\"\nmomentum = 0.9",
        "kind = \"adamw\"",
    ] {
        for keep_state in [true, false] {
            let recipe = Recipe {
                keep_state,
                ..Recipe::new(UpdateRule::from_toml(text).unwrap(), 0.1)
            };
            let recorded = train(&recipe, &TinyNet::new(0.0), None);
            let report = check(&recipe, &recorded, 0);
            assert!(report.passed() && report.bit_identical(), "{report:#?}");
            assert_eq!(report.steps.len(), 10, "{text}");
            assert_eq!((report.note.as_str(), report.by_rounding()), ("", 0));
            assert!(report.is_complete() && report.caught(0.01) == Some(1.0));
            // A few steps: random ones, with those since the last known state; or the first ones.
            let few = check(&recipe, &recorded, 3);
            assert!(few.passed() && few.bit_identical(), "{few:#?}");
            let steps: Vec<u64> = few.steps.iter().map(|s| s.step).collect();
            if text != "kind = \"sgd\"" && !keep_state {
                assert_eq!(
                    (steps, few.drawn, few.caught(0.5)),
                    (vec![0, 1, 2], None, None)
                );
                assert!(
                    few.note.contains("the first steps were chosen"),
                    "{}",
                    few.note
                );
            } else {
                assert_eq!(
                    (few.drawn, few.caught(0.5), few.note.as_str()),
                    (Some(3), Some(0.875), "")
                );
                assert!(steps.len() >= 3 && !few.is_complete(), "{steps:?}");
                assert_eq!(
                    text == "kind = \"sgd\"",
                    steps.len() == 3,
                    "{text}: {steps:?}"
                );
            }
        }
    }
}

#[test]
fn another_optimizer_state_at_a_keyframe_is_found() {
    let rule = UpdateRule::from_toml("kind = \"sgd\"\nmomentum = 0.9").unwrap();
    let recipe = Recipe::new(rule, 0.1);
    let honest = train(&recipe, &TinyNet::new(0.0), None);
    let keyframes: Vec<usize> = (1..honest.steps.len())
        .filter(|&at| honest.steps[at].key.is_some())
        .collect();
    assert!(
        !keyframes.is_empty(),
        "the recipe records no state between its steps"
    );
    for at in keyframes {
        let mut other = honest.clone();
        for value in &mut other.steps[at].key.as_mut().unwrap().optimizer {
            *value *= 1.5;
        }
        let report = check(&recipe, &other, 0);
        let before = &report.steps[at - 1];
        assert!(
            !before.passed && before.comparison.bit_identical,
            "{before:?}"
        );
        assert!(
            (before.state_error.unwrap() - 1.0 / 3.0).abs() < 0.05,
            "{before:?}"
        );
        assert!(!report.passed());
    }
}

#[test]
fn an_altered_step_is_found_and_its_tensor_named() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    // The last number belongs to `w2`.
    let six = &mut recorded.steps[6].parameters;
    let mut altered = six.to_vec::<f64>();
    *altered.last_mut().unwrap() += 1e-3;
    *six = altered.into();
    let report = check(&recipe, &recorded, 0);
    let failed: Vec<u64> = report
        .steps
        .iter()
        .filter(|s| !s.passed)
        .map(|s| s.step)
        .collect();
    assert_eq!(failed, [5, 6]);
    assert_eq!(
        report.worst().unwrap().comparison.tensor.as_deref(),
        Some("w2")
    );
    assert!(!report.passed());
}

#[test]
fn another_batch_or_learning_rate_is_found() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let honest = train(&recipe, &TinyNet::new(0.0), None);
    let mut other = honest.clone();
    other.steps[3].meta.indices.swap_remove(0);
    assert!(!check(&recipe, &other, 0).steps[3].passed);
    let mut other = honest.clone();
    other.steps[3].meta.groups[0].learning_rate *= 1.001;
    assert!(!check(&recipe, &other, 0).steps[3].passed);
    let mut other = honest;
    other.steps[3].meta.trained[2] = false;
    let report = check(&recipe, &other, 0);
    assert!(!report.steps[3].passed);
    assert_eq!(report.steps[3].trained_differs, ["w2"]);
}

/// Trains with one rule, and checks every step as if another one had been recorded. The keyframes have no state.
fn as_another(trained: &str, recorded: &str, rate: f64) -> ReplayCheckReport {
    let rule = |text: &str| UpdateRule::from_toml(text).unwrap();
    let recipe = Recipe {
        keep_state: false,
        steps: 20,
        ..Recipe::new(rule(trained), rate)
    };
    let run = train(&recipe, &TinyNet::new(0.0), None);
    let other = Recipe {
        rule: rule(recorded),
        ..recipe
    };
    check(&other, &run, 0)
}

#[test]
fn a_wrong_rule_is_found_with_moments_that_are_rebuilt() {
    let adamw = "kind = \"adamw\"";
    assert!(as_another(adamw, adamw, 0.01).bit_identical());
    for wrong in [
        "beta1 = 0.89",
        "beta2 = 0.99",
        "eps = 0.0001",
        "clip_norm = 0.01",
    ] {
        let report = as_another(adamw, &format!("{adamw}\n{wrong}"), 0.01);
        assert_eq!(report.steps.len(), 20);
        assert!(!report.passed(), "{wrong}: {:#?}", report.worst_update());
    }
    assert!(!as_another(adamw, "kind = \"adam\"\nweight_decay = 0.01", 0.01).passed());
    assert!(
        !as_another(
            "kind = \"sgd\"\nmomentum = 0.9",
            "kind = \"sgd\"\nmomentum = 0.8",
            0.1
        )
        .passed()
    );
}

#[test]
fn a_decay_that_is_tiny_in_each_step_is_found_relative_to_the_update() {
    let recipe = Recipe {
        keep_state: false,
        ..Recipe::new(UpdateRule::adamw(), 1e-6)
    };
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    for step in &mut recorded.steps {
        step.meta.groups[0].weight_decay = 0.0;
    }
    let run = RecordedRun::new(&recorded, TinyNet::new(0.0), &TinyData, recipe.rule, 7).unwrap();
    let options = ReplayCheckOptions {
        samples: 0,
        tolerance: 1e-4,
        ..ReplayCheckOptions::new(&run)
    };
    let report = replay_check(&run, &options, &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    // Relative to the parameters, each step is within the tolerance.
    assert!(report.worst().unwrap().comparison.max_relative_error < 1e-7);
    assert!(!report.passed() && !report.updates_agree());
    let cause = report.worst_update().unwrap().cause.as_ref().unwrap();
    assert!(
        cause.to_string().contains("weight decay of 0.010"),
        "{cause}"
    );
}

#[test]
fn an_optimizer_that_counts_from_zero_again_begins_with_moments_of_zero() {
    let recipe = Recipe {
        keep_state: false,
        ..Recipe::new(UpdateRule::adamw(), 0.01)
    };
    let first = train(&recipe, &TinyNet::new(0.0), None);
    // The second half is trained by a new optimizer, from the first half's end.
    let mut recorded = first.clone();
    for step in &mut recorded.steps {
        step.meta.optimizer_step %= 5;
    }
    assert!(
        !check(&recipe, &recorded, 0).passed(),
        "the optimizer went on"
    );
    let recipe = Recipe {
        restart_every: Some(5),
        ..recipe
    };
    let restarted = train(&recipe, &TinyNet::new(0.0), None);
    let report = check(&recipe, &restarted, 0);
    assert!(
        report.bit_identical() && report.steps.len() == 10,
        "{report:#?}"
    );
    let mut wrong = restarted;
    for (t, step) in (0..).zip(&mut wrong.steps) {
        step.meta.optimizer_step = t;
    }
    let report = check(&recipe, &wrong, 0);
    assert!(report.steps[..5].iter().all(|s| s.passed) && !report.steps[5].passed);
}

/// At the keyframe of step 5 the state of the optimizer that ended is recorded, or the new one's.
#[test]
fn an_optimizer_that_begins_anew_at_a_keyframe_is_no_contradiction() {
    let recipe = Recipe {
        restart_every: Some(5),
        segment: 5,
        ..Recipe::new(UpdateRule::adamw(), 0.01)
    };
    let mut restarted = train(&recipe, &TinyNet::new(0.0), None);
    let key = restarted.steps[5].key.as_mut().unwrap();
    assert!(key.optimizer.iter().all(|x| *x == 0.0) && !key.optimizer.is_empty());
    assert!(check(&recipe, &restarted, 0).bit_identical());
    let key = restarted.steps[5].key.as_mut().unwrap();
    key.optimizer.fill(0.25);
    let report = check(&recipe, &restarted, 0);
    assert!(report.steps[4].state_error.is_none() && report.steps[4].passed);
}

#[test]
fn steps_before_which_the_state_is_lost_are_not_drawn() {
    let recipe = Recipe {
        segment: 5,
        ..Recipe::new(UpdateRule::adamw(), 0.01)
    };
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    // The step 1 is lost, so the state is unknown until the keyframe of step 5.
    let buffers = recorded.steps[1].buffers_after.clone();
    recorded.steps.remove(1);
    recorded.steps[1].key = Some(hindcast_analyzer::run::RecordedKey {
        buffers_before: buffers,
        optimizer: Vec::new(),
    });
    for samples in [0, 3] {
        let report = check(&recipe, &recorded, samples);
        assert!(report.passed() && report.replayable == 5, "{report:#?}");
        assert!(report.steps.iter().all(|s| s.step >= 5));
        assert!(report.note.contains("before them: 2..5"), "{}", report.note);
        assert_eq!(report.drawn, (samples > 0).then_some(3));
        // The passes of the steps 0 and 2 to 4 need no state of the optimizer.
        let drawn = if samples > 0 { 3 } else { 4 };
        assert_eq!((report.passable, report.passes.len()), (4, drawn));
    }
}

#[test]
fn runs_with_gaps_are_checked_where_the_next_step_is_recorded() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    let keys: Vec<_> = recorded
        .steps
        .iter()
        .map(|s| s.buffers_after.clone())
        .collect();
    recorded.steps.retain(|s| ![3, 4].contains(&s.meta.step));
    let five = recorded
        .steps
        .iter_mut()
        .find(|s| s.meta.step == 5)
        .unwrap();
    five.key = Some(hindcast_analyzer::run::RecordedKey {
        buffers_before: keys[4].clone(),
        optimizer: Vec::new(),
    });
    let report = check(&recipe, &recorded, 0);
    let steps: Vec<u64> = report.steps.iter().map(|s| s.step).collect();
    assert_eq!(steps, [0, 1, 5, 6, 7, 8, 9]);
    assert!(report.bit_identical());
    assert_eq!(check(&recipe, &recorded, 3).steps.len(), 3);
    // Of the step before the hole, only the pass can be recomputed.
    assert_eq!((report.passable, report.passes.len()), (1, 1));
    let pass = &report.passes[0];
    assert!(pass.passed && (pass.step, pass.statistics_agree) == (2, Some(true)));
    let mut statistics = recorded.steps[2].buffers_after.to_vec::<f64>();
    statistics[0] += 0.1;
    recorded.steps[2].buffers_after = statistics.into();
    let report = check(&recipe, &recorded, 0);
    assert_eq!(report.passes[0].statistics_agree, Some(false));
    assert!(!report.passed() && report.steps.iter().all(|step| step.passed));
}
