//! Records a run whose tensors come as bytes, from any training library.

use std::collections::BTreeMap;
use std::sync::Mutex;

use hindcast_format::layout::{DType, Layout, TensorSpec};
use hindcast_format::{Checkpoint, RowSplit};

use crate::batch::BatchInfo;
use crate::builder::Builder;
use crate::entry::{Newest, Opened, newest, restorable, same_layout};
use crate::error::RecorderError;
use crate::estimate::Estimate;
use crate::metadata::{Said, set_trained};
use crate::options::Options;
use crate::recording::Recording;
use crate::slices::{Given, RowSlice, Slice, SliceStep, layout, rows};
use crate::start::create;
use crate::statistics::Statistics;
use crate::threads::{Summary, Threads, lock};

/// A run being recorded by a program that gives its tensors as bytes.
///
/// It is the recorder without candle: for burn, tch, another version of candle, or a program in another language behind
/// a C interface. It has the same queue, policies, keyframes, ring, resumption and format. Only what needs candle's
/// types is missing: wrapped optimizers, and the comparison of the parameters with their gradients.
///
/// ```
/// use hindcast_recorder::{BatchInfo, Builder, DType, Slice, SliceStep, UpdateRule};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("run");
/// fn bytes(values: &[f32]) -> Vec<u8> {
///     values.iter().flat_map(|v| v.to_le_bytes()).collect()
/// }
///
/// let mut w = [0.5f32, -0.25];
/// let now = bytes(&w);
/// let run = Builder::new(&path)
///     .rule(UpdateRule::sgd())
///     .create_of(&[Slice::parameter("w", DType::F32, &[2], &now)])?;
/// for step in 0..3 {
///     let (x, y) = ([1.0f32, 2.0], step as f32);
///     let error = w[0] * x[0] + w[1] * x[1] - y;
///     run.batch(0, &[step])?; // the examples of the step
///     let now = bytes(&w); // the parameters before the update
///     run.step(&SliceStep::new(0.1).loss(f64::from(error * error)), &[Slice::parameter("w", DType::F32, &[2], &now)])?;
///     for (w, x) in w.iter_mut().zip(x) {
///         *w -= 0.1 * 2.0 * error * x;
///     }
/// }
/// let now = bytes(&w);
/// let summary = run.finish(&[Slice::parameter("w", DType::F32, &[2], &now)])?;
/// assert_eq!(summary.steps, 3);
/// # Ok(())
/// # }
/// ```
#[must_use = "a recorder that is dropped seals its run as unfinished"]
pub struct SliceRecorder {
    recording: Mutex<Recording>,
    threads: Threads,
}

/// What the trace holds about the step at which a [`SliceRecorder`] resumes.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ResumedSlices {
    /// The next step to be recorded.
    pub step: u64,
    /// The epoch of the step before it. `None` at step 0.
    pub epoch: Option<u64>,
    /// Number of updates that the optimizer had done before it.
    pub optimizer_step: u64,
    /// One more than the last step that the trace held before it was cut back.
    pub end: u64,
    /// The recorded bytes of the parameters and buffers before that step, by name. Empty in a new run.
    pub tensors: BTreeMap<String, Vec<u8>>,
    /// The optimizer's tensors before that step, by name. At step 0 and after a restart, they have the rule's initial values.
    /// Empty in a new run, and if the run records no optimizer state.
    pub optimizer_state: BTreeMap<String, Vec<u8>>,
}

