//! Which flag helps: the library says what is wrong, and the program adds what to write on its command line.

use hindcast_analyzer::{AnalysisError, NoKernels};

/// Advice for the first error of the chain that has one.
pub(super) fn advice(error: &anyhow::Error) -> Option<&'static str> {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<AnalysisError>())
        .find_map(of_analysis)
}

fn of_analysis(error: &AnalysisError) -> Option<&'static str> {
    match error {
        AnalysisError::OtherData { .. } => Some("point --data at the recorded files"),
        AnalysisError::NoKernels(NoKernels::OwnModel) => {
            Some("leave --engine out, or give --engine autodiff")
        }
        AnalysisError::NoKernels(NoKernels::Device) => {
            Some("leave --device out, or give --engine autodiff")
        }
        _ => None,
    }
}
