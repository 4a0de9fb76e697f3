//! `hindcast predict`: the predictions of a recorded model for the examples of a split.

mod print;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hindcast_model::data::NewRows;
use hindcast_model::objective::Split;
use serde::Serialize;

use super::asked::{check_output, parse_split};
use super::diverged;
use super::walking::watched_as;
use crate::args::{ModelArgs, Predict};
use crate::commands::context::{self, Models};
use crate::commands::{Outcome, Usage, next};
use crate::terminal::{self, field, say};
use hindcast_analyzer::output::{self, Kind};
use hindcast_analyzer::predictions::{
    Confusion, Prediction, PredictionRow, Predictions, predict_rows, predict_split, write,
};
use hindcast_analyzer::{RecordedRun, ReplayEngine};

pub(crate) fn run(args: &Predict, models: &Models) -> anyhow::Result<Outcome> {
    let split = match args.rows.as_slice() {
        [] => parse_split("--split", &args.split)?,
        _ => Split::Test,
    };
    if let Some(out) = &args.out {
        check_output(out)?;
        let names = ("the names (--names)", args.names.names.as_deref());
        output::apart(out, &[names])
            .and_then(|()| output::try_folder(out, Kind::Predictions))
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    let memory = context::memory(args.model.memory.as_deref())?;
    let names = context::names(&args.names)?;
    let run = models.open(&args.run, args.own.given(args.data.as_deref()), memory)?;
    context::warn_or_refuse_run(&run, &args.run)?;
    let begun = Instant::now();
    let new = new_rows(args, models, &run)?;
    let data = new.as_ref().map_or(run.data(), |new| new.data.as_ref());
    let names = names.map(|names| match &new {
        Some(new) => names.of_new_rows(new),
        None => names.of_split(data, split),
    });
    let names = names.transpose()?;
    let mut engine = engine(&run, &args.model)?;
    let found = watched_as(
        "predicting",
        "examples",
        args.json,
        "nothing was written",
        |observer| match &new {
            Some(new) => predict_rows(&run, engine.as_mut(), &args.at, new, observer),
            None => predict_split(&run, engine.as_mut(), &args.at, split, observer),
        },
    )
    .map_err(|e| diverged::explained(&run, e))?;
    if let (true, Some(why)) = (args.wrong, without_labels(&found)) {
        return Err(Usage(format!("--wrong: {why}: leave it out")).into());
    }
    let chosen = if args.wrong {
        worst(&found)
    } else {
        found.rows.iter().collect()
    };
    let row = |p: &Prediction| {
        let row = match &new {
            Some(new) => PredictionRow::of_new(p, new),
            None => PredictionRow::of(p, split, data),
        };
        let at = usize::try_from(p.index).ok();
        let name = names.as_ref().and_then(|names| names.get(at?).cloned());
        PredictionRow { name, ..row }
    };
    let rows: Vec<PredictionRow> = chosen.into_iter().map(row).collect();
    if let Some(out) = &args.out {
        write(&rows, &run, out).with_context(|| format!("cannot write {}", out.display()))?;
    }
    let shown = Shown {
        args,
        run: &run,
        new: new.as_ref(),
        confusion: Confusion::of(&found, data),
        found: &found,
        rows: &rows,
        took: begun.elapsed(),
    };
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &shown.report()?)?;
        writeln!(out)?;
    } else {
        shown.print(&mut out)?;
        if args.rows.is_empty() {
            shown.tell_next(models);
        }
    }
    Ok(Outcome::Fine)
}

/// The rows of `--rows`.
fn new_rows(
    args: &Predict,
    models: &Models,
    run: &RecordedRun<'_>,
) -> anyhow::Result<Option<NewRows>> {
    let [first, ..] = args.rows.as_slice() else {
        return Ok(None);
    };
    if matches!(models, Models::Own(_)) {
        return Err(Usage(
            "--rows is for runs of tasks; this program loads its own data, so give it the rows there, as those of a split"
                .into(),
        )
        .into());
    }
    if let Some(path) = args.rows.iter().find(|path| !path.exists()) {
        return Err(Usage(format!(
            "--rows {}: there is no such file or folder",
            path.display()
        ))
        .into());
    }
    let given = args.own.given(args.data.as_deref());
    let new = run
        .new_rows(&args.run, given, &args.rows)
        .context("--rows")?;
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    let described = new.data.describe();
    for note in described.lines().filter(|l| l.contains(&*name)) {
        if let Some(note) = note.strip_prefix("note: ") {
            say!("{}", field(note));
        }
    }
    Ok(Some(new))
}

