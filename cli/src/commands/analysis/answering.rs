//! Runs an analysis for `influence`, `counterfactual` and `demo`: prints what it needs, shows its progress, and stops it after
//! Ctrl-C.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::{diverged, trust};
use crate::args::{CheckArgs, Precision};
use crate::commands::context::device;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::memory::{self, Limit};
use crate::commands::progress::{self, Bar};
use crate::contents::about_half;
use crate::terminal::{field, say};
use crate::words::{bytes, counted};
use hindcast_analyzer::estimators::{Answer, Chosen, Planned, Question, choose, plan};
use hindcast_analyzer::ranks::Ranks;
use hindcast_analyzer::sweep::{Observer, Saving, Stage, SweepCheckpoint};
use hindcast_analyzer::{
    AnalysisError, EngineKind, Query, QueryPoint, RecordedRun, ReplayEngine, ScoreTable, Session,
    Window,
};

/// How an answer is computed.
#[derive(Default)]
pub(crate) struct Settings<'a> {
    /// The model that the queries are asked about.
    pub at: QueryPoint,
    pub precision: Precision,
    /// The engine; `None` is the run's default.
    pub engine: Option<EngineKind>,
    pub device: Option<&'a str>,
    pub per_epoch: bool,
    /// Whether the scores of loss terms (tokens) are computed, too.
    pub per_term: bool,
    /// Whether the table has the predictions for its examples.
    pub predictions: bool,
    /// Whether the table is written row by row, and never in memory as a whole.
    pub row_by_row: bool,
    /// Where and how often a sweep saves its state.
    pub saving: Option<Saving>,
    pub memory: Option<Limit>,
    /// Whether to print nothing before the computation.
    pub quiet: bool,
    /// Whether this is a shard, which continues a saved sweep by itself.
    pub shard: bool,
    /// The processes that share each step.
    pub ranks: Option<Ranks>,
    /// Options of the check of recorded steps; `None` if the caller has checked or recorded them itself.
    pub check: Option<CheckArgs>,
}

impl Settings<'_> {
    pub fn device_name(&self) -> &str {
        self.device.unwrap_or("cpu")
    }
}

/// Engine, precision and device in words, as a table's metadata states them.
pub(crate) fn computed_by(kind: EngineKind, settings: &Settings<'_>) -> String {
    let precision = format!("{:?}", settings.precision).to_lowercase();
    format!(
        "{}, {precision} precision, {}",
        kind.name(),
        settings.device_name()
    )
}

/// The scores of the window by the sweep.
pub(crate) fn sweep(
    run: &RecordedRun<'_>,
    queries: &[Query],
    window: &Window,
    settings: &Settings<'_>,
) -> anyhow::Result<ScoreTable> {
    let answer = answer(run, queries, window, settings, &choose("sgd", &[])?)?;
    Ok(answer.scores.table(run))
}

/// The scores of the window by the chosen method.
pub(crate) fn answer(
    run: &RecordedRun<'_>,
    queries: &[Query],
    window: &Window,
    settings: &Settings<'_>,
    chosen: &Chosen,
) -> anyhow::Result<Answer> {
    let device = device(settings.device_name())?;
    let kind = run.engine_kind(settings.engine, &device)?;
    trust::derivatives(run, settings.quiet)?;
    let dtype = settings.precision.dtype().unwrap_or(run.dtype());
    let mut engine: Box<dyn ReplayEngine> = match &settings.ranks {
        Some(ranks) => Box::new(run.engine_over(Some(kind), Some(dtype), &device, ranks)?),
        None => run.engine(Some(kind), Some(dtype), device)?,
    };
    let question = Question {
        at: &settings.at,
        per_epoch: settings.per_epoch,
        per_term: settings.per_term,
        predictions: settings.predictions,
        row_by_row: settings.row_by_row,
        memory: memory::limit(settings.memory),
        saving: settings.saving.as_ref(),
        engine: &computed_by(kind, settings),
        ..Question::new(run, queries, window)
    };
    let planned = plan(&question, chosen, engine.as_ref())?;
    match planned.session() {
        Some(session) => announce_sweep(session, &question, settings)?,
        None => announce(&planned, &question, chosen, settings)?,
    }
    // Methods without a window use only the end of training, so they don't depend on the steps.
    let unverified = match &settings.check {
        Some(check) if chosen.method.windowed => {
            let start = window.resolve(run.source())?.start;
            let steps = start..run.source().end()?.step;
            trust::steps(run, steps, check, settings.memory, settings.quiet)?
        }
        _ => None,
    };
    let mut watch = Watch::new(chosen, settings);
    let answer = planned.answer(engine.as_mut(), &mut watch);
    let mut answer = answer.map_err(|e| diverged::explained(run, watch.explain(e.into())))?;
    drop(watch);
    let notes = &mut answer.scores.metadata.notes;
    if chosen.method.sweeps {
        let half = run.trace().and_then(about_half);
        notes.extend(half.map(|text| format!("the run was trained in {text}")));
    }
    if !settings.quiet {
        for note in notes.iter() {
            say!("{}: {note}", chosen.method.name);
        }
    }
    notes.extend(unverified);
    Ok(answer)
}

