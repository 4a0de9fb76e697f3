//! Compares TracIn with its definition, gradient by gradient.

use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_analyzer::run::weights_of;
use hindcast_analyzer::{MemoryRun, RecordedRun, Window};
use hindcast_model::objective::{Mode, Split};
use hindcast_model::update::UpdateRule;

use super::{Point, estimate, queries, scores};
use crate::tiny::{Recipe, TRAIN, TinyData, TinyNet, engine, relative_error, train};

fn recipe() -> Recipe {
    let rule = UpdateRule::from_toml("kind = \"sgd\"\nmomentum = 0.5").unwrap();
    Recipe {
        penalty: 0.03,
        ..Recipe::new(rule, 0.3)
    }
}

/// η of the step for each parameter value; 0 if the tensor wasn't trained.
fn rates(recorded: &MemoryRun, step: usize) -> Vec<f64> {
    let meta = &recorded.steps[step].meta;
    let sizes = recorded.parameters.iter().map(|spec| spec.elements());
    let mut out = Vec::new();
    for (size, trained) in sizes.zip(&meta.trained) {
        let rate = if *trained {
            meta.groups[0].learning_rate
        } else {
            0.0
        };
        out.extend(std::iter::repeat_n(rate, size));
    }
    out
}

fn product(rates: &[f64], a: &[f64], b: &[f64]) -> f64 {
    let terms = rates.iter().zip(a.iter().zip(b));
    terms.map(|(r, (a, b))| r * a * b).sum()
}

/// `Σ η <∇ℓ(query; θ), g_j(θ)>` over the models after these steps.
fn by_definition(
    net: &Arc<TinyNet>,
    recorded: &MemoryRun,
    query: usize,
    steps: &[usize],
) -> Vec<f64> {
    let mut engine = engine(net);
    let end = recorded.end.as_ref().unwrap();
    let all: Vec<u64> = (0..TRAIN as u64).collect();
    let mut out = vec![0.0; TRAIN];
    for &t in steps {
        let parameters = match recorded.steps.get(t + 1) {
            Some(next) => next.parameters.as_slice(),
            None => (&end.parameters).into(),
        };
        let buffers = recorded.steps[t].buffers_after.as_slice();
        let u = queries()[query]
            .gradient_at(recorded, &mut engine, &TinyData, parameters, buffers)
            .unwrap();
        let gradients = Point {
            parameters,
            buffers,
            mode: Mode::Evaluate,
            batches: vec![super::batch(Split::Train, &all)],
        }
        .each(&mut engine);
        for (out, g) in out.iter_mut().zip(&gradients) {
            *out += product(&rates(recorded, t), &u.parameters, g);
        }
    }
    out
}

#[test]
fn checkpoints_are_the_ends_of_epochs() {
    let (recipe, net) = (recipe(), TinyNet::new(0.03));
    let recorded = train(&recipe, &net, None);
    // Epochs have three steps, the last one has one.
    type Case<'a> = (&'a [(&'a str, &'a str)], Window, &'a [usize]);
    let cases: [Case<'_>; 4] = [
        (&[], Window::All, &[2, 5, 8, 9]),
        (&[("every", "2")], Window::All, &[5, 9]),
        (&[], Window::Steps(4..9), &[5, 8]),
        (&[], Window::LastEpoch, &[9]),
    ];
    for (set, window, steps) in cases {
        let got = estimate("tracin", set, &recipe, &net, &recorded, &window).unwrap();
        assert_eq!(got.window, window.resolve(&recorded).unwrap());
        for query in 0..2 {
            let wanted = by_definition(&net, &recorded, query, steps);
            let error = relative_error(&scores(&got, query), &wanted);
            assert!(error < 1e-10, "{window}, {steps:?}: {error:e}");
        }
    }
    let window = Window::Steps(3..5);
    let refused = estimate("tracin", &[], &recipe, &net, &recorded, &window).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("no epoch ends in the steps 3..5"),
        "{refused}"
    );
}

#[test]
fn tracin_steps_counts_each_use_of_an_example_in_training() {
    let (recipe, net) = (recipe(), TinyNet::new(0.03));
    let recorded = train(&recipe, &net, None);
    let run = RecordedRun::new(&recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    for window in [Window::All, Window::Steps(5..8)] {
        let got = estimate("tracin-steps", &[], &recipe, &net, &recorded, &window).unwrap();
        for (q, query) in queries().iter().enumerate() {
            let mut wanted: Vec<Option<f64>> = vec![None; TRAIN];
            for t in window.resolve(&recorded).unwrap() {
                let t = t as usize;
                let step = &recorded.steps[t];
                let buffers = match t {
                    0 => &step.key.as_ref().unwrap().buffers_before,
                    _ => &recorded.steps[t - 1].buffers_after,
                }
                .as_slice();
                let u = query
                    .gradient_at(
                        &recorded,
                        &mut engine(&net),
                        &TinyData,
                        &step.parameters,
                        buffers,
                    )
                    .unwrap();
                let gradients = Point {
                    parameters: step.parameters.as_slice(),
                    buffers,
                    mode: Mode::Train,
                    batches: run.batches(&step.meta, DType::F64, &Device::Cpu).unwrap(),
                }
                .each(&mut engine(&net));
                let weights = weights_of(&step.meta).unwrap();
                for ((&j, w), g) in step.meta.indices.iter().zip(weights).zip(gradients) {
                    let term = w * product(&rates(&recorded, t), &u.parameters, &g);
                    *wanted[j as usize].get_or_insert(0.0) += term;
                }
            }
            for (j, (got, wanted)) in got.scores(q).zip(&wanted).enumerate() {
                let (got, wanted) = (got.unwrap_or(-9.0), wanted.unwrap_or(-9.0));
                assert!((got - wanted).abs() < 1e-12, "{j}: {got} {wanted}");
            }
            let seen = got.occurrences.iter().filter(|&&n| n > 0).count();
            let scored = got.scores(q).flatten().count();
            assert_eq!(seen, scored);
        }
    }
}
