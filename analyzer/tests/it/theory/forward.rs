//! Compares forward and accumulative estimates with the sweep, with derivatives of really re-weighted training, and
//! with retraining.

use std::ops::{ControlFlow, Range};

use hindcast_analyzer::estimators::{
    ForwardChanges, OwnTerm, accumulative_changes, forward_changes,
};
use hindcast_analyzer::{Query, QueryPoint, StateWeights, SweepOptions, sweep};

use super::{Toy, end, minus, scaled};
use crate::tiny::relative_error;

const EXAMPLES: usize = 11;
const TANH: &str =
    "{ kind = \"linear\", out = 3 }, { kind = \"tanh\" }, { kind = \"linear\", out = 2 }";
const LINEAR: &str = "{ kind = \"linear\", out = 2 }";

fn forward(toy: &Toy, window: &Range<u64>, own_term: OwnTerm) -> ForwardChanges {
    let recorded = toy.train(&|_, _| {});
    let run = toy.recorded(&recorded);
    let all: Vec<u64> = (0..EXAMPLES as u64).collect();
    forward_changes(
        &run,
        &mut toy.engine(),
        &all,
        window,
        &StateWeights::at_end(recorded.end.as_ref().unwrap().step),
        own_term,
        &mut |_, _| ControlFlow::Continue(()),
    )
    .unwrap()
}

