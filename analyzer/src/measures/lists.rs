//! Checks of lists of numbers.

use crate::error::{AnalysisError, Result, Undefined};

/// Refuses a list with a NaN, for which no measure is defined.
///
/// # Errors
/// [`Undefined::NotANumber`] with the first such entry.
pub fn without_nan(what: &str, values: &[f64]) -> Result<()> {
    match values.iter().position(|x| x.is_nan()) {
        None => Ok(()),
        Some(entry) => Err(AnalysisError::Undefined(Undefined::NotANumber {
            what: what.to_owned(),
            entry,
        })),
    }
}

/// Checks that two lists have the same length and at least `least` entries.
///
/// # Errors
/// [`Undefined::Lengths`].
pub fn same_length(measure: &'static str, first: usize, second: usize, least: usize) -> Result<()> {
    if first == second && first >= least {
        return Ok(());
    }
    Err(AnalysisError::Undefined(Undefined::Lengths {
        measure,
        least,
        first,
        second,
    }))
}
