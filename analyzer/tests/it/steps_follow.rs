//! The rule check: correct loops pass, and wrong ones are refused with the cause.

use candle_core::{DType, Device};
use hindcast_analyzer::check::{Cause, RuleCheckReport};
use hindcast_analyzer::{MemoryRun, RecordedRun, RuleCheckOptions, rule_check};
use hindcast_format::meta::BatchWeights;
use hindcast_model::data::{DataError, DataSet};
use hindcast_model::objective::{Batch, Draws, Split};
use hindcast_model::update::UpdateRule;

use crate::tiny::{FEATURES, Recipe, TRAIN, TinyData, TinyNet, train, train_with};

fn rule(text: &str) -> UpdateRule {
    UpdateRule::from_toml(text).unwrap()
}

fn checked(
    recorded: &MemoryRun,
    rule: &UpdateRule,
    data: &dyn DataSet,
    seed: u64,
) -> RuleCheckReport {
    let run = RecordedRun::new(recorded, TinyNet::new(0.0), data, rule.clone(), 7).unwrap();
    rule_check(&run, &RuleCheckOptions::new(0..10, seed)).unwrap()
}

/// Expects a refusal for any choice of steps, and returns the message.
fn refused(what: &str, recorded: &MemoryRun, rule: &UpdateRule, data: &dyn DataSet) -> String {
    let reports: Vec<_> = (0..10)
        .map(|seed| checked(recorded, rule, data, seed))
        .collect();
    for report in &reports {
        assert!(!report.passed(), "{what} passed: {report:#?}");
    }
    let message = reports[0].to_string();
    println!("{what}: {message}\n");
    assert!(message.contains("don't follow"), "{message}");
    message
}

#[test]
fn correct_loops_pass_whichever_steps_are_chosen() {
    let plans = [
        ("kind = \"sgd\"", None, vec![]),
        ("kind = \"sgd\"\nweight_decay = 0.01", Some(0.05), vec![]),
        ("kind = \"sgd\"\nmomentum = 0.9", None, vec![2, 3]),
        (
            "kind = \"sgd\"\nmomentum = 0.9\nnesterov = true",
            Some(0.05),
            vec![],
        ),
        ("kind = \"adam\"", None, vec![]),
        (
            "kind = \"adamw\"\nweight_decay = 0.1",
            Some(0.05),
            vec![4, 1],
        ),
    ];
    for (text, clip_odd, micro) in plans {
        for keep_state in [true, false] {
            let recipe = Recipe {
                keep_state,
                clip_odd,
                micro: micro.clone(),
                ..Recipe::new(rule(text), 0.1)
            };
            let recorded = train(&recipe, &TinyNet::new(0.0), None);
            for seed in 0..10 {
                let report = checked(&recorded, &recipe.rule, &TinyData, seed);
                assert!(
                    report.passed() && report.bit_identical() && !report.is_empty(),
                    "{text}: {report:#?}"
                );
                assert!(report.steps.len() >= 4, "{text}: {report:#?}");
            }
        }
    }
}

/// Eight ways in which a loop does something else than what it records, with a rule without and one with a state.
#[test]
fn whatever_a_loop_does_otherwise_is_refused() {
    for text in ["kind = \"sgd\"", "kind = \"adamw\""] {
        let honest = Recipe::new(rule(text), 0.05);
        let other = |more: &str| Recipe {
            rule: rule(&format!("{text}\n{more}")),
            ..honest.clone()
        };
        let net = TinyNet::new(0.0);
        let scaled = |factor: f64| {
            train_with(&honest, &net, &move |_, weights| {
                weights.iter_mut().for_each(|w| *w *= factor);
            })
        };
        let faster = Recipe {
            learning_rate: 0.06,
            ..honest.clone()
        };
        let mut runs = vec![
            (
                "weights clamped after each step",
                Recipe {
                    clamp: Some(0.4),
                    ..honest.clone()
                },
            ),
            ("a decay unsaid", other("weight_decay = 0.05")),
            ("clipping unsaid", other("clip_norm = 0.02")),
            ("a rate that was set behind the recorder's back", faster),
            (
                "a second optimizer",
                Recipe {
                    second: Some((2, 0.5)),
                    ..honest.clone()
                },
            ),
            (
                "a frozen tensor",
                Recipe {
                    frozen: Some(1),
                    ..honest.clone()
                },
            ),
        ]
        .into_iter()
        .map(|(what, recipe)| (what, train(&recipe, &net, None)))
        .collect::<Vec<_>>();
        // Adam's steps don't depend on the scale of the loss.
        if text.contains("sgd") {
            runs.push(("a sum recorded as a mean", scaled(5.0)));
            runs.push(("a halved loss", scaled(0.5)));
        }
        for (what, mut run) in runs {
            for (t, step) in (0..).zip(&mut run.steps) {
                // What an honest loop would have recorded.
                step.meta = honest.meta(t);
            }
            refused(&format!("{text}: {what}"), &run, &honest.rule, &TinyData);
        }
    }
}

