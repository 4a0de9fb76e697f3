//! Compares scores with central differences of really re-weighted training, for every update rule.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use hindcast_analyzer::sweep::resume;
use hindcast_analyzer::{
    MemoryRun, Query, QueryGradient, QueryPoint, RecordedRun, StateWeights, StepSource,
    SweepOptions, SweepState, Window, sweep,
};
use hindcast_model::update::UpdateRule;

use crate::tiny::{Recipe, Reweighted, TRAIN, TinyData, TinyNet, engine, relative_error, train};

/// Change of a weight in a difference. Small enough that the third derivative of an Adam run doesn't matter.
const STEP: f64 = 2e-5;

fn value(
    recipe: &Recipe,
    net: &Arc<TinyNet>,
    query: &Query,
    at: &StateWeights,
    changed: Option<&Reweighted>,
) -> QueryGradient {
    let run = train(recipe, net, changed);
    let (parameters, buffers) = averaged(&run, at.weights());
    query
        .gradient_at(&run, &mut engine(net), &TinyData, &parameters, &buffers)
        .unwrap()
}

/// `Σ a_k θ_k` and `Σ a_k r_k`, read step by step.
fn averaged(run: &MemoryRun, weights: &[(u64, f64)]) -> (Vec<f64>, Vec<f64>) {
    let end = run.end().unwrap();
    let (mut parameters, mut buffers) = (
        vec![0.0; end.parameters.len()],
        vec![0.0; end.buffers.len()],
    );
    let mut add = |weight: f64, theta: &[f64], r: &[f64]| {
        for (sum, x) in parameters.iter_mut().zip(theta) {
            *sum += weight * x;
        }
        for (sum, x) in buffers.iter_mut().zip(r) {
            *sum += weight * x;
        }
    };
    for &(k, weight) in weights {
        if k == end.step {
            add(weight, &end.parameters, &end.buffers);
            continue;
        }
        let step = run.forward(k..k + 1).unwrap().next().unwrap().unwrap();
        // The statistics before a step are those after the step before it; a keyframe has its own.
        let before = match &step.key {
            Some(key) => key.buffers_before.to_vec::<f64>(),
            None => {
                let older = run.forward(k - 1..k).unwrap().next().unwrap().unwrap();
                older.buffers_after.to_vec()
            }
        };
        add(weight, &step.parameters.to_vec::<f64>(), &before);
    }
    (parameters, buffers)
}

fn differences(
    recipe: &Recipe,
    net: &Arc<TinyNet>,
    query: &Query,
    at: &StateWeights,
    within: &Range<u64>,
) -> Vec<f64> {
    (0..TRAIN as u64)
        .map(|example| {
            let reweighted = |factor| {
                let changed = Reweighted {
                    example,
                    factor,
                    within: within.clone(),
                };
                value(recipe, net, query, at, Some(&changed)).value
            };
            // The score is the effect of leaving the example out, so of a smaller weight.
            (reweighted(1.0 - STEP) - reweighted(1.0 + STEP)) / (2.0 * STEP)
        })
        .collect()
}

