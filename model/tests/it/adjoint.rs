//! The reverse of each update rule, compared with training runs with changed example weights.
//!
//! The weight of example j is changed slightly in each batch of a window, and the run is repeated in float64. The central
//! difference of the final validation loss is compared with the derivative from the reverse sweep.

use hindcast_model::update::{Blocks, GroupHyper, Hidden, Settings, StepPoint, UpdateRule};

use crate::tanh_net::{D, Examples, H, P, add, relative_error, stream};

const N: usize = 24;
const BATCH: usize = 6;
const STEPS: usize = 20;

/// θ, the state and G of a step.
type Past = (Vec<f64>, Vec<f64>, Vec<f64>);

/// A training run that is differentiated.
struct Run {
    rule: UpdateRule,
    /// Factor of the learning rates 0.3/√(t+1).
    scale: f64,
    /// The window of steps that the sweep covers.
    window: std::ops::Range<usize>,
    /// Parameter groups of the two tensors.
    groups: Vec<GroupHyper>,
    /// Steps in which the second tensor has no gradient.
    untrained: Vec<usize>,
    /// Sizes of the micro-batches, each with its own mean. An empty list means one batch.
    micro: Vec<usize>,
    /// Whether a batch contains an example twice.
    twice: bool,
    /// Whether the first tensor has more rows than columns.
    tall: bool,
    /// The step at which the optimizer restarts, with a state of zero and a counter of 0.
    restart: usize,
}

impl Run {
    fn of(rule: &str, scale: f64) -> Self {
        Self {
            rule: UpdateRule::from_toml(rule).unwrap(),
            scale,
            window: 0..STEPS,
            groups: Vec::new(),
            untrained: Vec::new(),
            micro: Vec::new(),
            twice: false,
            tall: false,
            restart: 0,
        }
    }

    fn batches(&self) -> Vec<Vec<usize>> {
        let mut stream = stream(1);
        (0..STEPS)
            .map(|_| {
                let mut batch: Vec<usize> = stream.permutation(N)[..BATCH]
                    .iter()
                    .map(|&i| i as usize)
                    .collect();
                if self.twice {
                    batch[3] = batch[0];
                }
                batch
            })
            .collect()
    }

    /// Weight of each row in the batch loss.
    fn weights(&self) -> Vec<f64> {
        if self.micro.is_empty() {
            return vec![1.0 / BATCH as f64; BATCH];
        }
        let parts = self.micro.len() as f64;
        self.micro
            .iter()
            .flat_map(|&len| vec![1.0 / (parts * len as f64); len])
            .collect()
    }

    fn settings(&self, t: usize) -> Settings {
        let eta = 0.3 / ((1 + t) as f64).sqrt() * self.scale;
        let counter = t.checked_sub(self.restart).unwrap_or(t);
        let mut settings = Settings::uniform(&self.rule, counter as u64, eta, 2);
        if !self.groups.is_empty() {
            settings.groups = self.groups.clone();
            for group in &mut settings.groups {
                group.learning_rate *= eta;
            }
        }
        settings.trained[1] = !self.untrained.contains(&t);
        settings
    }

    fn blocks(&self) -> Blocks {
        let last = self.groups.len().saturating_sub(1);
        let shape = if self.tall { vec![D, H] } else { vec![H, D] };
        Blocks::of_shapes([(shape, 0), (vec![H], last)])
    }

