//! `hindcast history`: how a run trained, step by step.

mod print;
mod shown;

use std::io::Write;
use std::time::Instant;

use anyhow::Context as _;
use hindcast_model::objective::Split;

use super::asked::parse_window;
use super::trust;
use super::walking::watched_as;
use crate::args::History as Args;
use crate::commands::context::{self, Models};
use crate::commands::{Outcome, Usage, ends_in};
use crate::terminal;
use hindcast_analyzer::curves::{
    HeldOut, HeldOutPoints, History, LossCurve, Summary, add_gradients, add_norms,
    check_event_file, event_file,
};
use hindcast_analyzer::output::{self, Kind};
use hindcast_analyzer::{RecordedRun, ReplayEngine};
use shown::{Shown, Written, drawable};

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
    let head = trace.head_digest().map(|d| hindcast_format::hex(&d));
    let head = head.unwrap_or_default();
    if let Some(folder) = &args.tensorboard {
        check_event_file(&event_file(folder, &head))
            .with_context(|| format!("cannot write to {}", folder.display()))?;
    }
    let mut history = History::of(trace, &window)?;
    if let (Some(picture), false) = (&args.picture, args.validation) {
        drawable(&LossCurve::of(&history), picture)?;
    }
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
    let curve = LossCurve::of(&history);
    let mut shown = Shown {
        args,
        summary: Summary::of(&history),
        curve,
        history,
        notes,
        written: Written::default(),
        warned: trace.problems().iter().map(ToString::to_string).collect(),
    };
    // What was computed is printed even if a file can't be written.
    let written = shown.write(trace, &head);
    let mut out = terminal::stdout();
    if args.json {
        let report = shown.report(&head, begun.elapsed().as_secs_f64());
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print::print(&mut out, &shown)?;
    }
    written?;
    Ok(if shown.history.damage.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Damaged
    })
}

const NOTHING: &str = "nothing was written";
const NO_GRADIENTS: &str = "there are no gradient norms: they follow from the updates only for plain SGD without momentum and clipping, in float32 or float64, at learning rates above 0; --gradients replays them";

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
        let within = history.within(run.source().ranges()?).into_iter();
        if let Some(longest) = within.max_by_key(|r| r.end - r.start) {
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
