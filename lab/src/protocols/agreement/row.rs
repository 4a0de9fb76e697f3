//! A row of the experiment's table.

use serde::{Deserialize, Serialize};

use super::settings::{Measured, Setting};
use crate::protocols::rows::{Origin, Row};

/// One row: one method on one seed of one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// `adult`, `20news` or `mnist`.
    pub data: String,
    /// `logreg` or `dnn`.
    pub model: String,
    /// Seed of the drawn examples, the initial weights and the batches.
    pub seed: u64,
    /// The method.
    pub method: String,
    /// Kendall's tau of the scores and the real changes of the validation loss, over all examples.
    pub tau: f64,
    /// Jaccard index of the ten largest and ten smallest changes, predicted and real.
    pub jaccard: f64,
    /// α, the penalty in each example's loss.
    pub penalty: f64,
    /// Mean validation loss at the end of training.
    pub validation_loss: f64,
    /// Largest real change of the validation loss.
    pub largest_change: f64,
    /// Digest of the task's settings that the row was computed with.
    pub settings: String,
    /// Digest of the examples that the row was computed from.
    pub fingerprint: String,
    /// Seconds that the method took.
    pub method_seconds: f64,
    /// Seconds that the counterfactual runs took; all methods of a seed share them.
    pub truth_seconds: f64,
}

impl Agreement {
    /// Whether this is the row of a setting, a seed and a method.
    pub fn is(&self, setting: &Setting, seed: u64, method: &Measured) -> bool {
        self.seed == seed && self.of(setting) && self.method == method.name
    }

    /// Whether this is a row of a setting.
    pub fn of(&self, setting: &Setting) -> bool {
        self.data == setting.data && self.model == setting.model
    }
}

impl Row for Agreement {
    fn key(&self) -> String {
        format!(
            "{}, seed {}, method {}",
            self.origin().task,
            self.seed,
            self.method
        )
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            task: format!("{}/{}", self.data, self.model),
            seed: self.seed,
            settings: &self.settings,
            fingerprint: &self.fingerprint,
        }
    }
}