    /// Trains with example weights that apply only inside the window. Returns the final θ and (θ, state, G) of each step.
    fn train(&self, data: &Examples, v: &[f64]) -> (Vec<f64>, Vec<Past>) {
        let mut stream = stream(2);
        let mut theta: Vec<f64> = (0..P).map(|_| 0.7 * stream.normal()).collect();
        let mut state = self.rule.initial_state::<f64>(P);
        let mut trace = Vec::new();
        for (t, batch) in self.batches().iter().enumerate() {
            let mut g = vec![0.0; P];
            for (&j, w) in batch.iter().zip(self.weights()) {
                let v = if self.window.contains(&t) { v[j] } else { 1.0 };
                add(&mut g, w * v, &data.gradient(&theta, j));
            }
            trace.push((theta.clone(), state.clone(), g.clone()));
            if t == self.restart {
                // A copy, so that the reverse gets the state that a replay arrives with.
                state = self.rule.initial_state(P);
            }
            self.rule
                .step(
                    &self.blocks(),
                    &self.settings(t),
                    &mut theta,
                    &g,
                    &mut state,
                )
                .unwrap();
        }
        (theta, trace)
    }

    /// dV/dv_j for each example j, by the reverse sweep.
    fn sweep(&self, data: &Examples, validation: &Examples) -> Vec<f64> {
        let (theta, trace) = self.train(data, &[1.0; N]);
        let mut adjoint = self.rule.adjoint(validation.mean_gradient(&theta));
        let mut scores = vec![0.0; N];
        let batches = self.batches();
        self.check_rewound(&trace);
        for t in self.window.clone().rev() {
            let (theta, state, g) = &trace[t];
            let point = StepPoint {
                parameters: theta,
                gradient: g,
                state,
            };
            let reverse = self
                .rule
                .linearize(&self.blocks(), &self.settings(t), point)
                .unwrap();
            let s = reverse.reverse(&mut adjoint).unwrap();
            for (&j, w) in batches[t].iter().zip(self.weights()) {
                let (g, h) = data.tangent(theta, &s, j);
                scores[j] += w * g.iter().zip(&s).map(|(g, s)| g * s).sum::<f64>();
                add(&mut adjoint.u, w, &h);
            }
        }
        scores
    }

    /// Goes back from the last state to those before all steps, as far as rounding allows at once, and compares them with
    /// the states of the training.
    fn check_rewound(&self, trace: &[Past]) {
        let mut state = trace[STEPS - 1].1.clone();
        let (rule, blocks) = (&self.rule, self.blocks());
        let mut least = Vec::new();
        let hidden: Vec<Hidden> = trace
            .iter()
            .enumerate()
            .map(|(t, (theta, before, g))| {
                let at = StepPoint {
                    parameters: theta,
                    gradient: g,
                    state: before,
                };
                rule.hidden(&blocks, &self.settings(t), at, &mut least)
                    .unwrap()
            })
            .collect();
        for (t, (theta, before, g)) in trace.iter().enumerate().take(STEPS - 1).rev() {
            let settings = self.settings(t);
            rule.rewind(&blocks, &settings, theta, g, &mut state)
                .unwrap();
            hidden[t].restore(P, &mut state);
            for (i, (got, expected)) in state.iter_mut().zip(before).enumerate() {
                if settings.optimizer_step == 0 && settings.trained[usize::from(i % P >= H * D)] {
                    *got = *expected;
                }
                let largest = trace.iter().map(|past| past.1[i].abs());
                let largest = largest.fold(0.0, f64::max);
                assert!(
                    (*got - expected).abs() <= 1e-11 * largest,
                    "{t}, {i}: {got} instead of {expected}, {}",
                    rule.describe()
                );
            }
            if ((STEPS - 1 - t) as u64).is_multiple_of(rule.rewindable_steps()) {
                state.clone_from(before);
            }
        }
    }

    /// Relative error of the sweep against central differences.
    fn error(&self) -> f64 {
        let data = Examples::draw(&mut stream(3), N);
        let validation = Examples::draw(&mut stream(4), 9);
        let at = |j: usize, e: f64| {
            let mut v = [1.0; N];
            v[j] += e;
            validation.mean_loss(&self.train(&data, &v).0)
        };
        // Differences of fourth order, because Adam's root has a large curvature where a second moment is small.
        let e = 5e-5;
        let differences: Vec<f64> = (0..N)
            .map(|j| {
                (8.0 * (at(j, e) - at(j, -e)) - (at(j, 2.0 * e) - at(j, -2.0 * e))) / (12.0 * e)
            })
            .collect();
        let error = relative_error(&self.sweep(&data, &validation), &differences);
        println!("{error:.1e}  {}", self.rule.describe());
        error
    }