impl Builder {
    /// Creates a run that records these tensors, given as bytes. Each says what it is, so [`buffers`](Self::buffers),
    /// [`exclude`](Self::exclude), [`frozen`](Self::frozen) and [`groups`](Self::groups) don't apply;
    /// [`frozen_bytes`](Self::frozen_bytes) does.
    ///
    /// # Errors
    /// The storage already contains a run, it fails, or the tensors and options don't fit together. The error says why.
    pub fn create_of(self, tensors: &[Slice<'_>]) -> Result<SliceRecorder, RecorderError> {
        let options = self.options;
        options.check()?;
        let layout = layout(tensors).map_err(|why| options.setup(why))?;
        let buffers = given(&layout, tensors)
            .buffers()
            .map_err(|why| options.setup(why))?;
        let (recording, threads) = create(&options, layout, buffers)?;
        Ok(SliceRecorder::start(recording, threads))
    }

    /// Continues the existing run from `step`. The steps before it stay; the step itself and all later ones are recorded
    /// again. The tensors must hold their values from before that step. With
    /// [`restore_variables`](Self::restore_variables), they aren't compared, and the program takes the values from
    /// [`ResumedSlices::tensors`].
    ///
    /// # Errors
    /// There is no such run, it is damaged before the step, it ends before the step, the tensors have other names, shapes
    /// or values, or the trace has no optimizer state at that step. With
    /// [`restore_variables`](Self::restore_variables), also if the trace doesn't have the tensors of that step: at a gap, or
    /// at the end of a run that was stopped. In these cases nothing has been removed.
    pub fn resume_of(
        self,
        tensors: &[Slice<'_>],
        step: u64,
    ) -> Result<(SliceRecorder, ResumedSlices), RecorderError> {
        let mut options = self.options;
        options.check()?;
        let layout = layout(tensors).map_err(|why| options.setup(why))?;
        let opened = Opened::of(&mut options, step)?;
        same_layout(opened.trace.layout(), &layout).map_err(|why| options.setup(why))?;
        let before = opened.before(&options)?;
        let held = given(&layout, tensors);
        if options.restore {
            restorable(&before, &layout)
                .map_err(|why| options.setup(format!("step {step} cannot be restored: {why}")))?;
        } else {
            compare(&held, &before).map_err(|why| {
                options.setup(format!("it cannot continue at step {step}: {why}"))
            })?;
        }
        let initial = opened.rule.initial_state();
        let optimizer_state = optimizer(&options, &layout, (&before, step), initial)?;
        let entry = opened.enter(&options)?;
        let buffers = match &before.buffers {
            Some(recorded) => recorded.clone(),
            None => held.buffers().map_err(|why| options.setup(why))?,
        };
        let update = if options.restart_optimizer {
            0
        } else {
            before.optimizer_step
        };
        let resumed = ResumedSlices {
            step,
            epoch: before.epoch,
            optimizer_step: update,
            end: entry.end,
            tensors: by_name(&layout, &before),
            optimizer_state,
        };
        let (recording, threads) = entry.start(&options, layout, buffers, (step, update))?;
        Ok((SliceRecorder::start(recording, threads), resumed))
    }

    /// Creates the run, or continues the existing one from the newest step that its trace can restore. In an existing
    /// run, the program then takes the values from [`ResumedSlices`], and continues with its step.
    ///
    /// # Errors
    /// As [`create_of`](Self::create_of) and [`resume_of`](Self::resume_of). A finished run is refused with [`RecorderError::Finished`].
    pub fn create_or_resume_of(
        self,
        tensors: &[Slice<'_>],
    ) -> Result<(SliceRecorder, ResumedSlices), RecorderError> {
        match newest(&self.options)? {
            None => Ok((self.create_of(tensors)?, ResumedSlices::default())),
            Some(Newest::Initial) => self.resume_of(tensors, 0),
            Some(Newest::Step(step)) => self.restore_variables().resume_of(tensors, step),
        }
    }
}

fn given<'a>(layout: &'a Layout, slices: &'a [Slice<'a>]) -> Given<'a> {
    Given {
        layout,
        slices,
        optimizer: None,
    }
}

fn compare(held: &Given<'_>, before: &Checkpoint) -> Result<(), String> {
    let parameters = before.parameters.as_deref().unwrap_or_default();
    held.compare(held.layout.parameters(), parameters)?;
    let buffers = before.buffers.as_deref().unwrap_or_default();
    held.compare(held.layout.buffers(), buffers)
}

/// The recorded parameters and buffers by name.
fn by_name(layout: &Layout, before: &Checkpoint) -> BTreeMap<String, Vec<u8>> {
    let sections = [
        (layout.parameters(), &before.parameters),
        (layout.buffers(), &before.buffers),
    ];
    let mut tensors = BTreeMap::new();
    for (specs, bytes) in sections {
        let mut rest = bytes.as_deref().unwrap_or_default();
        for spec in specs {
            let Some((here, after)) = rest.split_at_checked(spec.bytes()) else {
                break;
            };
            tensors.insert(spec.name.clone(), here.to_vec());
            rest = after;
        }
    }
    tensors
}

