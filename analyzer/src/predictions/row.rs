//! A prediction as a row of a table.

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use serde::Serialize;

use super::told::Prediction;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictionRow {
    /// Index in the split.
    pub index: u64,
    /// Row in the original data.
    pub row: u64,
    /// The file that the row comes from, or the split's name.
    pub file: String,
    /// Label as text.
    pub label: String,
    /// Predicted class, or predicted values, as text; empty if the outputs tell no prediction.
    pub predicted: String,
    /// Probability of the predicted class. This and the next one are `None` unless the model is a classifier.
    pub probability: Option<f64>,
    /// Probability of the label.
    pub label_probability: Option<f64>,
    /// Loss, without penalty.
    pub loss: f64,
}

impl PredictionRow {
    /// A prediction with what the data says about its example.
    pub fn of(prediction: &Prediction, split: Split, data: &dyn DataSet) -> Self {
        let (index, told) = (prediction.index, &prediction.told);
        PredictionRow {
            index,
            row: data.origin(split, index),
            file: data.file(split, index),
            label: data.label(split, index),
            predicted: told.text(data),
            probability: told.probability(),
            label_probability: told.label_probability(),
            loss: prediction.loss,
        }
    }
}
