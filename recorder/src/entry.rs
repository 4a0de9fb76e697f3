//! Opens an existing run to continue it.

use std::sync::Arc;

use hindcast_format::layout::{Layout, TensorSpec};
use hindcast_format::{Checkpoint, FormatError, RowSplit, RunWriter, Status, Trace};

use crate::error::RecorderError;
use crate::options::Options;
use crate::recording::Recording;
use crate::reopen::{LostBefore, epochs, retention};
use crate::retention::Retention;
use crate::rows::RowBook;
use crate::start::{Position, start};
use crate::stated_rule::StatedRule;
use crate::threads::Threads;

/// The newest step that an existing run can continue from.
pub(crate) enum Newest {
    /// No step was written.
    Initial,
    /// The trace can restore this step.
    Step(u64),
}

/// Finds where an existing run can continue. `None` if there is no run.
pub(crate) fn newest(options: &Options) -> Result<Option<Newest>, RecorderError> {
    let failed = |error| RecorderError::open(&options.name, 0, error);
    let trace = match Trace::open_storage(Arc::clone(&options.storage)) {
        Ok(trace) => trace,
        Err(FormatError::NotARun { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if let (Status::Finished, Some(end)) = (trace.status(), trace.final_step()) {
        let run = options.name.clone();
        return Err(RecorderError::Finished { run, end });
    }
    let newest = trace.newest_checkpoint().map_err(failed)?;
    let held = trace.span().end;
    match newest {
        Some(step) => Ok(Some(Newest::Step(step))),
        None if held == 0 => Ok(Some(Newest::Initial)),
        None => Err(options.setup(format!(
            "it has steps up to {}, but none of them can be restored: load your own checkpoint and resume at its step (Builder::resume with candle, \
             Builder::resume_of without)",
            held - 1
        ))),
    }
}

/// A run that is read before it is continued.
pub(crate) struct Opened {
    pub(crate) trace: Trace,
    pub(crate) rule: StatedRule,
    step: u64,
}

/// A run that is ready to be continued.
pub(crate) struct Entry {
    rule: StatedRule,
    writer: RunWriter,
    retention: Retention,
    rows: RowBook,
    lost: Option<LostBefore>,
    /// One more than the last step that the trace held before it was cut back.
    pub(crate) end: u64,
}

impl Opened {
    /// Opens the run to continue it at `step`. The options adopt its settings.
    pub(crate) fn of(options: &mut Options, step: u64) -> Result<Self, RecorderError> {
        let trace = Trace::open_storage(Arc::clone(&options.storage))
            .map_err(|error| RecorderError::open(&options.name, step, error))?;
        options.agree_with(trace.info())?;
        let rule = options.stated_rule()?;
        Ok(Self { trace, rule, step })
    }

    /// What the trace holds of the step at which the run continues.
    pub(crate) fn before(&self, options: &Options) -> Result<Checkpoint, RecorderError> {
        let before = self.trace.before(self.step);
        let before =
            before.map_err(|error| RecorderError::open(&options.name, self.step, error))?;
        let end = self.trace.span().end;
        if self.step > end {
            return Err(options.setup(format!(
                "its trace ends after {end} steps, so it cannot continue at step {}: resume at step {end} or before",
                self.step
            )));
        }
        Ok(before)
    }

    /// Opens the run for writing.
    pub(crate) fn enter(self, options: &Options) -> Result<Entry, RecorderError> {
        let Self { trace, rule, step } = self;
        let open = |error| RecorderError::open(&options.name, step, error);
        let epochs = epochs(&trace);
        let lost = trace
            .manifest()
            .and_then(|manifest| LostBefore::read(&manifest.counters, step));
        let rows = known_rows(options, &trace, step).map_err(open)?;
        drop(trace);
        let (writer, point) =
            RunWriter::resume(Arc::clone(&options.storage), step, options.durability)
                .map_err(open)?;
        let retention = retention(options.kept(), &epochs, &writer).map_err(open)?;
        Ok(Entry {
            rule,
            writer,
            retention,
            rows,
            lost,
            end: point.end,
        })
    }
}

impl Entry {
    /// Starts the threads. `at` is the step with the optimizer's counter before it.
    pub(crate) fn start(
        self,
        options: &Options,
        layout: Layout,
        buffers: Vec<u8>,
        at: (u64, u64),
    ) -> Result<(Recording, Threads), RecorderError> {
        let position = Position {
            step: at.0,
            update: at.1,
            buffers,
            rows: self.rows,
            lost: self.lost,
            created: false,
        };
        let (writer, retention) = (self.writer, self.retention);
        start(options, layout, self.rule, writer, retention, position)
    }
}

/// The rows that the steps before `step` have used.
fn known_rows(options: &Options, trace: &Trace, step: u64) -> Result<RowBook, FormatError> {
    let mut rows = options.rows();
    match trace.has_rows() {
        Ok(true) => {
            rows.resume(trace.row_index(0..step)?);
            let held_out = [RowSplit::Validation, RowSplit::Test];
            rows.resume_held_out(&trace.rows_before(step, &held_out)?);
        }
        // Without a readable step, the first new batch decides.
        Err(error) if !error.is_damage() => return Err(error),
        Ok(false) if !trace.span().is_empty() => rows.identified(false),
        Ok(false) | Err(_) => {}
    }
    Ok(rows)
}

/// The recorded parameters and buffers before a step, to continue with them. The error text says what the trace lacks.
pub(crate) fn restorable<'a>(
    before: &'a Checkpoint,
    layout: &Layout,
) -> Result<[&'a [u8]; 2], String> {
    const CURE: &str = "resume at a step that the trace holds with its tensors (create_or_resume finds the newest), or load a checkpoint of your own and leave \
                        out restore_variables()";
    let Some(parameters) = &before.parameters else {
        return Err(format!("the trace has no tensors of that step: {CURE}"));
    };
    match &before.buffers {
        Some(buffers) => Ok([parameters, buffers]),
        None if layout.buffers().is_empty() => Ok([parameters, &[]]),
        None => Err(format!(
            "the trace has its parameters, but not the buffers before it: {CURE}"
        )),
    }
}

/// Compares the recorded tensors with those that the program has now. The error text names the first that differs.
pub(crate) fn same_layout(recorded: &Layout, given: &Layout) -> Result<(), String> {
    let describe = |spec: &TensorSpec| {
        format!(
            "{:?} ({:?}, {} of shape {:?}, group {})",
            spec.name, spec.role, spec.dtype, spec.shape, spec.group
        )
    };
    let (old, new) = (recorded.tensors(), given.tensors());
    if let Some((old, new)) = old.iter().zip(new).find(|(old, new)| old != new) {
        return Err(format!(
            "its tensors differ: the trace has {}, and the program gives {}",
            describe(old),
            describe(new)
        ));
    }
    match (old.get(new.len()), new.get(old.len())) {
        (Some(missing), _) => Err(format!(
            "the trace has {}, which the program doesn't give",
            describe(missing)
        )),
        (_, Some(extra)) => Err(format!(
            "the program gives {}, which the trace lacks",
            describe(extra)
        )),
        (None, None) => Ok(()),
    }
}