/// The optimizer's state before the step: recorded, or the rule's initial value where it begins.
fn optimizer(
    options: &Options,
    layout: &Layout,
    (before, step): (&Checkpoint, u64),
    initial: f64,
) -> Result<BTreeMap<String, Vec<u8>>, RecorderError> {
    let named = |spec: &TensorSpec, bytes: Vec<u8>| (spec.name.clone(), bytes);
    let specs = layout.optimizer_state();
    let restart = options.restart_optimizer;
    match before.optimizer_tensors(layout) {
        Some(tensors) if !restart => Ok(tensors
            .into_iter()
            .map(|(spec, bytes)| named(spec, bytes.to_vec()))
            .collect()),
        None if !restart && before.optimizer_step > 0 && !specs.is_empty() => {
            Err(options.setup(format!(
                "the trace doesn't have the optimizer's state before step {step}, because that step is no keyframe: create_or_resume_of finds the newest \
                 one; to continue with a state that begins at zero, call restart_optimizer() on the builder"
            )))
        }
        _ => Ok(specs
            .iter()
            .map(|spec| named(spec, filled(spec, initial)))
            .collect()),
    }
}

/// The bytes of a tensor with this value in every place.
fn filled(spec: &TensorSpec, value: f64) -> Vec<u8> {
    let element = match spec.dtype {
        DType::F32 => (value as f32).to_le_bytes().to_vec(),
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        DType::Bf16 => half::bf16::from_f64(value).to_le_bytes().to_vec(),
    };
    element.repeat(spec.elements())
}

impl SliceRecorder {
    fn start(recording: Recording, threads: Threads) -> Self {
        Self {
            recording: Mutex::new(recording),
            threads,
        }
    }

    /// Announces the batch of the next step: the training examples `indices` in order, whose losses are averaged.
    ///
    /// # Errors
    /// An announced batch is still waiting for its step, an index lies outside of the data, or recording has failed.
    pub fn batch(&self, epoch: u64, indices: &[u64]) -> Result<(), RecorderError> {
        self.batch_with(BatchInfo::new(epoch, indices))
    }

    /// Announces the batch of the next step with everything that [`BatchInfo`] can say.
    ///
    /// # Errors
    /// As [`batch`](Self::batch). Also if weights or micro-batches don't fit the indices.
    pub fn batch_with(&self, batch: BatchInfo<'_>) -> Result<(), RecorderError> {
        lock(&self.recording).announce(&batch)
    }

