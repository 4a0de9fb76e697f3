//! Compares the autodiff engine with central differences of its own first derivatives and of plain losses.

use std::slice::from_ref;

use candle_core::{DType, Device};
use hindcast_analyzer::engine::slices;
use hindcast_analyzer::{AutodiffEngine, ReplayEngine, StepInput};
use hindcast_model::data::DataSet;
use hindcast_model::objective::{Batch, Draws, Mode, Split};

use crate::tiny::{TinyData, TinyNet, engine, noise, relative_error};

const H: f64 = 1e-5;

fn batches() -> Vec<Batch> {
    [&[0u64, 3, 5][..], &[5, 9]]
        .iter()
        .map(|i| {
            TinyData
                .batch(Split::Train, i, None, DType::F64, &Device::Cpu)
                .unwrap()
        })
        .collect()
}

struct Point {
    theta: Vec<f64>,
    buffers: Vec<f64>,
    weights: Vec<f64>,
    batches: Vec<Batch>,
}

impl Point {
    fn new() -> Self {
        Point {
            theta: TinyNet::new(0.1).start(),
            buffers: noise(3, 4),
            weights: vec![0.3, 0.1, 0.25, 0.2, 0.15],
            batches: batches(),
        }
    }

    fn input(&self) -> StepInput<'_> {
        StepInput {
            parameters: (&self.theta).into(),
            buffers: (&self.buffers).into(),
            micro_batches: &self.batches,
            weights: &self.weights,
            mode: Mode::Train,
            draws: Draws { seed: 0, step: 0 },
        }
    }
}

#[test]
fn gradients_and_products_equal_differences_over_two_micro_batches() {
    let net = TinyNet::new(0.1);
    let mut engine = engine(&net);
    let point = Point::new();
    let (p, b) = (engine.parameter_count(), engine.buffer_count());
    let directions = [noise(21, p), noise(22, p)];
    let adjoints = [noise(23, b), noise(24, b)];
    let got = engine
        .products(&point.input(), &slices(&directions), &adjoints)
        .unwrap();
    let exact = engine.gradient(&point.input()).unwrap();
    let along = |point: &Point, engine: &mut AutodiffEngine, q: usize| {
        let g = engine.gradient(&point.input()).unwrap();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(&g.parameters, &directions[q]) + dot(&g.buffers_after, &adjoints[q])
    };
    for q in 0..2 {
        let mut hessian = Vec::new();
        let mut gradient = Vec::new();
        for i in 0..p {
            let mut moved = [Point::new(), Point::new()];
            moved[0].theta[i] += H;
            moved[1].theta[i] -= H;
            hessian.push(
                (along(&moved[0], &mut engine, q) - along(&moved[1], &mut engine, q)) / (2.0 * H),
            );
            let loss = |point: &Point, engine: &mut AutodiffEngine| {
                engine.gradient(&point.input()).unwrap().loss
            };
            gradient
                .push((loss(&moved[0], &mut engine) - loss(&moved[1], &mut engine)) / (2.0 * H));
        }
        let mut products = Vec::new();
        for j in 0..5 {
            let mut moved = [Point::new(), Point::new()];
            moved[0].weights[j] += H;
            moved[1].weights[j] -= H;
            products.push(
                (along(&moved[0], &mut engine, q) - along(&moved[1], &mut engine, q)) / (2.0 * H),
            );
        }
        let mut rho = Vec::new();
        for i in 0..b {
            let mut moved = [Point::new(), Point::new()];
            moved[0].buffers[i] += H;
            moved[1].buffers[i] -= H;
            rho.push(
                (along(&moved[0], &mut engine, q) - along(&moved[1], &mut engine, q)) / (2.0 * H),
            );
        }
        assert!(relative_error(&exact.parameters, &gradient) < 1e-9);
        assert!(relative_error(&got.hessian[q], &hessian) < 1e-9);
        assert!(relative_error(&got.products[q], &products) < 1e-9);
        assert!(relative_error(&got.buffer_adjoints[q], &rho) < 1e-9);
    }
}

#[test]
fn single_precision_keeps_directions_of_any_size() {
    let net = TinyNet::new(0.0);
    let mut wide = engine(&net);
    let mut narrow = AutodiffEngine::new(net, DType::F32, &Device::Cpu).unwrap();
    let point = Point::new();
    let mut rounded = Point::new();
    for batch in &mut rounded.batches {
        batch.inputs = batch.inputs.to_dtype(DType::F32).unwrap();
        batch.targets = batch.targets.to_dtype(DType::F32).unwrap();
    }
    for size in [1e-60, 1.0, 1e60] {
        let s: Vec<f64> = noise(21, wide.parameter_count())
            .iter()
            .map(|x| x * size)
            .collect();
        let rho: Vec<f64> = noise(23, 4).iter().map(|x| x * size).collect();
        let exact = wide
            .products(&point.input(), &[&s], from_ref(&rho))
            .unwrap();
        let got = narrow.products(&rounded.input(), &[&s], &[rho]).unwrap();
        assert!(relative_error(&got.products[0], &exact.products[0]) < 1e-5);
        assert!(relative_error(&got.hessian[0], &exact.hessian[0]) < 1e-5);
    }
}

#[test]
fn wrong_sizes_are_named() {
    let net = TinyNet::new(0.0);
    let mut engine = engine(&net);
    let mut point = Point::new();
    point.weights.pop();
    let message = engine.gradient(&point.input()).unwrap_err().to_string();
    assert!(message.contains("weights: expected 5"), "{message}");
    let mut point = Point::new();
    point.theta.push(0.0);
    let message = engine.gradient(&point.input()).unwrap_err().to_string();
    assert!(message.contains("parameters: expected 18"), "{message}");
}
