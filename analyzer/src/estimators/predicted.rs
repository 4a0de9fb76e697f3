//! The predictions for the training examples of a table of scores.

use hindcast_model::objective::Split;

use super::estimate::occurrences;
use super::estimator::{Method, Question};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::predictions::{PredictionRow, predict};
use crate::run::window::Window;
use crate::scores::RowPrediction;
use crate::sweep::Observer;

/// One entry per training example, at the model that the queries are asked about. Examples that are in no batch of the window,
/// and so have no score, have empty ones. So the cost stays below that of the scores, also in a window of a few steps.
pub(super) fn rows(
    question: &Question<'_>,
    method: &Method,
    engine: &mut dyn ReplayEngine,
    observer: &mut dyn Observer,
) -> Result<Vec<RowPrediction>> {
    let run = question.run;
    let examples: Vec<u64> = if method.windowed {
        let steps = match question.window {
            Window::All => run.source().ranges()?,
            window => vec![window.resolve_alone(run.source())?],
        };
        let used = occurrences(run, &steps)?;
        (0..)
            .zip(used)
            .filter(|(_, n)| *n > 0)
            .map(|(i, _)| i)
            .collect()
    } else {
        (0..run.examples() as u64).collect()
    };
    let (point, model) = (question.point()?, question.state()?);
    let at = (point.point(), &model);
    let found = predict(run, engine, at, Split::Train, &examples, observer)?;
    let mut rows = vec![RowPrediction::default(); run.examples()];
    for prediction in &found.rows {
        let row = PredictionRow::of(prediction, Split::Train, run.data());
        let place = usize::try_from(prediction.index).ok();
        if let Some(slot) = place.and_then(|at| rows.get_mut(at)) {
            *slot = RowPrediction {
                predicted: row.predicted,
                probability: row.probability,
                label_probability: row.label_probability,
                loss: row.loss,
            };
        }
    }
    Ok(rows)
}