    /// Number of steps that clip the gradient.
    fn clipped_steps(&self) -> usize {
        let data = Examples::draw(&mut stream(3), N);
        let norm = |g: &[f64]| g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let (_, trace) = self.train(&data, &[1.0; N]);
        let c = self.rule.clip_norm().unwrap();
        trace.iter().filter(|(_, _, g)| norm(g) > c).count()
    }
}

/// Largest relative error of the sweep.
const LIMIT: f64 = 1e-8;

/// Each rule with all of its constants in use.
const RULES: [(&str, &str, f64); 26] = [
    ("sgd", "kind = 'sgd'", 1.0),
    ("sgd, decay", "kind = 'sgd'\nweight_decay = 0.05", 1.0),
    (
        "momentum",
        "kind = 'sgd'\nmomentum = 0.9\nweight_decay = 0.01",
        0.2,
    ),
    (
        "dampening",
        "kind = 'sgd'\nmomentum = 0.8\ndampening = 0.3\nweight_decay = 0.01",
        0.3,
    ),
    (
        "nesterov",
        "kind = 'sgd'\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.01",
        0.2,
    ),
    (
        "nesterov, dampening",
        "kind = 'sgd'\nmomentum = 0.9\nnesterov = true\ndampening = 0.2\nweight_decay = 0.01",
        0.2,
    ),
    (
        "momentum, clipping",
        "kind = 'sgd'\nmomentum = 0.5\nweight_decay = 0.01\nclip_norm = 0.1",
        1.0,
    ),
    (
        "nesterov, clipping",
        "kind = 'sgd'\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.01\nclip_norm = 0.1",
        0.2,
    ),
    ("sgd, clipping", "kind = 'sgd'\nclip_norm = 0.1", 1.0),
    ("adam", "kind = 'adam'\nbeta2 = 0.95\neps = 1e-3", 0.1),
    (
        "adam, decay",
        "kind = 'adam'\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1",
        0.1,
    ),
    (
        "adamw",
        "kind = 'adamw'\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1",
        0.1,
    ),
    (
        "adam, decay, clipping",
        "kind = 'adam'\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1\nclip_norm = 0.1",
        0.1,
    ),
    (
        "adamw, clipping",
        "kind = 'adamw'\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1\nclip_norm = 0.1",
        0.1,
    ),
    ("rmsprop", "kind = 'rmsprop'\nalpha = 0.9\neps = 1e-2", 0.1),
    (
        "rmsprop, decay, momentum",
        "kind = 'rmsprop'\nalpha = 0.9\neps = 1e-2\nmomentum = 0.8\nweight_decay = 0.1",
        0.05,
    ),
    (
        "rmsprop, centred",
        "kind = 'rmsprop'\nalpha = 0.9\neps = 3e-2\ncentered = true\nweight_decay = 0.1",
        0.1,
    ),
    (
        "rmsprop, centred, momentum, clipping",
        "kind = 'rmsprop'\nalpha = 0.9\neps = 3e-2\ncentered = true\nmomentum = 0.5\nweight_decay = 0.1\nclip_norm = 0.1",
        0.05,
    ),
    (
        "rmsprop, clipping",
        "kind = 'rmsprop'\nalpha = 0.9\neps = 1e-2\nclip_norm = 0.1",
        0.1,
    ),
    (
        "adagrad",
        "kind = 'adagrad'\nlr_decay = 0.1\neps = 1e-3\ninitial_accumulator_value = 0.01\nweight_decay = 0.1",
        0.3,
    ),
    (
        "adagrad, clipping",
        "kind = 'adagrad'\neps = 1e-2\nweight_decay = 0.1\nclip_norm = 0.1",
        0.3,
    ),
    ("lamb", "kind = 'lamb'\nbeta2 = 0.95\neps = 1e-3", 0.1),
    (
        "lamb, decay, clipping",
        "kind = 'lamb'\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.3\nclip_norm = 0.1",
        0.1,
    ),
    ("muon", "kind = 'muon'\nmomentum = 0.9\neps = 1e-3", 0.1),
    (
        "muon, without Nesterov",
        "kind = 'muon'\nmomentum = 0.7\nnesterov = false\neps = 1e-3\nweight_decay = 0.2",
        0.1,
    ),
    (
        "muon, decay, clipping",
        "kind = 'muon'\nmomentum = 0.9\neps = 1e-3\nweight_decay = 0.2\nclip_norm = 0.1",
        0.1,
    ),
];

