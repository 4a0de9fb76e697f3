//! Compares counterfactual runs with training that really left the examples out.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hindcast_analyzer::measures::kendall_tau;
use hindcast_analyzer::{
    CounterfactualOptions, CounterfactualReport, Denominators, MemoryRun, Query, QueryPoint,
    RecordedRun, Removal, SweepOptions, counterfactuals, sweep,
};
use hindcast_model::update::UpdateRule;

use crate::tiny::{
    Recipe, Reweighted, TRAIN, TinyData, TinyNet, engine, relative_error, train, train_with,
};

fn rules() -> [UpdateRule; 3] {
    [
        "kind = \"sgd\"",
        "kind = \"sgd\"\nmomentum = 0.9\nweight_decay = 0.01",
        "kind = \"adamw\"",
    ]
    .map(|text| UpdateRule::from_toml(text).unwrap())
}

fn replay(
    recipe: &Recipe,
    net: &Arc<TinyNet>,
    recorded: &MemoryRun,
    options: &CounterfactualOptions,
    sets: &[Vec<u64>],
) -> CounterfactualReport {
    let run = RecordedRun::new(recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    let queries = [Query::default(), "train:3,9".parse().unwrap()];
    counterfactuals(&run, options, &queries, sets, &|_, _| {
        ControlFlow::Continue(())
    })
    .unwrap()
}

#[test]
fn a_run_that_was_trained_otherwise_is_not_reproduced() {
    let honest = Recipe {
        keep_state: false,
        steps: 30,
        ..Recipe::new(UpdateRule::adamw(), 0.02)
    };
    let net = TinyNet::new(0.0);
    let report = |recorded: &MemoryRun| {
        let options = CounterfactualOptions::new(0..30);
        replay(&honest, &net, recorded, &options, &[vec![3]])
    };
    let drift = report(&train(&honest, &net, None)).drift;
    assert_eq!((drift.of_movement, drift.by_rounding), (0.0, None));
    assert!(drift.is_reproduced());
    let other = |text: &str| Recipe {
        rule: UpdateRule::from_toml(text).unwrap(),
        ..honest.clone()
    };
    for (what, trained) in [
        (
            "a frozen tensor",
            Recipe {
                frozen: Some(1),
                ..honest.clone()
            },
        ),
        (
            "moments that restarted",
            Recipe {
                restart_every: Some(20),
                ..honest.clone()
            },
        ),
        ("another beta", other("kind = \"adamw\"\nbeta1 = 0.8")),
        ("clipping", other("kind = \"adamw\"\nclip_norm = 0.05")),
        ("SGD", other("kind = \"sgd\"")),
    ] {
        let mut recorded = train(&trained, &net, None);
        for (t, step) in (0..).zip(&mut recorded.steps) {
            step.meta.optimizer_step = t;
            step.meta.clip_norm = None;
        }
        let drift = report(&recorded).drift;
        println!("{what}: {drift:?}");
        assert!(!drift.is_reproduced(), "{what}: {drift:?}");
        assert!(
            drift.by_rounding.is_some_and(|r| r < 1e-9),
            "{what}: {drift:?}"
        );
    }
}

#[test]
fn leaving_no_example_out_gives_the_recorded_bits_from_any_step() {
    for rule in rules() {
        for micro in [Vec::new(), vec![2, 3]] {
            let recipe = Recipe {
                micro,
                warm: 3,
                ..Recipe::new(rule.clone(), 0.1)
            };
            let net = TinyNet::new(0.05);
            let recorded = train(&recipe, &net, None);
            for start in [0, 4, 6, 9] {
                let options = CounterfactualOptions::new(start..10);
                let report = replay(&recipe, &net, &recorded, &options, &[vec![]]);
                assert!(
                    report.reproduction.bit_identical,
                    "{:?}",
                    report.reproduction
                );
                assert_eq!(report.change(0, 0), Some(0.0));
                let end = recorded.end.as_ref().unwrap();
                assert_eq!(report.everyone.parameters, end.parameters);
                assert_eq!(report.everyone.buffers, end.buffers);
            }
        }
    }
}

#[test]
fn a_loss_only_removal_is_training_with_weight_zero() {
    for rule in rules() {
        let recipe = Recipe::new(rule, 0.1);
        let net = TinyNet::new(0.05);
        let recorded = train(&recipe, &net, None);
        let mut options = CounterfactualOptions::new(2..7);
        options.threads = 3;
        let sets: Vec<Vec<u64>> = (0..TRAIN as u64).map(|i| vec![i]).collect();
        let report = replay(&recipe, &net, &recorded, &options, &sets);
        for (set, outcome) in sets.iter().zip(&report.outcomes) {
            let changed = Reweighted {
                example: set[0],
                factor: 0.0,
                within: 2..7,
            };
            let truth = train(&recipe, &net, Some(&changed)).end.unwrap();
            assert_eq!(outcome.without, *set);
            assert_eq!(outcome.parameters, truth.parameters);
            assert_eq!(outcome.buffers, truth.buffers);
        }
        // The validation loss is query 0 and the second split's loss.
        assert_eq!(report.everyone.losses.len(), 2);
        assert!((report.everyone.losses[1].loss - report.everyone.queries[0]).abs() < 1e-15);
    }
}

#[test]
fn a_retrained_run_is_evaluated_where_the_query_is_asked() {
    let recipe = Recipe::new(UpdateRule::adamw(), 0.1);
    let net = TinyNet::new(0.05);
    let recorded = train(&recipe, &net, None);
    let at = QueryPoint::MeanOfSteps(10);
    let options = CounterfactualOptions {
        at: at.clone(),
        ..CounterfactualOptions::new(2..7)
    };
    let report = replay(&recipe, &net, &recorded, &options, &[vec![3], vec![]]);
    let last = replay(
        &recipe,
        &net,
        &recorded,
        &CounterfactualOptions::new(2..7),
        &[vec![3]],
    );
    let changed = Reweighted {
        example: 3,
        factor: 0.0,
        within: 2..7,
    };
    for (outcome, truth) in [
        (&report.outcomes[0], train(&recipe, &net, Some(&changed))),
        (&report.everyone, train(&recipe, &net, None)),
    ] {
        // One of the ten models lies before the window: it is the recorded one in both runs.
        let model = at.resolve(&truth, 0).unwrap().state(&truth).unwrap();
        let (parameters, buffers) = outcome.model();
        assert!(relative_error(parameters, &model.parameters) < 1e-14);
        assert!(relative_error(buffers, &model.buffers) < 1e-14);
        let value = Query::gradients(
            &[Query::default()],
            &RecordedRun::new(&truth, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap(),
            &model,
            &mut engine(&net),
        );
        assert!((outcome.queries[0] - value.unwrap()[0].value).abs() < 1e-14);
        assert!((outcome.losses[1].loss - outcome.queries[0]).abs() < 1e-15);
    }
    let end = report.outcomes[0].at_end.as_ref().unwrap();
    assert_eq!(end.queries, last.outcomes[0].queries);
    assert_eq!(end.losses, last.outcomes[0].losses);
    assert_eq!(last.outcomes[0].at_end, None);
    assert_ne!(end.queries, report.outcomes[0].queries);
}

#[test]
fn removals_and_denominators_differ_where_they_should() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.5);
    let net = TinyNet::new(0.0);
    let recorded = train(&recipe, &net, None);
    let end = |removal, denominators, set: Vec<u64>| {
        let options = CounterfactualOptions {
            removal,
            denominators,
            ..CounterfactualOptions::new(0..10)
        };
        replay(&recipe, &net, &recorded, &options, &[set])
            .outcomes
            .remove(0)
            .parameters
    };
    let base = end(Removal::LossOnly, Denominators::Fixed, vec![3]);
    // The net uses the batch's mean activation, so the removed examples change it.
    assert_ne!(base, end(Removal::Absent, Denominators::Fixed, vec![3]));
    assert_ne!(
        base,
        end(Removal::LossOnly, Denominators::Renormalised, vec![3])
    );
    // A batch without examples doesn't change the parameters.
    let all: Vec<u64> = (0..TRAIN as u64).collect();
    for removal in [Removal::LossOnly, Removal::Absent] {
        for denominators in [Denominators::Fixed, Denominators::Renormalised] {
            assert_eq!(end(removal, denominators, all.clone()), net_start(&net));
        }
    }
}

