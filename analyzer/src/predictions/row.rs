//! A prediction as a row of a table.

use hindcast_model::data::{DataSet, NewRows};
use hindcast_model::objective::Split;
use serde::Serialize;

use super::told::Prediction;
use crate::output::PREDICTIONS;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictionRow {
    /// Index in the split.
    pub index: u64,
    /// Row in the original data.
    pub row: u64,
    /// The file that the row comes from, or the split's name.
    pub file: String,
    /// The user's own name for the example, if names were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Label as text; empty if the example has none.
    pub label: String,
    /// Predicted class, or predicted values, as text; empty if the outputs tell no prediction.
    pub predicted: String,
    /// Probability of the predicted class. This and the next one are `None` unless the model is a classifier.
    pub probability: Option<f64>,
    /// Probability of the label.
    pub label_probability: Option<f64>,
    /// Loss, without penalty. `None` if the example has no label.
    pub loss: Option<f64>,
}

impl PredictionRow {
    /// A prediction with what the data says about its example.
    pub fn of(prediction: &Prediction, split: Split, data: &dyn DataSet) -> Self {
        let (index, told) = (prediction.index, &prediction.told);
        PredictionRow {
            index,
            row: data.origin(split, index),
            file: data.file(split, index),
            name: None,
            label: data.label(split, index),
            predicted: told.text(data),
            probability: told.probability(),
            label_probability: told.label_probability(),
            loss: Some(prediction.loss),
        }
    }

    /// The prediction for a new row, by the position of the row among the new ones. Without labels, the cells about the label
    /// are empty.
    pub fn of_new(prediction: &Prediction, new: &NewRows) -> Self {
        let at = usize::try_from(prediction.index).unwrap_or(usize::MAX);
        let index = new.examples.get(at).copied().unwrap_or(u64::MAX);
        let in_data = Prediction {
            index,
            ..prediction.clone()
        };
        let mut row = Self::of(&in_data, Split::Test, new.data.as_ref());
        row.index = prediction.index;
        if let Some((file, at)) = new.place(prediction.index) {
            (row.file, row.row) = (file, at);
        }
        if !new.labelled {
            row.label.clear();
            (row.label_probability, row.loss) = (None, None);
        }
        row
    }
}

/// Names of the columns, separated by commas: the fields of [`PredictionRow`]. There is a column `name` if a row has one.
pub(super) fn columns(rows: &[PredictionRow]) -> &'static str {
    PREDICTIONS[usize::from(rows.iter().any(|row| row.name.is_some()))]
}