#[test]
fn every_rule_agrees_with_re_weighted_training() {
    for (name, rule, scale) in RULES {
        let run = Run::of(rule, scale);
        assert!(run.error() <= LIMIT, "{name}");
        if run.rule.clip_norm().is_some() {
            assert!(run.clipped_steps() > STEPS / 2, "{name} should clip");
        }
    }
}

#[test]
fn a_threshold_between_the_norms_clips_some_steps_only() {
    let run = Run::of("kind = 'sgd'\nmomentum = 0.5\nclip_norm = 0.25", 0.5);
    assert!((3..STEPS - 2).contains(&run.clipped_steps()));
    assert!(run.error() <= LIMIT);
}

#[test]
fn a_window_that_starts_in_the_middle_keeps_the_optimizers_step_counter() {
    for (name, rule, scale) in RULES {
        let mut run = Run::of(rule, scale);
        run.window = 7..STEPS;
        assert!(run.error() <= LIMIT, "{name}");
    }
}

/// The counter 0 in the middle of a run means that the optimizer restarted.
#[test]
fn an_optimizer_that_restarts_forgets_its_state() {
    for (name, rule, scale) in RULES {
        let mut run = Run::of(rule, scale);
        run.restart = 8;
        assert!(run.error() <= LIMIT, "{name}");
    }
}

#[test]
fn a_tensor_without_a_gradient_is_skipped() {
    for (name, rule, scale) in RULES {
        let mut run = Run::of(rule, scale);
        run.untrained = vec![0, 4, 5, 13];
        assert!(run.error() <= LIMIT, "{name}");
    }
}

#[test]
fn each_group_has_its_own_learning_rate_and_decay() {
    for (name, rule, scale) in RULES {
        let mut run = Run::of(rule, scale);
        let group = |learning_rate, weight_decay| GroupHyper {
            learning_rate,
            weight_decay,
        };
        run.groups = vec![group(1.0, 0.0), group(0.5, 0.07)];
        assert!(run.error() <= LIMIT, "{name}");
    }
}

#[test]
fn accumulated_micro_batches_of_unequal_size() {
    for (name, rule, scale) in RULES {
        let mut run = Run::of(rule, scale);
        run.micro = vec![1, 3, 2];
        assert!(run.error() <= LIMIT, "{name}");
    }
}

/// LAMB's ratio of norms is 1 for a tensor of zeros.
#[test]
fn the_ratio_of_a_tensor_of_zeros_is_constant() {
    let rule = UpdateRule::from_toml("kind = 'lamb'\nweight_decay = 0.1").unwrap();
    let blocks = Blocks::new([(3, 0)]);
    let settings = Settings::uniform(&rule, 0, 0.1, 1);
    let (g, state) = ([0.3, -0.1, 0.2], rule.initial_state::<f64>(3));
    let at = StepPoint {
        parameters: &[0.0; 3],
        gradient: &g,
        state: &state,
    };
    let linear = rule.linearize(&blocks, &settings, at).unwrap();
    let s = linear
        .reverse(&mut rule.adjoint(vec![1.0, -2.0, 0.5]))
        .unwrap();
    let value = |g: [f64; 3]| {
        let (mut theta, mut state) = ([0.0; 3], state.clone());
        rule.step(&blocks, &settings, &mut theta, &g, &mut state)
            .unwrap();
        theta[0] - 2.0 * theta[1] + 0.5 * theta[2]
    };
    for i in 0..3 {
        let e = 1e-5;
        let (mut up, mut down) = (g, g);
        up[i] += e;
        down[i] -= e;
        let difference = (value(up) - value(down)) / (2.0 * e);
        assert!((s[i] - difference).abs() < 1e-7, "{i}: {difference}");
    }
}

