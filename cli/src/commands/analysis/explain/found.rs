//! The results of `explain`: what print, JSON and picture show.

use std::time::Duration;

use hindcast_model::objective::Split;

use crate::args::Explain;
use crate::verdict::{Subject, Verdict};
use hindcast_analyzer::predictions::{Prediction, PredictionRow};
use hindcast_analyzer::scores::Explanation;
use hindcast_analyzer::{Query, RecordedRun, ScoreTable};

/// An example whose prediction is explained.
pub(super) struct Example {
    pub split: Split,
    pub prediction: Prediction,
}

impl Example {
    /// Its loss.
    pub fn query(&self) -> Query {
        Query::of_example(self.split, self.prediction.index)
    }
}

/// Examples with their explanations.
pub(super) struct Found<'a> {
    pub args: &'a Explain,
    pub run: &'a RecordedRun<'a>,
    pub examples: &'a [Example],
    /// Scores with one query per example, in the same order.
    pub table: &'a ScoreTable,
    pub took: Duration,
}

/// One example with its explanation.
pub(super) struct Explained<'a> {
    pub name: String,
    pub split: Split,
    /// The example with its label and prediction.
    pub row: PredictionRow,
    /// Whether the predicted class isn't the label; `None` unless the model is a classifier.
    pub wrong: Option<bool>,
    pub sides: Explanation<'a>,
    pub verdict: Verdict,
}

impl<'a> Found<'a> {
    pub fn new(
        args: &'a Explain,
        run: &'a RecordedRun<'a>,
        examples: &'a [Example],
        table: &'a ScoreTable,
        took: Duration,
    ) -> Self {
        Found {
            args,
            run,
            examples,
            table,
            took,
        }
    }

    /// The examples with the `top` heaviest training examples of each side.
    pub fn explained(&self, top: usize) -> Vec<Explained<'a>> {
        let data = self.run.data();
        let examples = self.examples.iter().enumerate();
        let explained = examples.map(|(q, example)| Explained {
            name: example.query().to_string(),
            split: example.split,
            row: PredictionRow::of(&example.prediction, example.split, data),
            wrong: example.prediction.told.is_wrong(),
            sides: self.table.explanation(q, top),
            verdict: Verdict::of(&Subject::of(self.table, q), &[]),
        });
        explained.collect()
    }
}
