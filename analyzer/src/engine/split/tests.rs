//! A batch in parts gives what the whole batch gives.

use candle_core::{DType, Device, Result as Candle, Tensor};
use hindcast_model::objective::{Batch, Draws, Losses, Mode, Objective, Pass, TensorDef};

use super::*;

/// What an example's loss depends on in addition to the example.
#[derive(Clone, Copy, PartialEq)]
enum Mixed {
    Nothing,
    /// The mean output of the batch.
    Always,
    /// The mean output of the batch, in steps from 16 on.
    Later,
}

/// Two tanh units on two inputs. Each of two outputs is a term of the loss. The penalty is shared.
struct Toy {
    parameters: Vec<TensorDef>,
    mixed: Mixed,
}

impl Objective for Toy {
    fn parameters(&self) -> &[TensorDef] {
        &self.parameters
    }

    fn buffers(&self) -> &[TensorDef] {
        &[]
    }

    fn losses(&self, pass: &Pass<'_>) -> Candle<Losses> {
        if pass.batch.indices.contains(&99) {
            candle_core::bail!("example 99 can't be computed");
        }
        let w = &pass.parameters[0];
        let mut outputs = pass.batch.inputs.matmul(w)?.tanh()?;
        let mixed = match self.mixed {
            Mixed::Nothing => false,
            Mixed::Always => true,
            Mixed::Later => pass.draws.step >= 16,
        };
        if mixed {
            outputs = outputs.broadcast_sub(&outputs.mean_keepdim(0)?)?;
        }
        let terms = (&outputs - &pass.batch.targets)?.sqr()?;
        Ok(Losses {
            per_example: terms.sum(1)?,
            terms: Some(terms),
            shared: Some((w.sqr()?.sum_all()? * 0.3)?),
            buffers: Vec::new(),
            outputs,
            stopped: Vec::new(),
        })
    }
}

fn toy(mixed: Mixed) -> Arc<dyn Objective> {
    Arc::new(Toy {
        parameters: vec![TensorDef {
            name: "w".to_owned(),
            shape: vec![2, 2],
        }],
        mixed,
    })
}

fn engines(mixed: Mixed, parts: usize) -> (AutodiffEngine, SplitEngine) {
    let objective = toy(mixed);
    let whole = AutodiffEngine::new(Arc::clone(&objective), DType::F64, &Device::Cpu).unwrap();
    let split = SplitEngine::new(&objective, DType::F64, parts, 10).unwrap();
    (whole, split)
}

fn batch(indices: &[u64]) -> Batch {
    let values = |shift: f64| -> Vec<f64> {
        let of = |i: u64, k: f64| (1.7 * i as f64 + k + shift).sin();
        indices
            .iter()
            .flat_map(|&i| [of(i, 0.0), of(i, 2.1)])
            .collect()
    };
    let tensor = |shift| Tensor::from_vec(values(shift), (indices.len(), 2), &Device::Cpu).unwrap();
    Batch {
        indices: indices.to_vec(),
        inputs: tensor(0.0),
        targets: tensor(0.9),
    }
}

const WEIGHTS: [f64; 7] = [0.2, 0.1, 0.3, 0.05, 0.15, 0.4, 0.25];
const W: [f64; 4] = [0.3, -0.8, 0.5, 0.2];

fn step<'a>(batches: &'a [Batch], t: u64) -> StepInput<'a> {
    let examples: usize = batches.iter().map(|b| b.indices.len()).sum();
    StepInput {
        parameters: W[..].into(),
        buffers: (&[][..] as &[f64]).into(),
        micro_batches: batches,
        weights: &WEIGHTS[..examples],
        mode: Mode::Train,
        draws: Draws { seed: 0, step: t },
    }
}

