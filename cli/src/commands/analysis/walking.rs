//! A walk over recorded steps as `dynamics` and `spikes` do it: checked, with a progress bar, and interruptible.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use super::asked::parse_window;
use super::{diverged, trust};
use crate::args::ReplayArgs;
use crate::commands::context::{self, Models};
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::memory::Limit;
use crate::commands::progress;
use hindcast_analyzer::sweep::{Observer, Stage};
use hindcast_analyzer::{AnalysisError, RecordedRun, ReplayEngine, Window};
use hindcast_model::data::Given;

/// A command line that is read and checked as far as that is possible without the run.
pub(super) struct Walk<'a> {
    window: Window,
    memory: Option<Limit>,
    args: &'a ReplayArgs,
    quiet: bool,
}

/// A run with an engine for it.
pub(super) struct Opened {
    pub run: RecordedRun<'static>,
    pub engine: Box<dyn ReplayEngine>,
    /// The window's steps.
    pub steps: Range<u64>,
    /// Reasons to doubt the result.
    pub notes: Vec<String>,
}

impl<'a> Walk<'a> {
    pub fn parse(window: &str, args: &'a ReplayArgs, quiet: bool) -> anyhow::Result<Self> {
        Ok(Walk {
            window: parse_window(window)?,
            memory: context::memory(args.memory.as_deref())?,
            args,
            quiet,
        })
    }

    /// Opens the run, and checks that its steps can be recomputed.
    pub fn open(
        &self,
        models: &Models,
        run_path: &Path,
        given: Given<'_>,
    ) -> anyhow::Result<Opened> {
        let run = models.open(run_path, given, self.memory)?;
        context::warn_or_refuse_run(&run, run_path)?;
        let device = context::device(&self.args.device)?;
        let kind = run.engine_kind(self.args.engine.map(Into::into), &device)?;
        trust::derivatives(&run, self.quiet)?;
        let steps = self.window.resolve_alone(run.source())?;
        let note = trust::steps(
            &run,
            steps.clone(),
            &self.args.check,
            self.memory,
            self.quiet,
        )?;
        let diverged = diverged::note(&run, &steps)?;
        let dtype = self.args.precision.dtype().unwrap_or(run.dtype());
        Ok(Opened {
            engine: run.engine(Some(kind), Some(dtype), device)?,
            run,
            steps,
            notes: note.into_iter().chain(diverged).collect(),
        })
    }
}

/// Runs a walk over steps with a progress bar. Ctrl-C stops it, and `left` says what an interrupted one has left.
pub(super) fn watched<T>(
    quiet: bool,
    left: &str,
    walk: impl FnOnce(&mut dyn Observer) -> Result<T, AnalysisError>,
) -> anyhow::Result<T> {
    watched_as("walking", "steps", quiet, left, walk)
}

/// As [`watched`], for work that isn't a walk over steps: what is being done, and what is counted.
pub(super) fn watched_as<T>(
    doing: &'static str,
    unit: &'static str,
    quiet: bool,
    left: &str,
    work: impl FnOnce(&mut dyn Observer) -> Result<T, AnalysisError>,
) -> anyhow::Result<T> {
    let interrupts = Interrupts::listen();
    let bar = progress::bar(0, doing, unit);
    let time = if quiet {
        progress::Estimate::silent()
    } else {
        progress::Estimate::from(0).counting(unit)
    };
    let mut observer = |stage: Stage| -> ControlFlow<()> {
        bar.at(stage.done, stage.total);
        time.after(stage.done, stage.total, &bar);
        interrupts.flow()
    };
    let done = work(&mut observer);
    drop((bar, interrupts));
    done.map_err(|e| told(e.into(), || left.to_owned()))
}
