//! What a recorded model predicts for the examples of a split or for new rows, and how sure it is.
//!
//! ```no_run
//! # use hindcast_analyzer::{QueryPoint, RecordedRun, Result, predictions::predict_split};
//! # use hindcast_model::objective::Split;
//! # fn wrong_ones(run: &RecordedRun<'_>, engine: &mut dyn hindcast_analyzer::ReplayEngine) -> Result<()> {
//! let found = predict_split(run, engine, &QueryPoint::default(), Split::Validation, &mut |_| std::ops::ControlFlow::Continue(()))?;
//! for wrong in found.wrong() {
//!     println!("validation example {}: {:?}, loss {}", wrong.index, wrong.told, wrong.loss);
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "parquet")]
mod columnar;
mod confusion;
mod outputs;
mod row;
mod table;
mod told;

pub use confusion::Confusion;
pub use row::PredictionRow;
pub use table::write;
pub use told::{Prediction, Told, Untold};

use hindcast_model::data::{DataSet, NewRows};
use hindcast_model::objective::{Draws, Mode, Split};
use hindcast_model::train::EVALUATION_ROWS;

use crate::engine::{ReplayEngine, StepInput};
use crate::error::Result;
use crate::measures::mean;
use crate::query::{Query, QueryPoint, QueryState};
use crate::run::recorded::RecordedRun;
use crate::sweep::{Observer, Stage, tell};
use outputs::{Raw, Reading};

/// The predictions of one model for examples of one split.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// The split of the examples.
    pub split: Split,
    /// The model, as [`QueryPoint`] writes it.
    pub at: String,
    /// One entry per example, in the order in which the examples were given.
    pub rows: Vec<Prediction>,
    /// Whether the examples have labels. New rows may have none; then the losses and the labels in `rows` are those of
    /// placeholders.
    pub labelled: bool,
    /// Why the model's outputs tell no predictions. If it is set, [`Told::Nothing`] stands in every row.
    pub untold: Option<Untold>,
}

/// The predictions for all examples of a split, of the model at a query point.
///
/// # Errors
/// As [`predict`]; if the split is empty, or the run doesn't contain the model.
pub fn predict_split(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    at: &QueryPoint,
    split: Split,
    observer: &mut dyn Observer,
) -> Result<Predictions> {
    let weights = at.resolve(run.source(), 0)?;
    let examples = Query::of_split(split).examples(run.data())?;
    let model = weights.state(run.source())?;
    let at = weights.point();
    predict(run, engine, (at, &model), split, &examples, observer)
}

/// The predictions for some examples of a split. `model` is the model's name for people and its values. Each example costs a
/// forward pass in evaluation mode: running statistics, no dropout, no augmentation, no penalty.
///
/// # Errors
/// If the data doesn't have an example, the model fails, an output isn't finite, or `observer` asks to stop
/// ([`AnalysisError::Cancelled`](crate::AnalysisError::Cancelled)).
pub fn predict(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    (at, model): (&str, &QueryState),
    split: Split,
    examples: &[u64],
    observer: &mut dyn Observer,
) -> Result<Predictions> {
    predict_of(
        run,
        run.data(),
        engine,
        (at, model),
        (split, examples),
        observer,
    )
}

/// The predictions for new rows, of the model at a query point. The index of a prediction is the position of its row among the
/// new ones.
///
/// # Errors
/// As [`predict`]; if the run doesn't contain the model.
pub fn predict_rows(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    at: &QueryPoint,
    new: &NewRows,
    observer: &mut dyn Observer,
) -> Result<Predictions> {
    let weights = at.resolve(run.source(), 0)?;
    let model = weights.state(run.source())?;
    let (at, data) = (weights.point(), new.data.as_ref());
    let examples = (Split::Test, new.examples.as_slice());
    let found = predict_of(run, data, engine, (at, &model), examples, observer)?;
    let indexed = found.rows.into_iter().zip(0..);
    Ok(Predictions {
        rows: indexed
            .map(|(row, index)| Prediction { index, ..row })
            .collect(),
        labelled: new.labelled,
        ..found
    })
}

