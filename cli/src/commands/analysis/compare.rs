//! `hindcast compare`: two runs side by side.

mod cause;
mod found;
mod print;

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use hindcast_format::Trace;

use super::diverged;
use super::walking::watched_as;
use crate::args::Compare;
use crate::commands::context::{self, Models};
use crate::commands::memory::Limit;
use crate::commands::{DataOf, Outcome, Usage, ends_in, in_one_line};
use crate::report::curves::{ComparedCurve, compared_plot};
use crate::report::plot::FIGURE_SIZE;
use crate::terminal::{self, field, say};
use found::{Found, Side};
use hindcast_analyzer::comparison::{Parting, distances, losses, same_training_data, settings};
use hindcast_analyzer::curves::{HeldOut, History, LossCurve, Summary};
use hindcast_analyzer::output::{self, Kind};
use hindcast_analyzer::{QueryPoint, RecordedRun, Window};

/// Largest number of models whose distance is measured.
const DISTANCES: usize = 20;
const LEFT: &str = "nothing was compared";

/// A run, opened with its model and data if that is possible.
enum Opened {
    Whole(Box<RecordedRun<'static>>),
    /// Without losses, and why.
    Trace(Box<Trace>, Option<String>),
}

impl Opened {
    fn trace(&self) -> anyhow::Result<&Trace> {
        match self {
            Opened::Whole(run) => run.trace().context("the run has no trace"),
            Opened::Trace(trace, _) => Ok(trace),
        }
    }
}

pub(crate) fn run(args: &Compare, models: &Models) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    if let Some(picture) = &args.picture {
        ends_in("--picture", picture, "svg")?;
        output::try_folder(picture, Kind::Figure)
            .with_context(|| format!("cannot write {}", picture.display()))?;
    }
    if args.other_data.is_some() && args.no_losses {
        return Err(
            Usage("--other-data is for losses, and --no-losses leaves them out".into()).into(),
        );
    }
    let memory = context::memory(args.model.memory.as_deref())?;
    let data = args.data.as_deref();
    let other_data = args.other_data.as_deref().or(data);
    let opened = open(args, models, &args.run, data, memory)
        .and_then(|a| {
            let b = open(args, models, &args.other, other_data, memory);
            let b = match &args.other_data {
                Some(_) => b.context(DataOf("--other-data"))?,
                None => b?,
            };
            Ok([a, b])
        })
        .map_err(|error| if_other_data(args, memory, error))?;
    let (a, b) = (opened[0].trace()?, opened[1].trace()?);
    let parting = watched_as("comparing", "steps", args.json, LEFT, |observer| {
        Parting::of(a, b, observer)
    })?;
    let models = parting.common_models(a, b, DISTANCES)?;
    let distances = watched_as("comparing models", "models", args.json, LEFT, |observer| {
        distances(a, b, &models, observer)
    })?;
    let mut notes = Vec::new();
    let [first, second] = [
        side(args, &opened[0], &args.run, &mut notes)?,
        side(args, &opened[1], &args.other, &mut notes)?,
    ];
    let mut found = Found {
        settings: settings(a, b),
        same_data: same_training_data(a, b),
        parting,
        distances,
        sides: [first, second],
        notes,
        picture: None,
    };
    // What was computed is printed even if it can't be drawn.
    let drawn = match &args.picture {
        Some(picture) => draw(&found, picture).map(|()| Some(picture.as_path())),
        None => Ok(None),
    };
    found.picture = drawn.as_ref().ok().copied().flatten();
    let mut out = terminal::stdout();
    if args.json {
        let report = found.report(begun.elapsed().as_secs_f64());
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print::print(&mut out, &found)?;
    }
    drawn?;
    Ok(if found.sides.iter().all(|side| side.damage.is_empty()) {
        Outcome::Fine
    } else {
        Outcome::Damaged
    })
}

