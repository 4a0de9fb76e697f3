//! Compares Koh and Liang's three solvers with a dense solve, whose Hessian comes from differences.

use std::sync::Arc;

use hindcast_analyzer::estimators::Estimate;
use hindcast_analyzer::{MemoryRun, Window};
use hindcast_model::objective::{Mode, Split};
use hindcast_model::update::UpdateRule;

use super::{Point, estimate, gradients, scores};
use crate::tiny::{Recipe, TRAIN, TinyNet, engine, relative_error, train};

const DECAY: f64 = 0.05;

fn recipe() -> Recipe {
    let rule = UpdateRule::from_toml(&format!("kind = \"sgd\"\nweight_decay = {DECAY}"));
    Recipe {
        steps: 40,
        ..Recipe::new(rule.unwrap(), 0.5)
    }
}

fn all_examples() -> Vec<u64> {
    (0..TRAIN as u64).collect()
}

/// The Hessian of the mean training loss at the end, in evaluation mode, by central differences of its gradient; rows
/// of p.
fn hessian(net: &Arc<TinyNet>, recorded: &MemoryRun) -> Vec<Vec<f64>> {
    let end = recorded.end.as_ref().unwrap();
    let mut engine = engine(net);
    let mut gradient = |parameters: &[f64]| -> Vec<f64> {
        Point {
            parameters: parameters.into(),
            buffers: (&end.buffers).into(),
            mode: Mode::Evaluate,
            batches: vec![super::batch(Split::Train, &all_examples())],
        }
        .mean(&mut engine)
    };
    let h = 1e-5;
    (0..end.parameters.len())
        .map(|i| {
            let mut at = |sign: f64| {
                let mut moved = end.parameters.clone();
                moved[i] += sign * h;
                gradient(&moved)
            };
            let (up, down) = (at(1.0), at(-1.0));
            up.iter()
                .zip(&down)
                .map(|(a, b)| (a - b) / (2.0 * h))
                .collect()
        })
        .collect()
}

/// Gaussian elimination with pivots.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let pivot = (i..n)
            .max_by(|&x, &y| a[x][i].abs().total_cmp(&a[y][i].abs()))
            .unwrap();
        a.swap(i, pivot);
        b.swap(i, pivot);
        for k in i + 1..n {
            let f = a[k][i] / a[i][i];
            let row = a[i].clone();
            a[k].iter_mut().zip(&row).for_each(|(x, y)| *x -= f * y);
            b[k] -= f * b[i];
        }
    }
    for i in (0..n).rev() {
        let rest: f64 = (i + 1..n).map(|k| a[i][k] * b[k]).sum();
        b[i] = (b[i] - rest) / a[i][i];
    }
    b
}

fn shifted(mut h: Vec<Vec<f64>>, shift: f64) -> Vec<Vec<f64>> {
    for (i, row) in h.iter_mut().enumerate() {
        row[i] += shift;
    }
    h
}

/// `(1/N) <g_j + α θ, β>`.
fn scored(net: &Arc<TinyNet>, recorded: &MemoryRun, beta: &[f64], alpha: f64) -> Vec<f64> {
    let end = recorded.end.as_ref().unwrap();
    let each = Point {
        parameters: (&end.parameters).into(),
        buffers: (&end.buffers).into(),
        mode: Mode::Evaluate,
        batches: vec![super::batch(Split::Train, &all_examples())],
    }
    .each(&mut engine(net));
    each.iter()
        .map(|g| {
            let terms = g.iter().zip(&end.parameters).zip(beta);
            terms.map(|((g, x), b)| (g + alpha * x) * b).sum::<f64>() / TRAIN as f64
        })
        .collect()
}

fn by(name: &str, set: &[(&str, &str)], net: &Arc<TinyNet>, recorded: &MemoryRun) -> Estimate {
    estimate(name, set, &recipe(), net, recorded, &Window::All).unwrap()
}

