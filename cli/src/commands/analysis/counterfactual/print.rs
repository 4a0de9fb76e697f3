//! Prints the results of retraining.

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;

use super::scan;
use super::scan::ScanRow;
use crate::args::Counterfactual;
use crate::commands::analysis::retraining::reproduced;
use crate::terminal::field;
use crate::verdict::{Printed, Verdict};
use crate::words::{at_model, counted, decimal};
use hindcast_analyzer::CounterfactualReport;
use hindcast_analyzer::counterfactual::{EndValues, RemovalResult, SplitLoss};
use hindcast_analyzer::measures::kendall_tau;

/// How the sets are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinds {
    /// One set.
    One,
    /// One set for each example.
    Each,
    /// Sets of increasing size, each with the examples of the set before it.
    Scan,
}

impl Kinds {
    pub fn of(args: &Counterfactual) -> Kinds {
        match (args.each, &args.scan) {
            (true, _) => Kinds::Each,
            (false, Some(_)) => Kinds::Scan,
            (false, None) => Kinds::One,
        }
    }
}

/// What is printed.
pub(super) struct Found<'a> {
    pub query: String,
    /// Whether the query is a loss, which is better if it is lower.
    pub loss: bool,
    pub report: &'a CounterfactualReport,
    /// One entry per set that was left out.
    pub results: Vec<RemovalResult>,
    /// The part of the real change that is first order in the real change of the parameters; only for one set.
    pub first_order: Option<f64>,
    /// The source of the prediction: a table or a sweep. `None` if nothing predicts the changes.
    pub source: Option<&'static str>,
    /// Reasons to doubt these numbers.
    pub notes: Vec<String>,
    /// How the sets were chosen.
    pub kind: Kinds,
    /// How far the predictions can be trusted, by these retrainings alone. `None` if there are none.
    pub verdict: Option<Verdict>,
    /// The file with the results.
    pub written: Option<&'a Path>,
}

