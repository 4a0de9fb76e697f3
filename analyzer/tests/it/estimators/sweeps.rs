//! Compares the sweep and its variants with a sweep written out from the formulas, with differences for every
//! derivative. Also tests random scores.

use std::sync::Arc;

use hindcast_analyzer::run::weights_of;
use hindcast_analyzer::{MemoryRun, RecordedRun, ReplayEngine, StepInput, Window};
use hindcast_model::objective::{Mode, values};
use hindcast_model::update::UpdateRule;

use super::{estimate, gradients, scores};
use crate::tiny::{Recipe, TRAIN, TinyData, TinyNet, engine, relative_error, train};
use candle_core::{DType, Device};
use hindcast_model::objective::Objective;

const MOMENTUM: f64 = 0.8;
const DECAY: f64 = 0.05;

/// SGD-influence with momentum and coupled decay as in docs/math.md, with `H s` multiplied by `factor(|S_t|)`, and all
/// adjoints by `discount` at each step. Every derivative is a difference of batch gradients or of running statistics.
fn by_hand(
    recipe: &Recipe,
    net: &Arc<TinyNet>,
    recorded: &MemoryRun,
    query: usize,
    factor: impl Fn(usize) -> f64,
    discount: f64,
) -> Vec<f64> {
    let run = RecordedRun::new(recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    let mut engine = engine(net);
    let query = &gradients(recorded, net)[query];
    let (mut u, mut rho) = (query.parameters.clone(), query.buffers.clone());
    let mut v = vec![0.0; u.len()];
    let mut out = vec![0.0; TRAIN];
    // Number of values of each parameter tensor, to know which values are trained.
    let sizes: Vec<usize> = net
        .parameters()
        .iter()
        .map(|d| values(std::slice::from_ref(d)))
        .collect();
    for (t, step) in recorded.steps.iter().enumerate().rev() {
        let before = match t {
            0 => &step.key.as_ref().unwrap().buffers_before,
            _ => &recorded.steps[t - 1].buffers_after,
        };
        let theta = step.parameters.to_vec::<f64>();
        let batches = run.batches(&step.meta, DType::F64, &Device::Cpu).unwrap();
        let weights = weights_of(&step.meta).unwrap();
        let mut at = |parameters: &[f64], weights: &[f64]| {
            engine
                .gradient(&StepInput {
                    parameters: parameters.into(),
                    buffers: before.into(),
                    micro_batches: &batches,
                    weights,
                    mode: Mode::Train,
                    draws: run.draws(t as u64),
                })
                .unwrap()
        };
        let eta = step.meta.groups[0].learning_rate;
        let mut trained = Vec::new();
        for (&flag, &size) in step.meta.trained.iter().zip(&sizes) {
            trained.extend(std::iter::repeat_n(flag, size));
        }
        // v̂ = v − η u; s = v̂ (no dampening).
        let s: Vec<f64> = (0..u.len())
            .map(|i| if trained[i] { v[i] - eta * u[i] } else { 0.0 })
            .collect();
        for (o, &j) in step.meta.indices.iter().enumerate() {
            let mut alone = vec![0.0; weights.len()];
            alone[o] = 1.0;
            let none = vec![0.0; weights.len()];
            // Without the share of a penalty of the whole batch.
            let with = at(&theta, &alone).parameters;
            let without = at(&theta, &none).parameters;
            let product: f64 = s
                .iter()
                .zip(with.iter().zip(&without))
                .map(|(s, (a, b))| s * (a - b))
                .sum();
            out[j as usize] -= weights[o] * product;
        }
        let h = 1e-4;
        let moved = |sign: f64, direction: &[f64]| -> Vec<f64> {
            let pairs = theta.iter().zip(direction);
            pairs.map(|(x, d)| x + sign * h * d).collect()
        };
        let (plus, minus) = (
            at(&moved(1.0, &s), &weights).parameters,
            at(&moved(-1.0, &s), &weights).parameters,
        );
        // J_statᵀ ρ, coordinate by coordinate.
        let statistics: Vec<f64> = (0..u.len())
            .map(|i| {
                let mut one = vec![0.0; u.len()];
                one[i] = 1.0;
                let up = at(&moved(1.0, &one), &weights).buffers_after;
                let down = at(&moved(-1.0, &one), &weights).buffers_after;
                let change = up.iter().zip(&down).map(|(a, b)| (a - b) / (2.0 * h));
                change.zip(&rho).map(|(d, r)| d * r).sum()
            })
            .collect();
        let scale = factor(step.meta.indices.len());
        for i in 0..u.len() {
            let hessian = (plus[i] - minus[i]) / (2.0 * h);
            u[i] += scale * hessian + statistics[i];
            if trained[i] {
                u[i] += DECAY * s[i];
                v[i] = MOMENTUM * s[i];
            }
        }
        rho.iter_mut().for_each(|r| *r *= 0.8);
        for x in u.iter_mut().chain(&mut v).chain(&mut rho) {
            *x *= discount;
        }
    }
    out
}

fn recipe() -> Recipe {
    let rule = format!("kind = \"sgd\"\nmomentum = {MOMENTUM}\nweight_decay = {DECAY}");
    Recipe {
        penalty: 0.03,
        ..Recipe::new(UpdateRule::from_toml(&rule).unwrap(), 0.3)
    }
}

#[test]
fn variants_differ_in_the_term_of_the_hessian_or_in_the_discount() {
    let (recipe, net) = (recipe(), TinyNet::new(0.03));
    let recorded = train(&recipe, &net, None);
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], fn(usize) -> f64, f64);
    let cases: [Case<'_>; 5] = [
        ("sgd", &[], |_| 1.0, 1.0),
        ("hessian-free", &[], |_| 0.0, 1.0),
        ("released-rule", &[], |examples| 1.0 / examples as f64, 1.0),
        ("discounted", &[("discount", "0.7")], |_| 1.0, 0.7),
        ("discounted", &[("discount", "0")], |_| 1.0, 0.0),
    ];
    let mut all = Vec::new();
    for (name, set, factor, discount) in cases {
        let got = estimate(name, set, &recipe, &net, &recorded, &Window::All).unwrap();
        assert_eq!((got.window.clone(), got.end), (0..10, 10));
        for query in 0..2 {
            let wanted = by_hand(&recipe, &net, &recorded, query, factor, discount);
            let error = relative_error(&scores(&got, query), &wanted);
            println!("{name:14} {error:.1e}");
            assert!(error < 1e-6, "{name}: {error:e}");
        }
        all.push(scores(&got, 0));
    }
    // The rules must differ here, or the test would show nothing.
    assert!(relative_error(&all[1], &all[0]) > 0.05);
    assert!(relative_error(&all[2], &all[0]) > 0.05);
    assert!(relative_error(&all[2], &all[1]) > 0.01);
    assert!(relative_error(&all[3], &all[0]) > 0.05);
    assert!(relative_error(&all[4], &all[3]) > 0.05);
    // Without a fading, it is the sweep itself.
    let set = [("discount", "1")];
    let one = estimate("discounted", &set, &recipe, &net, &recorded, &Window::All).unwrap();
    assert_eq!(scores(&one, 0), all[0]);
}

#[test]
fn random_scores_depend_on_the_seed_alone() {
    let (recipe, net) = (recipe(), TinyNet::new(0.0));
    let recorded = train(&recipe, &net, None);
    let of = |seed: &str| {
        estimate(
            "random",
            &[("seed", seed)],
            &recipe,
            &net,
            &recorded,
            &Window::All,
        )
        .unwrap()
    };
    let (a, again, other) = (of("1"), of("1"), of("2"));
    assert_eq!(a, again);
    assert_eq!(scores(&a, 0), scores(&a, 1));
    assert_ne!(scores(&a, 0), scores(&other, 0));
    assert!(scores(&a, 0).iter().any(|&x| x < 0.0) && scores(&a, 0).iter().any(|&x| x > 0.0));
    let window = Window::Steps(2..5);
    let refused = estimate("random", &[], &recipe, &net, &recorded, &window).unwrap_err();
    assert!(refused.to_string().contains("2..5"), "{refused}");
}
