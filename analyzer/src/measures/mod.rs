//! What tells a good ranking of training examples from a bad one: rank correlation, detection of planted faults, and a
//! test of paired differences.

pub mod agreement;
pub mod compare;
mod detection;
mod moments;
mod rank;

pub use detection::{precision_at, roc_auc};
pub use moments::{mean, mean_sd, sample_sd};
pub use rank::spearman;

use crate::error::{AnalysisError, Result};

/// Refuses a list with a NaN: no measure here is defined for it.
///
/// # Errors
/// Where an entry is NaN; the text names the first.
pub fn without_nan(what: &str, values: &[f64]) -> Result<()> {
    match values.iter().position(|x| x.is_nan()) {
        None => Ok(()),
        Some(at) => Err(AnalysisError::Invalid(format!(
            "{what}: entry {at} is not a number"
        ))),
    }
}