#[test]
fn a_check_says_which_steps_it_cannot_reach() {
    for (keep_state, steps, limit) in [(false, 40, Some(16)), (false, 17, None), (true, 40, None)] {
        let recipe = Recipe {
            keep_state,
            steps,
            ..Recipe::new(rule("kind = \"adamw\""), 0.01)
        };
        let recorded = train(&recipe, &TinyNet::new(0.0), None);
        let run =
            RecordedRun::new(&recorded, TinyNet::new(0.0), &TinyData, recipe.rule, 7).unwrap();
        let report = rule_check(&run, &RuleCheckOptions::new(0..steps, 1)).unwrap();
        assert!(report.passed());
        assert_eq!(report.limit, limit);
        assert_eq!(
            report.to_string().contains("No step after 16"),
            limit.is_some()
        );
    }
}

#[test]
fn a_frozen_tensor_is_named() {
    for text in [
        "kind = \"sgd\"",
        "kind = \"sgd\"\nmomentum = 0.9",
        "kind = \"adamw\"",
    ] {
        let recipe = Recipe {
            frozen: Some(1),
            ..Recipe::new(rule(text), 0.1)
        };
        let recorded = train(&recipe, &TinyNet::new(0.0), None);
        let message = refused("a frozen tensor", &recorded, &recipe.rule, &TinyData);
        assert!(
            message.contains("Recorded as trained, but unchanged: `w1`"),
            "{message}"
        );
        // Once the recorder knows the variables, the run passes.
        let mut known = recorded;
        for step in &mut known.steps {
            step.meta.trained[1] = false;
        }
        assert!(
            checked(&known, &recipe.rule, &TinyData, 3).passed(),
            "{text}"
        );
    }
    // The reverse: recorded as not trained, and updated.
    let recipe = Recipe::new(rule("kind = \"sgd\""), 0.1);
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    for step in &mut recorded.steps {
        step.meta.trained[1] = false;
    }
    let message = refused("an updated tensor", &recorded, &recipe.rule, &TinyData);
    assert!(
        message.contains("Recorded as not trained, but changed: `w1`"),
        "{message}"
    );
}

#[test]
fn a_wrong_rule_is_refused() {
    for (trained, recorded) in [
        ("kind = \"sgd\"\nmomentum = 0.9", "kind = \"sgd\""),
        (
            "kind = \"sgd\"\nmomentum = 0.9",
            "kind = \"sgd\"\nmomentum = 0.8",
        ),
        ("kind = \"adam\"", "kind = \"sgd\""),
        ("kind = \"adam\"", "kind = \"adam\"\nbeta2 = 0.9"),
        ("kind = \"sgd\"\nclip_norm = 0.05", "kind = \"sgd\""),
    ] {
        let recipe = Recipe {
            keep_state: false,
            ..Recipe::new(rule(trained), 0.1)
        };
        let run = train(&recipe, &TinyNet::new(0.0), None);
        refused(
            &format!("{trained} as {recorded}"),
            &run,
            &rule(recorded),
            &TinyData,
        );
    }
}

#[test]
fn a_decay_that_was_not_recorded_is_named() {
    for (text, recorded_decay) in [
        ("kind = \"adamw\"\nweight_decay = 0.1", 0.0),
        ("kind = \"sgd\"\nweight_decay = 0.0005", 0.0),
        ("kind = \"sgd\"\nweight_decay = 0.0005", 0.001),
    ] {
        let recipe = Recipe::new(rule(text), 0.1);
        let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
        for step in &mut recorded.steps {
            step.meta.groups[0].weight_decay = recorded_decay;
        }
        let message = refused(text, &recorded, &recipe.rule, &TinyData);
        assert!(message.contains("weight decay of"), "{message}");
    }
}

