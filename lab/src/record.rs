//! Trains a task while recording it, for `hindcast record` and the experiments.

use std::ops::ControlFlow;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_format::{DataIdentity, SplitFingerprint};
use hindcast_model::data::DataSet;
use hindcast_model::net::Net;
use hindcast_model::real::Real;
use hindcast_model::task::{Precision, Task};
use hindcast_model::train::Trainer;
use hindcast_recorder::{Builder, Estimate, Recorder, RecorderError, Summary};

use crate::mirror::{Mirror, RecordingError};
use hindcast_analyzer::AnalysisError;

/// Trains `task` on `data` from the first step to the last, and records every step. `builder` says where and how to
/// record; task, rule, seed and fingerprint are added here. `progress` is called with the number of steps done, the
/// total and the loss.
///
/// # Errors
/// If training fails, or if recording fails and its policy is to stop.
pub fn record_task(
    task: &Task,
    data: &dyn DataSet,
    device: &Device,
    builder: Builder,
    progress: &mut dyn FnMut(u64, u64, f64),
) -> anyhow::Result<Summary> {
    record_watched(
        task,
        data,
        device,
        builder,
        &mut |_| {},
        &mut |done, total, loss| {
            progress(done, total, loss);
            ControlFlow::Continue(())
        },
    )
}

/// Like [`record_task`], but calls `begun` with the expected size of the run before the first step, and `progress` may
/// stop the training. A run that was stopped is closed as unfinished.
///
/// # Errors
/// As for [`record_task`]; [`AnalysisError::Cancelled`] if `progress` stopped it.
pub fn record_watched(
    task: &Task,
    data: &dyn DataSet,
    device: &Device,
    builder: Builder,
    begun: &mut dyn FnMut(&Estimate),
    progress: &mut dyn FnMut(u64, u64, f64) -> ControlFlow<()>,
) -> anyhow::Result<Summary> {
    let net = Net::new(&task.model, &task.loss)?;
    let builder = described(builder, task, data)?;
    match task.train.dtype {
        Precision::F32 => run::<f32>(task, &net, data, device, builder, begun, progress),
        Precision::F64 => run::<f64>(task, &net, data, device, builder, begun, progress),
    }
}

/// The builder with everything that a run says about its task and its data.
pub(crate) fn described(
    builder: Builder,
    task: &Task,
    data: &dyn DataSet,
) -> anyhow::Result<Builder> {
    let builder = builder
        .task(task.to_toml()?)
        .rule_text(task.optimizer.to_toml()?)
        .seed(task.train.seed)
        .data(identity(data));
    // If the data has changed, a later analysis can say which rows differ.
    Ok(hindcast_analyzer::run::row_digests(data)
        .into_iter()
        .fold(builder, |builder, (key, text)| builder.note(key, text)))
}

fn identity(data: &dyn DataSet) -> DataIdentity {
    let splits: Vec<_> = data
        .fingerprint()
        .into_iter()
        .map(|s| SplitFingerprint {
            name: s.name,
            examples: s.examples,
            root: s.root,
        })
        .collect();
    if splits.is_empty() {
        DataIdentity::None
    } else {
        DataIdentity::Fingerprint { splits }
    }
}

fn run<T: Real>(
    task: &Task,
    net: &Net,
    data: &dyn DataSet,
    device: &Device,
    builder: Builder,
    begun: &mut dyn FnMut(&Estimate),
    progress: &mut dyn FnMut(u64, u64, f64) -> ControlFlow<()>,
) -> anyhow::Result<Summary> {
    let recording = Recording::<T>::new(task, net, data, device, builder)?;
    begun(&recording.estimate());
    train(recording, progress)
}

