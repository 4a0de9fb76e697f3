//! Which classes are taken for which.

use hindcast_model::data::DataSet;

use super::told::class_name;
use super::{Predictions, Told};

/// How often each class was predicted as each class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// Names of the classes: all that the model can predict.
    pub classes: Vec<String>,
    /// `counts[label][predicted]`, in the order of `classes`.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts predictions. `None` if classes aren't predicted, or there are no labels.
    pub fn of(predictions: &Predictions, data: &dyn DataSet) -> Option<Confusion> {
        if !predictions.labelled {
            return None;
        }
        let mut counts: Vec<Vec<u64>> = Vec::new();
        for row in &predictions.rows {
            let Told::Class {
                label,
                predicted,
                probabilities,
            } = &row.told
            else {
                return None;
            };
            let n = probabilities.len();
            if counts.is_empty() {
                counts = vec![vec![0; n]; n];
            }
            *counts.get_mut(*label)?.get_mut(*predicted)? += 1;
        }
        let classes = (0..counts.len()).map(|class| class_name(data, class));
        Some(Confusion {
            classes: classes.collect(),
            counts,
        })
        .filter(|confusion| !confusion.counts.is_empty())
    }

    /// The most frequent mistakes: label, predicted class and count, the most frequent first, then in the order of the classes.
    pub fn mistakes(&self) -> Vec<(&str, &str, u64)> {
        let mut out = Vec::new();
        for (label, row) in self.counts.iter().enumerate() {
            for (predicted, &count) in row.iter().enumerate() {
                if label != predicted && count > 0 {
                    let name = |class: usize| self.classes.get(class).map_or("", String::as_str);
                    out.push((name(label), name(predicted), count));
                }
            }
        }
        out.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        out
    }
}