#[test]
fn three_solvers_reach_the_dense_solution() {
    let net = TinyNet::new(0.0);
    let recorded = train(&recipe(), &net, None);
    let h = hessian(&net, &recorded);
    // The optimizer's decay is a penalty that training minimised. A penalty given by the user replaces it, in every
    // example.
    for (penalty, curvature, in_examples) in [("auto", DECAY, 0.0), ("0.2", 0.2, 0.2)] {
        let (common, exact) = (("penalty", penalty), ("damping", "0.5"));
        type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, f64);
        let cases: [Case<'_>; 4] = [
            ("koh-liang-cg", vec![("tolerance", "1e-12")], 1e-7),
            (
                "koh-liang-sgd",
                vec![("epochs", "400"), ("lr", "0.05"), ("batch", "14")],
                1e-6,
            ),
            (
                "koh-liang-lissa",
                vec![("depth", "600"), ("batch", "20")],
                1e-6,
            ),
            // Batches of five. The last one has four and takes its mean over fewer, so the problem is slightly
            // different.
            (
                "koh-liang-sgd",
                vec![("epochs", "300"), ("lr", "0.005"), ("batch", "5")],
                0.05,
            ),
        ];
        for (name, mut set, tolerance) in cases {
            set.extend([common, exact]);
            let got = by(name, &set, &net, &recorded);
            assert_eq!(got.window, 0..40);
            for (q, query) in gradients(&recorded, &net).iter().enumerate() {
                let beta = solve(
                    shifted(h.clone(), curvature + 0.5),
                    query.parameters.clone(),
                );
                let wanted = scored(&net, &recorded, &beta, in_examples);
                let error = relative_error(&scores(&got, q), &wanted);
                println!("{name:16} penalty {penalty:5} {error:.1e}");
                assert!(error < tolerance, "{name}, {penalty}: {error:e}");
            }
        }
    }
}

#[test]
fn descent_takes_the_documented_steps() {
    let net = TinyNet::new(0.0);
    let recorded = train(&recipe(), &net, None);
    let h = shifted(hessian(&net, &recorded), 0.3);
    for start in ["zero", "query"] {
        let set = [
            ("epochs", "5"),
            ("lr", "0.1"),
            ("momentum", "0.7"),
            ("batch", "1000"),
            ("damping", "0.3"),
            ("penalty", "0"),
            ("start", start),
        ];
        let got = by("koh-liang-sgd", &set, &net, &recorded);
        let u = &gradients(&recorded, &net)[0].parameters;
        let mut beta = match start {
            "zero" => vec![0.0; u.len()],
            _ => u.clone(),
        };
        let mut velocity = vec![0.0; u.len()];
        for _ in 0..5 {
            let image: Vec<f64> = h
                .iter()
                .map(|row| row.iter().zip(&beta).map(|(a, b)| a * b).sum())
                .collect();
            for i in 0..u.len() {
                velocity[i] = 0.7 * velocity[i] + image[i] - u[i];
                beta[i] -= 0.1 * velocity[i];
            }
        }
        let wanted = scored(&net, &recorded, &beta, 0.0);
        let error = relative_error(&scores(&got, 0), &wanted);
        assert!(error < 1e-7, "{start}: {error:e}");
    }
}

#[test]
fn divergence_and_negative_curvature_are_reported() {
    let net = TinyNet::new(0.0);
    let recorded = train(&recipe(), &net, None);
    let of = |name, set| estimate(name, set, &recipe(), &net, &recorded, &Window::All);
    // Without damping the tiny net's Hessian has negative eigenvalues.
    let got = of("koh-liang-cg", &[("damping", "0"), ("penalty", "0")]).unwrap();
    assert!(
        got.notes[0].contains("positive definite"),
        "{:?}",
        got.notes
    );
    let fine = of("koh-liang-cg", &[("damping", "1")]).unwrap();
    assert!(fine.notes.last().unwrap().contains("unexplained"));
    assert!(!fine.notes[0].contains("positive definite"));
    let set = [("lr", "30"), ("epochs", "200")];
    let refused = of("koh-liang-sgd", &set).unwrap_err().to_string();
    assert!(
        refused.contains("diverged") && refused.contains("lower lr"),
        "{refused}"
    );
    let set = [("scale", "0.01")];
    let refused = of("koh-liang-lissa", &set).unwrap_err().to_string();
    assert!(refused.contains("raise scale"), "{refused}");
    let window = Window::LastEpoch;
    let refused = estimate("koh-liang-cg", &[], &recipe(), &net, &recorded, &window).unwrap_err();
    assert!(refused.to_string().contains("last-epoch"), "{refused}");
}
