//! Resumes an interrupted recording of a task, with the same bits as an uninterrupted run.
//!
//! A trace contains the parameters before every recorded step. The optimizer's state is recomputed from the last
//! keyframe with the training's arithmetic. The steps after the newest state that can be restored (usually just the
//! last recorded step) are trained again without being recorded. Batches and random draws are functions of the seed and
//! the step.

use std::ops::ControlFlow;

use anyhow::{Context as _, bail};
use candle_core::Device;
use hindcast_format::{
    Corruption, FormatError, FsStorage, Severity, State, Status, StepMeta, Storage as _, Trace,
};
use hindcast_model::net::Net;
use hindcast_model::real::Real;
use hindcast_model::task::{Precision, Task};
use hindcast_model::train::{ModelState, StepRecord, TrainError, Trainer};
use hindcast_recorder::{Builder, Estimate, Summary};

use crate::record::{Recording, train};
use hindcast_analyzer::AnalysisError;
use hindcast_analyzer::RecordedRun;
use hindcast_analyzer::counterfactual::start_state;

/// Where a resumed run continues.
#[derive(Debug, Clone, Copy)]
pub struct Resumption {
    /// The step that is recorded next.
    pub step: u64,
    /// Number of steps of the whole run.
    pub steps: u64,
    /// Whether the steps that were trained again gave the recorded losses and digests, bit for bit.
    pub exact: bool,
}

/// Callbacks for the stages of resuming a run.
pub struct Watch<'a> {
    /// Called during the steps that are trained again before recording starts, with the number done and the total.
    pub again: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    /// Called when recording starts.
    pub begun: &'a mut dyn FnMut(&Estimate, Resumption),
    /// Called after each recorded step with the number of steps done, the total and the loss.
    pub progress: &'a mut dyn FnMut(u64, u64, f64) -> ControlFlow<()>,
}

/// Continues the run of `subject` to its end. `builder` must be that of the run's folder.
///
/// # Errors
/// If the run is finished or damaged, if its steps don't follow from its task and data, or if it has no state from
/// which training could start; and if training or recording fails.
pub fn resume_watched(
    subject: &RecordedRun<'_>,
    device: &Device,
    builder: Builder,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let (Some(task), Some(net)) = (subject.task(), subject.net()) else {
        bail!(
            "the run was recorded by a training program: start that program again, which resumes the run (Builder::create_or_resume)"
        );
    };
    match task.train.dtype {
        Precision::F32 => resume::<f32>(subject, task, net, device, builder, watch),
        Precision::F64 => resume::<f64>(subject, task, net, device, builder, watch),
    }
}

/// Refuses a run that can't be resumed, before its data is loaded.
///
/// # Errors
/// If the run is finished, damaged, or being written.
pub fn check_resumable(trace: &Trace, run: &std::path::Path) -> anyhow::Result<()> {
    let recover = || {
        format!(
            "{} is damaged: `hindcast recover {} --out NEW` copies what is readable to a new run, and `hindcast record --resume NEW` continues that",
            run.display(),
            run.display()
        )
    };
    // An incomplete end after the last listed segment is not among these problems.
    if let Some(problem) = trace.problems().first() {
        return Err(copy(problem)).with_context(recover);
    }
    if trace.manifest().is_none() {
        return Err(damage("manifest", "one that can be read", "none")).with_context(recover);
    }
    // Everything is verified now: damage found after training would be found too late.
    let report = trace.verify()?;
    if let Some(finding) = report
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Error)
    {
        return Err(damage("run", "one that is whole", &finding.text)).with_context(recover);
    }
    // Checked after damage, because for a run that is both, the damage is more important.
    if trace.status() == Status::Finished {
        let steps = trace.final_step().unwrap_or(trace.span().end);
        bail!(
            "{} is finished, after {steps} steps: there is nothing to resume",
            run.display()
        );
    }
    match FsStorage::new(run).claim() {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let path = run.display().to_string();
            Err(FormatError::InUse { path }.into())
        }
        // Any other error occurs again, with a better message, when the run is opened for writing.
        _ => Ok(()),
    }
}

/// A copy of an error about damage.
fn copy(problem: &FormatError) -> FormatError {
    match problem {
        FormatError::Corrupt(corruption) => FormatError::Corrupt(corruption.clone()),
        other => damage("run", "one that can be read", &other.to_string()),
    }
}

fn damage(what: &str, expected: &str, got: &str) -> FormatError {
    FormatError::Corrupt(Box::new(Corruption {
        what: what.to_owned(),
        expected: expected.to_owned(),
        got: got.to_owned(),
        ..Corruption::default()
    }))
}

fn resume<T: Real>(
    subject: &RecordedRun<'_>,
    task: &Task,
    net: &Net,
    device: &Device,
    builder: Builder,
    watch: &mut Watch<'_>,
) -> anyhow::Result<Summary> {
    let (trainer, exact) = trainer_at_end::<T>(subject, task, net, device, watch.again)?;
    let (step, steps) = (trainer.next_step(), trainer.batches().steps());
    let recording = Recording::resume(task, net, builder, trainer)?;
    let resumption = Resumption { step, steps, exact };
    (watch.begun)(&recording.estimate(), resumption);
    train(recording, watch.progress)
}

