//! `hindcast predict`: the predictions of a recorded model for the examples of a split.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hindcast_model::data::NewRows;
use hindcast_model::objective::Split;
use serde::Serialize;

use super::asked::{at_model_of, check_output, parse_split};
use super::diverged;
use super::tables::short;
use super::walking::watched_as;
use crate::args::{ModelArgs, Predict};
use crate::commands::context::{self, Models};
use crate::commands::{Outcome, Usage};
use crate::marked::text_of;
use crate::terminal::{self, field, say};
use crate::words;
use hindcast_analyzer::output::{self, Kind};
use hindcast_analyzer::predictions::{
    Confusion, Prediction, PredictionRow, Predictions, predict_rows, predict_split, write,
};
use hindcast_analyzer::{RecordedRun, ReplayEngine};

/// How many of the most frequent mistakes are printed.
const MISTAKES: usize = 5;

pub(crate) fn run(args: &Predict, models: &Models) -> anyhow::Result<Outcome> {
    let split = match args.rows.as_slice() {
        [] => parse_split("--split", &args.split)?,
        _ => Split::Test,
    };
    if let Some(out) = &args.out {
        check_output(out)?;
        output::try_folder(out, Kind::Predictions)
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    let memory = context::memory(args.model.memory.as_deref())?;
    let run = models.open(&args.run, args.own.given(args.data.as_deref()), memory)?;
    context::warn_or_refuse_run(&run, &args.run)?;
    let begun = Instant::now();
    let new = new_rows(args, models, &run)?;
    let data = new.as_ref().map_or(run.data(), |new| new.data.as_ref());
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
    if let (true, Some(why)) = (args.wrong, told_no_class(&found)) {
        return Err(Usage(format!("--wrong: {why}: leave it out")).into());
    }
    let chosen = if args.wrong {
        found.wrong()
    } else {
        found.rows.iter().collect()
    };
    let row = |p: &Prediction| match &new {
        Some(new) => PredictionRow::of_new(p, new),
        None => PredictionRow::of(p, split, data),
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

/// Why no prediction is right or wrong. `None` for a classifier.
pub(super) fn told_no_class(found: &Predictions) -> Option<String> {
    match (found.errors(), found.untold) {
        (Some(_), _) => None,
        (None, None) if !found.labelled => Some("the rows have no labels".to_owned()),
        (None, Some(why)) => Some(why.to_string()),
        (None, None) => Some(
            "the labels are numbers, so a prediction is near or far but not right or wrong (the table's column loss says how far)"
                .to_owned(),
        ),
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
    /// Why there are no predictions.
    no_predictions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    most_confident: Option<&'a [PredictionRow]>,
    table: Option<String>,
    seconds: f64,
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
            no_predictions: found.untold.map(|why| why.to_string()),
            most_confident: self.args.wrong.then(|| self.wrong()),
            table: self.args.out.as_ref().map(|out| out.display().to_string()),
            seconds: self.took.as_secs_f64(),
        })
    }

    fn print(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let (found, n) = (self.found, self.found.rows.len());
        let steps = self.run.source().end()?.step;
        let model = at_model_of(self.run, &found.at, steps);
        match self.new {
            Some(_) => write!(
                out,
                "{n} rows of {} {model}: ",
                field(self.files().join(" and "))
            )?,
            None => write!(out, "{n} {} examples {model}: ", found.split.name())?,
        }
        if let Some(wrong) = found.errors() {
            let right = 100.0 * (n - wrong) as f64 / n as f64;
            write!(out, "{right:.2} % right, {wrong} wrong; ")?;
        }
        if found.labelled {
            write!(out, "mean loss {:.6}", found.mean_loss())?;
        } else {
            write!(out, "no labels")?;
        }
        if let Some(far) = found.root_mean_square() {
            write!(out, "; root mean square error {far:.6}")?;
        }
        writeln!(out)?;
        if let Some(why) = found.untold {
            writeln!(out, "no predictions: {why}")?;
        }
        if let Some(confusion) = &self.confusion {
            mistakes(out, confusion)?;
        }
        if self.args.wrong {
            let data = self.new.map_or(self.run.data(), |new| new.data.as_ref());
            let of_data = |index: u64| {
                self.new.map_or(Some(index), |new| {
                    new.examples.get(usize::try_from(index).ok()?).copied()
                })
            };
            wrong_ones(out, self.wrong(), &|index| {
                text_of(data, self.found.split, of_data(index)?)
            })?;
        } else if self.new.is_some() && self.found.untold.is_none() {
            first_ones(out, self.wrong())?;
        }
        if let Some(path) = &self.args.out {
            writeln!(out, "{} ({} rows)", field(path.display()), self.rows.len())?;
        }
        say!("took {}", words::duration(self.took));
        Ok(())
    }
}

/// Prints the most frequent mistakes.
fn mistakes(out: &mut dyn Write, confusion: &Confusion) -> std::io::Result<()> {
    let all = confusion.mistakes();
    if all.is_empty() {
        return Ok(());
    }
    let shown = all.iter().take(MISTAKES).map(|(label, predicted, count)| {
        format!("{} as {} ({count})", field(label), field(predicted))
    });
    let words: Vec<String> = shown.collect();
    writeln!(out, "most often wrong: {}", words.join(", "))
}

/// Prints the predictions for the first of the new rows.
fn first_ones(out: &mut dyn Write, rows: &[PredictionRow]) -> std::io::Result<()> {
    // Rows of one file are told by their numbers.
    let filed = rows.iter().any(|row| row.file != rows[0].file);
    let file = |row: &PredictionRow| {
        if filed {
            format!("  {}", field(&row.file))
        } else {
            String::new()
        }
    };
    let widths = rows.iter().map(|row| field(&row.predicted).width());
    let predicted = widths.max().unwrap_or(0).max("predicted".len());
    writeln!(
        out,
        "{:>8} {:<predicted$} {:>11}",
        "row", "predicted", "probability"
    )?;
    for row in rows {
        let sure = row
            .probability
            .map_or_else(String::new, |p| format!("{p:.4}"));
        let line = format!(
            "{:>8} {:<predicted$} {sure:>11}",
            row.row,
            field(&row.predicted)
        );
        writeln!(out, "{}", format!("{line}{}", file(row)).trim_end())?;
    }
    Ok(())
}

fn wrong_ones(
    out: &mut dyn Write,
    rows: &[PredictionRow],
    text: &dyn Fn(u64) -> Option<String>,
) -> std::io::Result<()> {
    let widest = |of: fn(&PredictionRow) -> &str, least: usize| {
        let widths = rows.iter().map(|row| field(of(row)).width());
        widths.max().unwrap_or(0).max(least)
    };
    let file = widest(|row| &row.file, "file".len());
    let (label, predicted) = (widest(|row| &row.label, 9), widest(|row| &row.predicted, 9));
    writeln!(out, "wrong, the most confident first:")?;
    writeln!(
        out,
        "{:>6} {:>8} {:<file$} {:<label$} {:<predicted$} {:>11} {:>11} {:>10}",
        "index", "row", "file", "label", "predicted", "probability", "of label", "loss"
    )?;
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| format!("{x:.4}"));
    for row in rows {
        let text = text(row.index);
        writeln!(
            out,
            "{:>6} {:>8} {:<file$} {:<label$} {:<predicted$} {:>11} {:>11} {:>10.4}{}",
            row.index,
            row.row,
            field(&row.file),
            field(&row.label),
            field(&row.predicted),
            number(row.probability),
            number(row.label_probability),
            row.loss.unwrap_or(f64::NAN),
            text.map_or_else(String::new, |text| format!("  {}", short(&text)))
        )?;
    }
    Ok(())
}
