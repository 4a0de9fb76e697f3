//! Errors of a model's passes, as findings of the check.

use super::known;
use crate::engine::DIFFERENTIATING;
use crate::error::{AnalysisError, Unsupported, without_backtrace};

/// The messages of an error and its causes, in one line.
pub(super) fn whole(error: &AnalysisError) -> String {
    let one_line = |text: String| without_backtrace(&text).replace('\n', ": ");
    let mut text = one_line(error.to_string());
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        text = format!("{text}: {}", one_line(e.to_string()));
        cause = e.source();
    }
    text
}

/// An error of the forward pass, with the operation and its cure if it is one that doesn't run in float64.
pub(super) fn explained(error: AnalysisError) -> AnalysisError {
    let problem = whole(&error);
    let known = match &error {
        AnalysisError::Unsupported(Unsupported::LossesInOtherType { .. }) => Some(known::CONSTANT),
        _ => known::by_message(&problem),
    };
    match known {
        Some(known) => Unsupported::NotInFloat64 {
            problem,
            operation: known.name,
            why: known.why,
            cure: known.cure,
        }
        .into(),
        None => error,
    }
}

/// Whether candle failed in a backward pass rather than in the forward pass.
pub(super) fn doing_derivatives(error: &AnalysisError) -> bool {
    matches!(error, AnalysisError::Candle { doing, .. } if doing == DIFFERENTIATING)
}

/// The float32 constant that keeps the model from running in float64, if that is the error.
pub(super) fn constant(error: &AnalysisError) -> Option<known::KnownOperation> {
    match error {
        AnalysisError::Unsupported(Unsupported::NotInFloat64 { operation, .. }) => {
            known::constant(operation)
        }
        _ => None,
    }
}