/// The predictions for some examples of a data set, which may be another than the run's.
fn predict_of(
    run: &RecordedRun<'_>,
    data: &dyn DataSet,
    engine: &mut dyn ReplayEngine,
    (at, model): (&str, &QueryState),
    (split, examples): (Split, &[u64]),
    observer: &mut dyn Observer,
) -> Result<Predictions> {
    let mut stage = Stage {
        doing: "predicting",
        unit: "examples",
        done: 0,
        total: examples.len() as u64,
    };
    observer.begin(stage);
    let mut raw = Raw::new(run, data);
    for some in examples.chunks(rows_at_once(run)) {
        let (dtype, device) = (engine.dtype(), engine.device().clone());
        let batch = data.batch(split, some, None, dtype, &device)?;
        let pass = engine.forward(&StepInput {
            parameters: model.parameters.as_slice().into(),
            buffers: model.buffers.as_slice().into(),
            micro_batches: std::slice::from_ref(&batch),
            weights: &vec![1.0; some.len()],
            mode: Mode::Evaluate,
            draws: Draws { seed: 0, step: 0 },
        })?;
        raw.add(&batch, pass)?;
        stage.done += some.len() as u64;
        tell(observer, stage)?;
    }
    let reading = raw.reading();
    let untold = match reading {
        Reading::Nothing(why) => Some(why),
        _ => None,
    };
    let indexed = examples.iter().enumerate();
    let rows = indexed.map(|(at, &index)| Prediction {
        index,
        loss: raw.losses[at],
        told: raw.told(at, reading),
    });
    Ok(Predictions {
        split,
        at: at.to_owned(),
        rows: rows.collect(),
        labelled: true,
        untold,
    })
}

/// For an own model, whose examples may be large (sequences, images), this many times the examples of a training batch are
/// predicted at once. Their forward pass needs no more memory than the double backward pass of a sweep's step.
const BATCHES_AT_ONCE: usize = 4;

/// How many examples are predicted at once. It limits memory and changes no value.
fn rows_at_once(run: &RecordedRun<'_>) -> usize {
    match (run.net(), run.last_batch()) {
        (None, Ok((_, batch))) => (BATCHES_AT_ONCE * batch.len()).clamp(1, EVALUATION_ROWS),
        // A task's kernels cut every batch into chunks.
        _ => EVALUATION_ROWS,
    }
}

impl Predictions {
    /// Mean loss. NaN if there are no examples or no labels.
    pub fn mean_loss(&self) -> f64 {
        if !self.labelled {
            return f64::NAN;
        }
        let losses: Vec<f64> = self.rows.iter().map(|row| row.loss).collect();
        mean(&losses)
    }

    /// How many predicted classes differ from the labels. `None` if classes aren't predicted, or there are no labels.
    pub fn errors(&self) -> Option<usize> {
        let wrong = self.rows.iter().map(|row| row.told.is_wrong());
        let wrong: Option<usize> = wrong.map(|wrong| wrong.map(usize::from)).sum();
        wrong.filter(|_| !self.rows.is_empty() && self.labelled)
    }

    /// The share of predicted classes that differ from the labels. `None` if classes aren't predicted.
    pub fn error_share(&self) -> Option<f64> {
        Some(self.errors()? as f64 / self.rows.len() as f64)
    }

    /// Root of the mean squared difference between predicted values and labels. `None` if values aren't predicted, or there
    /// are no labels.
    pub fn root_mean_square(&self) -> Option<f64> {
        if !self.labelled {
            return None;
        }
        let (mut sum, mut count) = (0.0, 0_usize);
        for row in &self.rows {
            let Told::Values { label, predicted } = &row.told else {
                return None;
            };
            let squares = label.iter().zip(predicted).map(|(y, p)| (y - p) * (y - p));
            sum += squares.sum::<f64>();
            count += label.len();
        }
        (count > 0).then(|| (sum / count as f64).sqrt())
    }

    /// The examples whose predicted class differs from the label, the most confident prediction first. Empty if classes
    /// aren't predicted, or there are no labels.
    pub fn wrong(&self) -> Vec<&Prediction> {
        let wrong = |row: &&Prediction| self.labelled && row.told.is_wrong() == Some(true);
        let mut rows: Vec<&Prediction> = self.rows.iter().filter(wrong).collect();
        let sure = |row: &Prediction| row.told.probability().unwrap_or(f64::NAN);
        rows.sort_by(|a, b| sure(b).total_cmp(&sure(a)).then(a.index.cmp(&b.index)));
        rows
    }

    /// The examples of a model that predicts numbers, the largest loss first. Empty if classes are predicted, if nothing is, or if there
    /// are no labels.
    pub fn farthest(&self) -> Vec<&Prediction> {
        if !self.labelled || self.untold.is_some() || self.errors().is_some() {
            return Vec::new();
        }
        let mut rows: Vec<&Prediction> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.loss.total_cmp(&a.loss).then(a.index.cmp(&b.index)));
        rows
    }
}
