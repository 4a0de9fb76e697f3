//! Predictions on a page: those for a held-out split, and those of explained examples.

use std::ops::ControlFlow;

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use super::examples::{Content, Example, example};
use hindcast_analyzer::curves::{HeldOut, History};
use hindcast_analyzer::estimators::method;
use hindcast_analyzer::predictions::{Confusion, PredictionRow, Predictions, predict};
use hindcast_analyzer::query::QueryState;
use hindcast_analyzer::scores::Side;
use hindcast_analyzer::{AnalysisError, Query, QueryPoint, RecordedRun, ReplayEngine, ScoreTable};

/// How many of the most confident wrong predictions are shown.
const SUREST: usize = 20;
/// How many training examples are shown on each side of an explained prediction.
const HEAVIEST: usize = 10;

/// Runs a recorded model.
pub(crate) struct Predictor<'a> {
    run: &'a RecordedRun<'a>,
    engine: Box<dyn ReplayEngine>,
    /// The model that was asked about last.
    model: Option<(String, QueryState)>,
    /// Damage of the trace that kept it from the model.
    pub damaged: Vec<String>,
}

impl<'a> Predictor<'a> {
    pub fn of(run: &'a RecordedRun<'a>) -> anyhow::Result<Self> {
        Ok(Predictor {
            run,
            engine: run.engine(None, None, candle_core::Device::Cpu)?,
            model: None,
            damaged: Vec::new(),
        })
    }

    /// The predictions of the model at a query point, as a table writes it. `None`, with a note, if the run can't give them:
    /// a page about a damaged run shows the rest.
    fn predictions(
        &mut self,
        point: &str,
        split: Split,
        examples: &[u64],
        notes: &mut Vec<String>,
    ) -> Option<Predictions> {
        let found = self.try_predictions(point, split, examples);
        found
            .map_err(|error| self.missing("There are no predictions on this page", error, notes))
            .ok()
    }

    /// Notes why something isn't on the page, and the damage that is the cause.
    fn missing(&mut self, what: &str, error: AnalysisError, notes: &mut Vec<String>) {
        if let AnalysisError::Trace(damage) = &error
            && damage.is_damage()
        {
            self.damaged.push(damage.to_string());
        }
        let why = crate::commands::in_one_line(&error.into());
        let note = format!("{what}: {why}.");
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Fills the held-out loss of a history, at a bounded cost. If the run can't give it, a note says why.
    pub fn held_out_loss(&mut self, history: &mut History, notes: &mut Vec<String>) {
        let Some(asked) = HeldOut::bounded(self.run.data()) else {
            return;
        };
        let on = &mut |_| ControlFlow::Continue(());
        if let Err(error) = asked.measure(history, self.run, self.engine.as_mut(), on) {
            let what = format!("The training curve has no {} loss", asked.split.name());
            self.missing(&what, error, notes);
        }
    }

    fn try_predictions(
        &mut self,
        point: &str,
        split: Split,
        examples: &[u64],
    ) -> Result<Predictions, AnalysisError> {
        if self.model.as_ref().is_none_or(|(known, _)| known != point) {
            let at: QueryPoint = point.parse()?;
            let source = self.run.source();
            let state = at.resolve(source, 0)?.state(source)?;
            self.model = Some((point.to_owned(), state));
        }
        let Some((at, model)) = &self.model else {
            return Err(AnalysisError::QueryPointText {
                text: point.to_owned(),
            });
        };
        let on = &mut |_| ControlFlow::Continue(());
        predict(
            self.run,
            self.engine.as_mut(),
            (at, model),
            split,
            examples,
            on,
        )
    }
}

/// The predictions for a held-out split.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Predicted {
    pub split: Split,
    pub at: String,
    pub examples: usize,
    pub mean_loss: f64,
    /// `None` unless the model is a classifier.
    pub errors: Option<usize>,
    /// `None` unless the model predicts numbers.
    pub root_mean_square: Option<f64>,
    /// Why there are no predictions.
    pub untold: Option<String>,
    pub confusion: Option<Confusion>,
    pub surest: Vec<Wrong>,
}

/// A wrong prediction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wrong {
    pub row: PredictionRow,
    pub content: Content,
}

