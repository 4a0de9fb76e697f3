//! The rows and the file formats of tables of training dynamics.

use std::path::Path;

use serde::Serialize;

use super::walk::StepDynamics;
use crate::error::{AnalysisError, Result};

/// A file that takes the rows of one step after another.
pub(super) trait Rows {
    fn step(&mut self, step: &StepDynamics<'_>) -> Result<(), String>;
    fn finish(self: Box<Self>) -> Result<(), String>;
}

/// A row of the table. The numbers of an example that is in no batch are empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExampleRow {
    /// Index in the training split.
    pub index: u64,
    /// Row in the original data.
    pub row: u64,
    /// Label as text.
    pub label: String,
    /// How often the window's batches hold it.
    pub occurrences: u64,
    /// Its mean loss over its occurrences.
    pub mean_loss: Option<f64>,
    /// Its mean margin (the area under the margin). This and the next three are empty unless the model is a classifier.
    pub margin: Option<f64>,
    /// Its label's mean probability.
    pub probability: Option<f64>,
    /// How often it was forgotten.
    pub forgotten: Option<u64>,
    /// Epochs since it was last forgotten, as [`LabelDynamics`](super::LabelDynamics) defines it.
    pub epochs_since_forgotten: Option<i64>,
    /// Its self-influence `Σ_t Σ_k η_{t,k} w ‖g_k‖²`.
    pub self_influence: Option<f64>,
    /// The file that the row comes from.
    pub file: String,
}

/// A format that this build can write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    Csv,
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Format {
    /// The format that the ending of a file's name asks for.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let problem = match ending.as_deref() {
            Some("csv") => return Ok(Format::Csv),
            #[cfg(feature = "parquet")]
            Some("parquet") => return Ok(Format::Parquet),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => {
                "this build can't write Parquet: build it with the feature `parquet`, or use .csv"
            }
            _ => "a table of training dynamics ends in .csv or .parquet",
        };
        Err(AnalysisError::File {
            path: path.to_owned(),
            problem: problem.to_owned(),
        })
    }
}