/// Trains and records all remaining steps, and finishes the run.
///
/// # Errors
/// As for [`record_watched`].
pub fn train<T: Real>(
    mut recording: Recording<'_, T>,
    progress: &mut dyn FnMut(u64, u64, f64) -> ControlFlow<()>,
) -> anyhow::Result<Summary> {
    let steps = recording.steps();
    while let Some((step, loss)) = recording.step()? {
        if progress(step + 1, steps, loss).is_break() && step + 1 < steps {
            return Err(AnalysisError::Cancelled { step: step + 1 }.into());
        }
    }
    recording.finish()
}

/// A training that is being recorded.
pub struct Recording<'a, T> {
    trainer: Trainer<'a, T>,
    mirror: Mirror,
    recorder: Recorder,
}

impl<'a, T: Real> Recording<'a, T> {
    pub fn new(
        task: &'a Task,
        net: &'a Net,
        data: &'a dyn DataSet,
        device: &Device,
        builder: Builder,
    ) -> anyhow::Result<Self> {
        let trainer = Trainer::<T>::new(task, net, data, device)?;
        // The folder is created last. If a run failed before its first step, its folder would block the next attempt.
        task.check_values(data)?;
        trainer.rehearse().context("the first step fails")?;
        let mirror = Mirror::new(task, net, trainer.state())?;
        let builder = expecting(builder, &trainer);
        let recorder = builder.create_from(mirror.named())?;
        Ok(Self {
            trainer,
            mirror,
            recorder,
        })
    }

    /// Continues the run that `builder` names, from the trainer's next step.
    pub fn resume(
        task: &'a Task,
        net: &'a Net,
        builder: Builder,
        trainer: Trainer<'a, T>,
    ) -> anyhow::Result<Self> {
        let mirror = Mirror::new(task, net, trainer.state())?;
        let builder = expecting(builder, &trainer);
        let (recorder, _) = builder.resume_from(mirror.named(), trainer.next_step())?;
        Ok(Self {
            trainer,
            mirror,
            recorder,
        })
    }

    /// The expected size of the run on disk.
    pub fn estimate(&self) -> Estimate {
        self.recorder.estimate()
    }

    pub fn steps(&self) -> u64 {
        self.trainer.batches().steps()
    }

    /// Trains and records the next step. Returns its number and loss, or `None` after the last step.
    pub fn step(&mut self) -> anyhow::Result<Option<(u64, f64)>> {
        let (mirror, recorder) = (&self.mirror, &self.recorder);
        let mut taken = None;
        let more = self.trainer.step(|step| -> Result<(), RecordingError> {
            mirror.record(recorder, step)?;
            taken = Some((step.step, step.loss));
            Ok(())
        });
        more.context("training stopped")?;
        Ok(taken)
    }

    /// Waits until everything recorded so far has been encoded and handed to storage.
    pub fn drain(&self) -> anyhow::Result<()> {
        Ok(self.recorder.drain()?)
    }

    /// Bytes that were handed to storage.
    pub fn stored_bytes(&self) -> u64 {
        self.recorder.statistics().stored_bytes
    }

    pub fn finish(self) -> anyhow::Result<Summary> {
        let end = self.trainer.into_state();
        self.mirror.copy_state(&end, &end.buffers)?;
        Ok(self.recorder.finish()?)
    }
}

/// The length of the run, for the estimate of its size.
fn expecting<T: Real>(builder: Builder, trainer: &Trainer<'_, T>) -> Builder {
    let batches = trainer.batches();
    builder.expected_steps(batches.steps(), batches.steps_per_epoch())
}

/// Whether the recording was stopped by an external cause. Such a run can be resumed when the cause is removed.
pub fn can_be_resumed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let recorder = match cause.downcast_ref::<RecordingError>() {
            Some(RecordingError::Recorder(error)) => Some(error),
            _ => cause.downcast_ref::<RecorderError>(),
        };
        matches!(
            recorder,
            Some(
                RecorderError::Storage { .. }
                    | RecorderError::Device { .. }
                    | RecorderError::QueueFull { .. }
                    | RecorderError::Thread { .. }
                    | RecorderError::Stuck { .. }
            )
        )
    })
}
