//! Evaluates the final states of counterfactual runs.

use std::ops::Range;

use hindcast_model::objective::Split;
use hindcast_model::real::Real;
use hindcast_model::train::ModelState;
use serde::{Deserialize, Serialize};

use super::arithmetic::Trainer;
use super::change::Change;
use super::drift::Drift;
use super::start::narrow;
use super::{Denominators, Removal};
use crate::engine::EngineKind;
use crate::error::{AnalysisError, Diverged, Result};
use crate::measures::compare::Comparison;
use crate::measures::mean;
use crate::query::average::QueryState;
use crate::query::one::Query;

/// Loss and error rate on a split, in evaluation mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitLoss {
    /// `train`, `validation` or `test`.
    pub split: String,
    /// Number of examples.
    pub examples: u64,
    /// Mean loss, without the penalty.
    pub loss: f64,
    /// Share of wrongly classified examples, if targets are classes.
    pub error_rate: Option<f64>,
}

/// One run, evaluated at the model that the queries are asked about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The examples that were left out.
    pub without: Vec<u64>,
    /// The examples that got another label, with its class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relabelled: Vec<(u64, u32)>,
    /// Value of each query.
    pub queries: Vec<f64>,
    /// Losses of the splits that have examples.
    pub losses: Vec<SplitLoss>,
    /// The same after the last step, if the queries are asked about an average; `None` if they are asked about the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_end: Option<EndValues>,
    /// θ_T of this run.
    #[serde(skip)]
    pub parameters: Vec<f64>,
    /// r_T of this run.
    #[serde(skip)]
    pub buffers: Vec<f64>,
    /// The average that the queries are asked about; `None` if they are asked about the end.
    #[serde(skip)]
    pub average: Option<QueryState>,
}

impl Outcome {
    /// Parameters and running statistics at which the queries were evaluated.
    pub fn model(&self) -> (&[f64], &[f64]) {
        match &self.average {
            None => (&self.parameters, &self.buffers),
            Some(average) => (&average.parameters, &average.buffers),
        }
    }
}

/// Values of the model after the last step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndValues {
    /// Value of each query.
    pub queries: Vec<f64>,
    /// Losses of the splits that have examples.
    pub losses: Vec<SplitLoss>,
}

/// Counterfactual runs, and the run with all examples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CounterfactualReport {
    /// Names of the queries.
    pub queries: Vec<String>,
    /// The model that the queries are asked about, in words.
    pub at: String,
    /// Steps in which the examples were left out.
    pub window: Range<u64>,
    /// How examples were left out.
    pub removal: Removal,
    /// The denominator of the remaining examples.
    pub denominators: Denominators,
    /// The engine that retrained: the kernels, or candle as in the recorded run.
    pub engine: EngineKind,
    /// The replay with all examples.
    pub everyone: Outcome,
    /// That replay's θ_T and r_T, compared with the recorded ones. With the same arithmetic, on the machine that trained,
    /// the bits are identical. Changes are always measured from the replay.
    pub reproduction: Comparison,
    /// How far the kernels' replay with all examples ended from the recorded parameters, relative, if the runs were
    /// therefore repeated with the recorded arithmetic. See [`CounterfactualOptions::or_recorded`](super::CounterfactualOptions::or_recorded).
    pub kernels_apart: Option<f64>,
    /// The distance of that replay's θ_T from the recorded one, relative to the movement of training.
    pub drift: Drift,
    /// One per set, in order.
    pub outcomes: Vec<Outcome>,
}

/// Largest relative distance to the recorded parameters that is taken for usual rounding.
const CLOSE: f64 = 1e-2;

impl CounterfactualReport {
    /// Whether the replay with all examples ended at the recorded parameters, as closely as rounding usually allows. If not, its
    /// losses aren't those of the recorded model.
    pub fn is_close(&self) -> bool {
        // Written so that NaN is not close.
        self.reproduction.bit_identical || self.reproduction.max_relative_error <= CLOSE
    }

    /// Real change of a query: its value without the set minus its value with all examples. `None` if there is no
    /// such set or query.
    pub fn change(&self, set: usize, query: usize) -> Option<f64> {
        let without = self.outcomes.get(set)?.queries.get(query)?;
        Some(without - self.everyone.queries.get(query)?)
    }
}

/// What is evaluated after a run.
pub(super) struct Evaluated<'a> {
    pub queries: &'a [Query],
    pub splits: &'a [Split],
}

impl Evaluated<'_> {
    /// Evaluates a run that ended in `state`. `average` is the model that the queries are asked about, if it isn't the last.
    pub fn outcome<T: Real>(
        &self,
        trainer: &mut Trainer<'_>,
        change: &Change,
        state: &ModelState<T>,
        average: Option<QueryState>,
    ) -> Result<Outcome> {
        if let Some(value) = state.parameters.iter().position(|x| !x.wide().is_finite()) {
            return Err(AnalysisError::Diverged(Diverged::Retraining {
                without: change.without.len(),
                value,
            }));
        }
        let wide = |x: &[T]| x.iter().map(|x| x.wide()).collect::<Vec<f64>>();
        let (parameters, buffers) = (wide(&state.parameters), wide(&state.buffers));
        let evaluated = |parameters: &[f64], buffers: &[f64]| ModelState::<T::Evaluated> {
            parameters: narrow(parameters),
            buffers: narrow(buffers),
            optimizer: Vec::new(),
        };
        let end = self.values(trainer, &evaluated(&parameters, &buffers))?;
        let (at_point, at_end) = match &average {
            None => (end, None),
            Some(average) => {
                let average = evaluated(&average.parameters, &average.buffers);
                (self.values(trainer, &average)?, Some(end))
            }
        };
        Ok(Outcome {
            without: change.without.clone(),
            relabelled: change.relabelled.clone(),
            queries: at_point.queries,
            losses: at_point.losses,
            at_end,
            parameters,
            buffers,
            average,
        })
    }

    fn values<T: Real>(
        &self,
        trainer: &mut Trainer<'_>,
        state: &ModelState<T>,
    ) -> Result<EndValues> {
        let data = trainer.run().data();
        let splits = self.splits.iter();
        let losses = splits.filter(|&&split| data.len(split) > 0).map(|&split| {
            let of = trainer.evaluate(state, split)?;
            Ok(SplitLoss {
                split: split.name().to_owned(),
                examples: of.examples,
                loss: of.loss,
                error_rate: of.error_rate(),
            })
        });
        let losses = losses.collect::<Result<Vec<_>>>()?;
        let queries = self.queries.iter().map(|q| match q {
            Query::Loss { split, .. } => {
                let losses = trainer.losses(state, *split, &q.examples(data)?)?;
                Ok(mean(&losses))
            }
            Query::Vector { .. } => q.value(
                trainer.run(),
                &state.parameters,
                &state.buffers,
                trainer.device(),
            ),
        });
        Ok(EndValues {
            queries: queries.collect::<Result<Vec<_>>>()?,
            losses,
        })
    }
}