/// Opens a run with its data, or only its trace if there is no data and none was given.
fn open(
    args: &Compare,
    models: &Models,
    path: &Path,
    data: Option<&Path>,
    memory: Option<Limit>,
) -> anyhow::Result<Opened> {
    let alone = |why| -> anyhow::Result<Opened> {
        let trace = context::open_trace_within(path, memory)?;
        context::warn_or_refuse(&trace, path)?;
        Ok(Opened::Trace(Box::new(trace), why))
    };
    if args.no_losses {
        return alone(None);
    }
    match models.open(path, args.own.given(data), memory) {
        Ok(run) => {
            context::warn_or_refuse_run(&run, path)?;
            Ok(Opened::Whole(Box::new(run)))
        }
        // Data that is given but doesn't fit is a mistake.
        Err(error) if data.is_none() && args.own.labels.is_none() => {
            alone(Some(in_one_line(&error)))
        }
        Err(error) => Err(error),
    }
}

/// Names the flag for the data of the second run, if that is why a run can't be opened.
fn if_other_data(args: &Compare, memory: Option<Limit>, error: anyhow::Error) -> anyhow::Error {
    if args.data.is_none() || args.other_data.is_some() {
        return error;
    }
    let trace = |path: &Path| context::open_trace_within(path, memory).ok();
    let differ = trace(&args.run)
        .zip(trace(&args.other))
        .is_some_and(|(a, b)| a.info().data != b.info().data);
    if !differ {
        return error;
    }
    error.context(
        "the runs have different data: --data is for that of A, and --other-data for that of B",
    )
}

/// The history and the losses of a run.
fn side(
    args: &Compare,
    opened: &Opened,
    path: &Path,
    notes: &mut Vec<String>,
) -> anyhow::Result<Side> {
    let trace = opened.trace()?;
    let mut history = History::of(trace, &Window::All)?;
    let mut found = Vec::new();
    match opened {
        Opened::Trace(_, None) => {}
        Opened::Trace(_, Some(why)) => notes.push(format!(
            "{}: no losses of the splits: {why}",
            path.display()
        )),
        Opened::Whole(run) if run.source().ranges()?.is_empty() => {
            notes.push(format!(
                "{}: no step is recorded with its tensors",
                path.display()
            ));
        }
        Opened::Whole(run) => {
            let device = context::device(&args.model.device)?;
            let kind = run.engine_kind(args.model.engine.map(Into::into), &device)?;
            let dtype = args.model.precision.dtype().unwrap_or(run.dtype());
            let mut engine = run.engine(Some(kind), Some(dtype), device)?;
            let points = [QueryPoint::Final, QueryPoint::default()];
            found = watched_as("measuring", "examples", args.json, LEFT, |observer| {
                losses(run, engine.as_mut(), &points, observer)
            })
            .map_err(|error| diverged::explained(run, error))?;
            if let Some(asked) = HeldOut::bounded(run.data()) {
                watched_as("measuring", "examples", args.json, LEFT, |observer| {
                    asked.measure(&mut history, run, engine.as_mut(), observer)
                })?;
            }
        }
    }
    for problem in &history.damage {
        say!(
            "warning: {}: {}; `hindcast verify` checks everything",
            field(path.display()),
            field(problem)
        );
    }
    Ok(Side {
        run: path.display().to_string(),
        digest: trace
            .head_digest()
            .map(|d| hindcast_format::hex(&d))
            .unwrap_or_default(),
        summary: Summary::of(&history),
        curve: LossCurve::of(&history),
        held_out: history.held_out,
        losses: found,
        damage: history.damage,
    })
}

fn draw(found: &Found<'_>, picture: &Path) -> anyhow::Result<()> {
    let curves = found.sides.each_ref().map(|side| ComparedCurve {
        run: &side.run,
        curve: &side.curve,
        split: side.held_out.map(|measured| measured.split.name()),
    });
    let empty =
        |of: &ComparedCurve<'_>| of.curve.stretches.is_empty() && of.curve.held_out.is_empty();
    if curves.iter().all(empty) {
        anyhow::bail!(
            "cannot draw {}: neither run records finite losses, and no held-out losses were measured (they need --data)",
            picture.display()
        );
    }
    compared_plot(&curves).save(FIGURE_SIZE, picture)
}
