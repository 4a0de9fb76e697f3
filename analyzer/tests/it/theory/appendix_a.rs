//! Tests the two claims of the paper's appendix A, which relates the sweep to Koh and Liang's estimate.

use std::ops::ControlFlow;

use candle_core::{DType, Device};
use hindcast_analyzer::run::{
    FloatSlice, FloatVec, RecordedEnd, RecordedKey, RecordedStep, weights_of,
};
use hindcast_analyzer::{MemoryRun, ReplayEngine, StepInput, SweepOptions, sweep};
use hindcast_model::objective::Mode;

use super::{Toy, end, minus};
use crate::tiny::{noise, relative_error};

const EXAMPLES: usize = 12;
const SIZE: usize = 3;

fn logistic(epochs: u64, rate: f64) -> Toy {
    Toy::new(
        "{ kind = \"linear\", out = 1 }",
        "kind = \"binary-cross-entropy\"\npenalty = 0.2\npenalty_in = \"examples\"",
        "kind = \"sgd\"",
        EXAMPLES,
        2,
    )
    .epochs(epochs, SIZE, |_| rate)
}

/// The minimum of the training loss, by gradient descent on the whole set.
fn optimum() -> Vec<f64> {
    let mut toy = logistic(0, 0.0);
    toy.batches = vec![(0..EXAMPLES as u64).collect(); 600];
    toy.rates = vec![1.0; 600];
    end(&toy.train(&|_, _| {})).to_vec()
}

/// `H_t v`, where H_t is the Hessian of step t's batch at `theta`.
fn curved(toy: &Toy, t: usize, theta: &[f64], v: &[f64]) -> Vec<f64> {
    let empty = toy.empty();
    let run = toy.recorded(&empty);
    let meta = toy.meta(t);
    let batches = run.batches(&meta, DType::F64, &Device::Cpu).unwrap();
    let products = toy
        .engine()
        .products(
            &StepInput {
                parameters: theta.into(),
                buffers: FloatSlice::default(),
                micro_batches: &batches,
                weights: &weights_of(&meta).unwrap(),
                mode: Mode::Train,
                draws: run.draws(meta.step),
            },
            &[v],
            &[Vec::new()],
        )
        .unwrap();
    products.hessian.into_iter().next().unwrap()
}

/// `v − γ H_t v`.
fn shrunk(toy: &Toy, t: usize, theta: &[f64], v: &[f64]) -> Vec<f64> {
    let h = curved(toy, t, theta, v);
    v.iter()
        .zip(&h)
        .map(|(v, h)| v - toy.rates[t] * h)
        .collect()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The appendix's β after SGD on problem (6) from `β = g`, and its single product `Z_{T−1} … Z_1 g`.
fn both(toy: &Toy, theta: &[f64], g: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut beta, mut product) = (g.to_vec(), g.to_vec());
    for t in 0..toy.batches.len() {
        beta = shrunk(toy, t, theta, &beta);
        beta.iter_mut()
            .zip(g)
            .for_each(|(b, g)| *b += toy.rates[t] * g);
        product = shrunk(toy, t, theta, &product);
    }
    (beta, product)
}

/// `β^{[T]} = Z_{T−1} … Z_1 g + O(γ)` (A.2). The error is exactly `Σ_t γ_t Z_{T−1} … Z_{t+1} g`. For a fixed number
/// of steps it is of order γ, as printed, but then both are near g. As the sum of the steps grows, the product goes
/// to 0 and the error becomes all of `H⁻¹ g`.
#[test]
fn the_single_product_identity_holds_with_its_error() {
    let theta = optimum();
    let g = noise(31, theta.len());
    let error_of = |epochs, rate| {
        let toy = logistic(epochs, rate);
        let (beta, product) = both(&toy, &theta, &g);
        // The error, term by term.
        let mut error = vec![0.0; g.len()];
        for t in 0..toy.batches.len() {
            let mut term: Vec<f64> = g.iter().map(|g| toy.rates[t] * g).collect();
            for s in t + 1..toy.batches.len() {
                term = shrunk(&toy, s, &theta, &term);
            }
            error.iter_mut().zip(&term).for_each(|(e, x)| *e += x);
        }
        assert!(relative_error(&minus(&beta, &product), &error) < 1e-12);
        (beta, product, error)
    };
    // With a fixed number of steps, half the rate gives half the error, and half the distance from β to g.
    let (coarse, _, coarse_error) = error_of(2, 1e-3);
    let (fine, _, fine_error) = error_of(2, 5e-4);
    let ratio = norm(&coarse_error) / norm(&fine_error);
    assert!((ratio - 2.0).abs() < 0.01, "{ratio}");
    let ratio = norm(&minus(&coarse, &g)) / norm(&minus(&fine, &g));
    assert!((ratio - 2.0).abs() < 0.01, "{ratio}");
    // With a fixed rate and many steps, the product tends to 0 and β to H⁻¹ g.
    let (beta, product, _) = error_of(100, 0.1);
    assert!(norm(&product) < 1e-2 * norm(&g), "{}", norm(&product));
    let whole = {
        let mut toy = logistic(0, 0.0);
        toy.batches = vec![(0..EXAMPLES as u64).collect()];
        toy.rates = vec![0.0];
        solved(&toy, &theta, &g)
    };
    let distance = relative_error(&beta, &whole);
    assert!(distance < 0.05, "{distance}");
}