/// Prints what a method other than a sweep will do and how much memory it needs. Refuses work that can't fit.
fn announce(
    planned: &Planned<'_>,
    question: &Question<'_>,
    chosen: &Chosen,
    settings: &Settings<'_>,
) -> anyhow::Result<()> {
    let need = planned.memory();
    memory::check_quietly(
        chosen.method.name,
        need,
        settings.memory,
        "ask fewer queries, or use a machine with more memory",
    )?;
    if !settings.quiet {
        say!(
            "method {}: {} examples, {}; about {} of memory in addition to the data and the model's own intermediate values",
            chosen.method.name,
            question.run.examples(),
            count(question.queries.len() as u64),
            bytes(need.about)
        );
    }
    Ok(())
}

/// Prints where a sweep continues, what it will do and how much memory it needs. Refuses work that can't fit.
fn announce_sweep(
    session: &Session<'_>,
    question: &Question<'_>,
    settings: &Settings<'_>,
) -> anyhow::Result<()> {
    match (session.saving(), session.resumed()) {
        (Some(saving), Some(checkpoint)) => {
            continuing(&saving.path, checkpoint, question.queries.len());
        }
        (Some(saving), None) if saving.resume => say!(
            "{}: no interrupted sweep found; starting from the beginning",
            field(saving.path.display())
        ),
        _ => {}
    }
    let cost = session.cost();
    let there = memory::check(
        "this sweep",
        cost.memory(),
        settings.memory,
        &format!(
            "the largest batch has {} examples; ask fewer queries, leave out --per-epoch and --tokens, or use a machine with more memory",
            cost.largest_batch
        ),
    )?;
    if settings.quiet {
        return Ok(());
    }
    let passes = match session.passes() {
        0 | 1 => String::new(),
        n => format!(
            ", in {n} passes over the steps with {} each, because the memory isn't enough for all at once",
            count(session.queries_at_once() as u64)
        ),
    };
    let start = session.options().window.start;
    say!(
        "to sweep: {}, back from {} to {start}; {} examples, {}{passes}",
        counted(cost.steps, "step", "steps"),
        start + cost.steps,
        cost.examples,
        count(cost.queries),
    );
    if let Some(ranks) = settings.ranks.as_ref().filter(|ranks| ranks.size() > 1) {
        say!(
            "{} share each step, with {} each",
            counted(ranks.size() as u64, "process", "processes"),
            counted(rayon::current_num_threads() as u64, "thread", "threads")
        );
    }
    let batch = cost
        .batch
        .map_or(String::new(), |b| format!(", {} for its batch", bytes(b)));
    let table = match cost.table {
        0 => String::new(),
        table => format!("; {} for the table at the end", bytes(table)),
    };
    say!(
        "memory: about {} in addition to the data ({} of state, {} for a step{batch}{table}){}{there}",
        bytes(cost.memory().about),
        bytes(cost.state),
        bytes(cost.step),
        if there.is_empty() { "" } else { "; " },
    );
    Ok(())
}

/// Prints where a sweep for `queries` queries continues.
fn continuing(path: &Path, checkpoint: &SweepCheckpoint, queries: usize) {
    if checkpoint.is_foreign() {
        say!(
            "{} was written by {}: the last bits of the scores may differ",
            field(path.display()),
            field(&checkpoint.writer)
        );
    }
    let (done, total) = checkpoint.state.progress();
    let of_pass = match checkpoint.finished.len() {
        0 if checkpoint.state.queries.len() == queries => String::new(),
        n => format!(
            " of a pass for {} queries; {n} of {queries} are answered",
            checkpoint.state.queries.len()
        ),
    };
    say!(
        "{}: continuing after {done} of {total} steps{of_pass}",
        field(path.display())
    );
}

