//! `hindcast history`: how a run trained, step by step.

mod print;

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use hindcast_format::Trace;
use hindcast_model::objective::Split;
use serde::Serialize;

use super::asked::parse_window;
use super::trust;
use super::walking::watched_as;
use crate::args::History as Args;
use crate::commands::context::{self, Models};
use crate::commands::{Outcome, Usage, ends_in};
use crate::report::curves::loss_plot;
use crate::report::plot::FIGURE_SIZE;
use crate::terminal;
use hindcast_analyzer::curves::{
    EpochSummary, HeldOut, HeldOutPoints, History, LossCurve, LossSummary, Measured, Point,
    Summary, add_gradients, add_norms, event_file, write, write_events,
};
use hindcast_analyzer::output::{self, Kind};
use hindcast_analyzer::{RecordedRun, ReplayEngine, Window};

/// The JSON that `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    run: String,
    run_digest: &'a str,
    steps: &'a Range<u64>,
    rows: usize,
    columns: Vec<String>,
    losses: &'a LossSummary,
    epochs: &'a [EpochSummary],
    held_out: Option<HeldOutCurve<'a>>,
    notes: &'a [String],
    damage: &'a [String],
    lost: u64,
    table: Option<String>,
    tensorboard: Option<String>,
    picture: Option<String>,
    seconds: f64,
}

/// Held-out losses along a run.
#[derive(Serialize)]
struct HeldOutCurve<'a> {
    #[serde(flatten)]
    measured: Measured,
    losses: &'a [Point],
}

/// A history with everything that is said about it.
struct Shown<'a> {
    args: &'a Args,
    history: History,
    summary: Summary,
    curve: LossCurve,
    notes: Vec<String>,
    /// The file that was written for TensorBoard.
    events: Option<PathBuf>,
    /// Damage about which the user was warned when the run was opened.
    warned: Vec<String>,
}

pub(crate) fn run(args: &Args, models: &Models) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let window = parse_window(&args.window)?;
    check_outputs(args)?;
    let memory = context::memory(args.replay.memory.as_deref())?;
    let (opened, alone) = if args.computes() {
        let given = args.own.given(args.data.as_deref());
        (Some(models.open(&args.run, given, memory)?), None)
    } else {
        (None, Some(context::open_trace_within(&args.run, memory)?))
    };
    let trace = opened
        .as_ref()
        .and_then(|run| run.trace())
        .or(alone.as_ref())
        .with_context(|| format!("{}: the run can't be opened", args.run.display()))?;
    context::warn(trace);
    let mut history = read(trace, &window)?;
    let mut notes = Vec::new();
    if args.norms {
        let found = watched_as("decoding", "steps", args.json, NOTHING, |observer| {
            add_norms(&mut history, trace, observer)
        })?;
        if !found && !args.gradients {
            notes.push(NO_GRADIENTS.to_owned());
        }
    }
    if let Some(run) = &opened {
        notes.extend(compute(args, run, &mut history)?);
    }
    let head = trace.head_digest().map(|d| hindcast_format::hex(&d));
    let head = head.unwrap_or_default();
    let curve = LossCurve::of(&history);
    let mut shown = Shown {
        args,
        summary: Summary::of(&history),
        curve,
        history,
        notes,
        events: None,
        warned: trace.problems().iter().map(ToString::to_string).collect(),
    };
    shown.write(trace, &head)?;
    let mut out = terminal::stdout();
    if args.json {
        let report = shown.report(&head, begun.elapsed().as_secs_f64());
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print::print(&mut out, &shown)?;
    }
    Ok(if shown.history.damage.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Damaged
    })
}

const NOTHING: &str = "nothing was written";
const NO_GRADIENTS: &str = "there are no gradient norms: they follow from the updates only for plain SGD without momentum and clipping, in float32 or float64; --gradients replays them";