    /// Announces the batch of the next step by its tensors, for loaders that give no indices. Each row is identified by a
    /// digest of its bytes, and by default the run stores each distinct row once. Returns the examples' indices.
    ///
    /// # Errors
    /// As [`batch`](Self::batch). Also if the tensors don't fit together, or the distinct rows exceed their limit.
    pub fn batch_of(
        &self,
        epoch: u64,
        tensors: &[RowSlice<'_>],
    ) -> Result<Vec<u64>, RecorderError> {
        self.batch_of_with(BatchInfo::new(epoch, &[]), &[tensors])
    }

    /// As [`batch_of`](Self::batch_of), with one list of tensors per micro-batch and everything that [`BatchInfo`] can say
    /// except indices, which the run gives: pass `BatchInfo::new(epoch, &[])`.
    ///
    /// # Errors
    /// As [`batch_of`](Self::batch_of). Also if the batch has indices.
    pub fn batch_of_with(
        &self,
        batch: BatchInfo<'_>,
        parts: &[&[RowSlice<'_>]],
    ) -> Result<Vec<u64>, RecorderError> {
        let blocks = parts.iter().map(|part| rows(part)).collect();
        lock(&self.recording).announce_rows(batch, blocks)
    }

    /// Stores validation examples with the run, which an analysis of a run with [`batch_of`](Self::batch_of) asks about. Call
    /// it before the first step, with the same tensors when a run is resumed: they are stored with the next step, and
    /// [`finish`](Self::finish) returns an error if there is none.
    ///
    /// # Errors
    /// The tensors don't fit together, there are too many rows, or the run already has other validation rows.
    pub fn validation_of(&self, tensors: &[RowSlice<'_>]) -> Result<(), RecorderError> {
        lock(&self.recording).hold_out(RowSplit::Validation, rows(tensors))
    }

    /// Stores test examples with the run. Otherwise like [`validation_of`](Self::validation_of).
    ///
    /// # Errors
    /// As [`validation_of`](Self::validation_of).
    pub fn test_of(&self, tensors: &[RowSlice<'_>]) -> Result<(), RecorderError> {
        lock(&self.recording).hold_out(RowSplit::Test, rows(tensors))
    }

    /// Withdraws the announced batch, for loops that leave out a step.
    pub fn skip_batch(&self) {
        lock(&self.recording).withdraw();
    }

    /// Records the step of the announced batch. `tensors` hold the values after the step's forward pass and before its
    /// update, in any order.
    ///
    /// # Errors
    /// Nothing was recorded. The call may be repeated with the right values, unless storage failed: then every later
    /// call returns the same error.
    pub fn step(&self, step: &SliceStep<'_>, tensors: &[Slice<'_>]) -> Result<(), RecorderError> {
        let mut recording = lock(&self.recording);
        let layout = recording.layout().clone();
        let flags = step
            .flags(&layout)
            .map_err(|why| recording.at().wrong(why))?;
        let said = Said {
            hyper: step.hyper,
            optimizer_step: step.optimizer_step,
        };
        let values = Given {
            optimizer: step.optimizer,
            ..given(&layout, tensors)
        };
        let loss = step.loss;
        recording.prepare(
            None,
            &said,
            &mut |meta, _, at| {
                meta.loss = loss;
                set_trained(meta, &flags, flags.len()).map_err(|why| at.wrong(why))
            },
            &values,
        )?;
        recording.hand_over();
        Ok(())
    }

    /// The disk space and memory that the run is expected to take.
    pub fn estimate(&self) -> Estimate {
        lock(&self.recording).estimate()
    }

    /// The recorded tensors in their order.
    pub fn layout(&self) -> Layout {
        lock(&self.recording).layout().clone()
    }

    /// Number of the next step to be recorded.
    pub fn next_step(&self) -> u64 {
        lock(&self.recording).next_step()
    }

    /// The newest step that the run's [`Durability`](hindcast_format::Durability) already protects, together with all
    /// steps before it. `None` if there is none yet.
    pub fn durable_step(&self) -> Option<u64> {
        self.threads.shared().durable()
    }

    /// Waits until everything recorded so far has been written and synced.
    ///
    /// # Errors
    /// Recording has failed.
    pub fn flush(&self) -> Result<(), RecorderError> {
        self.threads.wait_for(&self.recording, true)
    }

    /// Waits until everything recorded so far has been encoded and written, but not synced.
    ///
    /// # Errors
    /// Recording has failed.
    pub fn drain(&self) -> Result<(), RecorderError> {
        self.threads.wait_for(&self.recording, false)
    }

    /// Counts and times of the recording so far.
    pub fn statistics(&self) -> Statistics {
        self.threads.shared().statistics()
    }

    /// Records the final state, seals the run, and waits until it is on disk. `tensors` include the optimizer's state, if
    /// the run records one.
    ///
    /// # Errors
    /// Recording has failed, now or before. Under [`OnError::TrainOn`](crate::OnError::TrainOn) that is not an error,
    /// and the summary tells what was lost. [`RecorderError::HeldOut`]: the run is complete, except for validation or test
    /// rows that no step could store.
    pub fn finish(mut self, tensors: &[Slice<'_>]) -> Result<Summary, RecorderError> {
        let sent = {
            let mut recording = lock(&self.recording);
            let layout = recording.layout().clone();
            recording.finish(&given(&layout, tensors))
        };
        self.threads.end(&self.recording, sent)
    }
}

impl Drop for SliceRecorder {
    fn drop(&mut self) {
        if self.threads.are_running() {
            self.threads.abandon(&self.recording);
        }
    }
}

impl std::fmt::Debug for SliceRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SliceRecorder")
            .field("run", &self.threads.shared().run)
            .field("next_step", &self.next_step())
            .finish_non_exhaustive()
    }
}
