//! What rounding of the gradients explains: steps with slightly different gradients stay within the bounds.

use hindcast_model::random::{Purpose, Stream};
use hindcast_model::update::{Blocks, Rounding, Settings, StepPoint, UpdateRule};

const VALUES: usize = 60;
const STEPS: u64 = 30;
const RATE: f64 = 0.01;

/// Sizes of the elements of the gradient: ordinary ones, ones near the rounding of the largest, and zeros.
fn size(i: usize) -> f64 {
    match i % 6 {
        0 | 1 => 1.0,
        2 => 1e-10,
        3 => 1e-12,
        4 => 3e-14,
        _ => 0.0,
    }
}

struct Found {
    /// Differences beyond the bound, for elements that have one.
    beyond: usize,
    /// Elements and steps without a bound whose step changes by more than an eighth.
    unnoticed: usize,
    /// Largest difference relative to the learning rate.
    largest: f64,
    /// Largest bound relative to the learning rate.
    bound: f64,
    /// Number of bounds of elements with ordinary gradients.
    ordinary: usize,
}

/// Trains twice, with gradients that differ by less than the error that is assumed. Both take each step from the same
/// parameters.
fn found(rule: &str, seed: u64) -> Found {
    let rule = UpdateRule::from_toml(rule).unwrap();
    let blocks = Blocks::new([(VALUES / 2, 0), (VALUES / 2, 0)]);
    let mut stream = Stream::of_run(seed, Purpose::Synthetic(9));
    let mut theta: Vec<f64> = (0..VALUES).map(|_| stream.normal()).collect();
    let mut state = rule.initial_state::<f64>(VALUES);
    let mut other_state = state.clone();
    let mut rounding = Rounding::new(&blocks);
    let mut out = Found {
        beyond: 0,
        unnoticed: 0,
        largest: 0.0,
        bound: 0.0,
        ordinary: 0,
    };
    for step in 0..STEPS {
        let gradient: Vec<f64> = (0..VALUES).map(|i| size(i) * stream.normal()).collect();
        let largest = gradient.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
        let delta = 60.0 * f64::EPSILON * largest;
        let other: Vec<f64> = gradient
            .iter()
            .map(|g| g + delta * stream.uniform_in(-1.0, 1.0))
            .collect();
        let settings = Settings::uniform(&rule, step, RATE, 2);
        let before = (theta.clone(), state.clone());
        rule.step(&blocks, &settings, &mut theta, &gradient, &mut state)
            .unwrap();
        let mut again = before.0.clone();
        rule.step(&blocks, &settings, &mut again, &other, &mut other_state)
            .unwrap();
        let point = StepPoint {
            parameters: &before.0,
            gradient: &gradient,
            state: &before.1,
        };
        let bounds = rounding
            .step(&rule, &blocks, &settings, point, &state)
            .unwrap();
        for (i, &bound) in bounds.iter().enumerate() {
            let gap = (again[i] - theta[i]).abs();
            // The rounding of θ itself.
            let exact = gap <= 1e-15 * theta[i].abs().max(1.0);
            out.largest = out.largest.max(gap / RATE);
            out.bound = out.bound.max(bound / RATE);
            if bound > 0.0 && gap > bound && !exact {
                out.beyond += 1;
            }
            // Without the decay, which may cancel the step.
            let decayed = RATE * rule.weight_decay() * before.0[i].abs();
            let moved = (theta[i] - before.0[i]).abs() + decayed;
            if bound == 0.0 && gap > moved / 8.0 && !exact {
                out.unnoticed += 1;
            }
            if bound > 0.0 && size(i) == 1.0 {
                out.ordinary += 1;
            }
        }
    }
    out
}

#[test]
fn differences_that_rounding_makes_are_within_the_bounds() {
    for rule in [
        "kind = 'adam'\nweight_decay = 0.0",
        "kind = 'adamw'\neps = 1e-30",
        "kind = 'adamw'\nclip_norm = 0.5",
        "kind = 'adamw'\nbeta1 = 0.5\nbeta2 = 0.6\neps = 1e-30",
        "kind = 'rmsprop'\neps = 1e-30",
        "kind = 'rmsprop'\nmomentum = 0.9\neps = 1e-30",
        "kind = 'adagrad'\neps = 1e-30",
        "kind = 'lamb'\nweight_decay = 0.1\neps = 1e-30",
        "kind = 'lion'",
        "kind = 'muon'\neps = 1e-30",
    ] {
        for seed in 0..20 {
            let found = found(rule, seed);
            assert_eq!(
                (found.beyond, found.unnoticed),
                (0, 0),
                "{rule}, seed {seed}"
            );
            // LAMB's ratio of norms carries rounding to all elements of a tensor.
            if !rule.contains("lamb") {
                assert_eq!(found.ordinary, 0, "{rule}, seed {seed}");
            }
            if rule.contains("1e-30") || rule.contains("lion") {
                assert!(found.largest > 0.2, "{rule}: rounding makes whole steps");
                assert!(found.bound < 1000.0, "{rule}: {}", found.bound);
            }
        }
    }
}

#[test]
fn the_steps_of_sgd_are_as_well_determined_as_its_gradients() {
    for rule in ["kind = 'sgd'", "kind = 'sgd'\nmomentum = 0.9"] {
        let found = found(rule, 1);
        assert_eq!(found.bound, 0.0);
        assert!(found.largest < 1e-10);
    }
}
