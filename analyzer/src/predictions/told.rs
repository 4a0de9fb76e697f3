//! One example's prediction.

use std::fmt;

use hindcast_model::data::DataSet;

/// What the model predicts for one example.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Index of the example in its split.
    pub index: u64,
    /// Loss of the example in evaluation mode, without penalty.
    pub loss: f64,
    /// The prediction, next to the label that the loss compares it with.
    pub told: Told,
}

/// A prediction next to its label.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Of a classifier.
    Class {
        /// Number of the label's class.
        label: usize,
        /// Number of the class with the largest output; the first of several.
        predicted: usize,
        /// The probability of each class: the softmax of the outputs, or σ(z) for a single output z.
        probabilities: Vec<f64>,
    },
    /// Of a model that predicts numbers, one per target.
    Values {
        /// The targets, in the unit of the labels.
        label: Vec<f64>,
        /// The outputs in the unit of the labels; σ of them if the loss is a binary cross-entropy of logits.
        predicted: Vec<f64>,
    },
    /// The outputs tell no prediction ([`Untold`]).
    Nothing,
}

impl Told {
    /// The predicted class's probability. `None` if no class is predicted.
    pub fn probability(&self) -> Option<f64> {
        match self {
            Told::Class {
                predicted,
                probabilities,
                ..
            } => probabilities.get(*predicted).copied(),
            _ => None,
        }
    }

    /// The label's probability. `None` if no class is predicted.
    pub fn label_probability(&self) -> Option<f64> {
        match self {
            Told::Class {
                label,
                probabilities,
                ..
            } => probabilities.get(*label).copied(),
            _ => None,
        }
    }

    /// Whether the predicted class isn't the label. `None` if no class is predicted.
    pub fn is_wrong(&self) -> Option<bool> {
        match self {
            Told::Class {
                label, predicted, ..
            } => Some(label != predicted),
            _ => None,
        }
    }

    /// The prediction as a data set writes labels: the name of the class, or the values with spaces between them. Empty if
    /// there is no prediction.
    pub fn text(&self, data: &dyn DataSet) -> String {
        match self {
            Told::Class { predicted, .. } => class_name(data, *predicted),
            Told::Values { predicted, .. } => {
                let words: Vec<String> = predicted.iter().map(ToString::to_string).collect();
                words.join(" ")
            }
            Told::Nothing => String::new(),
        }
    }
}

/// The name of a class, or its number if it has no name.
pub(super) fn class_name(data: &dyn DataSet, class: usize) -> String {
    let name = data.class_names().get(class).cloned();
    name.unwrap_or_else(|| class.to_string())
}

/// Why a model's outputs tell no predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Untold {
    /// An example has several targets, such as the tokens of a sequence, and not one output for each.
    Sequence,
    /// The outputs are the losses themselves, as those of a model that computes its loss in its forward pass.
    Losses,
    /// The outputs are neither one per class nor one per target.
    Shape,
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Untold::Sequence => {
                "an example has several targets, such as the tokens of a sequence, so there is no single predicted label; only losses are known"
            }
            Untold::Losses => {
                "the model's outputs are its losses, so they say nothing about labels; only losses are known"
            }
            Untold::Shape => {
                "the model's outputs are neither one per class nor one per target, so they can't be read as labels; only losses are known"
            }
        })
    }
}