/// A trainer after the last step of the trace, and whether the steps that it trained again gave the recorded values. If
/// they don't (on another kind of processor), the trainer is before the newest step whose state is recorded.
fn trainer_at_end<'a, T: Real>(
    subject: &'a RecordedRun<'_>,
    task: &'a Task,
    net: &'a Net,
    device: &Device,
    again: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<(Trainer<'a, T>, bool)> {
    let (trace, data) = (trace_of(subject)?, subject.data());
    let mut end = trace.span().end;
    if trace.sizes().is_empty() || end == 0 {
        return Ok((Trainer::new(task, net, data, device)?, true));
    }
    if trace.info().keep.starts_with("every=")
        && let Some(last) = trace.ranges()?.last()
    {
        // A segment starts with tensors. So a run that keeps every n-th step continues at the last kept step, which is
        // recorded again.
        end = last.end - 1;
    }
    let (start, state) = newest_state::<T>(subject, device)?;
    let at = |state| Trainer::resume(task, net, data, device, start, state);
    let mut trainer = at(state.clone())?;
    if end > trainer.batches().steps() {
        bail!(
            "the trace has steps up to {}, but the recorded task has {} steps",
            end - 1,
            trainer.batches().steps()
        );
    }
    let mut exact = true;
    while trainer.next_step() < end {
        let step = trainer.next_step();
        if again(step - start, end - start).is_break() {
            return Err(AnalysisError::Cancelled { step }.into());
        }
        let recorded = recorded(trace.meta(step))?;
        let digest = recorded_digest(trace, step)?;
        let taken = trainer.step(|taken| -> Result<(), Differs> {
            if let Some(meta) = &recorded {
                same_step(meta, taken)?;
                exact &= meta
                    .loss
                    .is_none_or(|loss| loss.to_bits() == taken.loss.to_bits());
            }
            if let Some(digest) = digest {
                exact &= digest_of(trace, taken).is_some_and(|here| here == digest);
            }
            Ok(())
        });
        taken.context("training the last recorded steps again")?;
    }
    if exact {
        Ok((trainer, true))
    } else {
        // The two parts of a run must fit together, so training continues from recorded values.
        Ok((at(state)?, false))
    }
}

fn trace_of<'a>(run: &'a RecordedRun<'_>) -> anyhow::Result<&'a Trace> {
    run.trace()
        .context("only a run that was opened from its folder can be resumed")
}

/// The newest step before which the whole state of training is known, and that state.
fn newest_state<T: Real>(
    subject: &RecordedRun<'_>,
    device: &Device,
) -> anyhow::Result<(u64, ModelState<T>)> {
    let run = subject;
    let source = run.source();
    let mut why = None;
    for range in source.ranges()?.into_iter().rev() {
        let last = range.end - 1;
        // After a gap, only a keyframe has the buffers and the optimizer's state.
        let keyframe = source.keyframe(last)?.max(range.start);
        for step in [last, keyframe] {
            match start_state::<T>(run, step, device) {
                Ok(state) => return Ok((step, state)),
                Err(error @ AnalysisError::Missing(_)) => {
                    why.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    match why {
        Some(why) => Err(why).context("the trace has no step that training could start from"),
        None => bail!(
            "the trace has steps up to {}, but the tensors of none of them: record the run again",
            trace_of(subject)?.span().end.saturating_sub(1)
        ),
    }
}

/// `None` for a step that isn't in the trace, because training continued while storage failed.
fn recorded<V>(read: Result<V, FormatError>) -> anyhow::Result<Option<V>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(FormatError::NotRecorded { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn recorded_digest(trace: &Trace, step: u64) -> anyhow::Result<Option<[u8; 32]>> {
    Ok(recorded(trace.gap_digest(step))?.flatten())
}

/// The digest of a step's state, as the recorder computes it.
fn digest_of<T: Real>(trace: &Trace, taken: &StepRecord<'_, T>) -> Option<[u8; 32]> {
    let values = taken.before.parameters.iter().chain(taken.buffers);
    let bytes = match T::DTYPE {
        candle_core::DType::F64 => values.flat_map(|v| v.wide().to_le_bytes()).collect(),
        _ => values
            .flat_map(|v| (v.wide() as f32).to_le_bytes())
            .collect(),
    };
    State::new(trace.layout(), bytes).ok().map(|s| s.digest())
}

/// Why a step that is trained again is not the recorded one.
#[derive(Debug, thiserror::Error)]
enum Differs {
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(
        "the trace and the task disagree on the {what} of step {step}: this version of hindcast can't continue the run, or its task or data was changed"
    )]
    Step { step: u64, what: &'static str },
}

fn same_step<T: Real>(meta: &StepMeta, taken: &StepRecord<'_, T>) -> Result<(), Differs> {
    let rate = |at: usize| meta.groups.get(at).map(|group| group.learning_rate);
    let rates = taken
        .settings
        .groups
        .iter()
        .map(|group| group.learning_rate);
    let what = if meta.indices != taken.indices {
        "examples"
    } else if meta.epoch != taken.epoch {
        "epoch"
    } else if rates.enumerate().any(|(at, now)| rate(at) != Some(now)) {
        "learning rates"
    } else {
        return Ok(());
    };
    Err(Differs::Step {
        step: meta.step,
        what,
    })
}
