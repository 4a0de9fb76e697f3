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

/// How the two trainings go.
#[derive(Clone, Copy)]
struct Course {
    steps: u64,
    /// Whether the parameters begin at zero.
    zero: bool,
    /// Whether every step has the same gradient.
    equal: bool,
    /// Whether all elements of the first tensor have gradients of this size.
    size: Option<f64>,
    /// The optimizer restarts at this step.
    restart: Option<u64>,
    /// Whether the first tensor is a matrix.
    matrix: bool,
}

const USUAL: Course = Course {
    steps: STEPS,
    zero: false,
    equal: false,
    size: None,
    restart: None,
    matrix: false,
};

fn found(rule: &str, seed: u64) -> Found {
    found_on(USUAL, rule, seed)
}

/// Trains twice, with gradients that differ by less than the error that is assumed. Both take each step from the same
/// parameters.
fn found_on(course: Course, rule: &str, seed: u64) -> Found {
    let rule = UpdateRule::from_toml(rule).unwrap();
    let half = VALUES / 2;
    let first = if course.matrix {
        vec![5, half / 5]
    } else {
        vec![half]
    };
    let blocks = Blocks::of_shapes([(first, 0), (vec![half], 0)]);
    let mut stream = Stream::of_run(seed, Purpose::Synthetic(9));
    let start = |_| if course.zero { 0.0 } else { stream.normal() };
    let mut theta: Vec<f64> = (0..VALUES).map(start).collect();
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
    let size = |i: usize| course.size.filter(|_| i < half).unwrap_or(size(i));
    let mut gradient: Vec<f64> = Vec::new();
    for step in 0..course.steps {
        if gradient.is_empty() || !course.equal {
            gradient = (0..VALUES).map(|i| size(i) * stream.normal()).collect();
        }
        let largest = gradient.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
        let delta = 60.0 * f64::EPSILON * largest;
        let other: Vec<f64> = gradient
            .iter()
            .map(|g| g + delta * stream.uniform_in(-1.0, 1.0))
            .collect();
        let done = course
            .restart
            .filter(|at| step >= *at)
            .map_or(step, |at| step - at);
        let settings = Settings::uniform(&rule, done, RATE, 2);
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

/// SGD makes no whole steps of rounding. Only elements whose gradient is zero up to rounding have a bound.
#[test]
fn the_steps_of_sgd_are_as_well_determined_as_its_gradients() {
    for rule in [
        "kind = 'sgd'",
        "kind = 'sgd'\nmomentum = 0.9",
        "kind = 'sgd'\nmomentum = 0.9\ndampening = 0.5",
        "kind = 'sgd'\nmomentum = 0.9\nnesterov = true",
        "kind = 'sgd'\nclip_norm = 0.5",
    ] {
        for seed in 0..20 {
            let found = found(rule, seed);
            let counts = (found.beyond, found.unnoticed, found.ordinary);
            assert_eq!(counts, (0, 0, 0), "{rule}, seed {seed}");
            assert!(found.largest < 1e-10 && found.bound > 0.0 && found.bound < 1e-10);
        }
    }
}

/// LAMB takes the ratio 1 for a tensor that is zero, as biases are before the first step.
#[test]
fn tensors_that_are_zero_have_bounds_too() {
    for eps in ["1e-8", "1e-6", "1e-30"] {
        for seed in 0..20 {
            let course = Course {
                steps: 1,
                zero: true,
                size: Some(3e-14),
                ..USUAL
            };
            let rule = format!("kind = 'lamb'\neps = {eps}");
            let found = found_on(course, &rule, seed);
            assert_eq!((found.beyond, found.unnoticed), (0, 0), "{eps}, {seed}");
            let decides = eps == "1e-30";
            assert_eq!(found.largest > 0.2, decides, "{eps}: {}", found.largest);
            assert_eq!(found.bound > 0.2, decides, "{eps}: {}", found.bound);
        }
    }
}

#[test]
fn centred_steps_are_within_the_bounds() {
    for momentum in ["0.0", "0.9"] {
        for seed in 0..20 {
            let rule = |alpha: f64, eps: &str| {
                format!(
                    "kind = 'rmsprop'\ncentered = true\nalpha = {alpha}\nmomentum = {momentum}\neps = {eps}"
                )
            };
            let found = found(&rule(0.99, "1e-12"), seed);
            assert_eq!((found.beyond, found.unnoticed), (0, 0), "seed {seed}");
            assert_eq!(found.ordinary, 0, "seed {seed}");
            // With equal gradients, v − ḡ² goes to 0 and the direction has no largest length. In the end, rounding
            // decides the difference.
            let course = Course {
                steps: 60,
                equal: true,
                size: Some(1.0),
                ..USUAL
            };
            let found = found_on(course, &rule(0.5, "1e-8"), seed);
            assert_eq!((found.beyond, found.unnoticed), (0, 0), "seed {seed}");
            assert!(found.largest > 1000.0, "{}", found.largest);
        }
    }
}

/// After a restart, the step starts from the initial state, whatever the state was.
#[test]
fn a_restart_forgets_the_state_and_its_errors() {
    for rule in ["kind = 'lion'", "kind = 'adamw'\neps = 1e-30"] {
        for seed in 0..20 {
            let course = Course {
                restart: Some(12),
                ..USUAL
            };
            let found = found_on(course, rule, seed);
            let counts = (found.beyond, found.unnoticed, found.ordinary);
            assert_eq!(counts, (0, 0, 0), "{rule}, seed {seed}");
        }
    }
}

/// Another optimizer's first turn leaves the collected errors alone.
#[test]
fn errors_of_a_tensor_outlast_the_first_turn_of_another_optimizer() {
    let rule = UpdateRule::from_toml("kind = 'adamw'").unwrap();
    let blocks = Blocks::new([(1, 0), (1, 0)]);
    let last_bound = |with_turn: bool| {
        let mut state = rule.initial_state::<f64>(2);
        let mut rounding = Rounding::new(&blocks);
        let mut theta = [0.0, 0.0];
        // With m = 0.9 · 0.1 − 0.1 · 0.9 = 0, the last step of the first tensor is rounding.
        let steps = [
            ([true, false], 0, [1.0, 0.0]),
            ([false, true], 0, [0.0, 1.0]),
            ([true, false], 1, [-0.9, 0.0]),
        ];
        let mut last = 0.0;
        for (trained, done, gradient) in steps {
            if trained[1] && !with_turn {
                continue;
            }
            let settings = Settings {
                trained: trained.to_vec(),
                ..Settings::uniform(&rule, done, RATE, 2)
            };
            let before = (theta, state.clone());
            rule.step(&blocks, &settings, &mut theta, &gradient, &mut state)
                .unwrap();
            let point = StepPoint {
                parameters: &before.0,
                gradient: &gradient,
                state: &before.1,
            };
            let bounds = rounding.step(&rule, &blocks, &settings, point, &state);
            last = bounds.unwrap()[0];
        }
        last
    };
    // The errors of the two gradients, 64ε and 0.9 · 64ε, weigh 0.09 and 0.1, and the bias correction is 1/0.19. The root is
    // that of (0.999 · 0.001 + 0.001 · 0.81)/(1 − 0.999²).
    let off = (0.09 + 0.09) * 64.0 * f64::EPSILON / 0.19;
    let root = (0.001_809_f64 / 0.001_999).sqrt();
    let expected = RATE * off / root;
    for with_turn in [false, true] {
        let bound = last_bound(with_turn);
        assert!(
            (bound / expected - 1.0).abs() < 0.2,
            "{bound:e}, {expected:e}"
        );
    }
}

/// A matrix whose gradient is zero up to rounding gets a whole step from rounding.
#[test]
fn a_matrix_of_muon_has_a_bound_if_rounding_decides_it() {
    for form in ["", "nesterov = false"] {
        for (size, decided) in [(3e-14, true), (1.0, false)] {
            for seed in 0..20 {
                let course = Course {
                    size: Some(size),
                    matrix: true,
                    ..USUAL
                };
                let rule = format!("kind = 'muon'\neps = 1e-30\n{form}");
                let found = found_on(course, &rule, seed);
                assert_eq!((found.beyond, found.unnoticed), (0, 0), "{form}, {seed}");
                if decided {
                    assert!(found.largest > 0.2, "{}", found.largest);
                }
                assert!(found.bound < 10.0, "{}", found.bound);
            }
        }
    }
}