/// `H⁻¹ g` for the Hessian of step 0's batch, by conjugate gradients.
fn solved(toy: &Toy, theta: &[f64], g: &[f64]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut x, mut r) = (vec![0.0; g.len()], g.to_vec());
    let mut d = r.clone();
    for _ in 0..3 * g.len() {
        let square = dot(&r, &r);
        if square < 1e-30 {
            break;
        }
        let h = curved(toy, 0, theta, &d);
        let step = square / dot(&d, &h);
        for i in 0..x.len() {
            x[i] += step * d[i];
            r[i] -= step * h[i];
        }
        let again = dot(&r, &r) / square;
        d.iter_mut().zip(&r).for_each(|(d, r)| *d = r + again * *d);
    }
    let left = minus(&curved(toy, 0, theta, &x), g);
    assert!(norm(&left) < 1e-10 * norm(g));
    x
}

/// A sweep at one θ over all occurrences tends to `(1/N) <u, H⁻¹ g_j>` as the sum of the steps grows and their size
/// shrinks. This is the claim of appendix A, and its single product doesn't fulfil it.
#[test]
fn a_sweep_at_fixed_parameters_tends_to_koh_and_liang() {
    let theta = optimum();
    let toy = logistic(0, 0.0);
    let u = noise(41, theta.len());
    // Every example's gradient against H⁻¹u, from a step that contains all examples.
    let all = Toy {
        batches: vec![(0..EXAMPLES as u64).collect()],
        rates: vec![0.0],
        ..toy
    };
    let solution = solved(&all, &theta, &u);
    let koh_liang: Vec<f64> = {
        let empty = all.empty();
        let run = all.recorded(&empty);
        let meta = all.meta(0);
        let batches = run.batches(&meta, DType::F64, &Device::Cpu).unwrap();
        let input = StepInput {
            parameters: (&theta).into(),
            buffers: FloatSlice::default(),
            micro_batches: &batches,
            weights: &weights_of(&meta).unwrap(),
            mode: Mode::Train,
            draws: run.draws(0),
        };
        let products = all
            .engine()
            .products(&input, &[&solution], &[Vec::new()])
            .unwrap();
        products.products[0]
            .iter()
            .map(|p| p / EXAMPLES as f64)
            .collect()
    };
    let swept = |epochs, rate| {
        let toy = logistic(epochs, rate);
        let standing = standing_still(&toy, &theta);
        let run = toy.recorded(&standing);
        let mut query = toy.query(&standing);
        query.parameters.clone_from(&u);
        let options = SweepOptions::new(0..toy.batches.len() as u64);
        let state = sweep(&run, &mut toy.engine(), &[query], &options, &mut |_| {
            ControlFlow::Continue(())
        });
        state.unwrap().queries.remove(0).influence
    };
    // The sum of the steps is epochs × 4 steps × rate. Each line has twice the sum at half the size, so 4 times the
    // steps.
    let errors: Vec<f64> = [(16, 0.4), (64, 0.2), (256, 0.1), (1024, 0.05)]
        .into_iter()
        .map(|(epochs, rate)| relative_error(&swept(epochs, rate), &koh_liang))
        .collect();
    println!("relative distance from (1/N) H^-1 g: {errors:?}");
    assert!(errors.is_sorted_by(|a, b| a > b), "{errors:?}");
    assert!(errors[3] < 0.03, "{errors:?}");
    // Neither alone is enough: few small steps, or many large ones.
    assert!(relative_error(&swept(16, 0.05), &koh_liang) > 0.3);
    assert!(relative_error(&swept(1024, 0.4), &koh_liang) > 3.0 * errors[3]);
}

/// A run whose parameters don't move while batches and rates continue.
fn standing_still(toy: &Toy, theta: &[f64]) -> MemoryRun {
    let mut run = toy.empty();
    run.steps = (0..toy.batches.len())
        .map(|t| RecordedStep {
            meta: toy.meta(t),
            parameters: theta.to_vec().into(),
            buffers_after: FloatVec::default(),
            key: (t == 0).then(RecordedKey::default),
        })
        .collect();
    run.end = Some(RecordedEnd {
        step: toy.batches.len() as u64,
        parameters: theta.to_vec(),
        buffers: Vec::new(),
        optimizer: None,
    });
    run
}
