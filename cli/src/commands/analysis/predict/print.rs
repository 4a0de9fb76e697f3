//! What `predict` prints.

use std::io::Write;

use super::super::asked::at_model_of;
use super::super::tables::short;
use super::Shown;
use crate::row_values::shown;
use crate::terminal::{field, say};
use crate::words;
use hindcast_analyzer::predictions::{Confusion, PredictionRow};

/// How many of the most frequent mistakes are printed.
const MISTAKES: usize = 5;

impl Shown<'_> {
    pub(super) fn print(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let (found, n) = (self.found, self.found.rows.len());
        let steps = self.run.source().end()?.step;
        let model = at_model_of(self.run, &found.at, steps);
        match self.new {
            Some(_) => write!(
                out,
                "{} of {} {model}: ",
                words::counted(n as u64, "row", "rows"),
                field(self.files().join(" and "))
            )?,
            None => write!(
                out,
                "{n} {} {} {model}: ",
                found.split.name(),
                words::plural(n as u64, "example", "examples")
            )?,
        }
        if let Some(wrong) = found.errors() {
            let right = 100.0 * (n - wrong) as f64 / n as f64;
            write!(out, "{right:.2} % right, {wrong} wrong; ")?;
        }
        if found.labelled {
            write!(out, "mean loss {}", words::decimal(found.mean_loss(), 6))?;
            if self.run.data().target_scale().is_some() {
                write!(out, " of the standardised target")?;
            }
        } else {
            write!(out, "no labels")?;
        }
        if let Some(far) = found.root_mean_square() {
            write!(out, "; root mean square error {}", words::decimal(far, 6))?;
        }
        writeln!(out)?;
        if let Some(why) = found.untold {
            writeln!(out, "no predictions: {why}")?;
        }
        if let Some(confusion) = &self.confusion {
            mistakes(out, confusion)?;
        }
        if self.args.wrong {
            let title = match self.found.errors() {
                Some(_) => "wrong, the most confident first:",
                None => "farthest from the label, the largest loss first:",
            };
            wrong_ones(out, title, self.wrong(), &|row| self.after(row))?;
            if let (Some(row), None) = (self.wrong().first(), self.new) {
                say!(
                    "the first of them is named {}:{}, by its index; rows count from 0, without a header",
                    found.split.name(),
                    row.index
                );
            }
        } else if self.new.is_some() && self.found.untold.is_none() {
            first_ones(out, self.wrong(), &|row| self.after(row))?;
        }
        if let Some(path) = &self.args.out {
            writeln!(
                out,
                "{} ({})",
                field(path.display()),
                words::counted(self.rows.len() as u64, "row", "rows")
            )?;
        }
        let classes = self.run.data().class_count().unwrap_or(0);
        let guess = (classes.max(1) as f64).ln();
        // The loss of a task on classes is the cross-entropy. That of an own model may be another.
        let is_cross_entropy = self.run.task().is_some() && found.errors().is_some();
        if is_cross_entropy && found.mean_loss() > guess {
            say!(
                "warning: the loss is above {}, that of equal probabilities for all {classes} classes: the model is sure of wrong predictions, so \
                 answers about it say little. Fewer epochs, a lower learning rate or another model may help",
                words::decimal(guess, 4)
            );
        }
        if found.at.starts_with("mean:") {
            say!("predicted {}", words::at_model_in_words(&found.at));
        }
        say!("took {}", words::duration(self.took));
        Ok(())
    }

    /// The name of a row's example, or else its cells or its text, as the last cell of the printed row.
    fn after(&self, row: &PredictionRow) -> String {
        let data = self.new.map_or(self.run.data(), |new| new.data.as_ref());
        let index = match self.new {
            Some(new) => {
                let at = usize::try_from(row.index).ok();
                at.and_then(|at| new.examples.get(at).copied())
            }
            None => Some(row.index),
        };
        let content = || Some(shown(data, self.found.split, index?)?.1);
        let last = row.name.clone().or_else(content);
        last.map_or_else(String::new, |last| format!("  {}", short(&last)))
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
fn first_ones(
    out: &mut dyn Write,
    rows: &[PredictionRow],
    after: &dyn Fn(&PredictionRow) -> String,
) -> std::io::Result<()> {
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
        let line = format!("{line}{}{}", file(row), after(row));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn wrong_ones(
    out: &mut dyn Write,
    title: &str,
    rows: &[PredictionRow],
    after: &dyn Fn(&PredictionRow) -> String,
) -> std::io::Result<()> {
    let widest = |of: fn(&PredictionRow) -> &str, least: usize| {
        let widths = rows.iter().map(|row| field(of(row)).width());
        widths.max().unwrap_or(0).max(least)
    };
    let file = widest(|row| &row.file, "file".len());
    let (label, predicted) = (widest(|row| &row.label, 9), widest(|row| &row.predicted, 9));
    writeln!(out, "{title}")?;
    writeln!(
        out,
        "{:>6} {:>8} {:<file$} {:<label$} {:<predicted$} {:>11} {:>11} {:>10}",
        "index", "row", "file", "label", "predicted", "probability", "of label", "loss"
    )?;
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| format!("{x:.4}"));
    for row in rows {
        writeln!(
            out,
            "{:>6} {:>8} {:<file$} {:<label$} {:<predicted$} {:>11} {:>11} {:>10}{}",
            row.index,
            row.row,
            field(&row.file),
            field(&row.label),
            field(&row.predicted),
            number(row.probability),
            number(row.label_probability),
            words::decimal(row.loss.unwrap_or(f64::NAN), 4),
            after(row)
        )?;
    }
    Ok(())
}