/// Each value of a rewound state is exact to its own size, although the gradients differ by many orders of magnitude.
#[test]
fn a_large_gradient_doesnt_hide_what_small_ones_left() {
    const WIDTH: usize = 500;
    let gradient = |t: u32| -> Vec<f64> {
        let mut stream = stream(40 + t);
        let sizes = (0..WIDTH).map(|_| stream.normal() * 10f64.powi(-(stream.below(13) as i32)));
        sizes.collect()
    };
    let blocks = Blocks::new([(WIDTH, 0)]);
    for rule in ["adamw", "adam", "lamb", "rmsprop", "adagrad", "muon"] {
        let rule = UpdateRule::from_toml(&format!("kind = '{rule}'")).unwrap();
        let squares = (rule.state_values(1) - 1) * WIDTH;
        let mut theta = vec![0.5; WIDTH];
        let mut state = rule.initial_state::<f64>(WIDTH);
        let mut past = Vec::new();
        let mut least = Vec::new();
        for t in 0..60 {
            let (settings, g) = (Settings::uniform(&rule, u64::from(t), 1e-3, 1), gradient(t));
            let at = StepPoint {
                parameters: &theta,
                gradient: &g,
                state: &state,
            };
            let hidden = rule.hidden(&blocks, &settings, at, &mut least).unwrap();
            let before = (theta.clone(), state.clone());
            past.push((settings.clone(), before, g.clone(), hidden));
            rule.step(&blocks, &settings, &mut theta, &g, &mut state)
                .unwrap();
        }
        let mut elements = 0;
        for (settings, (theta, before), g, hidden) in past.iter().rev() {
            rule.rewind(&blocks, settings, theta, g, &mut state)
                .unwrap();
            hidden.restore(WIDTH, &mut state);
            elements += hidden.len();
            let found = state[squares..].iter().zip(&before[squares..]);
            for (got, expected) in found {
                assert!(
                    (got - expected).abs() <= 1e-9 * expected,
                    "{got} instead of {expected}, {}",
                    rule.describe()
                );
            }
        }
        assert!(elements > 0 && elements < 60 * WIDTH / 10, "{elements}");
    }
}

#[test]
fn lions_sign_has_no_adjoint() {
    let rule = UpdateRule::from_toml("kind = 'lion'").unwrap();
    let blocks = Blocks::new([(1, 0)]);
    let at = StepPoint {
        parameters: &[0.5],
        gradient: &[0.1],
        state: &[0.0],
    };
    let refused = rule.linearize(&blocks, &Settings::uniform(&rule, 0, 0.1, 1), at);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.starts_with("Lion, beta 0.9 and 0.99 has no adjoint: its step is the sign"),
        "{refused}"
    );
    assert!(rule.no_adjoint().is_some() && UpdateRule::adamw().no_adjoint().is_none());
}

#[test]
fn a_matrix_with_more_rows_than_columns() {
    let mut run = Run::of("kind = 'muon'\neps = 1e-3\nweight_decay = 0.1", 0.1);
    run.tall = true;
    assert!(run.error() <= LIMIT);
}

#[test]
fn an_example_that_occurs_twice_in_a_batch() {
    let mut run = Run::of("kind = 'adamw'\neps = 1e-3", 0.1);
    run.twice = true;
    assert!(run.error() <= LIMIT);
}