fn count(queries: u64) -> String {
    format!(
        "{queries} {}",
        if queries == 1 { "query" } else { "queries" }
    )
}

/// Shows the progress of an analysis, and stops it after Ctrl-C.
struct Watch {
    method: &'static str,
    /// Whether the method is a sweep.
    sweeps: bool,
    interrupts: Interrupts,
    /// What the current stage does, and its progress bar.
    shown: Option<(&'static str, Bar)>,
    quiet: bool,
    /// Whether this is a shard.
    shard: bool,
    time: progress::Estimate,
    /// Whether the analysis has been told to stop.
    stopping: bool,
    /// Where the stopped sweep was saved, or why it was not.
    saved: Option<Result<PathBuf, String>>,
    /// Whether a checkpoint that could not be written has been reported.
    warned: bool,
}

impl Watch {
    fn new(chosen: &Chosen, settings: &Settings<'_>) -> Self {
        Watch {
            method: chosen.method.name,
            sweeps: chosen.method.sweeps,
            interrupts: Interrupts::listen(),
            shown: None,
            quiet: settings.quiet,
            shard: settings.shard,
            time: progress::Estimate::silent(),
            stopping: false,
            saved: None,
            warned: false,
        }
    }

    /// The progress bar of this stage. The old bar disappears before a new one is drawn.
    fn bar(&mut self, stage: Stage) -> &Bar {
        if self.shown.as_ref().is_some_and(|(d, _)| *d != stage.doing) {
            self.shown = None;
        }
        let (_, bar) = self.shown.get_or_insert_with(|| {
            let bar = progress::bar(stage.total, stage.doing, stage.unit);
            (stage.doing, bar)
        });
        bar
    }

    /// Replaces the error of an interrupted analysis with a message about what was done and saved. Returns other errors as
    /// they are.
    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        // Read before the bar is cleared, because a finished bar is always at its end.
        let at = |bar: &Bar| (bar.position(), bar.length().unwrap_or(0));
        let (doing, (done, total)) = match &self.shown {
            Some((doing, bar)) => (*doing, at(bar)),
            None => ("", (0, 0)),
        };
        self.shown = None;
        told(error, || match self.saved.take() {
            None if self.sweeps && doing == "predicting" => {
                "stopped before the sweep began; nothing was written".to_owned()
            }
            _ if !self.sweeps => format!(
                "{} was stopped; nothing was written (only sweeps can be resumed)",
                self.method
            ),
            Some(Ok(path)) => format!(
                "{done} of {total} steps are swept and saved in {}; the same command{} continues from there",
                path.display(),
                if self.shard { "" } else { " with --resume" }
            ),
            Some(Err(e)) => {
                format!("{done} of {total} steps were swept, and could not be saved: {e}")
            }
            None => format!("{done} of {total} steps were swept; nothing was written"),
        })
    }
}

impl Observer for Watch {
    fn begin(&mut self, stage: Stage) {
        self.bar(stage).begin_at(stage.done);
        if !self.quiet {
            self.time = progress::Estimate::from(stage.done).counting(stage.unit);
        }
    }

    fn step(&mut self, stage: Stage) -> ControlFlow<()> {
        self.bar(stage).at(stage.done, stage.total);
        if stage.total > 0 && stage.done == stage.total {
            return ControlFlow::Continue(());
        }
        if self.interrupts.asked() {
            self.stopping = true;
            return ControlFlow::Break(());
        }
        if let Some((_, bar)) = &self.shown {
            self.time.after(stage.done, stage.total, bar);
        }
        ControlFlow::Continue(())
    }

    fn saved(&mut self, path: &Path, outcome: Result<(), AnalysisError>) {
        let outcome = outcome.map_err(|e| format!("{:#}", anyhow::Error::from(e)));
        if self.stopping {
            self.saved = Some(outcome.map(|()| path.to_owned()));
        } else if let Err(problem) = outcome
            && !std::mem::replace(&mut self.warned, true)
            && let Some((_, bar)) = &self.shown
        {
            bar.say(&format!(
                "hindcast: the sweep continues, but could not be saved: {problem}"
            ));
        }
    }
}
