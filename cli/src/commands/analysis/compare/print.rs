//! Prints a comparison for people.

use std::io::{self, Write};

use super::cause::sentence;
use super::found::{Found, Side};
use crate::terminal::field;
use crate::words::{counted, decimal, steps};
use hindcast_analyzer::comparison::{
    BatchDifference, Distance, Incomparable, ModelLoss, ValueDifference, paired_epochs,
};
use hindcast_analyzer::curves::EpochSummary;

/// Number of settings and of epochs that are printed; `--json` has all.
const SETTINGS: usize = 40;
const EPOCHS: usize = 20;

pub(super) fn print(out: &mut dyn Write, found: &Found<'_>) -> io::Result<()> {
    let [a, b] = &found.sides;
    for (name, side) in [("A", a), ("B", b)] {
        writeln!(
            out,
            "{name}: {}, {} in {}",
            field(&side.run),
            counted(side.summary.rows as u64, "step", "steps"),
            steps(&side.summary.steps)
        )?;
    }
    settings(out, found)?;
    parting(out, found)?;
    distances(out, &found.distances)?;
    epochs(out, a, b)?;
    losses(out, a, b)?;
    for note in &found.notes {
        writeln!(out, "{}", field(note))?;
    }
    if let Some(picture) = found.picture {
        writeln!(out, "{}", field(picture.display()))?;
    }
    Ok(())
}

fn settings(out: &mut dyn Write, found: &Found<'_>) -> io::Result<()> {
    if found.settings.is_empty() {
        return writeln!(out, "\nno setting differs");
    }
    writeln!(out, "\nsettings that differ (A, B):")?;
    let unset = "(not set)".to_owned();
    let shown = |value: &Option<String>| field(value.as_ref().unwrap_or(&unset)).to_string();
    for difference in found.settings.iter().take(SETTINGS) {
        writeln!(
            out,
            "  {:<28} {}, {}",
            field(&difference.setting),
            shown(&difference.first),
            shown(&difference.second)
        )?;
    }
    match found.settings.len().saturating_sub(SETTINGS) {
        0 => Ok(()),
        more => writeln!(out, "  … and {more} more"),
    }
}

fn parting(out: &mut dyn Write, found: &Found<'_>) -> io::Result<()> {
    let parting = &found.parting;
    writeln!(out)?;
    if found.same_data == Some(false) {
        writeln!(
            out,
            "the runs were trained on different data: the fingerprints of their training examples differ"
        )?;
    }
    writeln!(out, "{}", sentence(found))?;
    if parting.compared > 0 {
        let same = format!(
            "the same in all {}",
            counted(parting.compared, "common step", "common steps")
        );
        let batch = parting.batch.as_ref().map_or(same.clone(), batches);
        let value = |found: Option<ValueDifference>| found.map_or(same.clone(), values);
        writeln!(out, "  batches         {batch}")?;
        writeln!(out, "  learning rates  {}", value(parting.learning_rate))?;
        writeln!(out, "  losses          {}", value(parting.loss))?;
    }
    let models = match (parting.incomparable, &parting.parameters) {
        (Some(Incomparable::OtherTensors), _) => {
            "not compared: their names or shapes differ".to_owned()
        }
        (Some(Incomparable::NoCommonStep), _) => {
            "not compared: no step is recorded with its tensors in both".to_owned()
        }
        (None, Some(distance)) => format!("before step {}: {}", distance.step, apart(distance)),
        (None, None) => format!(
            "the same, bit for bit, in all {}",
            counted(parting.models, "common model", "common models")
        ),
    };
    writeln!(out, "  parameters      {models}")
}

fn batches(found: &BatchDifference) -> String {
    let what = if found.same_order {
        "the same examples with other weights or micro-batches".to_owned()
    } else if found.only_first == 0 && found.only_second == 0 {
        "the same examples in another order".to_owned()
    } else {
        format!(
            "{} of A's {} examples aren't in B's batch, and {} of B's {} not in A's",
            found.only_first, found.examples[0], found.only_second, found.examples[1]
        )
    };
    format!("first differ at step {}: {what}", found.step)
}

fn values(found: ValueDifference) -> String {
    let shown = |x: Option<f64>| x.map_or("none".to_owned(), |x| format!("{x:?}"));
    format!(
        "first differ at step {}: {}, {}",
        found.step,
        shown(found.first),
        shown(found.second)
    )
}

