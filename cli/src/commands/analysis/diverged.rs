//! Runs whose own training diverged: their recorded losses or parameters are not finite.

use std::ops::Range;

use anyhow::anyhow;

use hindcast_analyzer::error::Diverged;
use hindcast_analyzer::{AnalysisError, RecordedRun};

/// Replaces an error about numbers that aren't finite by its cause, if the run's own parameters aren't finite. No window and no
/// float type helps then, so the advice for that error would mislead.
pub(super) fn explained(run: &RecordedRun<'_>, error: anyhow::Error) -> anyhow::Error {
    let about_numbers = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<AnalysisError>(),
            Some(
                AnalysisError::NotFinite { .. }
                    | AnalysisError::Diverged(
                        Diverged::Retraining { .. }
                            | Diverged::Score { .. }
                            | Diverged::Prediction
                            | Diverged::Solver { .. }
                    )
            )
        )
    });
    match about_numbers.then(|| parameters(run)).flatten() {
        None => error,
        Some(step) => anyhow!(
            "the recorded training itself diverged: {}, so no influence and no retraining is defined at its end, in any window and float type; \
             train again, for example with a lower learning rate (--set schedule.learning_rate=VALUE for a task)",
            from(step)
        ),
    }
}

/// A note about steps of these whose recorded losses aren't finite, or whose parameters aren't. `None` if there are none.
pub(super) fn note(
    run: &RecordedRun<'_>,
    steps: &Range<u64>,
) -> Result<Option<String>, AnalysisError> {
    let (mut known, mut broken, mut first) = (0_u64, 0_u64, None);
    run.source().each_meta(steps.clone(), &mut |meta| {
        if let Some(loss) = meta.loss {
            known += 1;
            if !loss.is_finite() {
                broken += 1;
                first.get_or_insert(meta.step);
            }
        }
        Ok(())
    })?;
    if let Some(first) = first {
        return Ok(Some(format!(
            "the recorded loss is not finite in {broken} of these {known} steps, the first of which is step {first}: the training diverged there"
        )));
    }
    let broken = parameters(run).filter(|step| *step < steps.end);
    Ok(broken.map(|step| format!("the training diverged: {}", from(step))))
}

fn from(step: u64) -> String {
    match step {
        0 => "its parameters are not finite from the start".to_owned(),
        step => format!(
            "its parameters are not finite from step {step} on (the update of step {} broke them)",
            step - 1
        ),
    }
}

/// The first step before which the recorded parameters aren't finite, if those at the end aren't. Searched by halving, because
/// an update of a value that isn't finite gives no finite one. `None` if they are finite or can't be read.
fn parameters(run: &RecordedRun<'_>) -> Option<u64> {
    let source = run.source();
    let finite = |values: &[f64]| values.iter().all(|x| x.is_finite());
    let end = source.end().ok()?;
    if finite(&end.parameters) {
        return None;
    }
    let range = source.ranges().ok()?.pop()?;
    let (mut low, mut high) = (range.start, end.step.min(range.end));
    while low < high {
        let middle = low + (high - low) / 2;
        let step = source.forward(middle..middle + 1).ok()?.next()?.ok()?;
        if finite(&step.parameters.as_slice().to_f64()) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Some(high)
}