fn net_start(net: &TinyNet) -> Vec<f64> {
    net.start()
}

#[test]
fn renormalised_scores_are_derivatives_towards_the_renormalised_batch() {
    for weights in [None, Some(vec![0.3, 0.1, 0.25, 0.2, 0.4])] {
        let recipe = Recipe {
            weights,
            ..Recipe::new(UpdateRule::sgd(), 0.5)
        };
        let net = TinyNet::new(0.0);
        let recorded = train(&recipe, &net, None);
        let run =
            RecordedRun::new(&recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
        let mut engine = engine(&net);
        let query = Query::default()
            .gradient(&recorded, &mut engine, &TinyData)
            .unwrap();
        let options = SweepOptions::new(0..10);
        let state = sweep(&run, &mut engine, &[query], &options, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let differences: Vec<f64> = (0..TRAIN as u64)
            .map(|j| {
                let value = |alpha: f64| {
                    let moved = train_with(&recipe, &net, &|meta, w| {
                        let total: f64 = w.iter().sum();
                        let of = |i: u64| if i == j { 1.0 } else { 0.0 };
                        let gone: f64 = meta
                            .indices
                            .iter()
                            .zip(w.iter())
                            .map(|(&i, w)| of(i) * w)
                            .sum();
                        let scale = if total > gone {
                            total / (total - gone)
                        } else {
                            0.0
                        };
                        for (w, &i) in w.iter_mut().zip(&meta.indices) {
                            *w += alpha * (*w * scale * (1.0 - of(i)) - *w);
                        }
                    });
                    Query::default()
                        .gradient(&moved, &mut self::engine(&net), &TinyData)
                        .unwrap()
                        .value
                };
                (value(2e-5) - value(-2e-5)) / 4e-5
            })
            .collect();
        assert!(relative_error(&state.queries[0].renormalised, &differences) < 1e-6);
    }
}

#[test]
fn the_sweep_predicts_the_order_of_real_removals() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let net = TinyNet::new(0.0);
    let recorded = train(&recipe, &net, None);
    let run = RecordedRun::new(&recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    let mut engine = engine(&net);
    let query = Query::default()
        .gradient(&recorded, &mut engine, &TinyData)
        .unwrap();
    let options = SweepOptions::new(0..10);
    let state = sweep(&run, &mut engine, &[query], &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let sets: Vec<Vec<u64>> = (0..TRAIN as u64).map(|i| vec![i]).collect();
    let report = replay(
        &recipe,
        &net,
        &recorded,
        &CounterfactualOptions::new(0..10),
        &sets,
    );
    let real: Vec<f64> = (0..TRAIN).map(|i| report.change(i, 0).unwrap()).collect();
    let tau = kendall_tau(&state.queries[0].influence, &real).unwrap();
    assert!(tau > 0.9, "tau {tau}");
}

#[test]
fn progress_counts_every_step_and_can_stop() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let net = TinyNet::new(0.0);
    let recorded = train(&recipe, &net, None);
    let run = RecordedRun::new(&recorded, net, &TinyData, recipe.rule.clone(), 7).unwrap();
    let options = CounterfactualOptions::new(4..10);
    let seen = AtomicU64::new(0);
    let sets = [vec![1], vec![2, 5]];
    counterfactuals(&run, &options, &[], &sets, &|_, total| {
        assert_eq!(total, 18);
        seen.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen.into_inner(), 18);
    let stopped = counterfactuals(&run, &options, &[], &sets, &|_, _| ControlFlow::Break(()));
    assert!(stopped.unwrap_err().to_string().starts_with("cancelled"));
    let message = counterfactuals(&run, &options, &[], &[vec![99]], &|_, _| {
        ControlFlow::Continue(())
    })
    .unwrap_err()
    .to_string();
    assert!(
        message.contains("example 99") && message.contains("0..14"),
        "{message}"
    );
}
