//! What tells a good ranking of training examples from a bad one: rank correlation, detection of planted faults, and a
//! test of paired differences.

mod detection;
mod moments;
#[cfg(feature = "experiments")]
mod paired;
mod rank;

pub use detection::{precision_at, roc_auc};
#[cfg(feature = "experiments")]
pub(crate) use moments::mean_sd;
pub use moments::{mean, sample_sd};
#[cfg(feature = "experiments")]
pub use paired::{PairedTest, paired_t_test};
pub use rank::spearman;

use crate::error::{AnalysisError, Result};

/// No measure here is defined where a number is NaN.
fn without_nan(what: &str, values: &[f64]) -> Result<()> {
    match values.iter().position(|x| x.is_nan()) {
        None => Ok(()),
        Some(at) => Err(AnalysisError::Invalid(format!(
            "{what}: entry {at} is not a number"
        ))),
    }
}