fn scores(
    recipe: &Recipe,
    net: &Arc<TinyNet>,
    queries: &[Query],
    at: &QueryPoint,
    window: &Window,
) -> SweepState {
    let recorded = train(recipe, net, None);
    let run = RecordedRun::new(&recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    let mut engine = engine(net);
    let model = at.resolve(&recorded, 0).unwrap().state(&recorded).unwrap();
    let gradients = Query::gradients(queries, &run, &model, &mut engine).unwrap();
    let options = SweepOptions {
        at: at.clone(),
        per_epoch: true,
        ..SweepOptions::new(window.resolve(&recorded).unwrap())
    };
    sweep(&run, &mut engine, &gradients, &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap()
}

fn agrees(name: &str, recipe: &Recipe, window: Window) {
    agrees_at(name, recipe, &QueryPoint::Final, window);
}

fn agrees_at(name: &str, recipe: &Recipe, at: &QueryPoint, window: Window) {
    let net = TinyNet::new(recipe.penalty);
    let queries: [Query; 2] = [Query::default(), "train:3,9".parse().unwrap()];
    let got = scores(recipe, &net, &queries, at, &window);
    for (query, sweep) in queries.iter().zip(&got.queries) {
        let value = value(recipe, &net, query, &got.at, None).value;
        assert!((sweep.value - value).abs() < 1e-12, "{name}: {value}");
        let truth = differences(recipe, &net, query, &got.at, &got.window);
        let error = relative_error(&sweep.influence, &truth);
        println!("{name:28} {at:16} {query:12} {error:.1e}");
        assert!(error < 1e-6, "{name}, {at}, {query}: {error:e}");
        let by_epoch: Vec<f64> = (0..TRAIN)
            .map(|j| sweep.epochs.values().map(|e| e[j]).sum())
            .collect();
        assert!(relative_error(&by_epoch, &sweep.influence) < 1e-12);
    }
}

fn sgd(text: &str) -> UpdateRule {
    UpdateRule::from_toml(&format!("kind = \"sgd\"\n{text}")).unwrap()
}

#[test]
fn every_update_rule_agrees() {
    let cases = [
        ("sgd", sgd(""), 0.5),
        ("sgd, decay", sgd("weight_decay = 0.05"), 0.5),
        (
            "momentum, decay",
            sgd("momentum = 0.9\nweight_decay = 0.01"),
            0.2,
        ),
        (
            "momentum, dampening",
            sgd("momentum = 0.8\ndampening = 0.3"),
            0.3,
        ),
        (
            "nesterov, decay",
            sgd("momentum = 0.9\nnesterov = true\nweight_decay = 0.01"),
            0.2,
        ),
        (
            "clipping",
            sgd("momentum = 0.5\nweight_decay = 0.01\nclip_norm = 0.05"),
            0.5,
        ),
        (
            "nesterov, clipping",
            sgd("momentum = 0.5\nnesterov = true\nclip_norm = 0.05"),
            0.5,
        ),
        (
            "adamw",
            UpdateRule::from_toml("kind = \"adamw\"\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1")
                .unwrap(),
            0.1,
        ),
        (
            "adam with decay",
            UpdateRule::from_toml("kind = \"adam\"\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1")
                .unwrap(),
            0.1,
        ),
        (
            "adamw, clipping",
            UpdateRule::from_toml("kind = \"adamw\"\nbeta2 = 0.95\neps = 1e-3\nclip_norm = 0.05")
                .unwrap(),
            0.1,
        ),
    ];
    for (name, rule, eta) in cases {
        agrees(name, &Recipe::new(rule, eta), Window::All);
    }
}

#[test]
fn every_update_rule_agrees_at_an_average() {
    let points = [
        QueryPoint::MeanOfLastEpoch,
        QueryPoint::MeanOfSteps(6),
        QueryPoint::Ema(0.6),
        QueryPoint::Weighted(vec![(0, 0.2), (3, -0.3), (4, 0.5), (10, 0.6)]),
    ];
    let adam = |kind: &str| {
        UpdateRule::from_toml(&format!(
            "kind = \"{kind}\"\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1"
        ))
        .unwrap()
    };
    let cases = [
        ("sgd, decay", sgd("weight_decay = 0.05"), 0.5),
        (
            "nesterov, decay",
            sgd("momentum = 0.9\nnesterov = true\nweight_decay = 0.01"),
            0.2,
        ),
        (
            "momentum, clipping",
            sgd("momentum = 0.5\nclip_norm = 0.05"),
            0.5,
        ),
        ("adamw", adam("adamw"), 0.1),
        ("adam with decay", adam("adam"), 0.1),
    ];
    for (name, rule, eta) in cases {
        for at in &points {
            agrees_at(name, &Recipe::new(rule.clone(), eta), at, Window::All);
        }
    }
    // Models are averaged that lie before the window, and the window ends before the first averaged model.
    let recipe = Recipe::new(sgd("momentum = 0.9"), 0.2);
    for window in [Window::Steps(7..9), Window::Steps(0..3), Window::LastEpoch] {
        for at in &points {
            agrees_at("part of the run", &recipe, at, window.clone());
        }
    }
}

#[test]
fn every_kind_of_run_agrees() {
    let momentum = || sgd("momentum = 0.9\nweight_decay = 0.01");
    let adam = || UpdateRule::from_toml("kind = \"adamw\"\nbeta2 = 0.95\neps = 1e-3").unwrap();
    let base = |rule| Recipe::new(rule, 0.2);
    for rule in [momentum(), adam()] {
        let kind = rule.describe();
        let recipe = Recipe {
            warm: 5,
            ..base(rule.clone())
        };
        agrees(&format!("{kind}: warm start"), &recipe, Window::All);
        agrees(&format!("{kind}: last epoch"), &recipe, Window::LastEpoch);
        agrees(
            &format!("{kind}: middle window"),
            &recipe,
            Window::Steps(2..7),
        );
        let recipe = Recipe {
            micro: vec![2, 3],
            ..base(rule.clone())
        };
        agrees(&format!("{kind}: micro-batches"), &recipe, Window::All);
        let recipe = Recipe {
            micro: vec![2, 1, 2],
            weights: Some(vec![0.3, 0.1, 0.25, 0.2, 0.4]),
            penalty: 0.1,
            ..base(rule.clone())
        };
        agrees(&format!("{kind}: weights, penalty"), &recipe, Window::All);
        let recipe = Recipe {
            clip_odd: Some(0.05),
            ..base(rule.clone())
        };
        agrees(&format!("{kind}: clipping at times"), &recipe, Window::All);
        let recipe = Recipe {
            keep_state: false,
            ..base(rule)
        };
        agrees(
            &format!("{kind}: state unrecorded"),
            &recipe,
            Window::Steps(5..9),
        );
    }
}

/// The first turn of the second optimizer must leave the first optimizer's moments alone, wherever it comes: inside a
/// segment, at a keyframe, or without recorded state.
#[test]
fn runs_of_optimizers_in_turns_agree() {
    let adam = |kind: &str| {
        UpdateRule::from_toml(&format!(
            "kind = \"{kind}\"\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1"
        ))
        .unwrap()
    };
    for (rule, rate) in [
        (sgd("momentum = 0.9\nweight_decay = 0.01"), 0.2),
        (sgd("momentum = 0.8\ndampening = 0.3"), 0.3),
        (adam("adamw"), 0.1),
        (adam("adam"), 0.1),
    ] {
        let kind = rule.describe();
        for first in [5, 8] {
            for keep_state in [true, false] {
                let recipe = Recipe {
                    steps: 14,
                    turns: Some(first),
                    keep_state,
                    ..Recipe::new(rule.clone(), rate)
                };
                let name = format!("{kind}: turns from {first}, state {keep_state}");
                agrees(&name, &recipe, Window::All);
                agrees(&name, &recipe, Window::Steps(6..11));
            }
        }
        // The first optimizer has done updates before the run.
        let recipe = Recipe {
            steps: 12,
            warm: 5,
            turns: Some(5),
            ..Recipe::new(rule.clone(), rate)
        };
        agrees(&format!("{kind}: turns, warm start"), &recipe, Window::All);
    }
}

#[test]
fn runs_of_an_optimizer_that_restarts_agree() {
    for rule in [
        sgd("momentum = 0.9\nweight_decay = 0.01"),
        UpdateRule::from_toml("kind = \"adamw\"\nbeta2 = 0.95\neps = 1e-3").unwrap(),
    ] {
        for keep_state in [true, false] {
            let recipe = Recipe {
                restart_every: Some(3),
                keep_state,
                ..Recipe::new(rule.clone(), 0.2)
            };
            let name = format!("{}: restarts, state {keep_state}", rule.describe());
            agrees(&name, &recipe, Window::All);
        }
    }
}

/// After a gap, the counter 0 tells the state of the tensors that the step trains, and of no others.
#[test]
fn a_range_that_begins_with_one_optimizers_first_turn_has_an_unknown_state() {
    let rule = UpdateRule::from_toml("kind = \"adamw\"\nbeta2 = 0.95\neps = 1e-3").unwrap();
    let net = TinyNet::new(0.0);
    let attempt = |recipe: &Recipe, window: Range<u64>| {
        let mut recorded = train(recipe, &net, None);
        recorded.steps.retain(|s| s.meta.step >= window.start);
        let run = RecordedRun::new(&recorded, net.clone(), &TinyData, rule.clone(), 7).unwrap();
        let mut engine = engine(&net);
        let queries = [Query::default()
            .gradient(&recorded, &mut engine, &TinyData)
            .unwrap()];
        let options = SweepOptions::new(window);
        let mut see = |_: &SweepState| ControlFlow::Continue(());
        sweep(&run, &mut engine, &queries, &options, &mut see)
    };
    let turns = Recipe {
        turns: Some(4),
        keep_state: false,
        ..Recipe::new(rule.clone(), 0.1)
    };
    let error = attempt(&turns, 4..10).unwrap_err().to_string();
    assert!(
        error.contains("state") && error.contains("step 4"),
        "{error}"
    );
    // With recorded state, the keyframe has both optimizers' moments.
    let recorded = Recipe {
        keep_state: true,
        ..turns
    };
    attempt(&recorded, 4..10).unwrap();
    // A restart of the only optimizer begins all tensors that are trained.
    let restart = Recipe {
        restart_every: Some(4),
        keep_state: false,
        ..Recipe::new(rule.clone(), 0.1)
    };
    let scores = attempt(&restart, 4..10).unwrap();
    let truth = differences(&restart, &net, &Query::default(), &scores.at, &(4..10));
    let error = relative_error(&scores.queries[0].influence, &truth);
    assert!(error < 1e-6, "{error:e}");
}

#[test]
fn a_resumed_sweep_has_the_bits_of_an_uninterrupted_one() {
    let recipe = Recipe::new(UpdateRule::adamw(), 0.1);
    let net = TinyNet::new(0.0);
    let recorded = train(&recipe, &net, None);
    let run = RecordedRun::new(&recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    let mut engine = engine(&net);
    let query = Query::default()
        .gradient(&recorded, &mut engine, &TinyData)
        .unwrap();
    let options = SweepOptions {
        per_epoch: true,
        ..SweepOptions::new(0..10)
    };
    let mut go_on = |_: &SweepState| ControlFlow::Continue(());
    let whole = sweep(
        &run,
        &mut engine,
        std::slice::from_ref(&query),
        &options,
        &mut go_on,
    )
    .unwrap();
    let mut saved = String::new();
    let mut stop = |state: &SweepState| {
        saved = serde_json::to_string(state).unwrap();
        match state.next {
            6 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    let message = sweep(&run, &mut engine, &[query], &options, &mut stop)
        .unwrap_err()
        .to_string();
    assert_eq!(message, "cancelled at step 6");
    let state: SweepState = serde_json::from_str(&saved).unwrap();
    assert_eq!(state.progress(), (4, 10));
    let rest = resume(&run, &mut engine, state, true, &mut go_on).unwrap();
    assert_eq!(rest, whole);
}

#[test]
fn gaps_are_refused_with_the_missing_steps() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let net = TinyNet::new(0.0);
    let mut recorded = train(&recipe, &net, None);
    recorded
        .steps
        .retain(|s| s.meta.step < 2 || s.meta.step >= 4);
    let message = Window::All.resolve(&recorded).unwrap_err().to_string();
    assert!(message.contains("not in the trace: 2..4"), "{message}");
    assert!(message.contains("steps are 4..10"), "{message}");
    assert_eq!(Window::Steps(4..6).resolve(&recorded).unwrap(), 4..6);
}