/// Refuses outputs that can't be written, before anything is computed.
fn check_outputs(args: &Args) -> anyhow::Result<()> {
    if let Some(out) = &args.out {
        super::dynamics::check_output(out)?;
        output::try_folder(out, Kind::History)
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    if let Some(picture) = &args.picture {
        ends_in("--picture", picture, "svg")?;
        output::try_folder(picture, Kind::Figure)
            .with_context(|| format!("cannot write {}", picture.display()))?;
    }
    if let Some(folder) = &args.tensorboard {
        if folder.exists() && !folder.is_dir() {
            let said = "expected a folder, and this is a file";
            return Err(Usage(format!("--tensorboard {}: {said}", folder.display())).into());
        }
        output::outside_of_runs(&event_file(folder, ""))
            .with_context(|| format!("cannot write to {}", folder.display()))?;
    }
    Ok(())
}

/// Reads the metadata. Whole segments that are missing at the end count as damage.
fn read(trace: &Trace, window: &Window) -> anyhow::Result<History> {
    let mut history = History::of(trace, window)?;
    if let Some(damage) = trace.ends_early() {
        let text = hindcast_format::FormatError::Corrupt(Box::new(damage.clone())).to_string();
        if !history.damage.contains(&text) {
            history.damage.push(text);
        }
    }
    Ok(history)
}

/// Fills the columns that need the model and the data. Returns reasons to doubt them.
fn compute(
    args: &Args,
    run: &RecordedRun<'static>,
    history: &mut History,
) -> anyhow::Result<Vec<String>> {
    let memory = context::memory(args.replay.memory.as_deref())?;
    let mut notes = Vec::new();
    if args.gradients {
        trust::derivatives(run, args.json)?;
        // The check needs consecutive steps.
        let span = history.span();
        let ranges = run.source().ranges()?.into_iter();
        let within = ranges.map(|r| r.start.max(span.start)..r.end.min(span.end));
        if let Some(longest) = within.max_by_key(|r| r.end.saturating_sub(r.start)) {
            let check = &args.replay.check;
            notes.extend(trust::steps(run, longest, check, memory, args.json)?);
        }
    }
    let mut engine = engine(args, run)?;
    if args.gradients {
        watched_as("replaying", "steps", args.json, NOTHING, |observer| {
            add_gradients(history, run, engine.as_mut(), observer)
        })?;
    }
    if args.validation {
        let asked = HeldOut {
            split: Split::Validation,
            points: args
                .every
                .map_or(HeldOutPoints::Epochs, |n| HeldOutPoints::Every(n.get())),
            most_models: None,
            most_examples: args.examples.map(std::num::NonZeroUsize::get),
        };
        watched_as("measuring", "examples", args.json, NOTHING, |observer| {
            asked.measure(history, run, engine.as_mut(), observer)
        })?;
    }
    Ok(notes)
}

fn engine(args: &Args, run: &RecordedRun<'_>) -> anyhow::Result<Box<dyn ReplayEngine>> {
    let device = context::device(&args.replay.device)?;
    let kind = run.engine_kind(args.replay.engine.map(Into::into), &device)?;
    let dtype = args.replay.precision.dtype().unwrap_or(run.dtype());
    Ok(run.engine(Some(kind), Some(dtype), device)?)
}

impl Shown<'_> {
    /// Writes the files.
    fn write(&mut self, trace: &Trace, head: &str) -> anyhow::Result<()> {
        if let Some(out) = &self.args.out {
            write(&self.history, head, out)
                .with_context(|| format!("cannot write {}", out.display()))?;
        }
        if let Some(folder) = &self.args.tensorboard {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            let path = event_file(folder, head);
            let created = trace.info().created_seconds().unwrap_or(0);
            write_events(&self.history, created as f64, &path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            self.events = Some(path);
        }
        if let Some(picture) = &self.args.picture {
            if self.curve.stretches.is_empty() && self.curve.held_out.is_empty() {
                anyhow::bail!(
                    "cannot draw {}: the run records no finite losses; --validation measures the loss of the validation split",
                    picture.display()
                );
            }
            let split = self.history.held_out.map(|m| m.split.name());
            let mut plot = loss_plot(&self.curve, split);
            plot.title = self.args.run.display().to_string();
            plot.save(FIGURE_SIZE, picture)?;
        }
        Ok(())
    }

    fn report<'a>(&'a self, head: &'a str, seconds: f64) -> Report<'a> {
        let shown = |path: &Path| path.display().to_string();
        Report {
            run: shown(&self.args.run),
            run_digest: head,
            steps: &self.summary.steps,
            rows: self.summary.rows,
            columns: self.history.columns(),
            losses: &self.summary.losses,
            epochs: &self.summary.epochs,
            held_out: self.history.held_out.map(|measured| HeldOutCurve {
                measured,
                losses: &self.curve.held_out,
            }),
            notes: &self.notes,
            damage: &self.history.damage,
            lost: self.history.lost,
            table: self.args.out.as_deref().map(shown),
            tensorboard: self.events.as_deref().map(shown),
            picture: self.args.picture.as_deref().map(shown),
            seconds,
        }
    }
}
