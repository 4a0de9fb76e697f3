//! Prints a history for people.

use std::io::{self, Write};

use super::shown::Shown;
use crate::terminal::{field, say};
use crate::words::{counted, decimal, steps};
use hindcast_analyzer::curves::{EpochSummary, Point};

/// Number of epochs that are printed at the beginning and at the end.
const EPOCHS: usize = 10;

pub(super) fn print(out: &mut dyn Write, shown: &Shown<'_>) -> io::Result<()> {
    let summary = &shown.summary;
    writeln!(
        out,
        "steps {}: {} in {}",
        steps(&summary.steps),
        counted(summary.rows as u64, "step", "steps"),
        counted(summary.epochs.len() as u64, "epoch", "epochs")
    )?;
    losses(out, shown)?;
    epochs(out, &summary.epochs)?;
    if let Some(measured) = shown.history.held_out {
        writeln!(
            out,
            "{} loss of {} of {} examples at {} of the run",
            measured.split.name(),
            measured.examples,
            measured.of,
            counted(shown.curve.held_out.len() as u64, "point", "points")
        )?;
    }
    for note in &shown.notes {
        writeln!(out, "{}", field(note))?;
    }
    let new = |problem: &&String| !shown.warned.contains(problem);
    for problem in shown.history.damage.iter().filter(new) {
        say!(
            "warning: {}; `hindcast verify` checks everything",
            field(problem)
        );
    }
    if shown.history.lost > 0 {
        writeln!(
            out,
            "{} can't be read",
            counted(shown.history.lost, "step", "steps")
        )?;
    }
    if let Some(path) = &shown.written.table {
        let rows = counted(summary.rows as u64, "row", "rows");
        writeln!(out, "{} ({rows})", field(path.display()))?;
    }
    if let Some(path) = &shown.written.events {
        writeln!(out, "{}", field(path.display()))?;
    }
    if let Some(path) = &shown.written.picture {
        writeln!(out, "{}", field(path.display()))?;
    }
    Ok(())
}

fn losses(out: &mut dyn Write, shown: &Shown<'_>) -> io::Result<()> {
    let losses = &shown.summary.losses;
    let point = |p: Option<Point>| {
        p.map_or("none".to_owned(), |p| {
            format!("{} (step {})", decimal(p.loss, 6), p.step)
        })
    };
    if losses.known == 0 {
        return writeln!(out, "no losses were recorded");
    }
    writeln!(
        out,
        "batch loss: first {}, last {}, smallest {}",
        point(losses.first),
        point(losses.last),
        point(losses.smallest)
    )?;
    if losses.known < shown.summary.rows {
        writeln!(
            out,
            "{} of {} steps have a recorded loss",
            losses.known, shown.summary.rows
        )?;
    }
    if let Some(first) = losses.first_not_finite {
        let n = counted(losses.not_finite as u64, "loss is", "losses are");
        writeln!(out, "{n} not finite, the first at step {first}")?;
    }
    Ok(())
}

/// A column of the table of epochs: its head, and its cell if the epoch has one.
type Column = (&'static str, fn(&EpochSummary) -> Option<String>);

const COLUMNS: [Column; 9] = [
    ("mean loss", |e| e.mean_loss.map(loss)),
    ("smallest", |e| e.smallest_loss.map(loss)),
    ("largest", |e| e.largest_loss.map(loss)),
    ("rate", |e| e.learning_rate.map(short)),
    ("|gradient|", |e| e.gradient_norm.map(short)),
    ("|model|", |e| e.parameter_norm.map(short)),
    ("|update|", |e| e.update_norm.map(short)),
    ("validation", |e| e.held_out_loss.map(loss)),
    ("wrong", |e| {
        e.held_out_error.map(|x| format!("{:.2} %", 100.0 * x))
    }),
];

fn loss(x: f64) -> String {
    decimal(x, 6)
}

fn short(x: f64) -> String {
    format!("{x:.3e}")
}

/// Prints the first and the last epochs, in the columns that have a value.
fn epochs(out: &mut dyn Write, epochs: &[EpochSummary]) -> io::Result<()> {
    let filled = |column: &&Column| epochs.iter().any(|e| (column.1)(e).is_some());
    let columns: Vec<&Column> = COLUMNS.iter().filter(filled).collect();
    if columns.is_empty() {
        return Ok(());
    }
    write!(out, "{:>6} {:>15}", "epoch", "steps")?;
    for (head, _) in &columns {
        write!(out, " {head:>11}")?;
    }
    writeln!(out)?;
    let skipped = EPOCHS..epochs.len().saturating_sub(EPOCHS);
    for (at, epoch) in epochs.iter().enumerate() {
        if skipped.contains(&at) {
            if at == skipped.start {
                writeln!(out, "     … {} more", skipped.len())?;
            }
            continue;
        }
        write!(out, "{:>6} {:>15}", epoch.epoch, steps(&epoch.steps))?;
        for (_, cell) in &columns {
            write!(out, " {:>11}", cell(epoch).unwrap_or("-".to_owned()))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