/// The engine that runs the model.
fn engine(run: &RecordedRun<'_>, args: &ModelArgs) -> anyhow::Result<Box<dyn ReplayEngine>> {
    let device = context::device(&args.device)?;
    let kind = run.engine_kind(args.engine.map(Into::into), &device)?;
    let dtype = args.precision.dtype().unwrap_or(run.dtype());
    Ok(run.engine(Some(kind), Some(dtype), device)?)
}

/// Why no prediction can be compared with a label. `None` if all can.
pub(super) fn without_labels(found: &Predictions) -> Option<String> {
    match found.untold {
        Some(why) => Some(why.to_string()),
        None => (!found.labelled).then(|| "the rows have no labels".to_owned()),
    }
}

/// The wrong predictions, the most confident first. Of a model that predicts numbers all, the farthest from its label first.
pub(super) fn worst(found: &Predictions) -> Vec<&Prediction> {
    if found.errors().is_some() {
        found.wrong()
    } else {
        found.farthest()
    }
}

/// The results to print.
struct Shown<'a> {
    args: &'a Predict,
    run: &'a RecordedRun<'a>,
    new: Option<&'a NewRows>,
    found: &'a Predictions,
    confusion: Option<Confusion>,
    rows: &'a [PredictionRow],
    took: Duration,
}

/// The JSON that `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    run: String,
    run_digest: String,
    /// `None` with --rows.
    split: Option<&'static str>,
    /// The files of --rows.
    rows: Option<Vec<String>>,
    /// Whether the rows have labels.
    labelled: bool,
    at: &'a str,
    examples: usize,
    mean_loss: Option<f64>,
    /// `None` unless the model is a classifier, as the next three.
    wrong: Option<usize>,
    error: Option<f64>,
    accuracy: Option<f64>,
    #[serde(flatten)]
    confusion: Matrix<'a>,
    /// `None` unless the model predicts numbers.
    root_mean_square: Option<f64>,
    /// Mean and standard deviation by which the target is standardised; `None` if it isn't.
    target_scale: Option<Scale<'a>>,
    /// Why there are no predictions.
    no_predictions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    most_confident: Option<&'a [PredictionRow]>,
    table: Option<String>,
    seconds: f64,
}

#[derive(Serialize)]
struct Scale<'a> {
    mean: &'a [f64],
    sd: &'a [f64],
}

#[derive(Serialize)]
struct Matrix<'a> {
    classes: Option<&'a [String]>,
    confusion: Option<&'a [Vec<u64>]>,
}

impl Shown<'_> {
    /// The files of the new rows.
    fn files(&self) -> Vec<String> {
        let paths = self.args.rows.iter();
        paths.map(|path| path.display().to_string()).collect()
    }

    /// The predictions to print.
    fn wrong(&self) -> &[PredictionRow] {
        let shown = self.rows.len().min(self.args.top);
        &self.rows[..shown]
    }

    /// Prints the command that usually follows.
    fn tell_next(&self, models: &Models) {
        let args = self.args;
        let of = |verb| {
            let labels = args.own.labels.as_deref();
            next::words(models, verb, &args.run, args.data.as_deref(), labels)
        };
        match self.found.errors() {
            Some(wrong) if wrong > 0 => next::tell(
                of("explain").option("--wrong", self.found.split.name()),
                "which training examples made it err",
            ),
            _ => next::tell(
                of("influence").option("--out", "scores.csv"),
                "which training examples harm and help",
            ),
        }
    }

    fn report(&self) -> anyhow::Result<Report<'_>> {
        let found = self.found;
        let (wrong, error) = (found.errors(), found.error_share());
        Ok(Report {
            run: self.args.run.display().to_string(),
            run_digest: self.run.head(),
            split: self.new.is_none().then_some(found.split.name()),
            rows: self.new.map(|_| self.files()),
            labelled: found.labelled,
            at: &found.at,
            examples: found.rows.len(),
            mean_loss: found.labelled.then(|| found.mean_loss()),
            wrong,
            error,
            accuracy: error.map(|error| 1.0 - error),
            confusion: Matrix {
                classes: self.confusion.as_ref().map(|c| c.classes.as_slice()),
                confusion: self.confusion.as_ref().map(|c| c.counts.as_slice()),
            },
            root_mean_square: found.root_mean_square(),
            target_scale: self.run.data().target_scale().map(|scale| Scale {
                mean: &scale.mean,
                sd: &scale.sd,
            }),
            no_predictions: found.untold.map(|why| why.to_string()),
            most_confident: self.args.wrong.then(|| self.wrong()),
            table: self.args.out.as_ref().map(|out| out.display().to_string()),
            seconds: self.took.as_secs_f64(),
        })
    }
}