impl Found<'_> {
    /// The query's value after retraining with all examples.
    pub fn value_with_everyone(&self) -> f64 {
        let value = self.report.everyone.queries.first();
        value.copied().unwrap_or(f64::NAN)
    }

    /// The result of the only set, unless each example was left out alone, or sizes are compared.
    fn only(&self) -> Option<&RemovalResult> {
        match self.results.as_slice() {
            [only] if self.kind == Kinds::One => Some(only),
            _ => None,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    query: &'a str,
    at: &'a str,
    window: Range<u64>,
    without: u64,
    value_with_everyone: f64,
    value_without: Option<f64>,
    real_change: Option<f64>,
    predicted_change: Option<f64>,
    first_order_change: Option<f64>,
    predicted_from: Option<&'a str>,
    trust: Option<Printed>,
    notes: &'a [String],
    sets: &'a [RemovalResult],
    scan: Option<Vec<ScanRow<'a>>>,
    retraining: &'a CounterfactualReport,
}

/// Number of examples of a set.
fn sizes(result: &RemovalResult) -> u64 {
    result.without.len() as u64
}

pub(super) fn json(out: &mut dyn Write, found: &Found<'_>) -> anyhow::Result<()> {
    let only = found.only();
    let report = Report {
        query: &found.query,
        at: &found.report.at,
        window: found.report.window.clone(),
        without: match found.kind {
            Kinds::Scan => found.results.iter().map(sizes).max().unwrap_or(0),
            Kinds::One | Kinds::Each => found.results.iter().map(sizes).sum(),
        },
        value_with_everyone: found.value_with_everyone(),
        value_without: only.map(|r| r.value_without),
        real_change: only.map(|r| r.real_change),
        predicted_change: only.and_then(|r| r.predicted_change),
        first_order_change: found.first_order,
        predicted_from: found.source,
        trust: found.verdict.as_ref().map(Verdict::printed),
        notes: &found.notes,
        sets: &found.results,
        scan: (found.kind == Kinds::Scan).then(|| found.results.iter().map(scan::row).collect()),
        retraining: found.report,
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)?;
    Ok(())
}

pub(super) fn text(out: &mut dyn Write, found: &Found<'_>) -> anyhow::Result<()> {
    let (report, source) = (found.report, found.source);
    let query = field(&found.query).to_string();
    match found.only() {
        Some(only) => print(out, found, &query, only)?,
        None if found.kind == Kinds::Scan => {
            scan::print(out, report, &found.results, (&query, found.loss), source)?;
            reproduced(out, report)?;
        }
        None => print_each(out, report, &query, &found.results, source)?,
    }
    for note in &found.notes {
        writeln!(out, "  {note}")?;
    }
    if let Some(verdict) = &found.verdict {
        verdict.print(out)?;
    }
    if let Some(path) = found.written {
        writeln!(out, "{}", field(path.display()))?;
    }
    Ok(())
}

fn print(
    out: &mut dyn Write,
    found: &Found<'_>,
    query: &str,
    result: &RemovalResult,
) -> anyhow::Result<()> {
    let (report, source) = (found.report, found.source);
    let n = report.outcomes.first().map_or(0, |o| o.without.len());
    writeln!(
        out,
        "without {} in steps {}..{} ({} removal, {} denominators):",
        counted(n as u64, "example", "examples"),
        report.window.start,
        report.window.end,
        report.removal,
        report.denominators
    )?;
    let value = |o: Option<&hindcast_analyzer::counterfactual::Outcome>| {
        o.and_then(|o| o.queries.first())
            .copied()
            .unwrap_or(f64::NAN)
    };
    let (with, without) = (
        value(Some(&report.everyone)),
        value(report.outcomes.first()),
    );
    writeln!(
        out,
        "  {query} {}: {} with all examples, {} without",
        at_model(&report.at),
        decimal(with, 6),
        decimal(without, 6)
    )?;
    match (result.predicted_change, source) {
        (Some(predicted), Some(source)) => writeln!(
            out,
            "  change: {predicted:+.4e} predicted (by {source}), {:+.4e} real",
            result.real_change
        )?,
        _ => writeln!(out, "  change: {:+.4e} real", result.real_change)?,
    }
    let (better, moved) = direction(found.loss, result.predicted_change, result.real_change);
    writeln!(out, "  {better}{query} {moved}")?;
    if let Some(first_order) = found.first_order {
        writeln!(
            out,
            "  of the real change, {first_order:+.4e} is first order in the real change of the parameters, {:+.4e} is due to the query's curvature",
            result.real_change - first_order
        )?;
    }
    if let Some(outcome) = report.outcomes.first() {
        losses(out, &report.everyone.losses, &outcome.losses)?;
        if let (Some(with), Some(without)) = (&report.everyone.at_end, &outcome.at_end) {
            at_end(out, query, with, without)?;
        }
    }
    reproduced(out, report)?;
    Ok(())
}

/// What a real change does to the query: whether that is better or worse, for a loss, and its direction next to the predicted
/// one.
fn direction(loss: bool, predicted: Option<f64>, real: f64) -> (&'static str, String) {
    let verb = |change: f64| match change {
        c if c > 0.0 => "rises",
        c if c < 0.0 => "falls",
        _ => "stays the same",
    };
    let better = match real {
        r if loss && r > 0.0 => "worse: ",
        r if loss && r < 0.0 => "better: ",
        _ => "",
    };
    let expected = match predicted {
        None => "",
        Some(p) if verb(p) == verb(real) => ", as predicted",
        Some(p) if p > 0.0 => ", where a rise was predicted",
        Some(p) if p < 0.0 => ", where a fall was predicted",
        Some(_) => ", where no change was predicted",
    };
    let moved = format!("{} without these examples{expected}", verb(real));
    (better, moved)
}

/// Prints the change after the last step, for queries that are asked about an average.
fn at_end(
    out: &mut dyn Write,
    query: &str,
    with: &EndValues,
    without: &EndValues,
) -> anyhow::Result<()> {
    let value = |values: &EndValues| values.queries.first().copied().unwrap_or(f64::NAN);
    writeln!(
        out,
        "  after the last step, without averaging: {query} {} -> {} ({:+.4e})",
        decimal(value(with), 6),
        decimal(value(without), 6),
        value(without) - value(with)
    )?;
    losses(out, &with.losses, &without.losses)
}

/// Prints each split's loss and error rate before and after.
fn losses(out: &mut dyn Write, with: &[SplitLoss], without: &[SplitLoss]) -> anyhow::Result<()> {
    for (with, without) in with.iter().zip(without) {
        write!(
            out,
            "  {:<10} loss {} -> {}",
            with.split,
            decimal(with.loss, 4),
            decimal(without.loss, 4)
        )?;
        if let (Some(a), Some(b)) = (with.error_rate, without.error_rate) {
            write!(out, ", error {:.2} % -> {:.2} %", 100.0 * a, 100.0 * b)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Prints one line per retraining, and the agreement of predictions with real changes.
fn print_each(
    out: &mut dyn Write,
    report: &CounterfactualReport,
    query: &str,
    results: &[RemovalResult],
    source: Option<&str>,
) -> anyhow::Result<()> {
    writeln!(
        out,
        "without each of {} alone in steps {}..{} ({} removal, {} denominators); change of {query} {}:",
        counted(results.len() as u64, "example", "examples"),
        report.window.start,
        report.window.end,
        report.removal,
        report.denominators,
        at_model(&report.at)
    )?;
    let files = results
        .iter()
        .flat_map(|r| &r.places)
        .map(|p| field(&p.file).width());
    let wide = files.max().unwrap_or(0).max("file".len());
    write!(out, "{:>8} {:>8} {:<wide$}", "index", "row", "file")?;
    if source.is_some() {
        write!(out, " {:>12}", "predicted")?;
    }
    writeln!(out, " {:>12}", "real")?;
    for result in results {
        let index = result.without.first().copied().unwrap_or_default();
        let (row, file) = result.places.first().map_or((String::new(), ""), |p| {
            (p.row.to_string(), p.file.as_str())
        });
        write!(out, "{index:>8} {row:>8} {:<wide$}", field(file))?;
        if let Some(predicted) = result.predicted_change {
            write!(out, " {predicted:>+12.4e}")?;
        }
        writeln!(out, " {:>+12.4e}", result.real_change)?;
    }
    if let Some(source) = source {
        agreement(out, results, source)?;
    }
    reproduced(out, report)?;
    Ok(())
}

/// Prints the agreement of predictions with real changes.
fn agreement(out: &mut dyn Write, results: &[RemovalResult], source: &str) -> anyhow::Result<()> {
    let of = |f: fn(&RemovalResult) -> f64| results.iter().map(f).collect::<Vec<f64>>();
    let predicted = of(|r| r.predicted_change.unwrap_or(f64::NAN));
    let real = of(|r| r.real_change);
    match kendall_tau(&predicted, &real) {
        Ok(tau) if tau.is_finite() => writeln!(
            out,
            "  Kendall's tau of predicted (by {source}) against real: {tau:.3}"
        )?,
        _ => writeln!(out, "  (too few examples for Kendall's tau)")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::direction;

    #[test]
    fn a_change_that_makes_the_query_worse_is_called_worse() {
        for (loss, predicted, real, said) in [
            (
                true,
                -0.242,
                0.103,
                "worse: rises without these examples, where a fall was predicted",
            ),
            (
                true,
                0.2,
                0.1,
                "worse: rises without these examples, as predicted",
            ),
            (
                true,
                -0.2,
                -0.1,
                "better: falls without these examples, as predicted",
            ),
            (
                true,
                0.2,
                -0.1,
                "better: falls without these examples, where a rise was predicted",
            ),
            (
                true,
                0.0,
                0.1,
                "worse: rises without these examples, where no change was predicted",
            ),
            (
                true,
                -0.2,
                0.0,
                "stays the same without these examples, where a fall was predicted",
            ),
            // The product of a vector with the parameters is neither good nor bad.
            (
                false,
                -0.2,
                0.1,
                "rises without these examples, where a fall was predicted",
            ),
        ] {
            let (better, moved) = direction(loss, Some(predicted), real);
            assert_eq!(format!("{better}{moved}"), said);
        }
    }
}