fn apart(distance: &Distance) -> String {
    let number = |x: Option<f64>| x.map_or("not finite".to_owned(), |x| format!("{x:.3e}"));
    format!(
        "{} of {} values differ; norm of the difference {}, {} of A's norm; most in {}",
        distance.different,
        distance.values,
        number(distance.norm),
        number(distance.relative),
        field(distance.tensor.as_deref().unwrap_or("none"))
    )
}

fn distances(out: &mut dyn Write, distances: &[Distance]) -> io::Result<()> {
    if distances.iter().all(|d| d.different == 0) {
        return Ok(());
    }
    writeln!(
        out,
        "\ndistance of the models (before the step, or at the end):"
    )?;
    writeln!(
        out,
        "{:>8} {:>12} {:>12} {:>12}  most in",
        "step", "differ", "norm", "of A's norm"
    )?;
    let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.3e}"));
    for d in distances {
        writeln!(
            out,
            "{:>8} {:>12} {:>12} {:>12}  {}",
            d.step,
            d.different,
            number(d.norm),
            number(d.relative),
            field(d.tensor.as_deref().unwrap_or("-"))
        )?;
    }
    Ok(())
}

/// The epochs of both runs, by their numbers.
fn epochs(out: &mut dyn Write, a: &Side, b: &Side) -> io::Result<()> {
    let pairs = paired_epochs(&a.summary.epochs, &b.summary.epochs);
    let any = |value: fn(&EpochSummary) -> Option<f64>| {
        let mut all = pairs.iter().flat_map(|pair| pair.of).flatten();
        all.any(|epoch| value(epoch).is_some())
    };
    if !any(|e| e.mean_loss) && !any(|e| e.held_out_loss) {
        return Ok(());
    }
    // A column for each run that was measured: the examples of two runs may be of different splits.
    let measured: Vec<(usize, String)> = [("A", a), ("B", b)]
        .into_iter()
        .enumerate()
        .filter_map(|(at, (run, side))| {
            Some((at, format!("{} {run}", side.held_out?.split.name())))
        })
        .collect();
    write!(out, "\n{:>6} {:>12} {:>12}", "epoch", "loss A", "loss B")?;
    for (_, head) in &measured {
        write!(out, " {head:>14}")?;
    }
    writeln!(out)?;
    let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| decimal(x, 6));
    let skipped = EPOCHS / 2..pairs.len().saturating_sub(EPOCHS / 2);
    for (row, pair) in pairs.iter().enumerate() {
        if skipped.contains(&row) {
            if row == skipped.start {
                writeln!(out, "     … {} more", skipped.len())?;
            }
            continue;
        }
        write!(out, "{:>6}", pair.epoch)?;
        for epoch in pair.of {
            write!(out, " {:>12}", number(epoch.and_then(|e| e.mean_loss)))?;
        }
        for (at, _) in &measured {
            let loss = pair.of[*at].and_then(|e| e.held_out_loss);
            write!(out, " {:>14}", number(loss))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The losses of the splits at the same kind of model.
fn losses(out: &mut dyn Write, a: &Side, b: &Side) -> io::Result<()> {
    let rows = a.losses.len().max(b.losses.len());
    if rows == 0 {
        return Ok(());
    }
    let shown = |loss: Option<&ModelLoss>| {
        let loss = loss?;
        let value = loss.loss.map_or("not finite".to_owned(), |x| decimal(x, 6));
        let wrong = loss
            .error
            .map_or(String::new(), |x| format!(" ({:.2} % wrong)", 100.0 * x));
        Some(format!("{value}{wrong}"))
    };
    writeln!(out, "\n{:<12} {:<18} {:<26} B", "split", "model", "A")?;
    for first in &a.losses {
        let same = |other: &&ModelLoss| {
            other.split == first.split && (other.at == "final") == (first.at == "final")
        };
        let second = b.losses.iter().find(same);
        let at = match second {
            Some(second) if second.at != first.at => format!("{}, {}", first.at, second.at),
            _ => first.at.clone(),
        };
        writeln!(
            out,
            "{:<12} {at:<18} {:<26} {}",
            first.split,
            shown(Some(first)).unwrap_or_default(),
            shown(second).unwrap_or("-".to_owned())
        )?;
    }
    let unpaired = b.losses.iter().filter(|second| {
        !a.losses.iter().any(|first| {
            first.split == second.split && (first.at == "final") == (second.at == "final")
        })
    });
    for second in unpaired {
        writeln!(
            out,
            "{:<12} {:<18} {:<26} {}",
            second.split,
            second.at,
            "-",
            shown(Some(second)).unwrap_or_default()
        )?;
    }
    Ok(())
}
