//! Losses of held-out examples along a run, by forward passes.

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use super::history::{History, HistoryRow, Measured};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Diverged, Result};
use crate::predictions::predict;
use crate::query::Query;
use crate::run::models::{contains_model, each_model, spread};
use crate::run::recorded::RecordedRun;
use crate::sweep::{Observer, Part, Stage};

/// After which steps the loss is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeldOutPoints {
    /// After the last step of each epoch.
    #[default]
    Epochs,
    /// After every N-th step of the run, and after the last step.
    Every(u64),
}

/// Which held-out losses are measured. The cost is one forward pass per measured model and example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldOut {
    /// The examples.
    pub split: Split,
    /// After which steps.
    pub points: HeldOutPoints,
    /// Largest number of models. If there are more points, this number of them is chosen at equal distances, with the last one.
    pub most_models: Option<usize>,
    /// Largest number of examples. If there are more, this number of them is chosen at equal distances.
    pub most_examples: Option<usize>,
}

/// Largest numbers of models and of examples of [`HeldOut::bounded`].
const MODELS: usize = 20;
const EXAMPLES: usize = 2000;

impl HeldOut {
    /// The loss of the validation examples, or of the test examples if there are none, after at most 20 epochs and on at most 2000
    /// examples: less than one epoch's forward passes for most runs. `None` if both splits are empty.
    pub fn bounded(data: &dyn DataSet) -> Option<HeldOut> {
        let splits = [Split::Validation, Split::Test];
        let split = splits.into_iter().find(|split| data.len(*split) > 0)?;
        Some(HeldOut {
            split,
            points: HeldOutPoints::Epochs,
            most_models: Some(MODELS),
            most_examples: Some(EXAMPLES),
        })
    }

    /// Fills the held-out loss of a history of `run`: the mean loss of the examples at the model after each chosen step, in
    /// evaluation mode. A loss that isn't finite becomes NaN. A step whose next model isn't in the run is left out.
    ///
    /// # Errors
    /// The split is empty, a model or an example can't be read, or `observer` asks to stop.
    pub fn measure(
        &self,
        history: &mut History,
        run: &RecordedRun<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let indices = Query::of_split(self.split).examples(run.data())?;
        let all = usize::MAX;
        let examples = spread(&indices, self.most_examples.unwrap_or(all));
        let after = self.recorded(history, run)?;
        let after = spread(&after, self.most_models.unwrap_or(all));
        let whole = Stage {
            doing: "measuring",
            unit: "examples",
            done: 0,
            total: (after.len() * examples.len()) as u64,
        };
        let mut part = Part::first(observer, whole);
        let models: Vec<u64> = after.iter().map(|step| step + 1).collect();
        each_model(run.source(), &models, &mut |model, state| {
            let name = format!("step:{model}");
            let model_of = (name.as_str(), state);
            let found = predict(run, engine, model_of, self.split, &examples, &mut part);
            let (loss, error) = match found {
                Ok(found) => (found.mean_loss(), found.error_share()),
                Err(AnalysisError::Diverged(Diverged::Prediction)) => (f64::NAN, None),
                Err(error) => return Err(error),
            };
            if let Some(row) = history.row_mut(model - 1) {
                (row.held_out_loss, row.held_out_error) = (Some(loss), error);
            }
            part.end(examples.len() as u64)
        })?;
        history.held_out = Some(Measured {
            split: self.split,
            examples: examples.len(),
            of: indices.len(),
        });
        Ok(())
    }

    /// The chosen steps whose next model is in the run.
    fn recorded(&self, history: &History, run: &RecordedRun<'_>) -> Result<Vec<u64>> {
        let known = contains_model(run.source())?;
        let last = |rows: &[HistoryRow]| rows.last().map(|row| row.step);
        let chosen: Vec<u64> = match self.points {
            HeldOutPoints::Epochs => history.epochs().filter_map(last).collect(),
            HeldOutPoints::Every(n) => {
                let last = last(&history.rows);
                let steps = history.rows.iter().map(|row| row.step);
                steps
                    .filter(|step| (step + 1).is_multiple_of(n.max(1)) || Some(*step) == last)
                    .collect()
            }
        };
        Ok(chosen.into_iter().filter(|step| known(step + 1)).collect())
    }
}