/// Everything that an engine computes of a step, as one list.
fn all(engine: &mut dyn ReplayEngine, input: &StepInput<'_>) -> Result<Vec<f64>> {
    let gradient = engine.gradient(input)?;
    let directions = [[1.0, -0.5, 0.25, 2.0], [0.0, 3.0, -1.0, 0.1]];
    let slices: Vec<&[f64]> = directions.iter().map(|s| &s[..]).collect();
    let adjoints = vec![Vec::new(); 2];
    let products = engine.products(input, &slices, &adjoints)?;
    let mut from = |gradient: &[f64]| {
        let twice = gradient.iter().map(|x| 2.0 * x).collect();
        Ok(vec![twice, vec![1.0; 4]])
    };
    let after = engine.products_after(input, &mut from, &adjoints)?;
    let mut out = vec![gradient.loss];
    out.extend(gradient.parameters);
    out.extend(gradient.per_example);
    for found in [products, after] {
        out.extend(found.products.concat());
        out.extend(found.terms.concat().concat());
        out.extend(found.hessian.concat());
    }
    out.extend(engine.gradient_squares(input, &[1.5])?);
    out.extend(engine.forward(input)?.losses);
    Ok(out)
}

fn agree(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 1e-13, "{a} and {b}");
    }
}

#[test]
fn parts_give_the_results_of_the_whole_batch() {
    for parts in [2, 3, 8] {
        let (mut whole, mut split) = engines(Mixed::Nothing, parts);
        for sizes in [
            &[&[4, 1, 7, 3, 0, 9, 5][..]][..],
            &[&[4, 1, 7], &[3, 0, 9, 5]],
            &[&[4], &[1, 7, 3]],
            &[&[6, 2]],
            &[&[6]],
        ] {
            let batches: Vec<Batch> = sizes.iter().map(|indices| batch(indices)).collect();
            let input = step(&batches, 3);
            agree(
                &all(&mut split, &input).unwrap(),
                &all(&mut whole, &input).unwrap(),
            );
            assert_eq!(split.engines.len(), parts);
        }
    }
}

#[test]
fn a_model_that_mixes_rows_gets_whole_batches() {
    let (mut whole, mut split) = engines(Mixed::Always, 2);
    let batches = [batch(&[4, 1, 7, 3])];
    let input = step(&batches, 3);
    assert_eq!(
        all(&mut split, &input).unwrap(),
        all(&mut whole, &input).unwrap()
    );
    assert_eq!(split.engines.len(), 1);
}

#[test]
fn a_model_that_mixes_rows_only_later_is_noticed() {
    let (_, mut split) = engines(Mixed::Later, 2);
    let batches = [batch(&[4, 1, 7, 3])];
    let found: Vec<_> = (0..=COMPARED_NEXT)
        .map(|t| split.gradient(&step(&batches, t)))
        .collect();
    assert!(found[..COMPARED_NEXT as usize].iter().all(Result::is_ok));
    let error = found.last().unwrap().as_ref().unwrap_err();
    assert!(error.to_string().contains("mixes the examples"), "{error}");
}

#[test]
fn an_example_that_is_twice_in_a_batch_is_not_split_from_its_twin() {
    let (_, mut split) = engines(Mixed::Nothing, 2);
    let twice = [batch(&[4, 1, 4, 3])];
    assert!(split.divided(&step(&twice, 0)).unwrap().is_none());
    let once = [batch(&[4, 1, 5, 3])];
    assert!(split.divided(&step(&once, 0)).unwrap().is_some());
}

#[test]
fn the_error_of_a_part_is_returned() {
    let (_, mut split) = engines(Mixed::Nothing, 2);
    let good = [batch(&[4, 1, 7, 3])];
    split.gradient(&step(&good, 0)).unwrap();
    // The second half fails, so the first half waits in vain for its directions.
    let bad = [batch(&[4, 1, 7, 99])];
    let error = all(&mut split, &step(&bad, 1)).unwrap_err();
    let mut directions = |_: &[f64]| Ok(vec![vec![1.0; 4]]);
    let after = split.products_after(&step(&bad, 2), &mut directions, &[Vec::new()]);
    for error in [error, after.unwrap_err()] {
        let told = std::error::Error::source(&error).map(ToString::to_string);
        assert!(
            format!("{error}{told:?}").contains("example 99"),
            "{error} {told:?}"
        );
    }
    // The engine goes on.
    split.gradient(&step(&good, 3)).unwrap();
    let mut refuses = |_: &[f64]| Err(AnalysisError::EmptyMicroBatch);
    let refused = split.products_after(&step(&good, 4), &mut refuses, &[Vec::new()]);
    assert!(matches!(refused, Err(AnalysisError::EmptyMicroBatch)));
    split.gradient(&step(&good, 5)).unwrap();
}
