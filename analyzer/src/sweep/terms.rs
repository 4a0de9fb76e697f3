//! Scores of the terms of an example's loss, such as the tokens of a sequence.

use candle_core::{Device, Tensor};
use hindcast_model::objective::{Mode, Pass};
use hindcast_model::own::without_rounding;

use super::{ReplayStep, SweepState};
use crate::engine::flat;
use crate::error::{Doing, Result, Unsupported};
use crate::run::recorded::RecordedRun;

/// P, the number of terms of the first training example's loss. `None` if the model doesn't say its losses' terms.
///
/// # Errors
/// If the run's end or the example can't be read, or the model fails.
pub fn loss_terms(run: &RecordedRun<'_>) -> Result<Option<usize>> {
    if run.examples() == 0 {
        return Ok(None);
    }
    let (end, objective) = (run.source().end()?, run.objective());
    let (dtype, device) = (run.dtype(), Device::Cpu);
    let batch = run.train_batch(&[0], end.step, dtype, &device)?;
    let losses = (|| {
        let of = |values: &[f64], defs| flat::tensors(values, defs, 1.0, dtype, &device);
        let pass = Pass {
            parameters: &of(&end.parameters, objective.parameters())?,
            buffers: &of(&end.buffers, objective.buffers())?,
            batch: &batch,
            mode: Mode::Evaluate,
            draws: run.draws(end.step),
        };
        without_rounding(|| objective.losses(&pass))
    })();
    let losses = losses.doing(|| "running the model on an example".to_owned())?;
    let terms = losses.terms.as_ref().map(Tensor::dims);
    Ok(terms.and_then(|dims| dims.get(1).copied()))
}

/// Refuses a model whose losses have no terms, and returns their number.
pub(super) fn required(run: &RecordedRun<'_>) -> Result<usize> {
    match loss_terms(run)? {
        Some(terms) => Ok(terms),
        None => Err(no_terms(run.examples() > 0)),
    }
}

fn no_terms(examples: bool) -> crate::error::AnalysisError {
    Unsupported::LossTerms { examples }.into()
}

/// Adds a step's shares to the scores of terms. `products` contains `<s, ∇τ>` for each query, each example of the batch and
/// each term τ. Does nothing if the sweep doesn't keep these scores.
pub(super) fn score(
    state: &mut SweepState,
    step: &ReplayStep,
    products: &[Vec<Vec<f64>>],
) -> Result<()> {
    for (q, query) in state.queries.iter_mut().enumerate() {
        if query.terms.is_empty() {
            continue;
        }
        let products = products.get(q).ok_or_else(|| no_terms(true))?;
        for ((&index, &w), products) in step.meta.indices.iter().zip(&step.weights).zip(products) {
            // The examples' own scores have refused a foreign index.
            let Some(sums) = query.terms.get_mut(index as usize) else {
                continue;
            };
            if sums.len() < products.len() {
                sums.resize(products.len(), 0.0);
            }
            for (sum, product) in sums.iter_mut().zip(products) {
                *sum -= w * product;
            }
        }
    }
    Ok(())
}