fn swept(toy: &Toy, window: &Range<u64>) -> Vec<f64> {
    let recorded = toy.train(&|_, _| {});
    let run = toy.recorded(&recorded);
    let options = SweepOptions::new(window.clone());
    let query = toy.query(&recorded);
    sweep(&run, &mut toy.engine(), &[query], &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap()
    .queries
    .remove(0)
    .influence
}

#[test]
fn at_an_average_the_forward_recursion_gives_the_sweeps_scores() {
    for (name, toy) in toys() {
        let recorded = toy.train(&|_, _| {});
        let run = toy.recorded(&recorded);
        let all: Vec<u64> = (0..EXAMPLES as u64).collect();
        for (at, window) in [("mean:4-steps", 0..9), ("ema:0.5", 0..9), ("mean", 2..7)] {
            let at: QueryPoint = at.parse().unwrap();
            let weights = at.resolve(run.source(), 0).unwrap();
            let model = weights.state(run.source()).unwrap();
            let gradients =
                Query::gradients(&[Query::default()], &run, &model, &mut toy.engine()).unwrap();
            let changes = forward_changes(
                &run,
                &mut toy.engine(),
                &all,
                &window,
                &weights,
                OwnTerm::Kept,
                &mut |_, _| ControlFlow::Continue(()),
            )
            .unwrap();
            let options = SweepOptions {
                at,
                ..SweepOptions::new(window)
            };
            let swept = sweep(&run, &mut toy.engine(), &gradients, &options, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
            let error = relative_error(
                &changes.influence(&gradients[0]),
                &swept.queries[0].influence,
            );
            assert!(error < 1e-12, "{name}, {}: {error:e}", weights.point());
        }
    }
}

/// Runs that differ in every property of a step: penalties, decay, weights, a repeated index, a short batch.
fn toys() -> Vec<(&'static str, Toy)> {
    let three = |layers, loss: &str, optimizer| {
        Toy::new(layers, loss, optimizer, EXAMPLES, 3).epochs(3, 4, |t| 0.4 / (1.0 + t as f64))
    };
    let mut repeated = three(TANH, "kind = \"cross-entropy\"", "kind = \"sgd\"");
    repeated.batches[4] = vec![2, 5, 2, 9];
    let mut weighted = three(TANH, "kind = \"mean-squared-error\"", "kind = \"sgd\"");
    weighted.weights = Some(vec![0.4, 0.1, 0.3, 0.2]);
    let mut summed = three(TANH, "kind = \"cross-entropy\"", "kind = \"sgd\"");
    summed.weights = Some(vec![1.0; 4]);
    vec![
        (
            "plain",
            three(TANH, "kind = \"cross-entropy\"", "kind = \"sgd\""),
        ),
        (
            "penalty in examples",
            three(
                TANH,
                "kind = \"binary-cross-entropy\"\npenalty = 0.1\npenalty_in = \"examples\"",
                "kind = \"sgd\"",
            ),
        ),
        (
            "penalty in the batch, decay",
            three(
                TANH,
                "kind = \"binary-cross-entropy\"\npenalty = 0.1\npenalty_in = \"batch\"",
                "kind = \"sgd\"\nweight_decay = 0.05",
            ),
        ),
        ("sum", summed),
        ("an index twice", repeated),
        ("weights", weighted),
    ]
}

#[test]
fn the_sweep_is_the_forward_estimates_product_with_the_query() {
    for (name, toy) in toys() {
        for window in [0..9, 2..7, 6..9] {
            let changes = forward(&toy, &window, OwnTerm::Kept);
            let query = toy.query(&toy.train(&|_, _| {}));
            let error = relative_error(&changes.influence(&query), &swept(&toy, &window));
            assert!(error < 1e-12, "{name}, {window:?}: {error:e}");
        }
    }
}

#[test]
fn the_forward_estimate_is_the_derivative_of_re_weighted_training() {
    const STEP: f64 = 1e-5;
    for (name, toy) in toys() {
        let changes = forward(&toy, &(1..8), OwnTerm::Kept);
        for (j, change) in (0..).zip(&changes.changes) {
            if changes.occurrences[j as usize] == 0 {
                assert!(change.iter().all(|d| *d == 0.0), "{name}, example {j}");
                continue;
            }
            let at = |factor| toy.train(&scaled(j, factor, 1..8));
            let difference: Vec<f64> = minus(end(&at(1.0 - STEP)), end(&at(1.0 + STEP)))
                .iter()
                .map(|d| d / (2.0 * STEP))
                .collect();
            let error = relative_error(change, &difference);
            assert!(error < 1e-7, "{name}, example {j}: {error:e}");
        }
    }
}

/// If losses are quadratic, the run without j follows the accumulative recursion exactly, for any step size.
#[test]
fn the_accumulative_estimate_of_a_quadratic_is_real_retraining() {
    for (loss, optimizer) in [
        ("kind = \"mean-squared-error\"", "kind = \"sgd\""),
        (
            "kind = \"mean-squared-error\"\npenalty = 0.2\npenalty_in = \"examples\"",
            "kind = \"sgd\"\nweight_decay = 0.1",
        ),
        (
            "kind = \"mean-squared-error\"\npenalty = 0.2\npenalty_in = \"batch\"",
            "kind = \"sgd\"",
        ),
    ] {
        let mut toy = Toy::new(LINEAR, loss, optimizer, EXAMPLES, 4).epochs(4, 3, |_| 0.3);
        toy.batches[5] = vec![7, 1, 7];
        for window in [0..16, 3..9] {
            let accumulative = forward(&toy, &window, OwnTerm::LeftOut);
            let first_order = forward(&toy, &window, OwnTerm::Kept);
            let with = toy.train(&|_, _| {});
            let mut first_order_error = 0.0_f64;
            for (j, change) in (0..).zip(&accumulative.changes) {
                let without = toy.train(&scaled(j, 0.0, window.clone()));
                let real = minus(end(&without), end(&with));
                if accumulative.occurrences[j as usize] == 0 {
                    assert!(change.iter().all(|d| *d == 0.0), "{loss}, example {j}");
                    continue;
                }
                let error = relative_error(change, &real);
                assert!(error < 1e-11, "{loss}, example {j}: {error:e}");
                first_order_error =
                    first_order_error.max(relative_error(&first_order.changes[j as usize], &real));
            }
            assert!(first_order_error > 1e-3, "{loss}: {first_order_error:e}");
        }
    }
}

#[test]
fn on_an_epoch_in_which_no_example_recurs_the_accumulative_estimate_is_the_sweep() {
    for (name, toy) in toys() {
        if name == "an index twice" {
            continue;
        }
        let recorded = toy.train(&|_, _| {});
        let run = toy.recorded(&recorded);
        let all: Vec<u64> = (0..EXAMPLES as u64).collect();
        let at = StateWeights::at_end(9);
        let changes =
            accumulative_changes(&run, &mut toy.engine(), &all, &(6..9), &at, &mut |_, _| {
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(changes.occurrences, vec![1; EXAMPLES]);
        let error = relative_error(
            &changes.influence(&toy.query(&recorded)),
            &swept(&toy, &(6..9)),
        );
        assert!(error < 1e-12, "{name}: {error:e}");
        // Over all three epochs they differ.
        let all = forward(&toy, &(0..9), OwnTerm::LeftOut);
        let error = relative_error(&all.influence(&toy.query(&recorded)), &swept(&toy, &(0..9)));
        assert!(error > 1e-4, "{name}: {error:e}");
    }
}

#[test]
fn runs_without_an_accumulative_estimate_are_refused() {
    let refusal = |toy: &Toy, examples: &[u64], window: Range<u64>| {
        let recorded = toy.train(&|_, _| {});
        let run = toy.recorded(&recorded);
        let at = StateWeights::at_end(recorded.end.as_ref().unwrap().step);
        accumulative_changes(
            &run,
            &mut toy.engine(),
            examples,
            &window,
            &at,
            &mut |_, _| ControlFlow::Continue(()),
        )
        .unwrap_err()
        .to_string()
    };
    let of = |layers: &str, optimizer: &str| {
        Toy::new(layers, "kind = \"cross-entropy\"", optimizer, EXAMPLES, 1).epochs(1, 4, |_| 0.1)
    };
    for (optimizer, reason) in [
        ("kind = \"sgd\"\nmomentum = 0.9", "momentum is 0.9"),
        ("kind = \"sgd\"\nclip_norm = 2.5", "clips gradients at 2.5"),
        ("kind = \"adamw\"", "not SGD"),
    ] {
        let message = refusal(&of(LINEAR, optimizer), &[1], 0..3);
        assert!(message.contains(reason), "{message}");
    }
    let normed =
        "{ kind = \"linear\", out = 3 }, { kind = \"batch_norm\" }, { kind = \"linear\", out = 2 }";
    let message = refusal(&of(normed, "kind = \"sgd\""), &[1], 0..3);
    assert!(message.contains("running statistics"), "{message}");
    let toy = of(LINEAR, "kind = \"sgd\"");
    for (examples, window, reason) in [
        (vec![11], 0..3, "there is no example 11"),
        (vec![3, 3], 0..3, "example 3 is in the shortlist twice"),
        (vec![3], 0..4, "steps 0..3"),
    ] {
        let message = refusal(&toy, &examples, window);
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn the_accumulative_estimate_can_be_cancelled() {
    let toy = &toys()[0].1;
    let recorded = toy.train(&|_, _| {});
    let run = toy.recorded(&recorded);
    let mut calls = Vec::new();
    let stopped = accumulative_changes(
        &run,
        &mut toy.engine(),
        &[0, 4],
        &(2..9),
        &StateWeights::at_end(9),
        &mut |done, all| {
            calls.push((done, all));
            match done {
                3 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        },
    );
    assert_eq!(stopped.unwrap_err().to_string(), "cancelled at step 5");
    assert_eq!(calls, [(1, 7), (2, 7), (3, 7)]);
}
