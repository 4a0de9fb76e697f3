//! A row of the matrix.

use serde::Serialize;

/// Largest norm-wise relative error with which a row passes.
pub const LIMIT: f64 = 1e-6;

/// One row of the matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExactnessRow {
    /// `operation` (derivatives alone), `layer` (layer × loss × reduction × circumstance), `optimizer`, `query point` (an
    /// average of the models) or `discount` (a discounted sweep).
    pub kind: &'static str,
    /// What the row measures, in words that `only` matches.
    pub name: String,
    /// `‖computed − differences‖ / ‖differences‖` of the scores, or of an operation's first derivative.
    pub error: f64,
    /// The same for an operation's second derivative.
    pub second: Option<f64>,
}

impl ExactnessRow {
    /// Whether all errors are at most [`LIMIT`].
    pub fn passed(&self) -> bool {
        // Written so that a NaN fails.
        self.error <= LIMIT && self.second.is_none_or(|e| e <= LIMIT)
    }
}