impl Predicted {
    /// The predictions for the validation split, or for another one if that is empty.
    ///
    /// # Errors
    /// If an example can't be read or drawn.
    pub fn of(
        predictor: &mut Predictor<'_>,
        point: &str,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Option<Predicted>> {
        let data = predictor.run.data();
        let splits = [Split::Validation, Split::Test, Split::Train];
        let Some(split) = splits.into_iter().find(|split| data.len(*split) > 0) else {
            return Ok(None);
        };
        let all: Vec<u64> = (0..data.len(split)).collect();
        let Some(found) = predictor.predictions(point, split, &all, notes) else {
            return Ok(None);
        };
        let surest = found.wrong().into_iter().take(SUREST).map(|wrong| {
            anyhow::Ok(Wrong {
                row: PredictionRow::of(wrong, split, data),
                content: Content::of(data, split, wrong.index)?,
            })
        });
        Ok(Some(Predicted {
            split,
            at: found.at.clone(),
            examples: found.rows.len(),
            mean_loss: found.mean_loss(),
            errors: found.errors(),
            root_mean_square: found.root_mean_square(),
            untold: found.untold.map(|why| why.to_string()),
            confusion: Confusion::of(&found, data),
            surest: surest.collect::<anyhow::Result<_>>()?,
        }))
    }
}

/// An example whose loss is a query, with its prediction and the training examples behind it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Explained {
    /// The query, such as `validation:17`, and the method of its scores.
    pub query: String,
    pub method: String,
    /// The file of the table.
    pub at: String,
    /// `None` without data.
    pub content: Option<Content>,
    pub row: Option<PredictionRow>,
    /// Whether the predicted class isn't the label; `None` unless the model is a classifier.
    pub wrong: Option<bool>,
    pub away: Pushed,
    pub towards: Pushed,
}

/// The training examples of one side.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pushed {
    pub examples: usize,
    pub total: f64,
    pub heaviest: Vec<Example>,
}

impl Pushed {
    fn of(side: &Side<'_>, q: usize, data: Option<&dyn DataSet>) -> anyhow::Result<Pushed> {
        let heaviest = side.heaviest.iter().map(|one| {
            let mut shown = example(one.row, q, one.influence, data)?;
            shown.share = Some(one.share);
            anyhow::Ok(shown)
        });
        Ok(Pushed {
            examples: side.examples,
            total: side.total,
            heaviest: heaviest.collect::<anyhow::Result<_>>()?,
        })
    }
}

impl Explained {
    /// The explanation of query `q` of a table. `None` if the query isn't the loss of one example, or if the method's scores
    /// don't add up.
    ///
    /// # Errors
    /// If an example can't be read or drawn.
    pub fn of(
        table: &ScoreTable,
        q: usize,
        data: Option<&dyn DataSet>,
        predictor: Option<&mut Predictor<'_>>,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Option<Explained>> {
        let meta = &table.metadata;
        let adds_up = method(&meta.method).is_ok_and(|method| method.predicts);
        let query = meta.queries.get(q).map(|query| query.name.as_str());
        let Some((split, index)) = query.and_then(one_example).filter(|_| adds_up) else {
            return Ok(None);
        };
        let data = data.filter(|data| index < data.len(split));
        let predicted = predictor
            .filter(|_| data.is_some())
            .and_then(|predictor| predictor.predictions(meta.point(), split, &[index], notes));
        let prediction = predicted.as_ref().and_then(|found| found.rows.first());
        let sides = table.explanation(q, HEAVIEST);
        Ok(Some(Explained {
            query: query.unwrap_or_default().to_owned(),
            method: meta.method.clone(),
            at: meta.point().to_owned(),
            content: data
                .map(|data| Content::of(data, split, index))
                .transpose()?,
            row: prediction
                .zip(data)
                .map(|(prediction, data)| PredictionRow::of(prediction, split, data)),
            wrong: prediction.and_then(|prediction| prediction.told.is_wrong()),
            away: Pushed::of(&sides.raised, q, data)?,
            towards: Pushed::of(&sides.lowered, q, data)?,
        }))
    }
}

/// The example of a query such as `validation:17`.
fn one_example(query: &str) -> Option<(Split, u64)> {
    match query.parse().ok()? {
        Query::Loss {
            split,
            examples: Some(examples),
            ..
        } => match examples.as_slice() {
            [one] => Some((split, *one)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_query_about_one_example_is_explained() {
        assert_eq!(one_example("validation:17"), Some((Split::Validation, 17)));
        assert_eq!(one_example("train:3"), Some((Split::Train, 3)));
        for query in [
            "validation",
            "test:3,5",
            "test:3..5",
            "validation:class-3",
            "vector:u",
            "",
        ] {
            assert_eq!(one_example(query), None, "{query}");
        }
    }
}
