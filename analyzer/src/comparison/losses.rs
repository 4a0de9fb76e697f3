//! The losses of a run's models on its splits.

use hindcast_model::objective::Split;
use serde::Serialize;

use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Diverged, Result};
use crate::predictions::predict_split;
use crate::query::QueryPoint;
use crate::run::recorded::RecordedRun;
use crate::sweep::{Observer, Part, Stage};

/// The mean loss of a split at a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelLoss {
    /// train, validation or test.
    pub split: &'static str,
    /// The model, as [`QueryPoint`] writes it for this run.
    pub at: String,
    /// Number of examples.
    pub examples: u64,
    /// Mean loss in evaluation mode; `None` if it isn't finite.
    pub loss: Option<f64>,
    /// Share of wrong predictions; `None` unless the model is a classifier.
    pub error: Option<f64>,
}

/// The losses of all splits that have examples, at each of these models. Each costs a forward pass per example.
///
/// # Errors
/// The run doesn't contain a model, the model fails, or `observer` asks to stop.
pub fn losses(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    points: &[QueryPoint],
    observer: &mut dyn Observer,
) -> Result<Vec<ModelLoss>> {
    let splits = Split::ALL.into_iter().filter_map(|split| {
        let examples = run.data().len(split);
        (examples > 0).then_some((split, examples))
    });
    let splits: Vec<(Split, u64)> = splits.collect();
    let whole = Stage {
        doing: "measuring",
        unit: "examples",
        done: 0,
        total: points.len() as u64 * splits.iter().map(|(_, examples)| examples).sum::<u64>(),
    };
    let mut part = Part::first(observer, whole);
    let mut out = Vec::new();
    for point in points {
        for &(split, examples) in &splits {
            let (at, loss, error) = match predict_split(run, engine, point, split, &mut part) {
                Ok(found) => {
                    let (loss, error) = (found.mean_loss(), found.error_share());
                    (found.at, Some(loss), error)
                }
                Err(AnalysisError::Diverged(Diverged::Prediction)) => {
                    (point.to_string(), None, None)
                }
                Err(error) => return Err(error),
            };
            part.end(examples)?;
            out.push(ModelLoss {
                split: split.name(),
                at,
                examples,
                loss: loss.filter(|loss| loss.is_finite()),
                error,
            });
        }
    }
    Ok(out)
}