#[test]
fn a_scaled_loss_and_another_reduction_are_named() {
    let recipe = Recipe::new(rule("kind = \"sgd\""), 0.1);
    let halved = train_with(&recipe, &TinyNet::new(0.0), &|_, weights| {
        weights.iter_mut().for_each(|w| *w *= 0.5);
    });
    let message = refused("a halved loss", &halved, &recipe.rule, &TinyData);
    assert!(
        message.contains("is 0.5000 times the computed one"),
        "{message}"
    );

    let mut summed = train(&recipe, &TinyNet::new(0.0), None);
    for step in &mut summed.steps {
        step.meta.weights = BatchWeights::Sum;
    }
    let message = refused("a mean recorded as a sum", &summed, &recipe.rule, &TinyData);
    assert!(
        message.contains("a sum where a mean was recorded"),
        "{message}"
    );
}

#[test]
fn wrong_indices_and_other_data_are_refused() {
    let recipe = Recipe::new(rule("kind = \"sgd\""), 0.1);
    let honest = train(&recipe, &TinyNet::new(0.0), None);
    let mut shifted = honest.clone();
    for step in &mut shifted.steps {
        for index in &mut step.meta.indices {
            *index = (*index + 1) % TRAIN as u64;
        }
    }
    refused("wrong indices", &shifted, &recipe.rule, &TinyData);
    refused("other data", &honest, &recipe.rule, &OtherLabels);
    // Also with Adam, whose steps have the same size whatever the loss.
    let recipe = Recipe::new(rule("kind = \"adam\""), 0.01);
    let honest = train(&recipe, &TinyNet::new(0.0), None);
    refused("other data under Adam", &honest, &recipe.rule, &OtherLabels);
}

#[test]
fn one_altered_step_is_found_if_it_is_recomputed() {
    let recipe = Recipe::new(rule("kind = \"sgd\""), 0.1);
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    let six = &mut recorded.steps[6].parameters;
    let mut altered = six.to_vec::<f64>();
    *altered.last_mut().unwrap() += 1e-3;
    *six = altered.into();
    let run = RecordedRun::new(&recorded, TinyNet::new(0.0), &TinyData, recipe.rule, 7).unwrap();
    let mut options = RuleCheckOptions::new(0..10, 1);
    options.samples = 10;
    let report = rule_check(&run, &options).unwrap();
    let off: Vec<u64> = report
        .steps
        .iter()
        .filter(|s| s.error > report.tolerance)
        .map(|s| s.step)
        .collect();
    assert_eq!(off, [5, 6]);
    assert!(!report.passed());
}

#[test]
fn recorded_losses_that_differ_from_the_computed_ones_are_reported() {
    let recipe = Recipe::new(rule("kind = \"adam\""), 0.01);
    // Adam takes the same steps for a halved loss, so only the recorded losses show it.
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    let honest = checked(&recorded, &recipe.rule, &TinyData, 1);
    assert_eq!(honest.other_loss(), None);
    let run = RecordedRun::new(
        &recorded,
        TinyNet::new(0.0),
        &TinyData,
        recipe.rule.clone(),
        7,
    );
    assert_eq!(run.unwrap().dtype(), DType::F64);
    for step in &mut recorded.steps {
        step.meta.loss = Some(0.1);
    }
    let report = checked(&recorded, &recipe.rule, &TinyData, 1);
    assert!(report.passed());
    let (_, got, want) = report.other_loss().unwrap();
    assert!(want == 0.1 && (got - want).abs() > 0.1, "{got} {want}");
    assert!(!matches!(report.steps[0].cause, Some(Cause::Scaled(_))));
}

/// [`TinyData`] with all labels inverted.
struct OtherLabels;

impl DataSet for OtherLabels {
    fn len(&self, split: Split) -> u64 {
        TinyData.len(split)
    }

    fn shape(&self) -> &[usize] {
        &[FEATURES]
    }

    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        draws: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> Result<Batch, DataError> {
        let batch = TinyData.batch(split, indices, draws, dtype, device)?;
        Ok(Batch {
            targets: batch.targets.neg().unwrap(),
            ..batch
        })
    }
}
