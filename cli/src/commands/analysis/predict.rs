//! `hindcast predict`: the predictions of a recorded model for the examples of a split.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hindcast_model::data::DataSet;
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
use hindcast_analyzer::predictions::{Confusion, PredictionRow, Predictions, predict_split, write};
use hindcast_analyzer::{RecordedRun, ReplayEngine};

/// How many of the most frequent mistakes are printed.
const MISTAKES: usize = 5;

pub(crate) fn run(args: &Predict, models: &Models) -> anyhow::Result<Outcome> {
    let split = parse_split("--split", &args.split)?;
    if let Some(out) = &args.out {
        check_output(out)?;
        output::try_folder(out, Kind::Predictions)
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    let memory = context::memory(args.model.memory.as_deref())?;
    let run = models.open(&args.run, args.own.given(args.data.as_deref()), memory)?;
    context::warn_or_refuse_run(&run, &args.run)?;
    let begun = Instant::now();
    let mut engine = engine(&run, &args.model)?;
    let found = watched_as(
        "predicting",
        "examples",
        args.json,
        "nothing was written",
        |observer| predict_split(&run, engine.as_mut(), &args.at, split, observer),
    )
    .map_err(|e| diverged::explained(&run, e))?;
    if let (true, Some(why)) = (args.wrong, told_no_class(&found)) {
        return Err(Usage(format!("--wrong: {why}: leave it out")).into());
    }
    let rows = if args.wrong {
        let wrong = found.wrong().into_iter();
        wrong
            .map(|p| PredictionRow::of(p, split, run.data()))
            .collect()
    } else {
        found.table(run.data())
    };
    if let Some(out) = &args.out {
        write(&rows, &run, out).with_context(|| format!("cannot write {}", out.display()))?;
    }
    let shown = Shown {
        args,
        run: &run,
        confusion: Confusion::of(&found, run.data()),
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
    split: &'static str,
    at: &'a str,
    examples: usize,
    mean_loss: f64,
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
    /// The wrong predictions to print.
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
            split: found.split.name(),
            at: &found.at,
            examples: found.rows.len(),
            mean_loss: found.mean_loss(),
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
        write!(
            out,
            "{n} {} examples {}: ",
            found.split.name(),
            at_model_of(self.run, &found.at, steps)
        )?;
        if let Some(wrong) = found.errors() {
            let right = 100.0 * (n - wrong) as f64 / n as f64;
            write!(out, "{right:.2} % right, {wrong} wrong; ")?;
        }
        write!(out, "mean loss {:.6}", found.mean_loss())?;
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
            wrong_ones(out, self.wrong(), self.found, self.run.data())?;
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

fn wrong_ones(
    out: &mut dyn Write,
    rows: &[PredictionRow],
    found: &Predictions,
    data: &dyn DataSet,
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
        let text = text_of(data, found.split, row.index);
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
            row.loss,
            text.map_or_else(String::new, |text| format!("  {}", short(&text)))
        )?;
    }
    Ok(())
}
