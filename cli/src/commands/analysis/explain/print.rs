//! Prints explanations as text.

use std::io::{self, Write};
use std::ops::Range;

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use super::found::{Explained, Found};
use super::picture::PER_SIDE;
use crate::commands::analysis::asked::at_model_of;
use crate::commands::analysis::tables::{file_width, planted, short};
use crate::marked::text_of;
use crate::row_values::{RowValues, shown};
use crate::terminal::field;
use crate::words::{counted, decimal, duration, steps};
use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::scores::Side;

/// How many training examples per side the first answer shows.
const FIRST: usize = 3;

/// Prints the answer from the last epoch, which a complete one follows.
pub(super) fn first(
    out: &mut dyn Write,
    found: &Found<'_>,
    last: &Range<u64>,
) -> anyhow::Result<()> {
    writeln!(
        out,
        "first answer, from the last epoch (steps {}), after {}; it counts what these steps did, and the complete answer follows:",
        steps(last),
        duration(found.took)
    )?;
    for one in found.explained(FIRST.min(found.args.top)) {
        title(out, &one)?;
        sides(out, &one, found.run.data())?;
    }
    out.flush()?;
    Ok(())
}

/// Prints the complete answer.
pub(super) fn all(out: &mut dyn Write, found: &Found<'_>) -> anyhow::Result<()> {
    let meta = &found.table.metadata;
    writeln!(
        out,
        "explained {}; window {} of {}",
        at_model_of(found.run, meta.point(), meta.run_steps),
        steps(&meta.window),
        counted(meta.run_steps, "step", "steps")
    )?;
    let explained = found.explained(found.args.top);
    for one in &explained {
        title(out, one)?;
        content(out, one, found.run.data())?;
        sides(out, one, found.run.data())?;
        too_large(out, one)?;
    }
    // Most queries of one sweep have the same verdict.
    let mut told: Vec<String> = Vec::new();
    for one in &explained {
        let mut text = Vec::new();
        one.verdict.print(&mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if !told.contains(&text) {
            told.push(text);
        }
    }
    for text in told {
        write!(out, "{text}")?;
    }
    for note in &meta.notes {
        writeln!(out, "{}", field(note))?;
    }
    if let Some(path) = &found.args.out {
        writeln!(
            out,
            "{} ({}, with {})",
            field(path.display()),
            counted(found.table.rows.len() as u64, "row", "rows"),
            field(sidecar_path(path).display())
        )?;
    }
    if let Some(path) = &found.args.picture {
        let rest = if found.args.top > PER_SIDE {
            format!(" (the first {PER_SIDE} of each side)")
        } else {
            String::new()
        };
        writeln!(out, "{}{rest}", field(path.display()))?;
    }
    Ok(())
}

/// Prints the example with its label and its prediction.
fn title(out: &mut dyn Write, one: &Explained<'_>) -> io::Result<()> {
    let row = &one.row;
    write!(
        out,
        "\n{} (row {} of {}): label {}",
        field(&one.name),
        row.row,
        field(&row.file),
        short(&row.label)
    )?;
    if !row.predicted.is_empty() {
        write!(out, ", predicted {}", field(&row.predicted))?;
    }
    match (row.probability, row.label_probability) {
        (Some(p), Some(of_label)) if one.wrong == Some(true) => {
            write!(
                out,
                " with probability {p:.4} (the label {of_label:.4}): wrong"
            )?;
        }
        (Some(p), _) => write!(out, " with probability {p:.4}: right")?,
        _ => {}
    }
    writeln!(out, "; loss {}", decimal(row.loss.unwrap_or(f64::NAN), 4))
}

/// Prints the example's text, or the values of its features.
fn content(out: &mut dyn Write, one: &Explained<'_>, data: &dyn DataSet) -> anyhow::Result<()> {
    let index = one.row.index;
    if data.image(one.split, index).is_some() {
        return Ok(());
    }
    let values = RowValues::of(data, one.split, index)?;
    let text = text_of(data, one.split, index);
    match text.filter(|_| !values.from_file) {
        Some(text) => writeln!(out, "  {}", short(&text))?,
        None if values.is_empty() => {}
        None => {
            let named = values.named.iter();
            let words = named.map(|(name, value)| format!("{} {}", field(name), short(value)));
            let words: Vec<String> = words.collect();
            let more = match values.more {
                0 => String::new(),
                more => format!(" … and {more} more"),
            };
            let heading = values.heading().to_lowercase();
            writeln!(out, "  {heading}: {}{more}", words.join(", "))?;
        }
    }
    Ok(())
}

/// Prints both sides. What speaks for a wrong prediction comes first.
fn sides(out: &mut dyn Write, one: &Explained<'_>, data: &dyn DataSet) -> io::Result<()> {
    let away = ("away from the label", "falls", &one.sides.raised);
    let towards = ("towards the label", "rises", &one.sides.lowered);
    let order = if one.wrong == Some(false) {
        [towards, away]
    } else {
        [away, towards]
    };
    for (pushed, then, side) in order {
        heading(out, pushed, then, side)?;
        rows(out, side, data)?;
    }
    Ok(())
}

/// Says so if the loss can't fall by as much as the scores say.
fn too_large(out: &mut dyn Write, one: &Explained<'_>) -> io::Result<()> {
    let Some(loss) = one.row.loss else {
        return Ok(());
    };
    if one.sides.raised.total.abs() <= loss {
        return Ok(());
    }
    writeln!(
        out,
        "the loss is {}, so it can't fall by {:.4e}: don't read these influences as changes, only as an order, and check it by `influence --retrain-check` or compare it with --window last-epoch",
        decimal(loss, 4),
        one.sides.raised.total.abs()
    )
}

fn heading(out: &mut dyn Write, pushed: &str, then: &str, side: &Side<'_>) -> io::Result<()> {
    if side.examples == 0 {
        return writeln!(out, "pushed {pushed}: no training examples");
    }
    let shown = match side.heaviest.len() {
        0 => String::new(),
        n => format!(
            "; the first {n} are {:.1} % of it",
            100.0 * side.share_of_heaviest()
        ),
    };
    writeln!(
        out,
        "pushed {pushed}: {}, together {:+.4e} (the loss {then} without them){shown}",
        counted(
            side.examples as u64,
            "training example",
            "training examples"
        ),
        side.total
    )
}

fn rows(out: &mut dyn Write, side: &Side<'_>, data: &dyn DataSet) -> io::Result<()> {
    if side.heaviest.is_empty() {
        return Ok(());
    }
    let wide = file_width(side.heaviest.iter().map(|one| one.row));
    writeln!(
        out,
        "{:>6} {:>8} {:<wide$} {:<12} {:>5} {:>12} {:>8}",
        "index", "row", "file", "label", "seen", "influence", "share"
    )?;
    for one in &side.heaviest {
        let row = one.row;
        let content = || Some(shown(data, Split::Train, row.index)?.1);
        let last = row.name.clone().or_else(content);
        writeln!(
            out,
            "{:>6} {:>8} {:<wide$} {:<12} {:>5} {:>+12.4e} {:>6.1} %{}{}",
            row.index,
            row.row,
            field(&row.file),
            field(&row.label),
            row.occurrences,
            one.influence,
            100.0 * one.share,
            last.map_or_else(String::new, |last| format!("  {}", short(&last))),
            planted(data, row.index)
        )?;
    }
    Ok(())
}
